"""A host that closes descriptors which it does not know, the pidfd of a child among them: no child is taken for dead,
and its end is found all the same.
"""

from __future__ import annotations

import os
import time

import pytest

import childproof
from childproof import Outcome
from childproof._many.scheduler import Scheduler
from childproof._spawner import has_pidfd
from conftest import SLACK_SECONDS

pytestmark = pytest.mark.skipif(not has_pidfd(), reason="there are no pidfds")


def pidfds() -> list[int]:
    """Those that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if "pidfd" in os.readlink(f"/proc/self/fd/{name}"):
                found.append(int(name))
        except OSError:
            continue  # that of the listing itself
    return found


def test_a_single_command() -> None:
    """As it is read from, before its end."""
    before = set(pidfds())

    def close(stream: str, data: bytes) -> None:
        for fd in set(pidfds()) - before:
            os.close(fd)

    began = time.monotonic()
    result = childproof.run("echo x; sleep 1; exit 3", timeout=600, on_output=close)
    assert 0.9 < time.monotonic() - began < 1.5 + SLACK_SECONDS
    assert result[:2] == (3, "x")


@pytest.fixture(params=[8, 100], ids=["poll", "epoll"])
def jobs(request: pytest.FixtureRequest) -> int:
    """So many that `poll` serves, or `epoll`, which forgets what is closed."""
    return int(request.param)


def close_pidfd(scheduler: Scheduler, number_of: str | None) -> set[int]:
    """Close that of the one command, and open `number_of` in its place; what is open then."""
    (job,) = scheduler.jobs
    assert job.exchange is not None
    pidfd = job.exchange.child.pidfd
    os.close(pidfd)
    if number_of is None:
        return set()
    opened = os.open(number_of, os.O_RDWR)
    if opened != pidfd:
        os.dup2(opened, pidfd)
    return {opened, pidfd}


@pytest.mark.parametrize("number_of", [None, "/dev/null"])
def test_one_of_many(jobs: int, number_of: str | None) -> None:
    """The child is not taken for dead, its end is found all the same, without a busy loop, and who has the
    number now keeps it.
    """
    scheduler = Scheduler(iter(["echo x; sleep 1; exit 3"]), jobs, {"timeout": 60})
    scheduler.fill()
    while scheduler._spawning:
        scheduler.wait()
    theirs = close_pidfd(scheduler, number_of)
    waits = 0
    while not scheduler.finished:
        scheduler.wait()
        waits += 1
    result = scheduler.finished[0][1]
    assert result[:2] == (3, "x")
    assert 0.9 < result.duration < 1.5 + SLACK_SECONDS
    assert waits < 100
    scheduler.close()
    assert all(os.path.samestat(os.fstat(fd), os.stat("/dev/null")) for fd in theirs)
    for fd in theirs:
        os.close(fd)


def test_the_deadline(jobs: int) -> None:
    """The tree dies all the same."""
    scheduler = Scheduler(iter(["sleep 600 & sleep 600"]), jobs, {"timeout": 1})
    scheduler.fill()
    while scheduler._spawning:
        scheduler.wait()
    close_pidfd(scheduler, None)
    while not scheduler.finished:
        scheduler.wait()
    result = scheduler.finished[0][1]
    assert result.outcome is Outcome.TIMED_OUT
    assert len(result.killed) == 3
    assert not result.survivors
    scheduler.close()
