"""`start`: a handle on a running command, from any thread, and nothing left when it is let go of."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import CommandError, Outcome, SpawnError
from childproof._handle.watch import watch
from childproof._spawner import has_pidfd
from conftest import SLACK_SECONDS, is_alive, program, stop, wait_until


def descendants_of_echo(child: childproof.Child[str]) -> list[int]:
    """The pids that the command prints first, on one line."""
    for _, line in child.lines():
        return [int(word) for word in line.split()]
    raise AssertionError("nothing was printed")


# ---- a command that runs ----


def test_a_handle_has_the_result_of_run() -> None:
    """Whoever asks, and however often."""
    with childproof.start("cat; echo no >&2; exit 3", "in", strip=False) as child:
        result = child.result()
        assert tuple(result) == (3, "in", "no\n")
        assert result.outcome is Outcome.EXITED
        assert result.pid == child.pid
        assert child.result() is result
        assert child.wait() == child.poll() == 3
        assert child.finished is result
    assert child.result() is result


def test_bytes() -> None:
    """text=False: the Result's and the lines' type."""
    with childproof.start("printf 'a\\377\\nb'", text=False) as child:
        assert list(child.lines()) == [("stdout", b"a\xff"), ("stdout", b"b")]
        assert child.result().out == b"a\xff\nb"


def test_while_it_runs() -> None:
    """Both `poll` and `wait` say `None`, result raises, and all of them leave it alone."""
    with childproof.start("sleep 600") as child:
        assert child.poll() is None
        assert child.wait(0.05) is None
        assert child.wait(0) is None
        assert child.finished is None
        with pytest.raises(TimeoutError, match=f"pid {child.pid} still runs after 0.05 s"):
            child.result(0.05)
        assert is_alive(child.pid)
        assert "runs" in repr(child)


def test_the_pidfd_tells_the_end() -> None:
    """It becomes readable then, and is gone when the child has been reaped."""
    if not has_pidfd():
        pytest.skip("this kernel has no pidfds, or they are switched off")
    with childproof.start("sleep 0.1") as child:
        assert select.select([child.pidfd], [], [], 60)[0]
        assert child.result().ok
        assert child.pidfd == -1


def test_polling_alone_comes_to_an_end() -> None:
    """A loop around poll takes the output from a child that could not end otherwise."""
    with childproof.start("head -c 1000000 /dev/zero") as child:
        assert wait_until(lambda: child.poll() is not None)
        assert len(child.result().out) == 1_000_000


def test_signal() -> None:
    """It reaches the child and nobody else; after the end it says that there was nobody to send it to."""
    with childproof.start("trap 'echo got it; exit 7' USR1; echo up; while :; do sleep 0.02; done") as child:
        lines = child.lines()
        assert next(lines) == ("stdout", "up")
        assert child.signal(signal.SIGUSR1)
        assert list(lines) == [("stdout", "got it")]
        assert child.result().code == 7
        assert not child.signal(signal.SIGUSR1)
        assert not child.signal(signal.SIGKILL)


def test_whoever_has_the_number_now() -> None:
    """A stranger that was given the number of a child that has been reaped is not struck (pid reuse is
    forced through ns_last_pid, proc(5)).
    """
    last = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last, os.W_OK):
        pytest.skip("ns_last_pid can't be written: pid reuse can't be forced")
    struck = 0
    for _ in range(1000):
        child = childproof.start("true")
        child.result()
        last.write_text(str(child.pid - 1))
        with subprocess.Popen(["sleep", "600"]) as stranger:
            try:
                if stranger.pid == child.pid:
                    struck += 1
                    assert not child.signal(signal.SIGKILL)
                    assert child.kill_tree().code == 0
                    child.close()
                    assert stranger.poll() is None
            finally:
                stranger.kill()
        if struck == 10:
            return
    raise AssertionError(f"the number was given anew {struck} times only")


def test_signal_of_a_zombie() -> None:
    """Who has ended and was not reaped gets none."""
    with childproof.start("true") as child:
        assert wait_until(lambda: not is_alive(child.pid))
        assert not child.signal(signal.SIGTERM)


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), (-2, ValueError), ("1", TypeError)])
def test_wrong_times(value: Any, error: type[Exception]) -> None:
    """As of `run`: a budget that ran out must not mean "for ever"; -1 does, as `None`."""
    with childproof.start("sleep 600") as child:
        for function in (child.wait, child.result, child.kill_tree):
            with pytest.raises(error):
                function(value)
        assert child.poll() is None
    assert child.wait(-1) == -9


def test_there_is_no_such_signal() -> None:
    """An `OSError`, and the child lives."""
    with childproof.start("sleep 600") as child:
        with pytest.raises(OSError, match="cannot send signal 1000"):
            child.signal(1000)
        assert child.poll() is None


def test_lines_begin_at_the_beginning() -> None:
    """What was read before they were asked for comes first."""
    with childproof.start("echo a; echo b; sleep 0.3; echo c") as child:
        child.wait(0.1)
        assert [line for _, line in child.lines()] == ["a", "b", "c"]
        assert child.result().out == "a\nb\nc"


def test_to_stop_fetching_lines_does_not_end_it() -> None:
    """The rest is in the Result."""
    with childproof.start("echo a; echo b; exit 4") as child:
        assert next(child.lines()) == ("stdout", "a")
        assert tuple(child.result()) == (4, "a\nb", "")


# ---- the end ----


def test_the_block_leaves_nothing() -> None:
    """Whoever it is that the command has started."""
    command = "sleep 600 & a=$!; setsid sleep 600 & echo $$ $a $!; wait"
    with childproof.start(command) as child:
        pids = descendants_of_echo(child)
        assert all(map(is_alive, pids))
    assert not any(map(is_alive, pids))
    result = child.result()
    assert (result.code, result.outcome) == (-9, Outcome.SIGNALED)
    assert {info.pid for info in result.killed} >= set(pids)


def test_an_exception_in_the_block() -> None:
    """It propagates, and the tree is dead."""
    with pytest.raises(ZeroDivisionError), childproof.start("sleep 600") as child:
        raise ZeroDivisionError
    assert not is_alive(child.pid)


def test_the_block_does_not_linger() -> None:
    """A child that has ended by itself is not killed for, and whoever outlives it is left alone."""
    with childproof.start("sleep 600 & echo $!", linger=600) as child:
        assert wait_until(lambda: not is_alive(child.pid))
        began = time.monotonic()
    assert time.monotonic() - began < SLACK_SECONDS
    result = child.result()
    assert (result.code, result.outcome, result.killed) == (0, Outcome.EXITED, ())
    (holder,) = result.held
    assert holder.pid == int(result.out)
    stop(holder.pid)


def test_the_block_kills_leftovers_if_asked_to() -> None:
    """leftovers="kill", as for `run`."""
    with childproof.start("sleep 600 & echo $!", leftovers="kill", linger=600) as child:
        assert wait_until(lambda: not is_alive(child.pid))
    assert not is_alive(int(child.result().out))


def test_the_block_does_not_wait_for_a_grace() -> None:
    """After the deadline whoever of the tree ignores SIGTERM is killed at once."""
    command = "sh -c 'trap \"\" TERM; echo up; while :; do sleep 600; done' & wait"
    with childproof.start(command, timeout=1, grace=600) as child:
        next(child.lines())
        assert wait_until(lambda: not is_alive(child.pid))
        began = time.monotonic()
    assert time.monotonic() - began < 1 + SLACK_SECONDS
    assert child.result().code == 124


def test_kill_tree() -> None:
    """The Result says who died and of what, not that there was a deadline."""
    with childproof.start("setsid sleep 600 & echo $!; wait", timeout=600) as child:
        (pid,) = descendants_of_echo(child)
        result = child.kill_tree()
        assert (result.code, result.outcome, result.error) == (-9, Outcome.SIGNALED, None)
        assert {pid, child.pid} <= {info.pid for info in result.killed}
        assert not is_alive(pid)
        assert child.kill_tree() is result


def test_kill_tree_with_grace() -> None:
    """SIGTERM first; the code is what the command makes of it."""
    with childproof.start("trap 'sleep 0.1; echo bye; exit 5' TERM; echo up; while :; do sleep 0.02; done") as child:
        next(child.lines())
        began = time.monotonic()
        result = child.kill_tree(grace=600)
        assert time.monotonic() - began < SLACK_SECONDS
        assert (result.code, result.outcome, result.out) == (5, Outcome.EXITED, "up\nbye")


def test_kill_tree_when_the_grace_is_over() -> None:
    """SIGKILL for whoever ignores SIGTERM."""
    with childproof.start("trap '' TERM; echo up; while :; do sleep 600; done") as child:
        next(child.lines())
        assert child.kill_tree(grace=0.2).code == -9


def test_let_go_of() -> None:
    """Without a block and without `close`: a ResourceWarning, and the tree is killed all the same."""
    child = childproof.start("setsid sleep 600 & echo $!; wait")
    pids = [child.pid, *descendants_of_echo(child)]
    with pytest.warns(ResourceWarning, match=f"pid={child.pid}"):
        del child
    assert not any(map(is_alive, pids))


def suspended(pids: list[int]) -> Generator[None, None, None]:
    """Has a running command as a local variable, and ends it when it is closed."""
    with childproof.start("sleep 600") as child:
        pids.append(child.pid)
        yield


@pytest.mark.parametrize("generator", [False, True], ids=["handle", "generator"])
def test_let_go_of_in_a_cycle_of_garbage(generator: bool) -> None:
    """The finalizers of what is in it run in any order, first what is oldest; the command's own comes last."""
    childproof.run(["true"])
    gc.collect()  # what this command had, which the next gets, is older than all that follows
    gc.disable()
    try:
        pids: list[int] = []
        cycle: dict[str, Any] = {}
        if generator:
            cycle["generator"] = suspended(pids)
            next(cycle["generator"])
            cycle["generator"].gi_frame.f_locals["child"].cycle = cycle
        else:
            cycle["child"] = childproof.start("sleep 600")
            pids.append(cycle["child"].pid)
            cycle["child"].cycle = cycle
        del cycle
        with contextlib.nullcontext() if generator else pytest.warns(ResourceWarning, match="unclosed Child"):
            gc.collect()
        assert wait_until(lambda: not is_alive(pids[0]))
    finally:
        gc.enable()


def test_let_go_of_after_its_end() -> None:
    """That is no reason for a warning: nothing was left to do."""
    child = childproof.start("true")
    child.result()
    del child


def test_the_host_ends() -> None:
    """A host that ends by itself leaves none of them, with or without a deadline."""
    code = """
import childproof
a = childproof.start("sleep 600")
b = childproof.start("sleep 600", timeout=600)
print(a.pid, b.pid)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert not any(is_alive(int(pid)) for pid in done.stdout.split())


# ---- starts that fail ----


@pytest.mark.parametrize(
    ("command", "options", "code", "stage"),
    [
        (["/nonexistent/program"], {}, 127, "exec"),
        (["/etc"], {}, 126, "exec"),
        (["true"], {"cwd": "/nonexistent"}, 125, "chdir"),
        (["true"], {"timeout": 0}, 124, "run"),
        (["true"], {"stdin": "/nonexistent"}, 125, "open"),
    ],
)
def test_a_failed_start_raises(command: list[str], options: dict[str, Any], code: int, stage: str) -> None:
    """A SpawnError, with what `run` would have handed back; nothing is left."""
    with pytest.raises(SpawnError) as caught:
        childproof.start(command, **options)
    assert caught.value.stage == stage
    result = caught.value.result
    assert result is not None
    assert result.code == code
    assert result.error is caught.value


def test_a_wrong_call_starts_nothing() -> None:
    """As of `run`."""
    with pytest.raises(ValueError, match="empty"):
        childproof.start([])
    with pytest.raises(TypeError, match="nosuch"):
        childproof.start("true", nosuch=1)  # type: ignore[call-overload]


def test_check() -> None:
    """The result raises, the block does not."""
    with childproof.start("exit 3", check=True) as child:
        with pytest.raises(CommandError, match="exited with 3"):
            child.result()
        assert child.wait() == 3


# ---- the deadline ----


def test_the_deadline_of_a_command_that_is_left_alone() -> None:
    """Nobody waits; the tree dies, is reaped, and holds no descriptor any more."""
    with childproof.start("sleep 600 & setsid sleep 600 & echo $$ $!; wait", timeout=1) as child:
        pids = descendants_of_echo(child)
        assert wait_until(lambda: not any(map(is_alive, pids)))
        assert wait_until(lambda: child.finished is not None)
        result = child.result()
        assert (result.code, result.outcome) == (124, Outcome.TIMED_OUT)
        assert not result.survivors


def test_the_deadline_with_grace_of_a_command_that_is_left_alone() -> None:
    """SIGTERM first; what it writes then is there."""
    command = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.02; done"
    with childproof.start(command, timeout=1, grace=600) as child:
        assert wait_until(lambda: child.finished is not None)
        result = child.result()
        assert (result.code, result.out) == (124, "up\nbye")


def test_a_later_deadline_does_not_hide_a_nearer_one() -> None:
    """The thread that keeps them is woken for a nearer one, and forgets those that are over."""
    with childproof.start("sleep 600", timeout=600), childproof.start("sleep 600", timeout=0.3) as near:
        assert wait_until(lambda: near.finished is not None)
    for _ in range(50):
        with childproof.start("true", timeout=600):
            pass
    assert not watch._due
    assert not watch._open


def test_on_output_is_called_in_a_thread_of_the_callers() -> None:
    """What came when nobody waited, too: not in the thread that keeps the deadline."""
    threads = []

    def note(stream: str, data: bytes) -> None:
        threads.append((threading.current_thread(), stream, data))

    with childproof.start("echo hi; sleep 600", timeout=0.5, on_output=note) as child:
        assert wait_until(lambda: child.finished is not None)
        assert threads == []
        assert child.wait() == 124
    assert threads == [(threading.main_thread(), "stdout", b"hi\n")]


# ---- threads ----


def test_many_wait_for_one() -> None:
    """All get the same; those who have no time get nothing, in time."""
    with childproof.start("sleep 1; echo x") as child, ThreadPoolExecutor(16) as pool:
        patient = [pool.submit(child.result) for _ in range(8)]
        hasty = [pool.submit(child.wait, 0.05) for _ in range(8)]
        assert [future.result(60) for future in hasty] == [None] * 8
        results = [future.result(60) for future in patient]
    assert all(result is results[0] for result in results)
    assert results[0].out == "x"


def test_killed_by_another_thread() -> None:
    """Whoever waits sees the end."""
    with childproof.start("sleep 600") as child, ThreadPoolExecutor(1) as pool:
        future = pool.submit(child.result)
        time.sleep(0.1)
        assert not future.done()
        result = child.kill_tree()
        assert future.result(60) is result


def test_one_waits_and_many_signal() -> None:
    """While children end all the time: each of them has its code, and nobody else is struck."""

    def work(number: int) -> int:
        with childproof.start(f"exit {number}") as child:
            over = threading.Event()

            def strike() -> None:
                while not over.is_set():
                    child.signal(signal.SIGCONT)
                    child.poll()

            thread = threading.Thread(target=strike)
            thread.start()
            try:
                return child.result(60).code
            finally:
                over.set()
                thread.join()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(200))) == list(range(200))


def test_a_call_from_within_on_output() -> None:
    """It is refused, since it would wait for itself."""
    said: list[bool] = []

    def call(stream: str, data: bytes) -> None:
        for function in (child.wait, child.poll, child.result, child.kill_tree, child.close):
            with pytest.raises(RuntimeError, match="called while the same command calls"):
                function()
        said.append(child.signal(0))

    with childproof.start("echo hi; sleep 0.1", on_output=call) as child:
        assert child.result().ok
    assert said == [True]


# ---- exceptions ----


def test_an_exception_of_on_output() -> None:
    """It propagates to who waits, after the tree is dead; later callers are told."""

    def refuse(stream: str, data: bytes) -> None:
        raise ZeroDivisionError("no")

    with childproof.start("echo hi; sleep 600", on_output=refuse) as child:
        with pytest.raises(ZeroDivisionError):
            child.result()
        assert not is_alive(child.pid)
        for function in (child.result, child.wait, child.poll, child.kill_tree):
            with pytest.raises(RuntimeError, match="ZeroDivisionError"):
                function()
        assert not child.signal(signal.SIGTERM)


def test_an_interrupt_while_waiting() -> None:
    """It propagates; the command runs on, and can be waited for again."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with childproof.start("sleep 1; echo done") as child:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                child.wait()
            assert is_alive(child.pid)
            assert child.result().out == "done"
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a handle may be lost on its way to the caller
def test_an_interrupt_after_every_call() -> None:
    """Where Python looks for signals: as a function begins and when one has returned. Wherever it
    strikes nothing is left, and another thread can end the command.
    """
    step, pids, seen = -1, set(), 1

    def strike(frame: Any, event: str, arg: object) -> None:
        nonlocal seen
        if frame.f_code.co_filename.endswith("_handle/child.py") and event in ("call", "return", "c_return"):
            seen += 1
            if seen == step:
                raise KeyboardInterrupt

    while seen >= step:
        step, seen = step + 3, 0  # not every one: each costs a killing
        child = None
        sys.setprofile(strike)
        try:
            child = childproof.start(["sleep", "600"], timeout=600)
            child.wait(0.001)
            child.signal(signal.SIGCONT)
            child.kill_tree()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        if child is not None:
            thread = threading.Thread(target=child.close)
            thread.start()
            thread.join(60)
            assert not thread.is_alive(), f"step {step}"
            pids.add(child.pid)
    assert step > 50
    assert not any(map(is_alive, pids))


def test_a_forked_copy() -> None:
    """It is refused everything, leaves its block in peace, and the command runs on."""
    with childproof.start("sleep 0.5; exit 5") as child:
        pid = os.fork()
        if pid == 0:
            failed = 1
            try:
                with child:
                    for function in (child.poll, child.wait, child.result, child.kill_tree, child.make_lines):
                        with pytest.raises(RuntimeError, match="forked copy"):
                            function()
                failed = 0
            finally:
                os._exit(failed)
        assert os.waitpid(pid, 0)[1] == 0
        assert child.result().code == 5


def test_a_holder_is_drained_after_the_end() -> None:
    """What `run` does with those who hold the pipes is done here too."""
    with childproof.start(program("flood_then_hold", 1000, 600), linger=0) as child:
        result = child.result()
    assert len(result.out) == 1000
    (holder,) = result.held
    assert is_alive(holder.pid)
    stop(holder.pid)
