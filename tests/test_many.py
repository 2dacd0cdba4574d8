"""`run_many`: every command gets its Result, and nothing is left however it ends."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import CommandError, Outcome, Progress, run_many
from childproof._many import budget
from childproof._many import run_many as many
from childproof._many.budget import Budget
from childproof._many.router import Router
from childproof._many.scheduler import STALE_TIMES, Scheduler
from conftest import SLACK_SECONDS, is_alive, stop, wait_until

JOBS = {"poll": 8, "epoll": 100}


@pytest.fixture(params=list(JOBS.values()), ids=list(JOBS))
def jobs(request: pytest.FixtureRequest) -> int:
    """So many that `poll` serves, or `epoll`."""
    return int(request.param)


@pytest.fixture
def low_limit() -> Iterator[int]:
    """The soft limit of descriptors is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/proc/self/fd")))
    limit = next(n for n in range(1000) if n - len([fd for fd in taken if fd < n]) == 45)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- what it gives ----


def test_each_command_has_one_result(jobs: int) -> None:
    """With its own code and output, and the position by which it is known."""
    results = {
        result.position: result for result in run_many([f"echo {i}; exit {i % 5}" for i in range(60)], jobs=jobs)
    }
    assert [tuple(results[i]) for i in range(60)] == [(i % 5, str(i), "") for i in range(60)]
    assert results[7].cmd == "echo 7; exit 2"


def test_a_single_run_has_no_position() -> None:
    """Only those among many have one, and it is pickled with the rest."""
    import pickle

    assert childproof.run(["true"]).position is None
    (result,) = run_many([["true"]])
    assert pickle.loads(pickle.dumps(result)).position == 0


def test_as_they_end_or_as_they_were_given() -> None:
    """Order."""
    cmds = ["sleep 0.6", "sleep 0.3", "true"]
    assert [r.position for r in run_many(cmds, jobs=3)] == [2, 1, 0]
    assert [r.position for r in run_many(cmds, jobs=3, order="given")] == [0, 1, 2]


def test_a_generator_is_asked_when_there_is_room(jobs: int) -> None:
    """Never for more than run at once beyond what was handed out."""
    asked = 0

    def cmds() -> Iterator[list[str]]:
        nonlocal asked
        for _ in range(3 * jobs):
            asked += 1
            yield ["true"]

    for done, _ in enumerate(run_many(cmds(), jobs=jobs), 1):
        assert asked <= done + 2 * jobs  # those that run, and those that have ended in the same moment
    assert asked == 3 * jobs


def test_no_more_than_jobs_run_at_once(tmp_path: Path) -> None:
    """Counted by the commands themselves."""
    cmd = f"touch {tmp_path}/$$; ls {tmp_path} | wc -l; sleep 0.02; rm {tmp_path}/$$"
    assert max(int(result.out) for result in run_many([cmd] * 20, jobs=3)) <= 3


def test_a_mapping_has_its_own_options() -> None:
    """They come before the common ones."""
    cmds: list[Any] = [
        {"cmd": ["cat"], "input": "own"},
        {"cmd": "echo x; sleep 600", "timeout": 0.3},
        ["cat"],
        {"cmd": ["pwd"], "cwd": "/"},
    ]
    results = list(run_many(cmds, jobs=4, order="given", input=b"common", timeout=60))
    assert [(r.code, r.out) for r in results] == [(0, "own"), (124, "x"), (0, "common"), (0, "/")]


def test_order_does_not_cost_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first command runs on, only so many others are started."""
    monkeypatch.setattr(many, "MOST_WAITING", 10)
    asked = 0

    def cmds() -> Iterator[Any]:
        nonlocal asked
        yield "sleep 1"
        for _ in range(500):
            asked += 1
            yield ["true"]

    results = run_many(cmds(), jobs=4, order="given")
    assert next(results).position == 0
    assert asked <= 10 + 2 * 4
    assert [r.position for r in results] == list(range(1, 501))


def test_progress() -> None:
    """It is told of each end."""
    seen: list[Progress] = []
    list(run_many(["true", "exit 1", "true"], jobs=1, progress=seen.append))
    assert [(p.total, p.done, p.failed) for p in seen] == [(3, 1, 0), (3, 2, 1), (3, 3, 1)]
    list(run_many(iter(["true"]), progress=seen.append))
    assert seen[-1].total is None


def test_one_of_each_kind(jobs: int) -> None:
    """What can happen to a command happens to it alone."""
    cmds: dict[str, Any] = {
        "exit": "exit 7",
        "signal": "kill -9 $$",
        "missing": ["/nonexistent"],
        "not executable": ["/etc/passwd"],
        "hangs": "sleep 600",
        "held": "sleep 600 & echo $!",
        "floods": {"cmd": "yes", "max_output": 100},
        "never": {"cmd": ["true"], "timeout": 0},
        "killed leftovers": {"cmd": "sleep 600 & echo $!", "leftovers": "kill"},
    }
    results = dict(zip(cmds, run_many(cmds.values(), jobs=jobs, order="given", timeout=2), strict=True))
    codes = {name: result.code for name, result in results.items()}
    (holder,) = results["held"].held
    stop(holder.pid)
    assert codes == {
        "exit": 7,
        "signal": -9,
        "missing": 127,
        "not executable": 126,
        "hangs": 124,
        "held": 0,
        "floods": 124,
        "never": 124,
        "killed leftovers": 0,
    }
    assert results["floods"].truncated
    assert not is_alive(int(results["killed leftovers"].out))


def test_many_deadlines_at_once(jobs: int) -> None:
    """All trees die, each with its own Result, and /proc is not read anew for each."""
    began = time.monotonic()
    results = list(run_many(["echo $$; setsid sleep 600 & sleep 600"] * 40, jobs=jobs, timeout=2))
    assert time.monotonic() - began < 100 + SLACK_SECONDS
    assert all(r.outcome is Outcome.TIMED_OUT and len(r.killed) == 3 and not r.survivors for r in results)
    assert all(r.out == str(r.pid) for r in results)


# ---- wrong calls ----


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"jobs": 0}, ValueError, "jobs"),
        ({"jobs": 1.5}, TypeError, "jobs"),
        ({"jobs": True}, TypeError, "jobs"),
        ({"order": "any"}, ValueError, "order"),
        ({"progress": 1}, TypeError, "progress"),
        ({"linger": -1}, ValueError, "linger"),
        ({"nonsense": 1}, TypeError, "nonsense"),
        ({"batch": 2}, ValueError, "batch"),
        ({"executor": 1}, TypeError, "executor"),
        ({"timeout": -3}, ValueError, "timeout"),
    ],
)
def test_a_wrong_parameter_raises_at_once(wrong: dict[str, Any], error: type[Exception], text: str) -> None:
    """Not when the first Result is asked for."""
    with pytest.raises(error, match=text):
        run_many([["true"]], **wrong)


@pytest.mark.parametrize("cmds", ["true", b"true", {"cmd": "true"}])
def test_one_command_is_not_many(cmds: Any) -> None:
    """A str would be one command a letter."""
    with pytest.raises(TypeError, match="iterable"):
        run_many(cmds)


@pytest.mark.parametrize(("element", "error"), [([], ValueError), (5, TypeError), ({"timeout": 1}, TypeError)])
def test_a_wrong_element_ends_it(element: Any, error: type[Exception], jobs: int) -> None:
    """It says which one, and what runs is dead when it is raised."""
    with pytest.raises(error, match=r"cmds\[2\]"):
        list(run_many(["sleep 600", "sleep 600", element], jobs=jobs))


# ---- ending early ----


def test_closing_kills_what_runs(jobs: int, tmp_path: Path) -> None:
    """Whole trees, and those that have escaped from them."""
    cmd = f"echo $$ >> {tmp_path}/pids; setsid sleep 600 & sleep 600"
    results = run_many(["true"] + [cmd] * 7, jobs=jobs)
    next(results)
    assert wait_until(lambda: (tmp_path / "pids").exists())
    results.close()
    assert not any(is_alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())
    assert list(results) == []


def test_the_garbage_collector_closes_it() -> None:
    """Even where it is part of a cycle."""
    holder: dict[str, Any] = {"results": run_many(["true", "sleep 600", "sleep 600"], jobs=3)}
    holder["self"] = holder
    next(holder["results"])
    del holder
    gc.collect()  # the fixture looks for what is left


def test_an_exception_of_the_callers_closes_it(jobs: int) -> None:
    """From the generator of commands, from on_output and from progress."""

    def cmds() -> Iterator[str]:
        yield "sleep 600"
        yield "sleep 600"
        raise KeyError("mine")

    def fail(*_: object) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(run_many(cmds(), jobs=jobs))
    with pytest.raises(KeyError, match="mine"):
        list(run_many(["sleep 600", "echo x"], jobs=jobs, on_output=fail))
    with pytest.raises(KeyError, match="mine"):
        list(run_many(["sleep 600", "echo x"], jobs=jobs, progress=fail))


def test_fail_fast() -> None:
    """The failure is the last Result; what ran is killed, and no more is started."""
    asked = []

    def cmds() -> Iterator[str]:
        for cmd in ("true", "sleep 600", "sleep 0.5; exit 3", "sleep 600", "true"):
            asked.append(cmd)
            yield cmd

    results = list(run_many(cmds(), jobs=3, fail_fast=True))
    assert [(r.position, r.code) for r in results] == [(0, 0), (2, 3)]
    assert len(asked) == 4
    results = list(run_many(cmds(), jobs=3, fail_fast=True, order="given"))
    assert [(r.position, r.code) for r in results] == [(0, 0), (2, 3)]


def test_check_raises_when_its_turn_has_come() -> None:
    """What ran is killed."""
    results = run_many(["true", "exit 3", "sleep 600"], jobs=3, order="given", check=True)
    assert next(results).ok
    with pytest.raises(CommandError, match="exited with 3"):
        next(results)


# ---- descriptors ----


def test_jobs_are_throttled_by_the_soft_limit(low_limit: int, caplog: pytest.LogCaptureFixture) -> None:
    """None of them fails, and one line of the log says why fewer run."""
    assert all(result.ok for result in run_many(["sleep 0.1; cat"] * 60, jobs=60, input="x"))
    lines = [record.message for record in caplog.records if "fewer commands" in record.message]
    assert len(lines) == 1
    assert "soft limit" in lines[0]


def test_the_host_keeps_a_share_of_the_descriptors() -> None:
    """While jobs are throttled it can open a sixteenth of the soft limit itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 320 + len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    results = run_many(["sleep 1"] + [["sleep", "600"]] * 200, jobs=201)
    opened: list[int] = []
    try:
        next(results)
        with contextlib.suppress(OSError):
            while len(opened) < limit // 16:
                opened.append(os.open("/dev/null", os.O_RDONLY))
        assert len(opened) == limit // 16
    finally:
        for fd in opened:
            os.close(fd)
        results.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_start_that_lacks_descriptors_is_put_off(
    low_limit: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others have taken more than was reckoned with, a command waits until one has ended."""
    monkeypatch.setattr(Budget, "_count", lambda self, running: setattr(self, "_free", 10_000))
    monkeypatch.setattr(budget, "COUNT_SECONDS", 0.05)
    results = list(run_many([f"sleep 0.1; echo {i}" for i in range(50)], jobs=50))
    assert sorted(int(result.out) for result in results) == list(range(50))
    assert any("fewer commands" in record.message for record in caplog.records)
    assert not any("cannot start" in record.message for record in caplog.records)


def test_a_lone_start_that_lacks_descriptors_fails(low_limit: int) -> None:
    """Nobody would ever give back what it wants."""
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(2))
    try:
        (result,) = run_many([["true"]])
    finally:
        for fd in taken:
            os.close(fd)
    assert (result.code, result.outcome) == (125, Outcome.NOT_STARTED)


def test_its_own_limit_of_descriptors_is_no_shortage() -> None:
    """A command that lacks what its own limits forbid is not put off."""
    results = list(run_many([["sleep", "0.2"], {"cmd": ["true"], "limits": {"nofile": 1}}], jobs=2))
    assert [r.position for r in results] == [1, 0]


def test_several_commands_read_one_pipe(jobs: int) -> None:
    """Each byte is read once, and the end is everybody's."""
    read, write = os.pipe()
    with os.fdopen(read, "rb", 0) as source:
        os.write(write, b"x" * 1000)
        os.close(write)
        results = list(run_many([{"cmd": ["cat"], "input": source}] * 3, jobs=jobs, timeout=30))
    assert sum(len(result.out) for result in results) == 1000
    assert all(result.ok for result in results)


def test_an_input_that_is_always_ready(jobs: int) -> None:
    """epoll_ctl(2) refuses what poll(2) calls ready."""
    with open("/dev/zero", "rb", buffering=0) as source:
        (result,) = run_many([{"cmd": "head -c 1000000 | wc -c", "input": source}], jobs=jobs, timeout=30)
    assert result.out == "1000000"


class _Deaf:
    def ready(self, fd: int) -> None:
        raise AssertionError(fd)


def test_a_closed_descriptor_that_a_copy_keeps_in_the_epoll() -> None:
    """Its events are nobody's, and must not keep the loop busy for ever."""
    router, owner = Router(1000), _Deaf()
    read, write = os.pipe()
    copy = os.dup(read)
    router.register(read, select.POLLIN, owner)
    os.close(read)
    router.unregister(read, owner)
    os.write(write, b"x")
    assert router.poll(0) == [(read, select.POLLIN)]
    router.wait(0)
    assert router.poll(0) == []
    router.close()
    os.close(write)
    os.close(copy)


def test_nothing_stays_registered(jobs: int) -> None:
    """A pipe that is handed over to the background is closed there, and its number may become that of another
    command's pidfd, which would be taken for dead.
    """
    scheduler = Scheduler(iter(["sleep 600 & echo $!", "sleep 600"]), jobs, {"linger": 0.05, "timeout": 1})
    scheduler.fill()
    while not scheduler.idle:
        scheduler.wait()
        scheduler.fill()
    assert scheduler.router.masks() == {}
    for holder in scheduler.finished[0][1].held:
        stop(holder.pid)
    scheduler.close()


def test_an_event_of_a_pidfd_that_is_none(jobs: int) -> None:
    """A child that lives is not taken for dead, whatever the poller says."""
    scheduler = Scheduler(iter([{"cmd": ["cat"], "input": "x" * 300_000}]), jobs, {})
    scheduler.fill()
    (job,) = scheduler.jobs
    assert job.exchange is not None
    while not scheduler.finished:
        if job.exchange is not None and job.exchange.child.ended() == 0:
            job.ready(job.exchange.child.pidfd)
        scheduler.wait()
    assert len(scheduler.finished[0][1].out) == 300_000
    scheduler.close()


def test_deadlines_far_away_are_not_kept(jobs: int) -> None:
    """Of commands that are over: what they were given would stay in memory until then."""
    scheduler = Scheduler(iter(["sleep 0.05"] * 300), jobs, {"timeout": 3600})
    while not scheduler.idle:
        scheduler.fill()
        scheduler.wait()
        assert len(scheduler._heap) <= 2 * jobs + STALE_TIMES
    scheduler.close()


def test_a_forked_copy_has_no_part_in_it(jobs: int) -> None:
    """It closes its copy of the epoll, and the parent's commands live on."""
    results = run_many(["true", "sleep 1; echo alive"], jobs=jobs)
    next(results)
    pid = os.fork()
    if pid == 0:
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit() and _open(fd)]
        try:
            next(results)
        except RuntimeError:
            os._exit(any("eventpoll" in link for link in links))
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [result.out for result in results] == ["alive"]


def _open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_holes_of_the_host_stay_holes() -> None:
    """The epoll does not become descriptor 0."""
    code = (
        "import os\nfrom childproof import run_many\nos.close(0)\nresults = run_many(['true', 'true'], jobs=100)\n"
        "next(results)\nassert not os.path.exists('/proc/self/fd/0')\nprint(len(list(results)))"
    )
    assert childproof.run([sys.executable, "-c", code])[:2] == (0, "1")


def test_memory_of_a_child() -> None:
    """At most 32 KiB of Python's memory each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    results = run_many([["true"]] + [["sleep", "600"]] * 200, jobs=201)
    tracemalloc.start()
    try:
        next(results)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        results.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert used < 200 * 32 * 1024
