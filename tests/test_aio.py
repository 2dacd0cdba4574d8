"""`childproof.aio` on asyncio and on trio: cancelled or not, nothing is left when it goes on."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

import childproof
from childproof import CommandError, Outcome, SpawnError, aio
from childproof._many.router import Router
from conftest import SLACK_SECONDS, is_alive, wait_until

Run = Callable[[Callable[[], Awaitable[Any]]], Any]

TREE = "echo $$ >> {}; setsid sleep 600 & sleep 600"


@pytest.fixture(params=["asyncio", "trio"])
def loop(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine function in an event loop of each framework."""

    def run(function: Callable[[], Awaitable[Any]]) -> Any:
        return anyio.run(function, backend=request.param)

    return run


def dead(path: Path) -> bool:
    """Whether the commands that have written their pids there are."""
    return not any(is_alive(int(pid)) for pid in path.read_text().split())


# ---- run ----


def test_the_same_result(loop: Run) -> None:
    """Code, out, err and the rest, without a position."""

    async def main() -> None:
        result = await aio.run("cat; echo err >&2; exit 3", "in", timeout=30)
        assert tuple(result) == (3, "in", "err")
        assert (result.outcome, result.position) == (Outcome.EXITED, None)
        with pytest.raises(CommandError):
            await aio.run(["false"], check=True)
        with pytest.raises(ValueError, match="empty"):
            await aio.run([])
        assert (await aio.run(["true"], timeout=0)).code == 124

    loop(main)


def test_others_run_meanwhile(loop: Run) -> None:
    """Twenty commands of 0.5 s do not take ten seconds, and the loop turns."""
    turns = 0

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(aio.run, "sleep 0.5")
            for _ in range(10):
                await anyio.sleep(0.01)
                nonlocal turns
                turns += 1

    began = time.monotonic()
    loop(main)
    assert turns == 10
    assert time.monotonic() - began < 0.5 + SLACK_SECONDS < 10


@pytest.mark.parametrize("call", ["run", "run_many", "stream"])
def test_cancelling_kills_the_tree_first(loop: Run, call: str, tmp_path: Path) -> None:
    """When the cancellation goes on, nobody of the tree is alive."""
    path = tmp_path / "pids"
    seen = []

    async def work() -> None:
        try:
            if call == "run":
                await aio.run(TREE.format(path))
            elif call == "run_many":
                async for _ in aio.run_many([TREE.format(path)] * 3, jobs=3):
                    pass
            else:
                async for _ in aio.stream(TREE.format(path)):
                    pass
        finally:
            seen.append(dead(path))

    async def main() -> None:
        with anyio.move_on_after(0.5) as scope:
            await work()
        assert scope.cancelled_caught

    loop(main)
    assert seen == [True]


def test_cancelling_as_asyncio_has_it(tmp_path: Path) -> None:
    """wait_for, and task.cancel() twice: the second one, amid the killing, does not break it off."""
    path = tmp_path / "pids"

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(aio.run(TREE.format(path)), 0.5)
        assert dead(path)
        task = asyncio.create_task(aio.run(f"trap '' TERM; {TREE.format(path)}"))
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert dead(path)

    asyncio.run(main())


def test_cancelling_as_trio_has_it(tmp_path: Path) -> None:
    """fail_after."""
    path = tmp_path / "pids"

    async def main() -> None:
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.5):
            await aio.run(TREE.format(path))
        assert dead(path)

    trio.run(main)


def test_an_interrupt_kills_the_tree(tmp_path: Path) -> None:
    """Ctrl-C, as asyncio.run has it."""
    path = tmp_path / "pids"

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGINT)
        await aio.run(TREE.format(path))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert dead(path)


def test_what_on_output_raises(loop: Run) -> None:
    """It comes through, after the tree was killed."""

    def fail(stream: str, data: bytes) -> None:
        raise KeyError("mine")

    async def main() -> None:
        with pytest.raises(KeyError, match="mine"):
            await aio.run("echo x; sleep 600", on_output=fail)

    loop(main)


def test_no_thread_and_no_child_watcher(loop: Run) -> None:
    """An ordinary command needs none; the fixture sees to SIGCHLD."""

    async def main() -> None:
        before = threading.enumerate()
        await aio.run("echo x", "input", timeout=30)
        assert threading.enumerate() == before

    loop(main)


def test_without_an_epoll(loop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be had, each descriptor is waited for by a task of its own."""
    monkeypatch.setattr(Router, "_open_epoll", lambda self: None)

    async def main() -> None:
        assert (await aio.run("cat; echo err >&2", "x" * 200_000, timeout=30)).out == "x" * 200_000
        assert (await aio.run("echo hi; sleep 600", timeout=0.5))[:2] == (124, "hi")
        assert (await aio.run("sleep 0.2 >&- 2>&-", stdout="null", stderr="null")).ok

    loop(main)


def test_anyio_is_asked_for() -> None:
    """Where it is missing the extra is named."""
    code = "import sys\nsys.modules['anyio'] = None\nimport childproof.aio"
    assert "pip install 'childproof[aio]'" in childproof.run([sys.executable, "-c", code]).err


# ---- run_many ----


def test_run_many(loop: Run) -> None:
    """The same Results as `childproof.run_many` has."""

    async def main() -> None:
        cmds = [f"echo {i}; exit {i % 3}" for i in range(30)]
        results = [result async for result in aio.run_many(cmds, jobs=5, order="given")]
        assert [(r.position, r.code, r.out) for r in results] == [(i, i % 3, str(i)) for i in range(30)]
        results = [r async for r in aio.run_many(["sleep 600", "exit 3"], jobs=2, fail_fast=True)]
        assert [r.code for r in results] == [3]
        with pytest.raises(ValueError, match=r"cmds\[1\]"):
            [r async for r in aio.run_many(["sleep 600", []], jobs=2)]

    loop(main)


def test_leaving_run_many_early(loop: Run, tmp_path: Path) -> None:
    """Closed, it has killed what ran."""
    path = tmp_path / "pids"

    async def main() -> None:
        async with aclosing(aio.run_many(["sleep 0.3", TREE.format(path)], jobs=2)) as results:
            async for _ in results:
                break
        assert dead(path)

    loop(main)


# ---- start ----


def test_start(loop: Run) -> None:
    """A handle: pid, lines, signal, wait, result."""

    async def main() -> None:
        async with await aio.start("echo $$; printf 'a\\rb'; read x; exit 4", "go\n") as child:
            lines = [line async for line in child.lines()]
            assert lines == [("stdout", str(child.pid)), ("stdout", "a"), ("stdout", "b")]
            assert await child.wait() == 4
            assert (await child.result()).out.startswith(str(child.pid))
            assert not child.signal(signal.SIGTERM)
        async with await aio.start(["sleep", "600"]) as child:
            assert child.poll() is None
            assert await child.wait(0.05) is None
            with pytest.raises(TimeoutError):
                await child.result(0.05)
            assert child.signal(signal.SIGTERM)
            assert await child.wait() == -signal.SIGTERM
        with pytest.raises(SpawnError):
            await aio.start(["/nonexistent"])
        with pytest.raises(SpawnError):
            await aio.start(["true"], timeout=0)

    loop(main)


def test_the_end_of_the_block_kills_the_tree(loop: Run, tmp_path: Path) -> None:
    """However it is left."""
    path = tmp_path / "pids"

    async def main() -> None:
        async with await aio.start(TREE.format(path)):
            await anyio.sleep(0.3)
        assert dead(path)
        with anyio.move_on_after(0.3):
            async with await aio.start(TREE.format(path)):
                await anyio.sleep(600)
        assert dead(path)
        with pytest.raises(KeyError):
            async with await aio.start(TREE.format(path)):
                raise KeyError

    loop(main)
    assert dead(path)


def test_a_deadline_that_nobody_waits_for(loop: Run) -> None:
    """It is kept by the event loop, without a task or a thread."""

    async def main() -> None:
        async with await aio.start("sleep 600", timeout=0.3) as child:
            await anyio.sleep(0.1)
            pid = child.pid
            until = time.monotonic() + 1 + SLACK_SECONDS
            while is_alive(pid) and time.monotonic() < until:
                await anyio.sleep(0.05)
            assert not is_alive(pid)
            assert (await child.result()).outcome is Outcome.TIMED_OUT

    loop(main)


def test_several_tasks_wait_for_one_child(loop: Run) -> None:
    """And one of them kills it."""
    codes = []

    async def main() -> None:
        async with await aio.start("sleep 600") as child, anyio.create_task_group() as group:

            async def wait() -> None:
                codes.append(await child.wait())

            group.start_soon(wait)
            group.start_soon(wait)
            await anyio.sleep(0.2)
            assert (await child.kill_tree()).code == -9

    loop(main)
    assert codes == [-9, -9]


def test_a_handle_that_nobody_has_any_more(loop: Run) -> None:
    """Its tree dies, in a cycle too; the fixture looks for it."""

    async def main() -> None:
        child: Any = await aio.start("sleep 600")
        child.itself = child
        await anyio.sleep(0.05)  # the loop lets go of its last wait
        pid = child.pid
        del child
        gc.collect()
        assert wait_until(lambda: not is_alive(pid), SLACK_SECONDS)

    loop(main)


# ---- stream ----


def test_stream(loop: Run) -> None:
    """Lines as they come, the Result at the end."""

    async def main() -> None:
        stream = aio.stream("echo a; echo b >&2; printf c; exit 3")
        lines = [line async for line in stream]
        assert sorted(lines) == [("stderr", "b"), ("stdout", "a"), ("stdout", "c")]
        assert stream.result is not None
        assert stream.result.code == 3
        with pytest.raises(CommandError):
            [line async for line in aio.stream(["false"], check=True)]

    loop(main)


def test_leaving_a_stream_early(loop: Run) -> None:
    """By a break, and by the end of its block."""

    async def first(lines: AsyncIterator[tuple[str, str]]) -> None:
        async for _ in lines:
            break

    async def main() -> None:
        async with aio.stream("yes") as lines:
            pid = lines.child.pid
            await first(lines)
        assert not is_alive(pid)
        stream = aio.stream("yes")
        await first(stream)
        pid = stream.child.pid
        del stream
        gc.collect()
        assert wait_until(lambda: not is_alive(pid), SLACK_SECONDS)

    loop(main)


def test_a_slow_consumer_slows_the_command(loop: Run) -> None:
    """Nothing is read ahead of it, and the deadline holds all the same."""

    async def main() -> None:
        async with aio.stream("yes", timeout=1) as lines:
            assert await lines.__anext__() == ("stdout", "y")
            pid = lines.child.pid
            await anyio.sleep(0.3)
            written = Path(f"/proc/{pid}/io").read_text() if os.access(f"/proc/{pid}/io", os.R_OK) else ""
            await anyio.sleep(0.3)
            assert not written or Path(f"/proc/{pid}/io").read_text() == written
            await anyio.sleep(1)
            assert wait_until(lambda: not is_alive(pid), SLACK_SECONDS)
            async for line in lines:
                assert line == ("stdout", "y")
            assert lines.result is not None
            assert lines.result.code == 124

    loop(main)
