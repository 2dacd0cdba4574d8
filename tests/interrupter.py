"""A KeyboardInterrupt at the n-th line of our modules that is executed."""

from __future__ import annotations

import linecache
from types import FrameType


class Interrupter:
    """A trace function that raises KeyboardInterrupt at the n-th line of our modules.

    Not where a ``with`` is left: there a trace function is called, with the line of the ``with``, but
    the interpreter looks at no signal, so that an exception raised there would skip ``__exit__`` as
    no interrupt can.
    """

    def __init__(self, line: int) -> None:
        self.line = line
        self.seen = 0
        self._entered: set[tuple[int, int]] = set()

    def _leaves_with(self, frame: FrameType) -> bool:
        if not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
            return False
        here = id(frame), frame.f_lineno
        if here in self._entered:
            self._entered.remove(here)
            return True
        self._entered.add(here)
        return False

    def __call__(self, frame: FrameType, event: str, argument: object) -> Interrupter | None:
        """See `sys.settrace`."""
        if "/childproof/" not in frame.f_code.co_filename:
            return None
        if event == "return":  # the next frame may get the same number
            self._entered = {entered for entered in self._entered if entered[0] != id(frame)}
        if event == "line" and not self._leaves_with(frame):
            self.seen += 1
            if self.seen == self.line:
                raise KeyboardInterrupt
        return self
