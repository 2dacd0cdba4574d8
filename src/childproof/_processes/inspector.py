"""Other processes than our children, through C: read what they are, signal them, see what they have open.

Besides those of our own children (`_spawner`, `_request`, `_caught`) the only module that touches C.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import ENOSYS
from typing import NamedTuple

from childproof import _spawner  # isort: skip  # says what is wrong where C can't be loaded
from childproof._native import ffi, lib
from childproof._spawner import has_pidfd

_PROCESS_BYTES = ffi.sizeof("struct cp_process")


def read_proc(path: str, limit: int) -> bytes | None:
    """One read of a small file of /proc, `None` if it can't be had. One C call, so that no interrupt
    leaks its descriptor.
    """
    data = ffi.new("char[]", limit)
    size = lib.cp_read_proc(path.encode(), data, limit)
    return bytes(ffi.buffer(data, size)) if size >= 0 else None


_AT_ONCE = 256


def read_each(name: str, pids: list[int], limit: int) -> Iterator[bytes | None]:
    """One read of ``/proc/PID/NAME`` for each of `pids`, in order; `None` where it can't be had. May
    block for ever, as `name` may.
    """
    for start in range(0, len(pids), _AT_ONCE):
        some = pids[start : start + _AT_ONCE]
        data = ffi.new("char[]", limit * len(some))
        sizes = ffi.new("int[]", len(some))
        lib.cp_read_each(name.encode(), some, len(some), data, limit, sizes)
        for at, size in enumerate(sizes):
            yield bytes(ffi.buffer(data + limit * at, size)) if size >= 0 else None


def read_process(pid: int) -> bytes | None:
    """The ``struct cp_process`` of `pid`, `None` if there is none, or no /proc."""
    found = ffi.new("struct cp_process *")
    return bytes(ffi.buffer(found)) if lib.cp_read_process(pid, found) == 0 else None


def read_processes(expected: int) -> bytes:
    """A ``struct cp_process`` for each process, one behind the other; empty without /proc.

    Args:
        expected: how many there may be; a good guess saves time.

    """
    while True:
        found = ffi.new("struct cp_process[]", expected)
        count = lib.cp_read_processes(found, expected)
        if count < expected:
            return bytes(ffi.buffer(found, max(count, 0) * _PROCESS_BYTES))
        expected *= 2


Identity = tuple[int, int, int, int]
"""Start, pid, ppid and session of a process, as it was looked at."""


def signal_process(identity: Identity, number: int) -> int:
    """Signal a process, if it still is the one that was looked at. 0, or an errno."""
    return int(lib.cp_signal_process(ffi.new("struct cp_identity *", identity), number, has_pidfd()))


def signal_group_of(identity: Identity, number: int) -> int:
    """Signal the process group that a process leads, also if it has ended. 0, or an errno; ENOSYS where
    that can't be done through its pidfd.
    """
    if not has_pidfd() or _spawner.settings.disabled & lib.CP_DISABLE_PIDFD_GROUP:
        return ENOSYS
    return int(lib.cp_signal_group_of(ffi.new("struct cp_identity *", identity), number))


class Roll:
    """Some processes in the order in which their end is looked for."""

    __slots__ = ("_at", "_identities", "_size")

    def __init__(self, identities: list[Identity]) -> None:
        """`identities`: start, pid, ppid and session of each."""
        self._identities = ffi.new("struct cp_identity[]", identities)
        self._size = len(identities)
        self._at = 0

    def all_over(self) -> bool:
        """Whether all have ended. Who was seen to have is not looked at again."""
        self._at = lib.cp_first_alive(self._identities, self._size, self._at, has_pidfd())
        return self._at >= self._size


class Wanted(NamedTuple):
    """Something that processes may have open.

    Attributes:
        link: its link in ``/proc/PID/fd``, as ``pipe:[123]``; of a file the path.
        device: of a file its ``st_dev``, else `None`.
        inode: of a file its ``st_ino``.

    """

    link: str
    device: int | None = None
    inode: int = 0


class Open(NamedTuple):
    """One descriptor of another process.

    Attributes:
        fd: the descriptor.
        which: the index of what it is among those that were looked for.
        reads, writes: what it was opened for.

    """

    fd: int
    which: int
    reads: bool
    writes: bool

    @property
    def mode(self) -> str:
        """``"r"``, ``"w"``, ``"rw"`` or ``""``."""
        return "r" * self.reads + "w" * self.writes


class Finder:
    """Looks who has something of what is wanted open."""

    __slots__ = ("_found", "_keep", "_size", "_wanted")

    def __init__(self, wanted: list[Wanted]) -> None:
        self._keep = [ffi.new("char[]", os.fsencode(item.link)) for item in wanted]
        self._wanted = ffi.new("struct cp_wanted[]", len(wanted))
        self._size = len(wanted)
        self._found = ffi.new("struct cp_open[]", 64)
        for item, link, c in zip(wanted, self._keep, self._wanted, strict=True):
            c.link = link
            if item.device is not None:
                c.is_file, c.inode = 1, item.inode
                c.major, c.minor = os.major(item.device), os.minor(item.device)

    def of(self, pid: int) -> list[Open] | None:
        """What `pid` has open of it, by descriptor; `None` if that process can't be looked at. It does
        not block.
        """
        while True:
            found = self._found
            size = lib.cp_find_open(pid, self._wanted, self._size, found, len(found))
            if size < 0:
                return None
            if size < len(found):
                return sorted(Open(c.fd, c.which, bool(c.reads), bool(c.writes)) for c in found[0:size])
            self._found = ffi.new("struct cp_open[]", 2 * len(found))


def identify_open(pid: int, fd: int) -> tuple[int, int] | None:
    """``st_dev`` and ``st_ino`` of the file that `pid` has open as `fd`; `None` where it is gone, or a
    character device. It does not block, though the file's system may be dead.
    """
    found = ffi.new("struct cp_wanted *")
    if lib.cp_identify_open(pid, fd, found) != 0 or not found.is_file:
        return None
    return os.makedev(found.major, found.minor), int(found.inode)


ARGUMENT_FD, ARGUMENT_PID = lib.CP_ARGUMENT_FD, lib.CP_ARGUMENT_PID


def syscall_name(number: int) -> tuple[str, int] | None:
    """The name of a system call of this machine, and what its first argument is; `None` for a rare one."""
    argument = ffi.new("int *")
    name = lib.cp_syscall_name(number, argument)
    return (ffi.string(name).decode(), int(argument[0])) if name != ffi.NULL else None
