"""Waiting in an event loop, asyncio's or trio's, through anyio."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

try:
    import anyio
    import anyio.lowlevel
except ImportError as error:
    raise ImportError(f"childproof.aio needs anyio: pip install 'childproof[aio]' ({error})") from error

if TYPE_CHECKING:
    from childproof._many.router import Router
    from childproof._many.scheduler import Scheduler


async def turn(scheduler: Scheduler, most_seconds: float = inf) -> None:
    """Wait until something happens, `most_seconds` at most, and do what is due. Always lets others run."""
    await wait_ready(scheduler.router, min(scheduler.wake_at - monotonic(), most_seconds))
    scheduler.wait(0)


async def finish(scheduler: Scheduler) -> None:
    """Kill and reap what runs, whatever cancels this task meanwhile, and let go of everything."""
    try:
        if scheduler.running:
            with anyio.CancelScope(shield=True):
                until = scheduler.stop()
                while scheduler.running and (left := until - monotonic()) > 0:
                    await turn(scheduler, left)
    finally:
        scheduler.close()


async def wait_ready(router: Router, seconds: float, scope: anyio.CancelScope | None = None) -> None:
    """Wait until one of the descriptors is ready, or `seconds` have passed, or `scope` is cancelled."""
    if seconds <= 0 or router.always_ready:
        await anyio.lowlevel.checkpoint()
        return
    with scope or anyio.CancelScope() as waiting:
        waiting.deadline = anyio.current_time() + seconds
        # An epoll is readable when any of its descriptors is ready: one wait for all of them.
        if router.fileno() >= 0:
            await anyio.wait_readable(router.fileno())
        else:
            await _wait_for_any(dict(router.masks()))


async def _wait_for_any(masks: dict[int, int]) -> None:
    """For want of an epoll: a task for each descriptor."""

    async def wait_for(wait: Callable[[int], object], fd: int) -> None:
        try:
            await wait(fd)  # type: ignore[misc]  # a coroutine function
        except OSError:  # it can't be waited for: whoever uses it will see why
            pass
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for fd, mask in masks.items():
            wait = anyio.wait_writable if mask & select.POLLOUT else anyio.wait_readable
            group.start_soon(wait_for, wait, fd)
        if not masks:
            await anyio.sleep_forever()


def call_later(seconds: float, function: Callable[[], None]) -> Callable[[], None]:
    """Have the event loop call `function` after `seconds`, with no task of the caller's; the function
    that withdraws it.
    """
    if _runs_trio():
        return _call_later_in_trio(seconds, function)
    import asyncio

    return asyncio.get_running_loop().call_later(seconds, function).cancel


def _runs_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def _call_later_in_trio(seconds: float, function: Callable[[], None]) -> Callable[[], None]:
    import trio

    scope = trio.CancelScope()

    async def wait() -> None:
        with scope:
            await trio.sleep(seconds)
        if not scope.cancelled_caught:
            function()

    trio.lowlevel.spawn_system_task(wait)
    return scope.cancel
