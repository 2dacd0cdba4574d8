"""What becomes of the output of a command that somebody has a handle on."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from childproof._command import OnOutput
    from childproof._handle.lines import Lines


class Delivery:
    """What becomes of the output as it comes. It knows nothing of the handle, which would be a cycle, and
    a handle that nobody has any more is to end at once.

    Attributes:
        lines: the lines that are being fetched, if any.
        aside: the caller's function is not to be called now: this is not a thread of the caller's.

    """

    def __init__(self, on_output: OnOutput | None) -> None:
        self._on_output = on_output
        self._late: deque[tuple[str, bytes]] = deque()
        self.lines: Lines | None = None
        self.aside = False

    def __call__(self, stream: str, data: bytes) -> None:
        if self.lines is not None:
            self.lines.add(stream, data)
        if self._on_output is None:
            return
        self._late.append((stream, data))
        if not self.aside:
            self.catch_up()

    def catch_up(self) -> None:
        """Give the caller's function what it has not been given yet."""
        while self._late and self._on_output is not None:
            self._on_output(*self._late.popleft())
