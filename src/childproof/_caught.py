"""What is read of a child's output while it is followed in C: room for it, which is used again."""

from __future__ import annotations

import select

from childproof._light import TYPE_CHECKING
from childproof._native import ffi

if TYPE_CHECKING:
    from typing import Any

ROOM_BYTES = 65536
"""For each of two streams: what a pipe holds (pipe(7)). Who writes more is read in larger pieces."""

MOST_SPARE = 16
_spare: list[Any] = []
_new_room = ffi.new_allocator(should_clear_after_alloc=False)
_ROOM, _PAIR = ffi.typeof("char[]"), ffi.typeof("struct cp_caught[2]")


def _make() -> tuple[Any, Any]:
    room = _new_room(_ROOM, 2 * ROOM_BYTES)
    return ffi.new(_PAIR, [(room, ROOM_BYTES), (room + ROOM_BYTES, ROOM_BYTES)]), room


def may_wait_in_c() -> bool:
    """Whether a thread that waits in C holds up nobody but itself: under gevent all greenlets would stand
    still, and what waits must use its `select.poll`. eventlet has none.
    """
    return getattr(getattr(select, "poll", None), "__module__", "") == "select"


class Caught:
    """What has been read of stdout and stderr, for one child. Used by one thread."""

    __slots__ = ("_pair", "c")

    def __init__(self, out: int, err: int) -> None:
        """Nothing is read yet.

        Args:
            out: the descriptor to read stdout from, or -1.
            err: likewise.

        """
        self._pair = _spare.pop() if _spare else _make()  # list.pop is atomic: none is given to two
        self.c = self._pair[0]
        first, second = self.c[0], self.c[1]
        first.size = second.size = 0
        first.fd, second.fd = out, err

    @property
    def out(self) -> bytes:
        """What has been read of stdout."""
        return self._data(0)

    @property
    def err(self) -> bytes:
        """What has been read of stderr."""
        return self._data(1)

    def _data(self, which: int) -> bytes:
        stream = self.c[which]
        return ffi.buffer(stream.data, stream.size)[:] if stream.size else b""

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors of the pipes that have not ended."""
        return tuple([fd for fd in (self.c[0].fd, self.c[1].fd) if fd >= 0])

    @property
    def ended(self) -> bool:
        """Neither is to be read any more."""
        return bool(self.c[0].fd < 0 and self.c[1].fd < 0)

    def release(self) -> None:
        """The room is for the next; nothing may be asked of this one any more."""
        if len(_spare) < MOST_SPARE:
            _spare.append(self._pair)
        del self._pair, self.c
