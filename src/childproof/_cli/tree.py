"""``childproof tree``: a process and all that belong to it, what they wait in, and by what they are found."""

from __future__ import annotations

import os
from math import inf
from time import monotonic

from childproof._cli.base import Parser, Stopper, as_json, short, table, write
from childproof._janitor import Job, janitor
from childproof._light import TYPE_CHECKING
from childproof._processes import procfs
from childproof._processes.autopsy import age_of, cpu_of, look
from childproof._processes.census import Family, line_of, ticks_now
from childproof._processes.holders import descriptors
from childproof._processes.inspector import Finder, Wanted
from childproof._processes.procfs import Process

if TYPE_CHECKING:
    import argparse
    from typing import Any

LOOK_SECONDS = 1.0
"""How long what may block is waited for: system calls and command lines, and then marks."""

DESCRIPTION = """\
Show the process PID and all that belong to it: state, age, what each is blocked in,
and by what evidence a killer would find it.

FOUND BY:
  root      it is PID
  ancestry  its parent is found
  session   it is in the session that PID leads
  mark      it has the same last token in CHILDPROOF_RUN as PID
  pipe      it has one of the pipes open that PID's parent reads from PID, or feeds it by

kill_tree(PID) goes by the first three; the deadline of childproof run, if PID is its
command, by all. A process without any is not found, and not shown.
"""

EPILOG = """\
STATE: the letter of /proc/PID/stat, see proc(5). IN: the system call it is blocked in,
with its first argument where that is a descriptor or a process; of several threads
each that differs. Empty where this user may not see it.
exit status: 0, 2 if the arguments are wrong, 125 if there is no such process
"""


def fill(parser: Parser) -> None:
    """Add the arguments of ``tree``."""
    parser.usage = "childproof tree [--json] PID"
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("pid", metavar="PID", type=int, help="the process")
    parser.set_defaults(function=_tree)


def _tree(args: argparse.Namespace, _stopper: Stopper) -> int:
    read_at = ticks_now()
    everybody = procfs.table()
    root = everybody.get(args.pid)
    if root is None:
        raise ProcessLookupError(f"no process that /proc shows has the pid {args.pid}")
    found, family = _evidence(everybody, root, read_at)
    in_order = family.in_order({pid: everybody[pid] for pid in found})
    shown = _describe(in_order, found)
    if args.json:
        write(1, as_json({"pid": args.pid, "processes": shown}), inf)
    else:
        write(1, _drawn(shown).encode("utf-8", "backslashreplace"), inf)
    return 0


def _evidence(everybody: dict[int, Process], root: Process, read_at: int) -> tuple[dict[int, list[str]], Family]:
    """By pid, by what each is found; those alive and the root, without this process."""
    ours = line_of(os.getpid(), everybody) - line_of(root.pid, everybody)
    fresh = {
        process.pid: process
        for process in everybody.values()
        if process is root or (process.start >= root.start and process.alive and process.pid not in ours)
    }
    session = root.pid if root.session == root.pid else None
    marked = _marked(root, [pid for pid in fresh if pid != root.pid])
    holding = _holding(root, [pid for pid in fresh if pid != root.pid])
    family = Family(fresh, read_at)
    inside: dict[int, Process] = {}
    family.grow(inside, [p for p in fresh.values() if p is root or p.session == session or p.pid in marked | holding])
    found: dict[int, list[str]] = {root.pid: ["root"]}
    for process in inside.values():
        if process is not root:
            tells = {
                "ancestry": process.ppid in inside,
                "session": process.session == session,
                "mark": process.pid in marked,
                "pipe": process.pid in holding,
            }
            found[process.pid] = [name for name, told in tells.items() if told]
    return found, family


def _holding(root: Process, pids: list[int]) -> set[int]:
    """Who has the root's end of one of its pipes."""
    pipes = _pipes(root)
    if not pipes:
        return set()
    writes = list(pipes.values())
    finder = Finder([Wanted(link) for link in pipes])
    return {pid for pid in pids if any(item.writes == writes[item.which] for item in finder.of(pid) or ())}


def _wait(job: Job) -> Any:
    job.done.wait(LOOK_SECONDS)
    return janitor.answer(job)


def _marked(root: Process, pids: list[int]) -> set[int]:
    """Who has the last token of the root's mark."""

    def ask() -> set[int]:
        tokens = procfs.tokens(root.pid)
        return {pid for pid in pids if procfs.has_mark(pid, tokens[-1])} if tokens else set()

    return _wait(janitor.submit(ask)) or set()


def _pipes(root: Process) -> dict[str, bool]:
    """The root's pipes on 0, 1 and 2 of which its parent has the other end, as of a command that was run:
    by link, whether the root's end is the one for writing.
    """
    try:
        own = {item.what: item.fd != 0 for item in descriptors(root.pid) if item.fd <= 2 and item.what[:5] == "pipe:"}
        other = {(item.what, item.mode) for item in descriptors(root.ppid)}
    except OSError:  # gone, or another user's
        return {}
    return {link: writes for link, writes in own.items() if (link, "r" if writes else "w") in other}


def _describe(processes: list[Process], found: dict[int, list[str]]) -> list[dict[str, Any]]:
    waiting: dict[int, str] = {}
    until = monotonic() + LOOK_SECONDS / 2
    commands = _wait(janitor.submit(lambda: look(processes, until, waiting))) or {}
    depths: dict[int, int] = {}
    for process in processes:  # parents before their children
        depths[process.pid] = depths.get(process.ppid, -1) + 1
    return [
        {
            "pid": process.pid,
            "ppid": process.ppid,
            "depth": depths[process.pid],
            "command": commands.get(process.pid) or f"[{process.name}]",
            "state": process.state,
            "threads": process.threads,
            "age": round(age_of(process), 2),
            "cpu": round(cpu_of(process), 2),
            "waits_in": waiting.get(process.pid, ""),
            "found_by": found[process.pid],
        }
        for process in processes
    ]


def _drawn(shown: list[dict[str, Any]]) -> str:
    rows = [
        [
            str(row["pid"]),
            row["state"],
            _span(row["age"]),
            f"{row['cpu']:.2f}",
            ",".join(row["found_by"]),
            short(row["waits_in"]),
            "  " * row["depth"] + short(row["command"]),
        ]
        for row in _depth_first(shown)
    ]
    return table(("PID", "STATE", "AGE", "CPU", "FOUND BY", "IN", "COMMAND"), rows)


def _depth_first(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Children directly under their parents."""
    pids = {row["pid"] for row in shown}
    children: dict[int, list[dict[str, Any]]] = {}
    for row in reversed(shown):
        children.setdefault(row["ppid"] if row["ppid"] in pids else 0, []).append(row)
    line, stack = [], children.pop(0, [])
    while stack:
        line.append(stack.pop())
        stack += children.pop(line[-1]["pid"], [])
    return line


def _span(seconds: float) -> str:
    """``5.0s``, ``3:20``, ``2:05:00`` or ``3d02h``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, hours, days = int(seconds) // 60, int(seconds) // 3600, int(seconds) // 86400
    if days:
        return f"{days}d{hours % 24:02}h"
    if hours:
        return f"{hours}:{minutes % 60:02}:{int(seconds) % 60:02}"
    return f"{minutes}:{int(seconds) % 60:02}"
