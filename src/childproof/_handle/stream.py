"""`stream`: the output of a command, line by line, while it runs."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from childproof._command import make_command
from childproof._handle.child import Child, Text, open_child

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from childproof._options import Cmd, Options
    from childproof._result import Result

KEPT_BYTES = 65536
"""What the Result keeps of each stream unless ``max_output`` says otherwise."""


class Stream(Generic[Text]):
    """The lines of a command, made by `stream`: an iterator of ``("stdout" or "stderr", line)``.

    Whatever ends it early kills the tree: a break after which nobody has it any more, `close`, the end
    of a with block, an exception.

    Attributes:
        child: the handle, to signal it or to ask for its pid.

    """

    def __init__(self, child: Child[Text]) -> None:
        """Made by childproof only."""
        self.child = child
        self._lines = child.make_lines()

    @property
    def result(self) -> Result[Text] | None:
        """The `Result`, once the lines have come to their end or `close` was called; before, `None`."""
        return self.child.finished

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[str, Text]:
        """Wait for the next line.

        Raises:
            StopIteration: the command is over, and all it has written was handed out.
            CommandError: likewise, with ``check``, and the command did not succeed.

        """
        line = self.child.next_line(self._lines)
        if line is not None:
            return line
        self.child.result()
        self.close()
        raise StopIteration

    def close(self) -> None:
        """End the command, if it runs, by killing its tree."""
        self.child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        child = getattr(self, "child", None)
        if child is not None:
            child.abandon()


@overload
def stream(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: Literal[True] = True,
    **options: Unpack[Options],
) -> Stream[str]: ...


@overload
def stream(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: Literal[False],
    **options: Unpack[Options],
) -> Stream[bytes]: ...


@overload
def stream(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: bool,
    **options: Unpack[Options],
) -> Stream[Any]: ...


def stream(cmd: Any, input: Any = None, timeout: float | None = None, **options: Any) -> Stream[Any]:  # noqa: A002
    r"""Start a command and hand out what it writes line by line, each as soon as it is there.

        for source, line in childproof.stream("make", timeout=600):
            print(source, line)

    A line ends with ``\n``, ``\r`` or ``\r\n``, which is left off, so that a progress display comes
    through step by step; what has not ended when the command has is the last line. A line of more
    than 1 MiB (of characters, as text) is handed out in pieces.

    Memory stays bounded, and a slow consumer slows the command: nothing is read ahead of it but what one
    read gives. The deadline holds even so: a background thread kills the tree.

    Args:
        cmd: as in `run`, and so are all others.
        input: fed while a line is waited for.
        timeout: seconds from now. At the deadline the lines end, with what was written until then;
            the `Result` says that it was the deadline.
        **options: of `run`. ``max_output`` is 65,536 where it is not given. With ``merge`` all lines are
            stdout's. With ``check`` the end of the lines raises unless the command succeeded.

    Returns:
        A `Stream`. Its `result` is the Result once the lines have ended.

    Raises:
        TypeError, ValueError: the call is wrong; nothing was started.
        SpawnError: it could not be started, or the deadline came before its exec.

    """
    began = monotonic()
    options.setdefault("max_output", KEPT_BYTES)
    child: Child[Any] = open_child(make_command(cmd, input, timeout, **options), began)
    return Stream(child)


stream.__wrapped__ = make_command  # type: ignore[attr-defined]  # where inspect.signature finds the parameters
