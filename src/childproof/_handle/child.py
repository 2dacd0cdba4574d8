"""`start`: a handle on a running command."""

from __future__ import annotations

import os
import select
import threading
import warnings
from collections.abc import Callable, Iterator
from errno import ESRCH
from math import ceil, inf
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from childproof._command import make_command, seconds, timeout_seconds
from childproof._errors import SpawnError
from childproof._exchange import Exchange, State
from childproof._handle.delivery import Delivery
from childproof._handle.lines import Lines
from childproof._handle.watch import watch
from childproof._report import Facts, make_result
from childproof._result import Outcome, Result
from childproof._run import announce
from childproof._spawner import STARTED
from childproof._streams import refuse_copy

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from childproof._command import Command
    from childproof._options import Cmd, Options

Text = TypeVar("Text", bound=str | bytes)

SLICE_SECONDS = 0.5
"""The longest single wait of whoever waits: another thread may have ended the command in a way that no
descriptor tells of, as when the child can't be killed."""

RECALL_SECONDS = 0.25
"""How soon a command with a deadline that has passed is looked at again while somebody waits for it."""


class Child(Generic[Text]):
    """A running command, made by `start`.

    A context manager: when its block is left the command has ended, and nothing of it is left but
    what ``leftovers`` allows. All methods may be called from any thread.

    Nobody works for a command that is left alone, except that its deadline is kept: its output waits
    in its pipes, and slows it once they are full, until somebody calls `wait`, `result`, `poll` or
    fetches `lines`.

    Attributes:
        pid: its process id. Use `signal`, not this number, to signal it: after its end the number may
            be another's.

    """

    def __init__(self, command: Command, began: float) -> None:
        """Made by childproof only. `began`: on `time.monotonic`; the deadline counts from there."""
        self._owner = os.getpid()
        self._command = command
        self._deadline = began + command.timeout
        self._delivery = Delivery(command.on_output)
        self._poller = select.poll()
        self._exchange = Exchange(command._replace(on_output=self._delivery), self._poller, began)
        # Re-entrant, since `signal` may be called from within on_output. Only ever taken by `with`,
        # which no interrupt leaves half-way.
        self._state = threading.RLock()  # held by who touches the exchange, never while waiting
        # Who waits on the descriptors, by `threading.get_ident`. No lock: it is let go by a store, which
        # an interrupt can't come before.
        self._driver: int | None = None
        self._freed = threading.Event()
        self._broken = ""
        self._closed = True  # nothing has begun
        self._service = 0
        self.pid = 0

    # ---- what a caller does with it ----

    @property
    def pidfd(self) -> int:
        """A descriptor that becomes readable when the child has ended; -1 when it has been reaped, or
        where the kernel has none. It is this handle's: do not close it.
        """
        with self._state:
            return -1 if self._is_over() else self._exchange.child.pidfd

    @property
    def service(self) -> int:
        """The pid of the program, where it was detached from the child; else 0."""
        return self._service

    def poll(self) -> int | None:
        """The code, as in the Result, if the command is over, else `None`. It does not wait.

        What the command has written is taken from it meanwhile, so that a loop around this comes to
        an end. The code comes when the output is complete: while others hold its pipes, that is
        ``linger`` after the child's end.

        Raises:
            BaseException: what ``on_output`` raised, after the tree was killed.

        """
        self._drive(0.0)
        return self._code()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end of the command, and take its output meanwhile.

        Args:
            timeout: seconds; `None` or -1: as long as it takes. Not to be confused with the deadline of the
                command, which was given to `start`: nothing is killed when this time is over.

        Returns:
            The code, as in the Result; `None`: it still runs.

        """
        self._drive(timeout_seconds(timeout))
        return self._code()

    def result(self, timeout: float | None = None) -> Result[Text]:
        """Wait for the end and hand back the same Result as `run`, any number of times.

        Args:
            timeout: seconds, as in `wait`.

        Raises:
            TimeoutError: it still runs; nothing was killed.
            CommandError: with ``check``, the command did not succeed.
            RuntimeError: an exception has ended the command, as one of ``on_output``.

        """
        self._drive(timeout_seconds(timeout))
        result = self._exchange.result
        if result is None:
            raise TimeoutError(f"pid {self.pid} still runs after {timeout} s")
        return result.check() if self._command.check else result

    def signal(self, number: int) -> bool:
        """Send a signal to the child itself, never to another process that has its number by now.

        Args:
            number: as `signal.SIGHUP`.

        Returns:
            Whether it was sent; `False`: the child has ended.

        Raises:
            OSError: it may not be sent, or there is no such signal.

        """
        self._refuse_copy()
        with self._state:
            child = self._exchange.child
            if self._is_over() or child.ended() != 0:
                return False
            error = child.signal(number)
        if error and error != ESRCH:
            raise OSError(error, f"cannot send signal {number} to pid {self.pid}: {os.strerror(error)}")
        return error == 0

    def kill_tree(self, grace: float = 0.0) -> Result[Text]:
        """Kill the command and all that descends from it, as at the deadline, and see it end.

        Args:
            grace: seconds between SIGTERM (then SIGCONT) and SIGKILL; 0: SIGKILL at once.

        Returns:
            The Result. Its code is the child's own, as -9, and `killed` says who was killed. If the
            command was over before, nothing is done.

        """
        polite = seconds(grace, "grace")
        self._end(lambda now: self._exchange.stop(polite, now))
        self._complain()
        assert self._exchange.result is not None
        return self._exchange.result

    def lines(self) -> Iterator[tuple[str, Text]]:
        r"""The output live: ``("stdout" or "stderr", line)``, from its beginning, each as soon as its
        end has come; ends with the command.

        A line ends with ``\n``, ``\r`` or ``\r\n``, which is left off: a progress display comes
        through step by step. What has not ended when the command has is the last line. A line of more
        than `MOST_LINE` is handed out in pieces. What came before the first line is asked for comes
        first of stdout, then of stderr; with ``max_output``, what was kept of it.

        The output is only read as far as lines are fetched, so that who is slow slows the command. To
        stop fetching does not end it. The Result gets the output too.
        """
        lines = self.make_lines()
        while (line := self.next_line(lines)) is not None:
            yield line

    def close(self) -> None:
        """End the command, if it runs, by killing its tree; done by the end of the block.

        A child that has ended by itself is not lingered for; who outlives it is left alone, or killed,
        as ``leftovers`` says.
        """
        if self._closed or os.getpid() != self._owner:
            return
        self._end(self._leave)
        self._closed = True
        watch.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or os.getpid() != self._owner:
            return
        if not self._is_over():
            warnings.warn(f"unclosed {self!r}: its tree is killed", ResourceWarning, stacklevel=2, source=self)
        self.abandon()

    def __repr__(self) -> str:
        code = self._code() if not self._broken else self._broken
        return f"Child(pid={self.pid}, {'runs' if code is None else code})"

    # ---- start ----

    def begin(self) -> None:
        """Spawn, and wait for the exec.

        Raises:
            SpawnError: it came to none.

        """
        exchange = self._exchange
        try:
            self._closed = False
            exchange.begin()
            while not self._is_over() and exchange.child.state != STARTED:
                left = min(exchange.wake_at - monotonic(), SLICE_SECONDS)
                if exchange.state is not State.STARTING or exchange.child.await_exec(_milliseconds(left)) != STARTED:
                    self._step(monotonic() if exchange.state is State.STARTING else inf)
        except BaseException as error:
            self._break(error)
            raise
        result = exchange.result
        if result is not None and result.spawned is None:
            self._closed = True
            raise not_started(result)
        self.pid = exchange.child.pid if result is None else result.pid
        self._service = exchange.child.service
        watch.add(self, self._deadline)

    # ---- for those who drive it ----

    def make_lines(self) -> Lines:
        """The lines from the beginning; those whom an earlier call gave them get no more."""
        self._refuse_copy()
        command = self._command
        lines = Lines(command.text, command.encoding, command.errors)
        with self._state:
            for stream, data in self._exchange.so_far():
                if data:
                    lines.add(stream, data)
            self._delivery.lines = lines
        return lines

    def next_line(self, lines: Lines) -> tuple[str, Text] | None:
        """Wait for the next of `lines`; `None`: there is no more."""
        while True:
            with self._state:
                line = lines.take()
                if line is None and self._is_over():
                    lines.end()
                    line = lines.take()
                if line is not None:
                    return line
                if self._is_over():
                    self._complain()
                    return None
            self._drive(inf, lambda: lines.waiting)

    @property
    def finished(self) -> Result[Text] | None:
        """The Result, if the command is over."""
        return self._exchange.result

    def abandon(self) -> None:
        """`close`, for finalizers: nobody is there to tell of exceptions, nor to close it again after an interrupt."""
        try:
            self.close()
        except BaseException as error:
            with self._state:
                self._exchange.abort()
            if not isinstance(error, Exception):
                raise

    def attend(self, now: float) -> float:
        """See `Watched`: if the deadline is over at `now` the tree is killed though nobody waits."""
        if self._is_over():
            return inf
        if now < self._deadline:
            return self._deadline
        me = threading.get_ident()
        try:
            if not self._take(me):
                return now + RECALL_SECONDS
            with self._state:
                self._delivery.aside = True
                try:
                    if not self._is_over():
                        self._call(self._exchange.tick, now)
                finally:
                    self._delivery.aside = False
                return inf if self._is_over() else self._exchange.wake_at
        finally:
            if self._driver == me:
                self._driver = None
            self._freed.set()

    # ---- driving ----

    def _is_over(self) -> bool:
        return self._exchange.state is State.DONE or bool(self._broken)

    def _code(self) -> int | None:
        self._complain()
        result = self._exchange.result
        return None if result is None else result.code

    def _complain(self) -> None:
        if self._broken:
            raise RuntimeError(f"pid {self.pid} was ended by an exception: {self._broken}")

    def _refuse_copy(self) -> None:
        if os.getpid() != self._owner:
            refuse_copy()

    def _take(self, me: int) -> bool:
        """Become the one who drives, unless somebody is. To be called in a `try` that ends with letting
        go of it, by a store and no call, since before a call an interrupt may come.
        """
        with self._state:
            if self._driver is None:
                self._driver = me
            return self._driver == me

    def _refuse(self, me: int) -> None:
        """What would wait for itself, or for somebody else's process."""
        self._refuse_copy()
        if self._driver == me:
            raise RuntimeError("called while the same command calls on_output or input.read in this thread")

    def _drive(self, most: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Drive until the command is over, or `enough`, or `most` seconds have passed; where another
        thread does, wait for that one first.
        """
        me = threading.get_ident()
        self._refuse(me)
        until = monotonic() + most
        try:
            while not (taken := self._take(me)) and not self._is_over() and monotonic() < until:
                self._freed.clear()
                if self._driver is not None:
                    # A slice of time only, should an interrupt have kept it from being set.
                    self._freed.wait(min(until - monotonic(), SLICE_SECONDS))
            while taken and not self._is_over() and not enough() and self._step(until):
                pass
            if taken:
                with self._state:
                    self._call(self._delivery.catch_up)
        finally:
            if self._driver == me:
                self._driver = None
            self._freed.set()
        self._complain()

    def _step(self, until: float) -> bool:
        """Wait for one event, no longer than `until`, and pass it on; whether it is not `until` yet."""
        exchange = self._exchange
        now = monotonic()
        left = min(exchange.wake_at, until, now + SLICE_SECONDS) - now
        events = self._poller.poll(_milliseconds(left))
        with self._state:
            for fd, _ in events:
                if not self._is_over():
                    self._call(exchange.ready, fd)
            now = monotonic()
            if not self._is_over() and exchange.wake_at <= now:
                self._call(exchange.tick, now)
        return now < until

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        """What is raised amid a step of the exchange ends the command; an interrupt while waiting
        does not.
        """
        try:
            function(*args)
        except BaseException as error:
            self._break(error)
            raise

    def _break(self, error: BaseException) -> None:
        self._broken = repr(error)
        self._exchange.abort()

    # ---- the end ----

    def _leave(self, now: float) -> None:
        """Whether the child has ended is looked at anew: nobody may have done so."""
        if self._exchange.child.ended() == 0 or self._exchange.state is State.GRACE:
            self._exchange.stop(0.0, now)
        else:
            self._exchange.hurry(now)

    def _end(self, how: Callable[[float], None]) -> None:
        """See the command end, after `how` has been called to bring that about. Who waits for it in
        another thread goes on doing so.
        """
        me = threading.get_ident()
        self._refuse(me)
        try:
            if self._take(me):
                self._step(0.0)  # an end that has come counts
            with self._state:
                if not self._is_over():
                    self._call(how, monotonic())
            while not self._is_over():
                if self._take(me):
                    self._step(inf)
                else:
                    self._tick_beside()
        finally:
            if self._driver == me:
                self._driver = None
            self._freed.set()

    def _tick_beside(self) -> None:
        """Another thread waits on the descriptors, for longer than is right now."""
        with self._state:
            now = monotonic()
            if not self._is_over() and self._exchange.wake_at <= now:
                self._call(self._exchange.tick, now)
        sleep(0.001)


def _milliseconds(seconds: float) -> int:
    """Rounded up: a wait that ends early by a fraction would spin through the last one."""
    return ceil(max(seconds, 0.0) * 1000)


def not_started(result: Result[Any]) -> SpawnError:
    """The error of a command that never was; its `result` is what `run` would have handed back."""
    assert result.error is not None
    assert result.outcome in (Outcome.NOT_STARTED, Outcome.TIMED_OUT)
    result.error.result = result
    return result.error


def open_child(command: Command, began: float) -> Child[Any]:
    """Start `command`.

    Raises:
        SpawnError: it could not be started.

    """
    if command.timeout == 0:
        raise not_started(make_result(Facts(command, None, began, True, "", [], (), (), ())))
    announce(command)
    child: Child[Any] = Child(command, began)
    child.begin()
    return child


@overload
def start(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: Literal[True] = True,
    **options: Unpack[Options],
) -> Child[str]: ...


@overload
def start(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: Literal[False],
    **options: Unpack[Options],
) -> Child[bytes]: ...


@overload
def start(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: bool,
    **options: Unpack[Options],
) -> Child[Any]: ...


def start(cmd: Any, input: Any = None, timeout: float | None = None, **options: Any) -> Child[Any]:  # noqa: A002
    """Start a command and hand back a handle on it.

        with childproof.start(["server"], timeout=60) as child:
            ...
            child.signal(signal.SIGTERM)
            result = child.result(timeout=5)

    Args:
        cmd: as in `run`, and so are all others.
        input: fed while somebody waits for the command.
        timeout: seconds from now; the deadline is kept whether somebody waits or not. Then a
            background thread kills the tree.
        **options: of `run`. ``on_output`` is called in a thread that waits; while it runs in one, the
            methods in others wait for it. With ``check`` it is `result` that raises.

    Returns:
        A `Child`, whose program has been executed.

    Raises:
        TypeError, ValueError: the call is wrong; nothing was started.
        SpawnError: it could not be started, or the deadline came before its exec. Its `result` is
            what `run` would have handed back.

    `sys.audit` event as of `run`.

    """
    began = monotonic()
    return open_child(make_command(cmd, input, timeout, **options), began)


start.__wrapped__ = make_command  # type: ignore[attr-defined]  # where inspect.signature finds the parameters
