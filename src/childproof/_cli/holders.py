"""``childproof holders``: who has a pipe, a file or a socket open."""

from __future__ import annotations

import argparse
import os
from math import inf
from typing import Any

from childproof._cli.base import Parser, Stopper, as_json, complain, short, table, write
from childproof._processes.holders import Findings, Held, descriptors, look, read_names, wanted_by
from childproof._processes.inspector import Wanted

NOBODY = 1
"""The exit code when nothing was found, as of grep and fuser."""

DESCRIPTION = """\
Show who has TARGET open: with a number, what that process has open and who shares it.

  childproof holders 28459                a process: each of its descriptors
  childproof holders /var/log/syslog      a file, under any of its names
  childproof holders /run/mysqld.sock     a Unix socket, by its path
  childproof holders :5432                a port; tcp:5432 or udp:53 for one kind
  childproof holders 'pipe:[81234]'       a pipe, or socket:[N], as in /proc/PID/fd

A file whose name looks like another target is given as ./NAME.
"""

EPILOG = """\
MODE: how it was opened: r, w or rw.
exit status: 0, 1 if nobody that this user may look at has it open, 2 if the arguments
are wrong, 125 if there is no such target
"""


def fill(parser: Parser) -> None:
    """The arguments of ``holders``."""
    parser.usage = "childproof holders [--json] TARGET"
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("target", metavar="TARGET", help="a pid, a file, a port, a pipe or a socket")
    parser.set_defaults(function=_holders)


def _holders(args: argparse.Namespace, _stopper: Stopper) -> int:
    target: str = args.target
    try:
        if target.isascii() and target.isdigit():
            answer, text, hidden = _of_process(int(target))
        else:
            answer, text, hidden = _of_thing(target)
    except ValueError as error:
        args.parser.error(str(error))
    if args.json:
        write(1, as_json({"target": target, **answer, "hidden": hidden}), inf)
    elif text:
        write(1, text.encode("utf-8", "backslashreplace"), inf)
    if hidden:
        complain(f"{hidden} processes are another user's and could not be looked at")
    return 0 if text else NOBODY


def _look(wanted: list[Wanted]) -> Findings:
    """Without this process, which is there only to look."""
    held, hidden = look(wanted)
    return Findings([item for item in held if item.pid != os.getpid()], hidden)


def _of_thing(target: str) -> tuple[dict[str, Any], str, int]:
    """The JSON, the table, and how many could not be looked at."""
    wanted, labels = wanted_by(target)
    held, hidden = _look(wanted)
    names = read_names({item.pid for item in held})
    found = [_facts(item, names, what=labels[item.which] or wanted[item.which].link) for item in held]
    rows = [[str(row["pid"]), str(row["fd"]), row["mode"], row["what"], short(row["command"])] for row in found]
    return {"holders": found}, table(("PID", "FD", "MODE", "WHAT", "COMMAND"), rows), hidden


def _facts(item: Held, names: dict[int, str], **more: str) -> dict[str, Any]:
    return {"pid": item.pid, "command": names[item.pid], "fd": item.fd, "mode": item.mode, **more}


def _of_process(pid: int) -> tuple[dict[str, Any], str, int]:
    """As `_of_thing`, for what a process has open."""
    from childproof._processes.sockets import sockets

    own = descriptors(pid)
    wanted = list({item.wanted: None for item in own if item.wanted is not None})
    held, hidden = _look(wanted)
    names = read_names({pid, *(item.pid for item in held)})
    called = {f"socket:[{socket.inode}]": f"socket:[{socket.inode}] {socket}" for socket in sockets(pid)}
    found, rows = [], []
    for item in own:
        sharers = [other for other in held if wanted[other.which] == item.wanted and other.pid != pid]
        what = called.get(item.what, item.what)
        also = "; ".join(
            f"pid {other.pid} ({short(names[other.pid], 30)}) as {other.fd} {other.mode}" for other in sharers
        )
        rows.append([str(item.fd), item.mode, what, also])
        found.append(
            {"fd": item.fd, "mode": item.mode, "what": what, "sharers": [_facts(other, names) for other in sharers]}
        )
    text = table(("FD", "MODE", "WHAT", "ALSO HELD BY"), rows)
    return {"pid": pid, "command": names[pid], "fds": found}, text, hidden
