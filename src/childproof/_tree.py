"""Finding and killing the tree of a command.

Who belongs to it: the child; who is in its session; who descends from a member, or did when it was
first seen; who has the mark in its environment; who holds the child's end of one of its pipes.
Nobody who started before the child, which no descendant of it can have done.

Nobody is signalled by a bare pid where pidfds exist: the pidfd is opened first, then it is checked
that the pid still is who was meant, then the signal is sent through the pidfd.
"""

from __future__ import annotations

import os
import signal
from time import CLOCK_BOOTTIME, clock_gettime, monotonic
from typing import NamedTuple

from childproof import _journal, _procfs
from childproof._janitor import Job, janitor
from childproof._procfs import Process
from childproof._result import ProcessInfo
from childproof._spawner import Child, signal_process

NAMES_SECONDS = 0.1
"""How long killing waits for command lines and marks, which may block."""

Key = tuple[int, int]


class Evidence(NamedTuple):
    """What tells a member of the tree.

    Attributes:
        spawned_at: `time.monotonic` before the spawn.
        token: the mark, `None` where there is none.
        pipes: links like ``pipe:[123]`` of the output pipes and the input pipe, to their names.
        secrets: what must not be logged of those that are killed.

    """

    spawned_at: float
    token: bytes | None
    pipes: dict[str, str]
    secrets: tuple[str, ...]


def _look(pids: list[int], candidates: list[int], token: bytes | None) -> tuple[dict[int, str], set[int]]:
    """In the background: command lines of all, and who of `candidates` has the mark."""
    commands = {pid: line for pid in (*pids, *candidates) if (line := _procfs.command_line(pid))}
    marked = {pid for pid in candidates if token is not None and _procfs.has_mark(pid, token)}
    return commands, marked


def send(process: Process, number: int) -> int:
    """Signal `process` if it still is that process. 0, or an errno."""
    return signal_process(process.pid, process.start, process.ppid, process.session, number)


class Tree:
    """The processes that belong to one child, as far as they can be found."""

    def __init__(self, child: Child, evidence: Evidence) -> None:
        self._child = child
        self._evidence = evidence
        self._floor = self._started(child, evidence)
        self._known: dict[Key, Process] = {}
        self._unknown: set[Key] = set()
        self._job: Job | None = None
        self._marked: set[Key] = set()
        self._asked: dict[int, Key] = {}
        self.commands: dict[Key, str] = {}
        self.secrets = evidence.secrets

    @staticmethod
    def _started(child: Child, evidence: Evidence) -> int:
        """The child's start in ticks; reckoned, where it has been reaped by somebody else."""
        process = _procfs.read_process(child.pid)
        if process is not None and child.ended() >= 0:
            return process.start
        ago = monotonic() - evidence.spawned_at
        return int((clock_gettime(CLOCK_BOOTTIME) - ago) * _procfs.TICKS_PER_SECOND) - 1

    def members(self) -> list[Process]:
        """Who of the tree is alive, parents before their children."""
        table = _procfs.table()
        pinned = self._child.ended() >= 0
        inside: dict[int, Process] = {}
        fresh = [p for p in table.values() if p.start >= self._floor and p.pid != os.getpid()]
        for process in fresh:
            if self._belongs(process, pinned):
                inside[process.pid] = process
        grown = True
        while grown:
            grown = False
            for process in fresh:
                if process.pid not in inside and process.ppid in inside:
                    inside[process.pid] = process
                    grown = True
        for process in inside.values():
            self._known[process.key] = process
        self._unknown = {p.key for p in fresh if p.pid not in inside and p.alive}
        alive = [process for process in inside.values() if process.alive]
        depths: dict[int, int] = {}
        return sorted(alive, key=lambda process: _depth(process, inside, depths))

    def _belongs(self, process: Process, pinned: bool) -> bool:
        """By what is known of it alone, without its parent."""
        pid = self._child.pid
        if process.key in self._known or process.key in self._marked:
            return True
        # Once somebody else has reaped the child its number may be a stranger's.
        if pinned and (process.pid == pid or (self._child.leads_group and pid in (process.session, process.pgrp))):
            return True
        return self._holds_pipe(process)

    def _holds_pipe(self, process: Process) -> bool:
        if not self._evidence.pipes or not process.alive:
            return False
        # The host's other children may have copies for the moment between their fork and exec.
        if process.ppid == os.getpid() and process.pid != self._child.pid and os.getpid() != 1:
            return False
        return any(
            writes == (stream != "stdin") for _, stream, writes in _procfs.open_links(process.pid, self._evidence.pipes)
        )

    # ---- what may block is asked of the background thread ----

    def ask(self, members: list[Process]) -> bool:
        """Ask for names and marks of who is new; whether there was anything to ask."""
        named = [p for p in members if p.key not in self.commands]
        strangers = self._unknown if self._evidence.token is not None else set()
        if not named and not strangers:
            return False
        self._asked = {key[0]: key for key in (*(p.key for p in named), *strangers)}
        pids, candidates, token = [p.pid for p in named], [pid for pid, _ in strangers], self._evidence.token
        self._job = janitor.submit(lambda: _look(pids, candidates, token))
        return True

    def answered(self) -> bool:
        """Whether the answer has come."""
        return self._job is None or self._job.done.is_set()

    def take_answer(self) -> None:
        """Take it; if it has not come it is not waited for any longer."""
        if self._job is None:
            return
        commands, marked = janitor.answer(self._job) or ({}, set())
        self.commands.update((self._asked[pid], line) for pid, line in commands.items())
        self._marked.update(self._asked[pid] for pid in marked)
        self._job = None

    def child_runs(self) -> bool:
        """Whether the child has not ended, which needs no /proc."""
        return self._child.ended() == 0

    def strike_blindly(self) -> bool:
        """SIGKILL for the child and its group, found without /proc; whether the child still runs."""
        self._child.signal_group(signal.SIGKILL)
        self._child.signal(signal.SIGKILL)
        return self.child_runs()

    def child_info(self) -> ProcessInfo:
        """The child, as far as it can be seen."""
        process = _procfs.read_process(self._child.pid)
        return self.info(process) if process else ProcessInfo(self._child.pid, os.getpid(), "[not visible]", "?")

    def info(self, process: Process) -> ProcessInfo:
        """`process` for a `Result`."""
        return process.info(self.commands.get(process.key))

    def signal(self, members: list[Process], number: int) -> list[Process]:
        """Signal the group at once, then whoever is outside it; returns who was signalled.

        The group goes first and as one, since a shell whose command is killed before it goes on to
        its next.
        """
        grouped = self._child.signal_group(number) == 0
        done = []
        for process in members:
            if process.pid == self._child.pid and self._child.ended() == 0:
                error = self._child.signal(number)
            elif grouped and process.pgrp == self._child.pid:
                error = 0
            else:
                error = send(process, number)
            if error == 0:
                done.append(process)
        return done


def _depth(process: Process, inside: dict[int, Process], depths: dict[int, int]) -> int:
    """How many of its ancestors are inside; `depths` remembers, for trees of thousands."""
    line = [process]
    while line[-1].pid not in depths and line[-1].ppid in inside and len(line) <= len(inside):
        line.append(inside[line[-1].ppid])
    depth = depths.get(line[-1].pid, 0)
    for above, member in enumerate(reversed(line)):
        depths.setdefault(member.pid, depth + above)
    return depths[process.pid]


class Killing:
    """SIGKILL for a tree, in passes, until one finds nobody.

    A machine without waits: `step` does what can be done now and says when it wants to be called
    again.
    """

    def __init__(self, tree: Tree, give_up_at: float) -> None:
        """`give_up_at`: on `time.monotonic`; who is alive then is a survivor."""
        self._tree = tree
        self._give_up_at = give_up_at
        self._ask_until = 0.0
        self._pause = 0.001
        self._members: list[Process] = []
        self._asking = False
        self._killed: dict[Key, Process] = {}
        self._struck_blindly: tuple[ProcessInfo, ...] = ()
        self.survivors: tuple[ProcessInfo, ...] = ()

    @property
    def killed(self) -> tuple[ProcessInfo, ...]:
        """Who was sent SIGKILL and is not among the survivors."""
        alive = {info.pid for info in self.survivors}
        seen = tuple(self._tree.info(p) for p in self._killed.values())
        return tuple(info for info in seen or self._struck_blindly if info.pid not in alive)

    def step(self, now: float) -> float | None:
        """Go on; the time of the next step, `None` when it is over."""
        if not self._asking:
            self._members = self._tree.members()
            if self._tree.ask(self._members):
                self._asking = True
                self._ask_until = min(now + NAMES_SECONDS, self._give_up_at)
                return min(now + 0.0005, self._ask_until)
        elif not self._tree.answered() and now < self._ask_until:
            return now + 0.001
        else:
            self._asking = False
            self._tree.take_answer()
            self._members = self._tree.members()  # with those that the marks have told
        if not self._members:
            return self._without_members(now)
        if now >= self._give_up_at:
            self.survivors = tuple(self._tree.info(p) for p in self._members)
            return None
        for process in self._tree.signal(self._members, signal.SIGKILL):
            if process.key not in self._killed:
                self._killed[process.key] = process
                _journal.killed(self._tree.info(process), self._tree.secrets)
        self._pause = min(2 * self._pause, 0.016)
        return now + self._pause

    def _without_members(self, now: float) -> float | None:
        """Nobody is seen: either nobody is left, or /proc does not show even the child."""
        if not self._killed and self._tree.child_runs():
            self._struck_blindly = (self._tree.child_info(),)
        if not self._tree.strike_blindly():
            return None
        if now >= self._give_up_at:
            self.survivors = (self._tree.child_info(),)
            return None
        return now + 0.002
