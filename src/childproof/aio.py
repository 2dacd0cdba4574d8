"""childproof in an event loop: asyncio's or trio's, through anyio (``pip install 'childproof[aio]'``).

The same parameters and the same Results, on the same state machine, without threads, child watchers
and SIGCHLD: one task waits for one descriptor, an epoll(7) that has all those of its commands. When the
task is cancelled, by whatever means the framework has, the tree is killed and reaped before the
cancellation goes on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

from childproof._aio.child import Child, start
from childproof._aio.stream import Stream, stream
from childproof._aio.wait import finish, turn
from childproof._command import make_command
from childproof._many.run_many import Collector, Plan, Progress, make_plan
from childproof._many.scheduler import Scheduler

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from childproof._options import Cmd, Options
    from childproof._result import Result

__all__ = ["Child", "Stream", "run", "run_many", "start", "stream"]


@overload
async def run(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: Literal[True] = True,
    **options: Unpack[Options],
) -> Result[str]: ...


@overload
async def run(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: Literal[False],
    **options: Unpack[Options],
) -> Result[bytes]: ...


@overload
async def run(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: bool,
    **options: Unpack[Options],
) -> Result[Any]: ...


async def run(cmd: Any, input: Any = None, timeout: float | None = None, **options: Any) -> Result[Any]:  # noqa: A002
    """`childproof.run` without blocking the event loop.

    Args:
        cmd: as in `childproof.run`, and so are all others.
        input: likewise; a file object without a descriptor is read in this thread, and blocks the
            loop while it blocks.
        timeout: seconds; the framework's own timeouts do as well, and then there is no Result.
        **options: ``on_output`` is called in this thread, and is no coroutine function.

    Returns:
        The same `Result`.

    Raises:
        BaseException: the framework's cancellation, after the tree has been killed and reaped; and
            what `childproof.run` raises.

    """
    command = make_command(cmd, input, timeout, **options)
    scheduler = Scheduler(iter((command,)), 1, {}, in_loop=True)
    try:
        scheduler.fill()
        while not scheduler.finished:
            await turn(scheduler)
        _, result = scheduler.finished.popleft()
    finally:
        await finish(scheduler)
    result.position = None
    return result.check() if command.check else result


run.__wrapped__ = make_command  # type: ignore[attr-defined]  # where inspect.signature finds the parameters


async def _drive(cmds: Iterable[Any], plan: Plan) -> AsyncGenerator[Result[Any], None]:
    scheduler = Scheduler(iter(cmds), plan.jobs, plan.common, in_loop=True)
    collector = Collector(plan)
    try:
        while True:
            scheduler.collect(collector)
            if collector.over:
                await finish(scheduler)  # what runs is dead before the failure is told
            gave = False
            for result in collector.give():
                gave = True
                yield result
            if collector.over or scheduler.idle:
                return
            if not (gave or scheduler.finished):  # else there may be room for more now
                await turn(scheduler)
    finally:
        await finish(scheduler)


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
    text: Literal[True] = True,
    **options: Unpack[Options],
) -> AsyncGenerator[Result[str], None]: ...


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
    text: bool,
    **options: Unpack[Options],
) -> AsyncGenerator[Result[Any], None]: ...


def run_many(
    cmds: Iterable[Any],
    *,
    jobs: int | None = None,
    timeout: float | None = None,
    order: str = "done",
    fail_fast: bool = False,
    progress: Callable[[Progress], object] | None = None,
    **options: Any,
) -> AsyncGenerator[Result[Any], None]:
    """`childproof.run_many` as an asynchronous generator: ``async for result in aio.run_many(…)``.

    What runs is driven while the next Result is waited for. Whoever leaves the loop early closes the
    generator (``contextlib.aclosing``): Python itself does so only when the garbage collector comes to
    it, and then in a task of its own.

    Args:
        cmds: as in `childproof.run_many`, and so are all others.
        jobs: likewise.
        timeout: likewise.
        order: likewise.
        fail_fast: likewise.
        progress: likewise.
        text: likewise.
        **options: likewise.

    Raises:
        TypeError, ValueError, CommandError, BaseException: as in `childproof.run_many`; and the
            framework's cancellation, after all trees have been killed and reaped.

    """
    return _drive(cmds, make_plan(cmds, jobs, timeout, order, fail_fast, progress, options))
