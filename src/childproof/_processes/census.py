"""All processes at once, as one reading of /proc finds them, and who descends from whom."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from functools import cached_property
from time import CLOCK_BOOTTIME, clock_gettime, monotonic

from childproof._processes import procfs
from childproof._processes.procfs import Process


def ticks_now() -> int:
    """The time, as the start of processes is told."""
    return int(clock_gettime(CLOCK_BOOTTIME) * procfs.TICKS_PER_SECOND)


def line_of(pid: int, table: dict[int, Process]) -> set[int]:
    """`pid` and its ancestors."""
    line: set[int] = set()
    while pid and pid not in line:
        line.add(pid)
        pid = table[pid].ppid if pid in table else 0
    return line


class Family:
    """Who descends from whom, in a table that took some time to read.

    A parent may have ended meanwhile, and a stranger got its number and a child of its own. A child
    that is older than the reading of the table can't be that; of a younger one the parent is looked
    at again.
    """

    def __init__(self, processes: dict[int, Process], read_at: int) -> None:
        """`read_at`: in ticks, before the table was read."""
        self._read_at = read_at
        self._same: dict[int, bool] = {}
        self._children: dict[int, list[Process]] = {}
        for process in processes.values():
            self._children.setdefault(process.ppid, []).append(process)

    def _lasted(self, parent: Process) -> bool:
        if parent.pid not in self._same:
            now = procfs.read_process(parent.pid)
            self._same[parent.pid] = now is not None and now.start == parent.start
        return self._same[parent.pid]

    def grow(self, inside: dict[int, Process], seeds: Iterable[Process], floor: int = 0) -> None:
        """Add `seeds` and their descendants to `inside`, but for those that started before `floor`."""
        line = [seed for seed in seeds if seed.pid not in inside and seed.start >= floor]
        inside.update((seed.pid, seed) for seed in line)
        for parent in line:
            for child in self._children.get(parent.pid, ()):
                if (
                    child.pid not in inside
                    and child.start >= floor
                    and (child.start < self._read_at or self._lasted(parent))
                ):
                    inside[child.pid] = child
                    line.append(child)  # and so it is a parent of this loop

    def children(self, pid: int) -> list[Process]:
        """Those of `pid`, which must not have been reaped. Nobody's parent is 0, or init."""
        return self._children.get(pid, []) if pid > 1 else []

    def in_order(self, inside: dict[int, Process]) -> list[Process]:
        """`inside`, parents before their children."""
        line = [process for process in inside.values() if process.ppid not in inside]
        for parent in line:
            line += [child for child in self._children.get(parent.pid, ()) if child.pid in inside]
        placed = {process.pid for process in line}
        # Numbers that were given anew while the table was read may seem to go round in a circle.
        return line + [process for process in inside.values() if process.pid not in placed]


class Census:
    """Every process but this one, those that it descends from, and the kernel's.

    Attributes:
        processes: by pid.
        family: who descends from whom.
        began: when the reading began, on `time.monotonic`: who had started by then is in it.
        cost_seconds: how long it took.

    """

    def __init__(self, known_sessions: Container[int] = (), floor: int = 0) -> None:
        """Reads /proc.

        Args:
            known_sessions: the sessions of other trees, which are told by them.
            floor: who started before it, in ticks, is nobody's.

        """
        self._floor = floor
        self.began, read_at = monotonic(), ticks_now()
        table = procfs.table()
        spared = line_of(os.getpid(), table)
        self._known_sessions = known_sessions
        self._sessions: dict[int, list[Process]] | None = None
        self._groups: dict[int, list[Process]] = {}
        self._pipes: dict[int, dict[str, set[bool]]] = {}
        self._holders: dict[str, list[Process]] | None = None
        self.processes = {
            pid: process for pid, process in table.items() if pid not in spared and not process.kernel_thread
        }
        self.family = Family(self.processes, read_at)
        self.cost_seconds = monotonic() - self.began

    def find(self, key: tuple[int, int]) -> Process | None:
        """The process with that pid and start, if it is there yet."""
        process = self.processes.get(key[0])
        return process if process is not None and process.start == key[1] else None

    def led_by(self, pid: int) -> list[Process]:
        """Who is in the session or in the process group of that number. Nobody is in that of 0: so those read
        whose leader is in an outer pid namespace, as of whatever was put into a container from outside.
        """
        if pid <= 0:
            return []
        if self._sessions is None:
            self._sessions = {}
            for process in self.processes.values():
                self._sessions.setdefault(process.session, []).append(process)
                if process.pgrp != process.session:
                    self._groups.setdefault(process.pgrp, []).append(process)
        return self._sessions.get(pid, []) + self._groups.get(pid, [])

    @cached_property
    def strangers(self) -> list[Process]:
        """Who lives, has started since `floor`, and is in no session that tells whom it belongs to."""
        return [
            process
            for process in self.processes.values()
            if process.alive and process.start >= self._floor and process.session not in self._known_sessions
        ]

    @cached_property
    def stranger_keys(self) -> frozenset[tuple[int, int]]:
        """Theirs."""
        return frozenset(process.key for process in self.strangers)

    def holders_of(self, links: Iterable[str]) -> list[Process]:
        """Who of the strangers has one of these pipes open."""
        if self._holders is None:
            self._holders = {}
            for process in self.strangers:
                for link in self.pipes_of(process.pid):
                    self._holders.setdefault(link, []).append(process)
        found = {process.pid: process for link in links for process in self._holders.get(link, ())}
        return list(found.values())

    def pipes_of(self, pid: int) -> dict[str, set[bool]]:
        """The pipes that `pid` has open, by their links as ``pipe:[123]``: whether for writing, or not, or
        both. Looked for once, since many trees ask for the same.
        """
        if pid not in self._pipes:
            self._pipes[pid] = procfs.open_pipes(pid)
        return self._pipes[pid]
