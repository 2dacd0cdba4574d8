"""Live output, line by line.

Whoever drives the command adds chunks, whoever wants lines takes them one at a time: a chunk is split
only as far as has been asked for, so that a million short lines are not a million objects.
"""

from __future__ import annotations

import codecs
from collections import deque
from typing import Any

MOST_LINE = 1 << 20
"""A line longer than so many bytes or characters is handed out in pieces: memory stays bounded."""


def make_decoder(encoding: str, errors: str) -> codecs.IncrementalDecoder:
    """It keeps half a character until the other half comes."""
    # Where a strict handler would raise there are backslashes, as in a Result.
    return codecs.getincrementaldecoder(encoding)("backslashreplace" if errors == "strict" else errors)


class _Split:
    """One stream.

    Attributes:
        newline: one, as text or as bytes.
        rest: what has come of a line that has not ended, in pieces.
        rest_size: of all of them.

    """

    def __init__(self, decoder: codecs.IncrementalDecoder | None) -> None:
        self._decoder = decoder
        self._after_return = False
        self._return: Any
        self._both: Any
        self.newline: Any
        self._return, self.newline, self._both = ("\r", "\n", "\r\n") if decoder else (b"\r", b"\n", b"\r\n")
        self.rest: list[Any] = []
        self.rest_size = 0

    def keep(self, piece: Any) -> None:
        """`piece` belongs to a line whose end has not come."""
        self.rest.append(piece)
        self.rest_size += len(piece)

    def whole(self, piece: Any) -> Any:
        """The line that `piece` ends."""
        if not self.rest:
            return piece
        line = self.newline[:0].join((*self.rest, piece))
        self.rest.clear()
        self.rest_size = 0
        return line

    def plain(self, data: bytes, final: bool = False) -> Any:
        """`data` decoded, with each line's end, of whatever kind, as one newline."""
        text: Any = data
        if self._decoder is not None:
            try:
                text = self._decoder.decode(data, final)
            except Exception:  # the caller's own handler: what was read is handed out
                self._decoder.reset()
                text = data.decode("utf-8", "backslashreplace")
        if not text:
            return text
        if self._after_return and text[:1] == self.newline:
            text = text[1:]  # the line was handed out when its \r had come
        self._after_return = text[-1:] == self._return if text else False
        if self._return in text:
            text = text.replace(self._both, self.newline).replace(self._return, self.newline)
        return text


class Lines:
    """The lines of both streams, in the order in which they came. Used under its owner's lock."""

    def __init__(self, text: bool, encoding: str, errors: str) -> None:
        self._splits = {name: _Split(make_decoder(encoding, errors) if text else None) for name in ("stdout", "stderr")}
        self._chunks: deque[tuple[str, bytes]] = deque()
        self._current = ""
        self._text: Any = ""
        self._at = 0
        self._over = False

    def add(self, stream: str, data: bytes) -> None:
        """A chunk has come."""
        self._chunks.append((stream, data))

    @property
    def waiting(self) -> bool:
        """Whether anything has come that was not looked at."""
        return bool(self._chunks)

    def end(self) -> None:
        """No more will come: what has not ended is a line too."""
        if not self._over:
            self._over = True
            self._chunks += [("stdout", b""), ("stderr", b"")]

    def take(self) -> tuple[str, Any] | None:
        """The next line, without its end; `None` if no whole one is there."""
        while True:
            if self._at >= len(self._text) and not self._next_chunk():
                return None
            line = self._cut()
            if line is not None:
                return self._current, line

    def _next_chunk(self) -> bool:
        if not self._chunks:
            return False
        self._current, data = self._chunks.popleft()
        final = not data
        split = self._splits[self._current]
        self._text, self._at = split.plain(data, final), 0
        if final and (split.rest or self._text):
            self._text += split.newline
        return True

    def _cut(self) -> Any:
        """The line that ends in the present chunk, `None` if that is used up first."""
        split, text, at = self._splits[self._current], self._text, self._at
        room = MOST_LINE - split.rest_size
        end = text.find(split.newline, at, at + room + 1)
        if end >= 0:
            self._at = end + 1
        elif at + room < len(text):
            self._at = end = at + room
        else:
            self._at = len(text)
            split.keep(text[at:])
            return None
        return split.whole(text[at:end])
