"""`kill_tree`: the tree killer for a process that is not our child."""

from __future__ import annotations

import os
import signal
from errno import EPERM, ESRCH
from time import monotonic, sleep
from typing import NamedTuple

from childproof._processes import procfs
from childproof._processes.inspector import Roll, signal_group_of
from childproof._processes.procfs import Process
from childproof._processes.tree import NAMES_SECONDS, Evidence, Killing, Tree, send
from childproof._result import ProcessInfo


class TreeKilled(NamedTuple):
    """What `kill_tree` did.

    Attributes:
        killed: a `ProcessInfo` for each process that was signalled and has ended, or is about to: none
            of its own code runs any more.
        survivors: for each that should have ended and has not.

    """

    killed: tuple[ProcessInfo, ...]
    survivors: tuple[ProcessInfo, ...]


class Stranger:
    """A process that is not our child, as the root of a tree (`childproof._processes.tree.Root`).

    Its number is never trusted: each call opens a pidfd, and goes on if its start is the same.
    """

    def __init__(self, process: Process, leads_group: bool) -> None:
        self._process = process
        self._roll = Roll([process.identity])
        self._leads_group = leads_group

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def start(self) -> int:
        """When it started, in ticks since boot."""
        return self._process.start

    @property
    def leads_group(self) -> bool:
        """It leads a session, in which this process is not."""
        return self._leads_group

    @property
    def supervisors(self) -> tuple[int, ...]:
        """It may have one, which is not ours."""
        return ()

    def kill_supervised(self) -> None:
        """Nobody could be told to."""

    def ended(self) -> int:
        """1: it has ended, and is not reaped; 0: it runs; -1: its number may be another's."""
        if not self._roll.all_over():
            return 0
        now = procfs.read_process(self.pid)
        return 1 if now is not None and now.key == self._process.key else -1

    def signal(self, number: int) -> int:
        """Signal it. 0, or an errno."""
        return send(self._process, number)

    def signal_group(self, number: int) -> int:
        """Signal its process group at once, where the kernel can do that by pidfd. 0, or an errno."""
        if not self._leads_group:
            return ESRCH
        return signal_group_of(self._process.identity, number)


def _check_pid(pid: int) -> None:
    if isinstance(pid, bool) or not isinstance(pid, int):
        raise TypeError(f"pid must be an int, not {pid!r}")
    if pid <= 0:
        raise ValueError(f"pid {pid} is no single process")
    if pid == 1:
        raise ValueError("pid 1 is the init of all processes here")
    if pid == os.getpid():
        raise ValueError(f"pid {pid} is this process itself")


def _check_seconds(name: str, seconds: float) -> None:
    if not seconds >= 0:  # NaN too
        raise ValueError(f"{name} must be a number of seconds, 0 or more, not {seconds!r}")


def _line() -> dict[int, Process]:
    """Our process and its ancestors, as far as /proc shows them."""
    line: dict[int, Process] = {}
    pid = os.getpid()
    while pid not in line and (process := procfs.read_process(pid)) is not None:
        line[pid] = process
        pid = process.ppid
    return line


def _find_root(pid: int) -> Stranger:
    """The process `pid`, if it may be killed."""
    process = procfs.read_process(pid)
    if process is None or pid not in procfs.pids():  # a thread's number is not listed
        raise ProcessLookupError(ESRCH, f"{os.strerror(ESRCH)}: no process that /proc shows has the pid {pid}")
    line = _line()
    if pid in line:
        raise ValueError(f"pid {pid} is an ancestor of this process")
    if process.kernel_thread:
        raise ValueError(f"pid {pid} ({process.name}) is a thread of the kernel")
    if send(process, 0) == EPERM:
        raise PermissionError(EPERM, f"{os.strerror(EPERM)}: pid {pid} ({process.name}) may not be signalled")
    leads_session = process.pid == process.session == process.pgrp
    return Stranger(process, leads_session and all(member.session != pid for member in line.values()))


def _end_politely(tree: Tree, grace: float) -> list[Process]:
    """SIGTERM for all, then SIGCONT for those that are stopped; who got it. Returns when nobody is left or
    `grace` seconds are over.
    """
    until = monotonic() + grace
    members = tree.members()
    names_until = monotonic() + NAMES_SECONDS
    if tree.ask(members):
        while not tree.answered() and monotonic() < names_until:
            sleep(0.0005)
        tree.take_answer()
    signalled = tree.signal(members, signal.SIGTERM)
    tree.signal(members, signal.SIGCONT)
    pause = 0.001
    while (left := until - monotonic()) > 0 and tree.lives():
        sleep(min(pause, left))
        pause = min(2 * pause, 0.02)
    return signalled


def kill_tree(pid: int, *, grace: float = 0.0, timeout: float = 5.0) -> TreeKilled:
    """Kill a process and all that descend from it, until a pass over all processes finds none.

    To the tree belong the process, its descendants, also those who lose their parent while it is
    killed, and, if the process leads a session in which the caller is not, that session. Who has left
    before, by a double fork into another session, is not found: `run` has more evidence about its own
    commands. Each is signalled through a pidfd that was opened before its start time was checked, so
    that no number given anew can hit a stranger; parents before children. Never signalled are this
    process and those that it descends from. Nobody is reaped.

    Args:
        pid: the process; another's child or one's own.
        grace: seconds between SIGTERM and SIGKILL; 0 is SIGKILL at once. It ends early when nobody is
            left.
        timeout: seconds that killing may take from then on; who is alive after it is a survivor, as
            one in D state, in a frozen cgroup or of another user.

    Returns:
        A `TreeKilled`: ``killed, survivors = kill_tree(pid)``. With `grace`, those who have ended of
        SIGTERM are in `killed` too.

    Raises:
        ProcessLookupError: no process has that pid.
        PermissionError: this user may not signal it.
        TypeError, ValueError: `pid` is no int, not above 1, this process, an ancestor of it or a thread
            of the kernel; or a time is negative.

    """
    _check_pid(pid)
    _check_seconds("grace", grace)
    _check_seconds("timeout", timeout)
    root = _find_root(pid)
    tree = Tree(root, Evidence(monotonic(), None, {}, ()), root.start)
    asked = _end_politely(tree, grace) if grace > 0 else []
    killing = Killing(tree, monotonic() + timeout, asked)
    try:
        while (again := killing.step(monotonic())) is not None:
            sleep(max(again - monotonic(), 0))
    except BaseException:
        tree.signal(tree.members(), signal.SIGKILL)  # nobody is left stopped
        raise
    return TreeKilled(killing.killed, killing.survivors)
