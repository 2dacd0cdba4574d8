"""`childproof.aio.stream`: the output of a command, line by line, in an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from childproof._aio.child import Child, Text
from childproof._command import make_command

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from childproof._command import Command
    from childproof._handle.lines import Lines
    from childproof._options import Cmd, Options
    from childproof._result import Result

KEPT_BYTES = 65536
"""What the Result keeps of each stream unless ``max_output`` says otherwise."""


class Stream(Generic[Text]):
    """The lines of a command, made by `stream`: an asynchronous iterator of ``("stdout" or "stderr",
    line)``, and an asynchronous context manager. It starts the command when it is first used.

    Whatever ends it early kills the tree: the end of its block, `aclose`, a cancellation of the task
    that waits for the next line, and, without letting other tasks run meanwhile, the finalizer.
    """

    def __init__(self, command: Command) -> None:
        """Made by childproof only."""
        self._command = command
        self._child: Child[Text] | None = None
        self._lines: Lines | None = None
        self._closed = False

    @property
    def result(self) -> Result[Text] | None:
        """The `Result`, once the lines have come to their end or it was closed; before, `None`."""
        return self._child.finished if self._child is not None else None

    @property
    def child(self) -> Child[Text]:
        """The handle, once the command was started.

        Raises:
            RuntimeError: it was not yet.

        """
        if self._child is None:
            raise RuntimeError("the command starts with the first line, or at the beginning of the block")
        return self._child

    async def _begin(self) -> Child[Text]:
        if self._child is None:
            child: Child[Text] = Child(self._command)
            self._lines = child.make_lines()
            self._child = child
            await child.begin()
        return self._child

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, Text]:
        """Wait for the next line.

        Raises:
            StopAsyncIteration: the command is over, and all it has written was handed out.
            CommandError: likewise, with ``check``, and the command did not succeed.

        """
        if self._closed and self._child is None:
            raise StopAsyncIteration
        try:
            child = await self._begin()
            assert self._lines is not None
            line = await child.next_line(self._lines)
            if line is not None:
                return line
            await child.result()
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the command, if it runs, by killing its tree."""
        self._closed = True
        if self._child is not None:
            await self._child.aclose()

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


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
    """Hand out what a command writes line by line, each as soon as it is there.

        async with aio.stream("make", timeout=600) as lines:
            async for source, line in lines:
                print(source, line)

    What a line is, that memory stays bounded and who is slow slows the command: as with
    `childproof.stream`. The deadline holds even so.

    Args:
        cmd: as in `run`, and so are all others.
        input: fed while a line is waited for.
        timeout: seconds from the start. At the deadline the lines end, with what was written until then.
        **options: of `run`. ``max_output`` is 65,536 where it is not given.

    Returns:
        A `Stream`, which starts the command when it is first used. Its `result` is the Result once the
        lines have ended.

    Raises:
        TypeError, ValueError: the call is wrong.

    """
    options.setdefault("max_output", KEPT_BYTES)
    return Stream(make_command(cmd, input, timeout, **options))


stream.__wrapped__ = make_command  # type: ignore[attr-defined]  # where inspect.signature finds the parameters
