"""`run_many`: many commands on one thread, with one poll."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sized
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from childproof._many.scheduler import Scheduler, command_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from typing_extensions import Unpack

    from childproof._options import Cmd, Options
    from childproof._result import Result

MOST_WAITING = 1000
"""With ``order="given"``: Results that wait for that of an earlier command before no more are started."""


class Progress(NamedTuple):
    """How far `run_many` is.

    Attributes:
        total: how many commands there are; `None` as long as nobody knows.
        started: how many have been started, those that are over included.
        running: how many run.
        done: how many are over.
        failed: how many of them did not succeed.

    """

    total: int | None
    started: int
    running: int
    done: int
    failed: int


class Plan(NamedTuple):
    """The parameters of `run_many`, checked.

    Attributes:
        common: the options of all commands, ``timeout`` and ``input`` among them.
        check: whether a command that does not succeed raises; kept out of `common`.
        total: how many commands there are, `None` if it is not known.

    """

    jobs: int
    ordered: bool
    fail_fast: bool
    progress: Callable[[Progress], object] | None
    common: dict[str, Any]
    total: int | None


def make_plan(
    cmds: Any, jobs: Any, timeout: Any, order: Any, fail_fast: Any, progress: Any, options: dict[str, Any]
) -> Plan:
    """Check all that can be checked before a command is seen.

    Raises:
        TypeError, ValueError: a parameter is wrong.

    """
    if isinstance(cmds, (str, bytes, Mapping)):
        raise TypeError(f"cmds must be an iterable of commands, not one: {cmds!r}")
    if jobs is None:
        jobs = usable_cpus()
    elif isinstance(jobs, bool) or not isinstance(jobs, int):
        raise TypeError(f"jobs must be an int or None, not {jobs!r}")
    elif jobs < 1:
        raise ValueError(f"jobs must be at least 1: {jobs}")
    if order not in ("done", "given"):
        raise ValueError(f"order must be 'done' or 'given', not {order!r}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, not {progress!r}")
    common = dict(options)
    if timeout is not None:
        common["timeout"] = timeout
    if common:
        # Without the input, which may be a file whose position counts.
        command_of(("true",), {name: value for name, value in common.items() if name not in ("input", "stdin")})
    total = len(cmds) if isinstance(cmds, Sized) else None
    return Plan(jobs, order == "given", bool(fail_fast), progress, common, total)


def usable_cpus() -> int:
    """How many processors this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


class Collector:
    """What becomes of finished commands: their order, the progress, and whether to go on.

    Attributes:
        over: a command has failed that ends it all.

    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._done = 0
        self._failed = 0
        self._next = 0
        self._waiting: dict[int, tuple[Result[Any], bool]] = {}
        self.over = False

    @property
    def full(self) -> bool:
        """So many Results wait for that of an earlier command that no more should be made."""
        return len(self._waiting) >= MOST_WAITING

    def take(self, result: Result[Any], check: bool, started: int, running: int) -> None:
        """One command is over."""
        plan = self._plan
        self._done += 1
        self._failed += not result.ok
        assert result.position is not None
        self._waiting[result.position] = result, check
        if not result.ok and plan.fail_fast:
            self.over = True
        if plan.progress is not None:
            plan.progress(Progress(plan.total, started, running, self._done, self._failed))

    def give(self) -> Generator[Result[Any], None, None]:
        """The Results whose turn it is.

        Raises:
            CommandError: the turn is that of a command with ``check`` that did not succeed.

        """
        waiting = self._waiting
        if not self._plan.ordered or self.over:
            for position in sorted(waiting) if self._plan.ordered else list(waiting):
                yield _checked(*waiting.pop(position))
            return
        while self._next in waiting:
            self._next += 1
            yield _checked(*waiting.pop(self._next - 1))


def _checked(result: Result[Any], check: bool) -> Result[Any]:
    return result.check() if check else result


def _drive(cmds: Iterable[Any], plan: Plan) -> Generator[Result[Any], None, None]:
    scheduler = Scheduler(iter(cmds), plan.jobs, plan.common)
    collector = Collector(plan)
    try:
        while True:
            scheduler.collect(collector)
            if collector.over:
                scheduler.close()  # what runs is dead before the failure is told
            gave = False
            for result in collector.give():
                gave = True
                yield result
            if collector.over or scheduler.idle:
                return
            if not (gave or scheduler.finished):  # else there may be room for more now
                scheduler.wait()
    finally:
        scheduler.close()


@overload
def run_many(
    cmds: Iterable[Cmd | Mapping[str, Any]],
    *,
    jobs: int | None = None,
    timeout: float | None = None,
    input: Any = None,
    order: Literal["done", "given"] = "done",
    fail_fast: bool = False,
    progress: Callable[[Progress], object] | None = None,
    executor: Executor | None = None,
    batch: int | None = None,
    text: Literal[True] = True,
    **options: Unpack[Options],
) -> Generator[Result[str], None, None]: ...


@overload
def run_many(
    cmds: Iterable[Cmd | Mapping[str, Any]],
    *,
    jobs: int | None = None,
    timeout: float | None = None,
    input: Any = None,
    order: Literal["done", "given"] = "done",
    fail_fast: bool = False,
    progress: Callable[[Progress], object] | None = None,
    executor: Executor | None = None,
    batch: int | None = None,
    text: bool,
    **options: Unpack[Options],
) -> Generator[Result[Any], None, None]: ...


def run_many(
    cmds: Iterable[Any],
    *,
    jobs: int | None = None,
    timeout: float | None = None,
    order: str = "done",
    fail_fast: bool = False,
    progress: Callable[[Progress], object] | None = None,
    executor: Executor | None = None,
    batch: int | None = None,
    **options: Any,
) -> Generator[Result[Any], None, None]:
    """Run many commands, some of them at once, and give their Results as they come.

    One thread does it, the caller's, and only while it waits for the next Result: what runs is read,
    fed and killed at its deadline inside ``next()``. A caller that is busy for long between two of
    them keeps the commands waiting too.

    Args:
        cmds: the commands, each as `run` takes it, or a mapping with its own options, as
            ``{"cmd": "make", "cwd": "/src", "timeout": 60}``. A generator is asked for the next one
            when there is room for it, in this thread.
        jobs: how many run at once, at most; `None`: one for each processor that this process may use.
            Fewer do where descriptors are short (3 a running command, 4 with input, 9 on its way to
            the exec); that is logged, and no command fails for it.
        timeout: seconds for each command, from its own start.
        order: ``"done"``: as they end. ``"given"``: as the commands were given; up to 1,000 Results
            then wait for an earlier one before no more commands are started.
        fail_fast: end with the first command that does not succeed: no more is started, what runs is
            killed and gives no Result, what had ended before comes first, and the failure is the last.
        progress: called with a `Progress` in this thread when a command is over.
        executor: a `concurrent.futures.Executor` that runs them instead, up to `jobs` of its tasks at
            once (`None`: as many as it has workers); on another machine if it is a Dask client's
            (``Client.get_executor()``). Then a command runs **at least** once: a scheduler may run a
            task again whose worker it has lost. Still each gives exactly one Result; that of a task
            which the executor gave up has outcome UNKNOWN and code 125, and whether the command ran
            is not known. In another process it runs with ``die_with_parent``, unless that is given or
            the worker is not on Linux.
            What can't be sent there (files, descriptors) is a wrong call.
        batch: with `executor`: how many commands make one task. `None`: so many that sending them
            costs little beside running them, for the pools of `concurrent.futures`; 1 for any other
            executor, since a task is lost, or run again, as a whole.
        text: as for `run`.
        **options: those of `run`, for all commands. A mapping's own come before them.

    Returns:
        A generator of `Result`; `Result.position` is the command's position. Closing it, leaving it to
        the garbage collector, and any exception kill and reap what runs, whole trees. With `executor`
        what waits is withdrawn then; what a thread runs is killed; what runs in another process runs
        on to its end or its deadline.

    Raises:
        TypeError, ValueError: the call is wrong, at once; or one of `cmds` is, from ``next()``, which
            says its position.
        CommandError: from ``next()``: with ``check``, one did not succeed.
        BaseException: from ``next()``: what `cmds`, `progress`, an audit hook, `on_output`,
            ``input.read`` or a signal handler raised.

    """
    plan = make_plan(cmds, jobs, timeout, order, fail_fast, progress, options)
    if executor is not None:
        from childproof._many.executors import drive

        return drive(cmds, plan, executor, jobs, batch)
    if batch is not None:
        raise ValueError("batch is for an executor: without one nothing is sent")
    return _drive(cmds, plan)
