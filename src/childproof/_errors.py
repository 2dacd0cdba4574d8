"""What can be raised or reported."""

from __future__ import annotations

from childproof._light import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from childproof._result import Result


class SpawnError(OSError):
    """Why a command did not start, or did not end by itself.

    An `OSError` (``errno``, ``strerror``, ``filename``) that also has:

    Attributes:
        stage: the step that failed: ``open``, ``pipe``, ``fork``, ``supervisor``, ``unshare``, ``idmap``,
            ``mount``, ``signals``, ``setsid``, ``cgroup``, ``limits``, ``ids``, ``chdir``, ``umask``,
            ``dup``, ``close_fds``, ``exec``; ``run`` for a deadline and ``wait`` for a status that
            somebody else took.
        result: what `run` would have handed back, where the error is raised by a function that
            starts a command for longer; else `None`.

    """

    result: Result[Any] | None = None

    def __init__(self, errno: int, strerror: str, filename: str, stage: str, sentence: str) -> None:
        super().__init__(errno, strerror, filename)
        self.stage = stage
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errno, self.strerror, self.filename, self.stage, self.sentence)


class CommandError(Exception):
    """A command did not succeed; raised by ``check=True`` and `Result.check`.

    Attributes:
        result: the whole `Result`.

    """

    def __init__(self, message: str, result: Result[Any]) -> None:
        super().__init__(message, result)
        self.result = result

    def __str__(self) -> str:
        return str(self.args[0])


class OutputCut(RuntimeWarning):
    """`communicate` of the drop-in came back though somebody still holds the pipes of a child that has
    ended. The text names the holders; they go on, and what they write is discarded.
    """


class StatusLost(RuntimeWarning):
    """The status of a child of the drop-in was taken by somebody else's wait: its returncode is 125."""
