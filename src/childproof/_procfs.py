"""Reading /proc (proc(5)): which processes there are, and what they have open.

`stat` and `fd/` never block. `cmdline` and `environ` take the target's memory lock and may block
for ever (the ``ps`` that hangs): `command_line` and `has_mark` are for the background thread only.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from childproof._command import MARK
from childproof._result import ProcessInfo
from childproof._spawner import read_stat

COMMAND_BYTES = 4096
"""How much of a command line is read; it is for people."""

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One line of ``/proc/PID/stat``.

    Attributes:
        pid, ppid, pgrp, session: ids.
        state: one letter.
        threads: how many live; a process whose main thread ended shows Z while others run on.
        start: when it started, in clock ticks since boot. With `pid` it names a process for good.
        name: the program's name, cut to 15 bytes by the kernel.

    """

    pid: int
    ppid: int
    pgrp: int
    session: int
    state: str
    threads: int
    start: int
    name: str

    @property
    def key(self) -> tuple[int, int]:
        """What no other process has."""
        return self.pid, self.start

    @property
    def alive(self) -> bool:
        """It runs, or may run on."""
        return self.state not in "ZX" or self.threads > 1

    def info(self, command: str | None = None) -> ProcessInfo:
        """For a `Result`; without `command` the name in brackets."""
        return ProcessInfo(self.pid, self.ppid, command or f"[{self.name}]", self.state)


def read_process(pid: int) -> Process | None:
    """The process `pid`, `None` if there is none, or no /proc."""
    line = read_stat(pid)
    if line is None:
        return None
    # The name may hold anything, closing brackets and spaces included.
    head, _, rest = line.rpartition(b")")
    fields = rest.split()
    if len(fields) < 20:
        return None
    name = head.partition(b"(")[2].decode("utf-8", "backslashreplace")
    return Process(
        pid,
        int(fields[1]),
        int(fields[2]),
        int(fields[3]),
        fields[0].decode(),
        int(fields[17]),
        int(fields[19]),
        name,
    )


def pids() -> list[int]:
    """Every process that /proc shows; empty without /proc."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def table() -> dict[int, Process]:
    """Every process that /proc shows, by pid."""
    found = {}
    for pid in pids():
        process = read_process(pid)
        if process is not None:
            found[pid] = process
    return found


def open_links(pid: int, wanted: dict[str, str]) -> list[tuple[int, str, bool]]:
    """The descriptors of `pid` whose link is in `wanted`.

    Args:
        pid: the process.
        wanted: link text, as ``pipe:[123]``, to what it is called.

    Returns:
        (descriptor, name from `wanted`, whether it is open for writing) in order; empty if the
        process is gone or another user's.

    """
    folder = f"/proc/{pid}/fd"
    found = []
    try:
        for entry in os.listdir(folder):
            path = f"{folder}/{entry}"
            try:
                name = wanted.get(os.readlink(path))
                if name is not None:
                    found.append((int(entry), name, bool(os.lstat(path).st_mode & 0o200)))
            except OSError:
                continue
    except OSError:
        return []
    return sorted(found)


def _read_all(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(limit) or b""
    except OSError:
        return b""


def command_line(pid: int) -> str | None:
    """The command line of `pid`, its words parted by spaces. May block for ever."""
    data = _read_all(f"/proc/{pid}/cmdline", COMMAND_BYTES)
    return data.replace(b"\0", b" ").strip().decode("utf-8", "backslashreplace") or None


def has_mark(pid: int, token: bytes) -> bool:
    """Whether `token` is among the marks in the environment of `pid`. May block for ever."""
    for item in _read_all(f"/proc/{pid}/environ", 1 << 21).split(b"\0"):
        if item.startswith(MARK + b"="):
            return token in item[len(MARK) + 1 :].split(b":")
    return False
