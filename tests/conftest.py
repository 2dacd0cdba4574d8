"""The invariants that hold around every test, and what many tests need."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from childproof._processes import procfs
from childproof.pytest_plugin import children as children
from childproof.pytest_plugin import descriptors as descriptors
from runners import runner, runner_every_way  # noqa: F401  # fixtures

# A shell starts a job in the background so, and nohup does: then commands that are to die of these would not.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

CHILDREN = Path(__file__).with_name("children.py")

SLACK_SECONDS = 5.0
"""Added to every bound of the contract, since the machines that test are slow and shared."""


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
    if not procfs.pids():  # /proc is hidden
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            return not select.select([pidfd], [], [], 0)[0]
        finally:
            os.close(pidfd)
    process = procfs.read_process(pid)
    return process is not None and process.alive


def stop(pid: int) -> None:
    """End a process that the test has left running on purpose."""
    assert pid > 1, f"{pid} stands for many processes (kill(2))"
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    assert wait_until(lambda: not is_alive(pid)), f"pid {pid} can't be stopped"


def program(name: str, *args: object) -> list[str]:
    """The command that runs one of children.py's programs."""
    return [sys.executable, "-S", "-E", str(CHILDREN), name, *map(str, args)]
