"""Feeding a child's stdin without waiting: from bytes, from a descriptor, or from a `read` function."""

from __future__ import annotations

import os
import select
from errno import EAGAIN

from childproof._light import TYPE_CHECKING, Protocol
from childproof._output import LARGE_BYTES, enlarge, forget_large
from childproof._spawner import write
from childproof._stdio import Feed, bytes_view

if TYPE_CHECKING:
    from typing import Any

CHUNK_BYTES = 65536

_IN, _OUT = select.POLLIN, select.POLLOUT


class Feeder(Protocol):
    """One source of input.

    Attributes:
        fds: the descriptors to hear of now, with their events; empty once all has been written or
            the child reads no more.
        can_restart: nothing of the source is used up, so that it can be fed once more.

    """

    fds: dict[int, int]
    can_restart: bool

    def step(self, fd: int) -> None:
        """Do what can be done now that `fd` is ready; -1: at the beginning."""

    def ended(self) -> None:
        """The pipe is about to be closed."""


def _written(target: int, data: memoryview) -> int:
    """How much of `data` the pipe took, -1 when nobody will ever read it."""
    count = write(target, data)
    if count >= 0:
        return count
    return 0 if count == -EAGAIN else -1


class FromBytes:
    """Data that is there already, in writes as large as the pipe takes."""

    can_restart = True

    def __init__(self, data: memoryview, target: int) -> None:
        self._data = data
        self._target = target
        self.fds = {target: _OUT}
        if len(data) >= LARGE_BYTES:  # a pipe that holds little is filled by many writes, with a wait for each
            enlarge(target, self)

    def step(self, fd: int) -> None:
        """See `Feeder`."""
        count = _written(self._target, self._data)
        self._data = self._data[count:] if count >= 0 else self._data[:0]
        if not self._data:
            self.fds = {}

    def ended(self) -> None:
        """See `Feeder`."""
        forget_large(self)


class FromSource:
    """A descriptor, or a function, that gives data piece by piece; each is fetched when the last
    has been written.
    """

    can_restart = False

    def __init__(self, source: int, read: Any, target: int, encoding: str, owner: object) -> None:
        self._source = source  # -1: `read` is called
        self._read = read
        self._target = target
        self._encoding = encoding
        self._owner = owner
        self._data = memoryview(b"")
        self.fds: dict[int, int] = {}
        self._want()

    def _want(self) -> None:
        if self._data or self._source < 0:
            self.fds = {self._target: _OUT}
        else:  # without an event: that the child reads no more is told all the same
            self.fds = {self._source: _IN, self._target: 0}

    def step(self, fd: int) -> None:
        """See `Feeder`."""
        if fd == -1:
            return
        if not self._data:
            if self._source >= 0 and fd != self._source:
                self.fds = {}
                return
            data = self._fetch()
            if data is None:
                return
            self._data = data
        count = _written(self._target, self._data)
        if count < 0 or not self._data:
            self.fds = {}
            return
        self._data = self._data[count:]
        self._want()

    def ended(self) -> None:
        """See `Feeder`."""

    def _fetch(self) -> memoryview | None:
        """The next piece; empty at the end; `None` if it is not there after all."""
        if self._source < 0:
            piece = self._read(CHUNK_BYTES)
            if isinstance(piece, str):
                piece = piece.encode(self._encoding, "surrogateescape")
            if piece is None:
                raise TypeError("input.read() returned None: a non-blocking source must have a fileno()")
            return bytes_view(piece)
        try:
            return memoryview(_read_now(self._source))
        except BlockingIOError:
            return None
        except OSError:  # a terminal that has gone away: the input is over
            return memoryview(b"")


def _read_now(fd: int) -> bytes:
    """Read what is there. Readiness was for whoever reads first, and the flag that would keep a read
    from blocking belongs to everybody who has the pipe: so it is asked for this one read.
    """
    buffer = bytearray(CHUNK_BYTES)
    try:
        count = os.preadv(fd, [buffer], -1, os.RWF_NOWAIT)
    except BlockingIOError:
        raise
    except (OSError, AttributeError):  # no such flag for this kind of file, or on this system
        return os.read(fd, CHUNK_BYTES)
    return bytes(buffer[:count])


def make_feeder(feed: Feed, target: int, encoding: str) -> Feeder:
    """The feeder for `feed`, writing to the non-blocking descriptor `target`."""
    if feed.data is not None:
        return FromBytes(feed.data, target)
    return FromSource(feed.fd, feed.read, target, encoding, feed.owner)
