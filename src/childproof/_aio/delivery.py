"""What becomes of the output of a command of `childproof.aio.start`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from childproof._command import OnOutput
    from childproof._handle.lines import Lines


class Delivery:
    """What becomes of the output as it comes. It knows nothing of the handle, which would be a cycle, and
    a handle that nobody has any more is to end at once.

    Attributes:
        lines: the lines that are being fetched, if any.

    """

    def __init__(self, on_output: OnOutput | None) -> None:
        self._on_output = on_output
        self.lines: Lines | None = None

    def __call__(self, stream: str, data: bytes) -> None:
        if self.lines is not None:
            self.lines.add(stream, data)
        if self._on_output is not None:
            self._on_output(stream, data)
