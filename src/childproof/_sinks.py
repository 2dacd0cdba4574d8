"""Where output goes while a command runs: memory, bounded if asked for."""

from __future__ import annotations

from io import BytesIO


class Whole:
    """Keeps everything.

    The one chunk of a short output is handed back as it came. Longer output lies in one growing
    buffer, which `BytesIO.getvalue` hands back without a copy: a list of chunks would need twice
    the memory at the end.
    """

    __slots__ = ("_first", "_rest")

    truncated = False

    def __init__(self) -> None:
        self._first = b""
        self._rest: BytesIO | None = None

    def add(self, data: bytes) -> None:
        """Take the next chunk."""
        if self._rest is not None:
            self._rest.write(data)
        elif not self._first:
            self._first = data
        else:
            self._rest = BytesIO()
            self._rest.write(self._first)
            self._rest.write(data)
            self._first = b""

    def skip(self, size: int) -> None:
        """Nothing is ever skipped here."""
        raise AssertionError(size)

    def parts(self) -> tuple[bytes, bytes]:
        """All there is, and nothing."""
        return (self._first if self._rest is None else self._rest.getvalue()), b""


class Ends:
    """Keeps the first and the last half of `limit` bytes, in memory of about 1.5 times that."""

    __slots__ = ("_head", "_head_size", "_tail", "_tail_size", "_total")

    def __init__(self, limit: int) -> None:
        self._head_size = (limit + 1) // 2
        self._tail_size = limit - self._head_size
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    @property
    def truncated(self) -> bool:
        """Whether anything was dropped."""
        return self._total > self._head_size + self._tail_size

    def add(self, data: bytes) -> None:
        """Take the next chunk."""
        self._total += len(data)
        room = self._head_size - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data and self._tail_size:
            self._tail += data[-self._tail_size :]
            if len(self._tail) > 2 * self._tail_size:
                del self._tail[: -self._tail_size]

    def skip(self, size: int) -> None:
        """`size` bytes that belong here were not worth reading."""
        self._total += size

    def parts(self) -> tuple[bytes, bytes]:
        """Head and tail; what was between them is gone."""
        tail = bytes(self._tail[-self._tail_size :]) if self._tail_size else b""
        if not self.truncated:
            return bytes(self._head) + tail, b""
        return bytes(self._head), tail


def make_sink(max_output: int | None) -> Whole | Ends:
    """The sink for one stream."""
    return Whole() if max_output is None else Ends(max_output)
