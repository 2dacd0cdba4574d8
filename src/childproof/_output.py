"""One captured stream: a pipe, or an unlinked file, and what has been read from it."""

from __future__ import annotations

import os
import sys

from childproof._light import TYPE_CHECKING
from childproof._sinks import make_sink

if TYPE_CHECKING:
    from childproof._sinks import Ends, Whole

READ_BYTES = 65536
"""What a pipe holds unless it is enlarged (pipe(7))."""

LARGE_BYTES = 1 << 20
"""What a pipe that was read full twice is enlarged to: the default of fs.pipe-max-size."""

MOST_LARGE = 8
"""Enlarged pipes at once. They use up the user's quota for all pipes (fs.pipe-user-pages-soft),
and past it an unprivileged user's new pipes shrink to a page or two."""

_large: set[int] = set()


def enlarge(fd: int, owner: object) -> int:
    """Let a pipe hold more, until `forget_large` is called for its owner; how much, 0 if it stays as it is."""
    if len(_large) >= MOST_LARGE:
        return 0
    import fcntl  # few commands write or read as much

    try:
        size = fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), LARGE_BYTES)
    except OSError:  # over the quota, or not Linux
        return 0
    _large.add(id(owner))
    return size


def forget_large(owner: object) -> None:
    """Its pipe is used no more, and another may be enlarged."""
    _large.discard(id(owner))


class Output:
    """One captured stream.

    Attributes:
        name: ``"stdout"`` or ``"stderr"``.
        slot: whose descriptor of the `Child` it is read from.
        fd: that descriptor while it is a pipe that is open, else -1.
        sink: what has been read, `None` as long as nothing was.
        lost: there was more, but reading it failed.
        read_bytes: how much is read at once.

    """

    __slots__ = ("_full_reads", "_max_output", "fd", "lost", "name", "read_bytes", "sink", "slot")

    def __init__(self, name: str, slot: int, fd: int, max_output: int | None) -> None:
        self.name = name
        self.slot = slot
        self.fd = fd
        self.sink: Whole | Ends | None = None
        self.lost = False
        self.read_bytes = READ_BYTES
        self._max_output = max_output
        self._full_reads = 0

    def add(self, data: bytes) -> None:
        """Keep `data`."""
        if self.sink is None:
            self.sink = make_sink(self._max_output)
        self.sink.add(data)
        if len(data) == self.read_bytes:
            self._full_read()

    def _full_read(self) -> None:
        """A read was as large as it could be; the second time the pipe is enlarged."""
        self._full_reads += 1
        if self._full_reads == 2:
            self.read_bytes = enlarge(self.fd, self) or READ_BYTES

    def ended(self) -> None:
        """The pipe has ended, or is given to the background."""
        self.fd = -1
        if self._full_reads:
            forget_large(self)

    def waiting_bytes(self) -> int:
        """How much is in the pipe now; the most that can be, if the kernel does not say."""
        import fcntl
        import termios  # only where somebody outlives the child

        try:
            count = fcntl.ioctl(self.fd, termios.FIONREAD, b"\0\0\0\0")
        except OSError:  # a filter refuses it
            return LARGE_BYTES
        return int.from_bytes(count, sys.byteorder)

    def read_file(self, fd: int) -> None:
        """Take in the unlinked file that the stream was captured in, by position: the descriptor
        shares its offset with whoever still writes.
        """
        most = self._max_output
        sink = self.sink = make_sink(most)
        at = 0
        try:
            size = os.fstat(fd).st_size
            if most is not None and size > most:
                at = _copy(sink, fd, 0, (most + 1) // 2) + size - most
                sink.skip(size - most)
            _copy(sink, fd, at, size)
        except OSError:  # the disk under it
            self.lost = True


def _copy(sink: Whole | Ends, fd: int, at: int, until: int) -> int:
    """Add what is from `at` to `until`; where it ended."""
    while at < until and (data := os.pread(fd, min(until - at, LARGE_BYTES), at)):
        sink.add(data)
        at += len(data)
    return at
