"""One captured stream: a pipe, or an unlinked file, and what has been read from it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

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


class Output:
    """One captured stream.

    Attributes:
        name: ``"stdout"`` or ``"stderr"``.
        slot: whose descriptor of the `Child` it is read from.
        fd: that descriptor while it is a pipe that is open, else -1.
        sink: what has been read.
        read_bytes: how much is read at once.

    """

    __slots__ = ("_full_reads", "fd", "name", "read_bytes", "sink", "slot")

    def __init__(self, name: str, slot: int, max_output: int | None) -> None:
        self.name = name
        self.slot = slot
        self.fd = -1
        self.sink: Whole | Ends = make_sink(max_output)
        self.read_bytes = READ_BYTES
        self._full_reads = 0

    def full_read(self) -> None:
        """A read was as large as it could be; the second time the pipe is enlarged."""
        self._full_reads += 1
        if self._full_reads != 2 or len(_large) >= MOST_LARGE:
            return
        import fcntl  # few commands write as much

        try:
            self.read_bytes = fcntl.fcntl(self.fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), LARGE_BYTES)
            _large.add(id(self))
        except OSError:
            self.read_bytes = READ_BYTES  # over the quota, or not Linux

    def closed(self) -> None:
        """The pipe is closed, or given to the background."""
        self.fd = -1
        _large.discard(id(self))

    def waiting_bytes(self) -> int:
        """How much is in the pipe now."""
        import fcntl
        import termios  # only where somebody outlives the child

        count = fcntl.ioctl(self.fd, termios.FIONREAD, b"\0\0\0\0")
        return int.from_bytes(count, sys.byteorder)

    def read_file(self, fd: int, max_output: int | None) -> None:
        """Take in the unlinked file that the stream was captured in, by position: the descriptor
        shares its offset with whoever still writes.
        """
        size = os.fstat(fd).st_size
        at = 0
        if max_output is not None and size > max_output:
            at = self._copy(fd, 0, (max_output + 1) // 2) + size - max_output
            self.sink.skip(size - max_output)
        self._copy(fd, at, size)

    def _copy(self, fd: int, at: int, until: int) -> int:
        while at < until and (data := os.pread(fd, min(until - at, LARGE_BYTES), at)):
            self.sink.add(data)
            at += len(data)
        return at
