"""Reading /proc (proc(5)): which processes there are, and what they have open.

`stat` and `fd/` never block. `cmdline` and `environ` take the target's memory lock and may block
for ever (the ``ps`` that hangs): `command_lines` and `has_mark` are for the background thread only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from struct import Struct
from typing import NamedTuple

from childproof._command import MARK
from childproof._processes import inspector
from childproof._result import ProcessInfo

COMMAND_BYTES = 4096
"""How much of a command line is read; it is for people."""

PID_LIMIT = 1 << 22
"""No pid is as high: proc(5), pid_max."""

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One line of ``/proc/PID/stat``, in the order of ``struct cp_process``.

    Attributes:
        start: when it started, in clock ticks since boot. With `pid` it names a process for good.
        user_ticks, system_ticks: CPU time of all its threads.
        pid, ppid, pgrp, session: ids.
        threads: how many live; a process whose main thread ended shows Z while others run on.
        letter: the state's character code.
        exiting: the main thread's exit has begun (PF_EXITING).
        kill_pending: SIGKILL is on its way to the main thread.
        kernel_thread: it has no program.
        raw_name: the program's name, cut to 15 bytes by the kernel, with zeros behind it.

    """

    start: int
    user_ticks: int
    system_ticks: int
    pid: int
    ppid: int
    pgrp: int
    session: int
    threads: int
    letter: int
    exiting: int
    kill_pending: int
    kernel_thread: int
    raw_name: bytes

    @property
    def key(self) -> tuple[int, int]:
        """What no other process has."""
        return self.pid, self.start

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """What is checked before it is signalled."""
        return self.start, self.pid, self.ppid, self.session

    @property
    def state(self) -> str:
        """One letter (proc(5))."""
        return chr(self.letter)

    @property
    def name(self) -> str:
        """The program's name."""
        return self.raw_name.partition(b"\0")[0].decode("utf-8", "backslashreplace")

    @property
    def alive(self) -> bool:
        """It runs, or may run on."""
        return self.letter not in _ENDED or self.threads > 1

    @property
    def is_held(self) -> bool:
        """It is stopped, or has ended. Not in D state, which passes: a vfork waits in it."""
        return self.letter in _HELD

    @property
    def is_ending(self) -> bool:
        """Its main thread has ended, or was killed and is not held up: not in D state, nor stopped."""
        return self.letter in _ENDED or (self.letter in _GOING_ON and bool(self.exiting or self.kill_pending))

    def info(self, command: str | None = None) -> ProcessInfo:
        """For a `Result`; without `command` the name in brackets."""
        return ProcessInfo(self.pid, self.ppid, command or f"[{self.name}]", self.state)


_LAYOUT = Struct("=3Q9i68s")
_ENDED = tuple(b"ZX")
_HELD = tuple(b"TtZX")
_GOING_ON = tuple(b"RS")


def read_process(pid: int) -> Process | None:
    """The process `pid`, `None` if there is none, or no /proc."""
    data = inspector.read_process(pid)
    return Process._make(_LAYOUT.unpack(data)) if data is not None else None


def pids() -> list[int]:
    """Every process that /proc shows; empty without /proc."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def oldest_first(pids: list[int]) -> list[int]:
    """`pids` by age, as far as their numbers tell it: the last one given stands in ``/proc/loadavg``,
    and beyond the highest they begin again.
    """
    last = int(_loadavg()[-1])
    return sorted(pids, key=lambda pid: (pid - last - 1) % PID_LIMIT)


def tasks(process: Process) -> list[Process]:
    """The threads of `process`, each seen as a process: only what is a thread's own is different."""
    if process.threads == 1:
        return [process]
    try:
        tids = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
    except OSError:
        return []
    return [task for tid in tids if (task := read_process(tid)) is not None]


def _loadavg() -> list[bytes]:
    """The words of ``/proc/loadavg``; the last but one is the number of threads, the last one the pid that
    was given last.
    """
    return (inspector.read_proc("/proc/loadavg", 256) or b"0/0 0").split()


def table() -> dict[int, Process]:
    """Every process that /proc shows, by pid; empty without /proc."""
    most = int(_loadavg()[-2].partition(b"/")[2])
    data = inspector.read_processes(most + 64)
    return {fields[3]: Process._make(fields) for fields in _LAYOUT.iter_unpack(data)}


def _pipes(pid: int) -> Iterator[tuple[str, str]]:
    """The links of the pipes that `pid` has open, and their paths. Nothing where it can't be looked at."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        path = f"{folder}/{name}"
        try:
            link = os.readlink(path)
        except OSError:
            continue  # closed meanwhile
        if link.startswith("pipe:"):
            yield link, path


def pipe_links(pid: int) -> set[str]:
    """The pipes that `pid` has open, by their links as ``pipe:[123]``. Empty where it can't be looked at."""
    return {link for link, _ in _pipes(pid)}


def open_pipes(pid: int) -> dict[str, set[bool]]:
    """The pipes that `pid` has open, by their links: whether for writing. Empty where it can't be looked at."""
    found: dict[str, set[bool]] = {}
    for link, path in _pipes(pid):
        with suppress(OSError):  # closed meanwhile
            found.setdefault(link, set()).add(bool(os.lstat(path).st_mode & 0o200))
    return found


def written_pipes(pid: int) -> set[str]:
    """Those of `open_pipes` that it may write to."""
    return {link for link, ends in open_pipes(pid).items() if True in ends}


def _read_all(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(limit) or b""
    except OSError:
        return b""


def command_lines(pids: Iterable[int]) -> dict[int, str]:
    """The command lines of those of `pids` that have one, their words parted by spaces. May block for
    ever.
    """
    wanted = list(pids)
    found = {}
    for pid, data in zip(wanted, inspector.read_each("cmdline", wanted, COMMAND_BYTES), strict=True):
        if data and (line := data.replace(b"\0", b" ").strip()):
            found[pid] = line.decode("utf-8", "backslashreplace")
    return found


def command_line(pid: int) -> str | None:
    """The command line of `pid`. May block for ever."""
    return command_lines((pid,)).get(pid)


def tokens(pid: int) -> list[bytes]:
    """The tokens of the runs that `pid` belongs to, the outermost first. May block for ever."""
    return seen_tokens(pid) or []


def seen_tokens(pid: int) -> list[bytes] | None:
    """`tokens`, or `None` where no environment can be seen, as amid an exec."""
    data = _read_all(f"/proc/{pid}/environ", 1 << 21)
    for item in data.split(b"\0"):
        if item.startswith(MARK + b"="):
            return item[len(MARK) + 1 :].split(b":")
    return [] if data else None


def has_mark(pid: int, token: bytes) -> bool:
    """Whether `token` is among the marks in the environment of `pid`. May block for ever."""
    return token in tokens(pid)
