"""`childproof.aio.start`: a handle on a running command, in an event loop."""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncGenerator, Callable
from errno import ESRCH
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from childproof._aio.wait import call_later, finish, wait_ready  # isort: skip  # says what is missing without anyio
import anyio

from childproof._command import make_command
from childproof._exchange import Exchange
from childproof._handle.child import not_started
from childproof._handle.delivery import Delivery
from childproof._handle.lines import Lines
from childproof._many.scheduler import Scheduler
from childproof._spawner import STARTED

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from childproof._command import Command
    from childproof._options import Cmd, Options
    from childproof._result import Result

Text = TypeVar("Text", bound=str | bytes)


class Child(Generic[Text]):
    """A running command, made by `start`; what `childproof.Child` is, for one event loop.

    An asynchronous context manager: when its block is left, by cancellation too, the command has ended
    and nothing of it is left but what ``leftovers`` allows. Several tasks may use it.

    Its deadline is kept whether or not a task waits for it. Its output is read only while one does.

    Attributes:
        pid: its process id. Use `signal`, not this number, to signal it.

    """

    def __init__(self, command: Command) -> None:
        """Made by childproof only."""
        self._command = command
        self._delivery = Delivery(command.on_output)
        self._scheduler = Scheduler(iter((command._replace(on_output=self._delivery),)), 1, {}, in_loop=True)
        self._exchange: Exchange | None = None
        self._lock = anyio.Lock()
        self._waiting: Any = None
        self._withdraw: Callable[[], None] | None = None
        self._deadline = monotonic() + command.timeout
        self._closed = False
        self._broken = ""
        self._result: Result[Any] | None = None
        self.pid = 0

    # ---- what a caller does with it ----

    @property
    def finished(self) -> Result[Text] | None:
        """The Result, if the command is over."""
        if self._result is None and self._scheduler.finished:
            self._result = self._scheduler.finished.popleft()[1]
            self._result.position = None
        return self._result

    def poll(self) -> int | None:
        """The code if the command is over, else `None`. It takes what the command has written meanwhile."""
        if not self._is_over():
            self._call(self._scheduler.wait, 0)
        return self._code()

    async def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end of the command, and take its output meanwhile.

        Args:
            timeout: seconds; `None`: as long as it takes. Nothing is killed when they are over.

        Returns:
            The code, as in the Result; `None`: it still runs.

        """
        await self._drive(inf if timeout is None else timeout)
        return self._code()

    async def result(self, timeout: float | None = None) -> Result[Text]:
        """Wait for the end and hand back the Result, any number of times.

        Args:
            timeout: seconds, as in `wait`.

        Raises:
            TimeoutError: it still runs; nothing was killed.
            CommandError: with ``check``, the command did not succeed.
            RuntimeError: an exception has ended the command, as one of ``on_output``.

        """
        await self._drive(inf if timeout is None else timeout)
        self._complain()
        result = self.finished
        if result is None:
            raise TimeoutError(f"pid {self.pid} still runs after {timeout} s")
        return result.check() if self._command.check else result

    def signal(self, number: int) -> bool:
        """Send the signal `number` to the child itself; `False`: it has ended.

        Raises:
            OSError: it may not be sent, or there is no such signal.

        """
        exchange = self._exchange
        if exchange is None or self._is_over() or exchange.child.ended() != 0:
            return False
        error = exchange.child.signal(number)
        if error and error != ESRCH:
            raise OSError(error, f"cannot send signal {number} to pid {self.pid}: {os.strerror(error)}")
        return error == 0

    async def kill_tree(self, grace: float = 0.0) -> Result[Text]:
        """Kill the command and all that descends from it, and see it end.

        Args:
            grace: seconds between SIGTERM (then SIGCONT) and SIGKILL; 0: SIGKILL at once.

        Returns:
            The Result; its code is the child's own, as -9.

        """
        self.poll()
        if not self._is_over():
            self._change(lambda exchange, now: exchange.stop(grace, now))
        await self._drive(inf)
        self._complain()
        assert self.finished is not None
        return self.finished

    async def lines(self) -> AsyncGenerator[tuple[str, Text], None]:
        """The output live, as `childproof.Child.lines` has it. Who is slow slows the command."""
        lines = self.make_lines()
        while (line := await self.next_line(lines)) is not None:
            yield line

    async def aclose(self) -> None:
        """End the command, if it runs, by killing its tree; done by the end of the block."""
        if self._closed:
            return
        self._closed = True
        try:
            with anyio.CancelScope(shield=True):
                if not self._is_over():
                    self.poll()
                exchange = self._exchange
                if exchange is not None and not self._is_over() and exchange.child.ended() != 0:
                    self._change(lambda exchange, now: exchange.hurry(now))
                    await self._drive(1.0)
                self._poke()
                await finish(self._scheduler)
        finally:
            self._disarm()
            self._scheduler.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def abandon(self) -> None:
        """`aclose` where nobody can wait: the tree is killed without letting others run."""
        if not self._closed:
            self._closed = True
            self._disarm()
            self._scheduler.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.abandon()

    # ---- start ----

    async def begin(self) -> None:
        """Spawn, and wait for the exec.

        Raises:
            SpawnError: it came to none.

        """
        try:
            self._scheduler.fill()
            for job in self._scheduler.jobs:
                assert isinstance(job.exchange, Exchange)  # nothing with `on_output` takes the short way
                self._exchange = job.exchange
            pause = 0.0005
            while not self._is_over() and self._exchange and self._exchange.child.settle() != STARTED:
                await self._turn(pause)
                pause = min(2 * pause, 0.02)
        except BaseException:
            await self.aclose()
            raise
        result = self.finished
        if result is not None and result.spawned is None:
            await self.aclose()
            raise not_started(result)
        if result is not None:
            self.pid = result.pid
        elif self._exchange is not None:
            self.pid = self._exchange.child.pid
        self._arm(self._deadline)

    # ---- lines ----

    def make_lines(self) -> Lines:
        """The lines from the beginning; those whom an earlier call gave them get no more."""
        command = self._command
        lines = Lines(command.text, command.encoding, command.errors)
        for name, data in self._exchange.so_far() if self._exchange is not None else ():
            if data:
                lines.add(name, data)
        self._delivery.lines = lines
        return lines

    async def next_line(self, lines: Lines) -> tuple[str, Text] | None:
        """Wait for the next of `lines`; `None`: there is no more."""
        while True:
            line = lines.take()
            if line is None and self._is_over():
                lines.end()
                line = lines.take()
                if line is None:
                    self._complain()
                    return None
            if line is not None:
                return line
            await self._drive(inf, lambda: lines.waiting)

    # ---- driving ----

    def _is_over(self) -> bool:
        return self.finished is not None or bool(self._broken)

    def _code(self) -> int | None:
        self._complain()
        return None if self.finished is None else self.finished.code

    def _complain(self) -> None:
        if self._broken:
            raise RuntimeError(f"pid {self.pid} was ended by an exception: {self._broken}")

    async def _drive(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Drive until the command is over, or `enough`, or `seconds` have passed. One task waits on the
        descriptors, the others for that one.
        """
        with anyio.move_on_after(None if seconds == inf else seconds):
            while not self._is_over() and not enough():
                async with self._lock:
                    if not self._is_over() and not enough():
                        await self._turn()

    async def _turn(self, most_seconds: float = inf) -> None:
        self._waiting = anyio.CancelScope()
        try:
            left = min(self._scheduler.wake_at - monotonic(), most_seconds)
            await wait_ready(self._scheduler.router, left, self._waiting)
        finally:
            self._waiting = None
        if not self._is_over():
            self._call(self._scheduler.wait, 0)

    def _poke(self) -> None:
        """Have the task that waits look again."""
        if self._waiting is not None:
            self._waiting.cancel()

    def _change(self, how: Callable[[Exchange, float], None]) -> None:
        for job in self._scheduler.jobs:
            if job.exchange is not None:
                self._call(how, job.exchange, monotonic())
                self._scheduler.look_at(job)
        self._poke()

    def _call(self, function: Callable[..., object], *args: Any) -> None:
        """What is raised amid a step ends the command."""
        try:
            function(*args)
        except BaseException as error:
            self._broken = repr(error)
            self._disarm()
            self._scheduler.close()
            raise

    # ---- the deadline of a command that nobody waits for ----

    def _arm(self, when: float) -> None:
        if when != inf and not self._is_over():
            reference = weakref.ref(self)

            def attend() -> None:
                if (child := reference()) is not None:
                    child._attend()

            self._withdraw = call_later(max(when - monotonic(), 0.001), attend)

    def _disarm(self) -> None:
        if self._withdraw is not None:
            self._withdraw()
            self._withdraw = None

    def _attend(self) -> None:
        """Called by the event loop, which takes no exception well."""
        self._withdraw = None
        if self._is_over() or self._closed:
            return
        try:
            self._call(self._scheduler.tick)
        except Exception:  # it is in _broken, and raised to whoever waits
            return
        finally:
            self._poke()
        self._arm(
            max(self._scheduler.wake_at, monotonic() + 0.001) if monotonic() >= self._deadline else self._deadline
        )


@overload
async def start(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: Literal[True] = True,
    **options: Unpack[Options],
) -> Child[str]: ...


@overload
async def start(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: Literal[False],
    **options: Unpack[Options],
) -> Child[bytes]: ...


@overload
async def start(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: bool,
    **options: Unpack[Options],
) -> Child[Any]: ...


async def start(cmd: Any, input: Any = None, timeout: float | None = None, **options: Any) -> Child[Any]:  # noqa: A002
    """Start a command and hand back a handle on it, once it has exec'ed.

        async with await aio.start("redis-server --port 0") as server:
            async for stream, line in server.lines():
                …

    Args:
        cmd: as in `run`, and so are all others.
        input: fed while a task waits for the command.
        timeout: seconds from now; at the deadline the tree is killed.
        **options: of `run`.

    Returns:
        A `Child`.

    Raises:
        TypeError, ValueError: the call is wrong; nothing was started.
        SpawnError: it could not be started, or the deadline came before its exec.

    """
    child: Child[Any] = Child(make_command(cmd, input, timeout, **options))
    await child.begin()
    return child


start.__wrapped__ = make_command  # type: ignore[attr-defined]  # where inspect.signature finds the parameters
