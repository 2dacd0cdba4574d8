"""A host that closes a pidfd which is not its own: it is not taken for the child's end, nor spun on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

import childproof
from childproof import aio
from childproof import subprocess as dropin
from childproof._processes import procfs
from childproof._spawner import has_pidfd

pytestmark = [
    pytest.mark.skipif(
        not has_pidfd(), reason="no pidfds: the kernel has none, they are switched off, or it is POSIX only"
    ),
    pytest.mark.needs_proc,
]

SCRIPT = "echo a; sleep 1; echo b; exit 3"


def pidfds() -> list[int]:
    """Ours."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if "pidfd" in os.readlink(f"/proc/self/fd/{name}"):
                found.append(int(name))
        except FileNotFoundError:
            pass  # that of the listing
    return found


class Host:
    """Closes every pidfd that there is, once; `idle`: and uses their numbers for a pipe where nothing happens."""

    def __init__(self, idle: bool) -> None:
        self._idle = idle
        self._done = False
        self._fds: list[int] = []

    def __call__(self, *_: object) -> None:
        """For ``on_output`` too."""
        if self._done:
            return
        self._done = True
        found = pidfds()
        assert found
        if self._idle:
            self._fds = [*os.pipe(), *found]
        for fd in found:
            if self._idle:
                os.dup2(self._fds[0], fd)
            else:
                os.close(fd)

    def __enter__(self) -> Host:
        self._began = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)  # raises if somebody else has
        assert time.process_time() - self._began < 0.7, "it has spun"


@pytest.fixture(params=[False, True], ids=["closed", "used-again"])
def host(request: pytest.FixtureRequest) -> Host:
    """See `Host`."""
    return Host(request.param)


def run(host: Host) -> Any:
    """While it runs, in the caller's thread."""
    return childproof.run(SCRIPT, timeout=60, on_output=host)


def start(host: Host) -> Any:
    """Between the start and the wait."""
    with childproof.start(SCRIPT, timeout=60) as child:
        host()
        return child.result()


def pipeline(host: Host) -> Any:
    """Of all stages."""
    return childproof.pipeline("sleep 2", SCRIPT, timeout=60, on_output=host)


def in_event_loop(host: Host) -> Any:
    """Where an epoll says nothing of what was closed."""

    async def main() -> Any:
        async with await aio.start(SCRIPT, timeout=60) as child:
            host()
            return await child.result()

    return asyncio.run(main())


@pytest.mark.parametrize("way", [run, start, pipeline, in_event_loop])
def test_it_is_not_the_end(way: Callable[[Host], Any], host: Host) -> None:
    """All that the child writes is read, and its own status is given."""
    with host:
        assert tuple(way(host)) == (3, "a\nb", "")


def test_it_is_killed_by_its_number() -> None:
    """A deadline, and a signal, reach the child all the same: as long as it is not reaped the number is its own."""
    with childproof.start(["sleep", "600"]) as child:
        os.close(child.pidfd)
        assert child.signal(15)
        assert child.wait(60) == -15
    result = childproof.run("echo; sleep 600", timeout=0.5, on_output=Host(idle=False))
    assert result.outcome is childproof.Outcome.TIMED_OUT
    assert not result.survivors
    assert procfs.read_process(result.pid) is None


@pytest.mark.parametrize("communicate", [False, True], ids=["wait", "communicate"])
def test_the_drop_in(communicate: bool) -> None:
    """`Popen` likewise."""
    host = Host(idle=False)
    with host, dropin.Popen(SCRIPT, shell=True, stdout=dropin.PIPE, text=True) as process:
        host()
        if communicate:
            assert process.communicate()[0] == "a\nb\n"
        assert process.wait() == 3
