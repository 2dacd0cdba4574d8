"""The invariants that hold around every test, and what many tests need."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from childproof import _procfs
from childproof._janitor import janitor
from runners import runner, runner_every_way  # noqa: F401  # fixtures

CHILDREN = Path(__file__).with_name("children.py")

SLACK_SECONDS = 5.0
"""Added to every bound of the contract, since the machines that test are slow and shared."""


def descriptors() -> dict[int, str]:
    """Our descriptors and what they are, but for those of the background thread."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own
    for fd in janitor.descriptors():
        found.pop(fd, None)
    return found


def children() -> set[int]:
    """Our children, zombies too."""
    return {process.pid for process in _procfs.table().values() if process.ppid == os.getpid()}


LIBC_SIGNALS = 1 << 31 | 1 << 32
"""32 and 33, which glibc takes for itself when the first thread starts."""


def dispositions() -> dict[str, int]:
    """What this process blocks, ignores and handles, as the kernel sees it."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    wanted = ("SigBlk:", "SigIgn:", "SigCgt:")
    return {line[0]: int(line[1], 16) & ~LIBC_SIGNALS for line in lines if line[0] in wanted}


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    """Whether `condition` became true within `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def is_alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not."""
    process = _procfs.read_process(pid)
    return process is not None and process.alive


def stop(pid: int) -> None:
    """End a process that the test has left running on purpose."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    assert wait_until(lambda: not is_alive(pid)), f"pid {pid} can't be stopped"


def program(name: str, *args: object) -> list[str]:
    """The command that runs one of children.py's programs."""
    return [sys.executable, "-S", "-E", str(CHILDREN), name, *map(str, args)]


def _marked(token: bytes) -> dict[int, str]:
    return {
        pid: _procfs.command_line(pid) or "?"
        for pid in _procfs.pids()
        if pid != os.getpid() and is_alive(pid) and _procfs.has_mark(pid, token)
    }


@pytest.fixture(autouse=True)
def invariants(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is left: no descriptor, child, thread or process, and the signals are as they were."""
    token = os.urandom(8).hex()
    monkeypatch.setenv("CHILDPROOF_RUN", token)  # as if an outer run had marked us
    before = descriptors(), children(), set(threading.enumerate()), dispositions()
    yield
    assert wait_until(lambda: not janitor.busy()), "the background thread still has something to do"
    wait_until(lambda: descriptors() == before[0] and children() == before[1], 2.0)
    left = _marked(token.encode())
    for pid in left:
        stop(pid)
    assert not left, f"processes left behind: {left}"
    assert descriptors() == before[0]
    assert children() == before[1]
    threads = {thread for thread in threading.enumerate() if thread.name != "childproof"}
    assert threads == {thread for thread in before[2] if thread.name != "childproof"}
    assert dispositions() == before[3]
