"""A plugin for pytest: a test that leaves something behind has an error.

It does nothing unless it is asked for::

    # pyproject.toml
    [tool.pytest.ini_options]
    addopts = "-p childproof.pytest_plugin"

or on the command line ``pytest -p childproof.pytest_plugin``. Then around each test, its fixtures
included, what this process has is compared:

=============== ==============================================================================
``descriptors`` what is open, and what each is; of epolls, eventfds and the like how many
``children``    the children of this process, zombies among them
``processes``   those that descend from the test and run on, though they lost their parent
``threads``     Python's threads
``signals``     which signals are blocked, ignored and handled
=============== ==============================================================================

The first three are the default; the ini option ``childproof_check`` names others. What ends within
``childproof_patience`` seconds (default 2) is no fault. A test may leave what its mark
``@pytest.mark.may_leave("children", ...)`` names; without arguments, anything.

Processes are found by the environment variable ``CHILDPROOF_RUN``, which each test gets with a value of
its own, and by ancestry. They are killed after the test, so that the next is not hurt. What a fixture of a
wider scope has before the test is not counted, nor are the helpers of `multiprocessing`, which live as long as
the process. Of a test that has failed descriptors and threads are not compared: its traceback may
keep them. Processes that have changed their environment and lost their parent are not found; without /proc
(proc(5)) no process is, only that a child is left.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from childproof._command import MARK
from childproof._janitor import janitor
from childproof._processes import procfs

KINDS = ("descriptors", "children", "processes", "threads", "signals")
DEFAULT_KINDS = ["descriptors", "children", "processes"]
PATIENCE_SECONDS = 2.0

MOST_DESCRIPTORS = 2048
"""How many numbers are tried where no directory lists them."""

LIBC_SIGNALS = 1 << 31 | 1 << 32
"""32 and 33, which glibc takes for itself when the first thread starts."""

_failed = pytest.StashKey[bool]()


# ---- what there is ----


def _open_numbers() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(folder)]
        except OSError:
            continue
    return list(range(min(os.sysconf("SC_OPEN_MAX"), MOST_DESCRIPTORS)))


def _what(fd: int) -> str | None:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        pass
    try:
        status = os.fstat(fd)
    except OSError:
        return None  # it is closed: the one that listed the directory was
    return f"mode {status.st_mode:o}, inode {status.st_ino} of device {status.st_dev}"


def descriptors() -> dict[int, str]:
    """Our descriptors and what they are, but for those of childproof's background thread and of the helpers
    of `multiprocessing`.
    """
    found = {fd: what for fd in _open_numbers() if (what := _what(fd)) is not None}
    for fd in (*janitor.descriptors(), *_helpers("_fd"), *_helpers("_forkserver_alive_fd")):
        found.pop(fd, None)
    return found


def _helpers(attribute: str) -> set[int]:
    """Of the resource tracker and the fork server, if there are any."""
    found = set()
    for module, name in (("resource_tracker", "_resource_tracker"), ("forkserver", "_forkserver")):
        helper: Any = getattr(sys.modules.get(f"multiprocessing.{module}"), name, None)
        value = getattr(helper, attribute, None)
        if isinstance(value, int):
            found.add(value)
    return found


def _helper_pids() -> set[int]:
    return _helpers("_pid") | _helpers("_forkserver_pid")


def children() -> set[int]:
    """Our children, zombies too; where /proc does not show them, -1 for any number of them."""
    table = procfs.table()
    if table:
        return {process.pid for process in table.values() if process.ppid == os.getpid()} - _helper_pids()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()
    return {-1}


def dispositions() -> dict[str, int]:
    """What this process blocks, ignores and handles, as the kernel sees it, or else as Python does."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return {f"signal {number:d}": hash(signal.getsignal(number)) for number in signal.valid_signals()}
    lines = [line.split() for line in status.splitlines()]
    wanted = ("SigBlk:", "SigIgn:", "SigCgt:")
    return {line[0]: int(line[1], 16) & ~LIBC_SIGNALS for line in lines if line[0] in wanted}


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name != "childproof"}


def _is_alive(pid: int) -> bool:
    process = procfs.read_process(pid)
    return process is not None and process.alive


def _descendants() -> dict[int, tuple[int, int]]:
    """By pid what names each process that descends from this one, and its parent's pid."""
    table = procfs.table()
    found: dict[int, tuple[int, int]] = {}
    parents, helpers = {os.getpid()}, _helper_pids()
    while parents:
        new = [p for p in table.values() if p.ppid in parents and p.pid not in found and p.pid not in helpers]
        found.update((process.pid, process.key) for process in new)
        parents = {process.pid for process in new}
    return found


def _marked(token: bytes) -> set[int]:
    spared = {os.getpid()} | _helper_pids()
    return {pid for pid in procfs.pids() if pid not in spared and procfs.has_mark(pid, token)}


# ---- the comparison ----


def _pair_off(new: dict[int, str], gone: dict[int, str]) -> None:
    """Take out of both what has nothing but its kind, as epolls and eventfds, and has only changed its number: a
    library may open its event loop anew after a fork.
    """
    for fd, what in list(gone.items()):
        same = [other for other, that in new.items() if that == what]
        if what.startswith("anon_inode:") and same:
            del new[same[0]], gone[fd]


class _Marked:
    """The environment variable by which the test's processes are found, while a with block lasts."""

    def __init__(self) -> None:
        self.token = os.urandom(8).hex()

    def __enter__(self) -> _Marked:
        name = MARK.decode()
        self._before = os.environ.get(name)
        os.environ[name] = self.token if self._before is None else f"{self._before}:{self.token}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            os.environ.pop(MARK.decode(), None)
        else:
            os.environ[MARK.decode()] = self._before


class Snapshot:
    """What there was before a test; `left` tells what there is now that was not, or is no more."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._descriptors = descriptors()
        self._children = children()
        self._descendants = set(_descendants().values())
        self._threads = _threads()
        self._signals = dispositions()

    def left(self, kinds: set[str]) -> list[str]:
        """A sentence for each kind of `kinds` that is not as it was."""
        return [sentence for kind in KINDS if kind in kinds and (sentence := getattr(self, f"_{kind}_left")())]

    def _descriptors_left(self) -> str:
        now, before = descriptors(), self._descriptors
        new = {fd: what for fd, what in sorted(now.items()) if before.get(fd) != what}
        gone = {fd: what for fd, what in sorted(before.items()) if now.get(fd) != what}
        _pair_off(new, gone)
        more = [f"{fd} ({what})" for fd, what in new.items()]
        fewer = [f"{fd} ({what})" for fd, what in gone.items() if fd not in now]
        return "; ".join(
            f"{what}: {', '.join(fds)}"
            for what, fds in (("descriptors that were not open before", more), ("that are open no more", fewer))
            if fds
        )

    def _children_left(self) -> str:
        found = [self._show(pid) for pid in sorted(children() - self._children)]
        return f"children that are not reaped: {', '.join(found)}" if found else ""

    def _show(self, pid: int) -> str:
        process = procfs.read_process(pid)
        if process is None:
            return "some child"
        if not process.alive:
            return f"pid {pid} [{process.name}], a zombie"
        return f"pid {pid} ({procfs.command_line(pid) or process.name})"

    def _processes_left(self) -> str:
        found = [self._show(pid) for pid in sorted(self._processes() - children())]
        return f"processes that run on: {', '.join(found)}" if found else ""

    def _processes(self) -> set[int]:
        """Who came with the test and runs."""
        ours = {pid for pid, key in _descendants().items() if key not in self._descendants}
        return {pid for pid in ours | _marked(self._token) if _is_alive(pid)}

    def _threads_left(self) -> str:
        found = [thread.name for thread in _threads() - self._threads]
        return f"threads that run on: {', '.join(sorted(found))}" if found else ""

    def _signals_left(self) -> str:
        changed = [
            f"{name} {before:x} is now {now:x}"
            for (name, before), now in zip(self._signals.items(), dispositions().values(), strict=False)
            if before != now
        ]
        return f"signals are not as they were: {', '.join(changed)}" if changed else ""

    def stop(self) -> None:
        """Kill the processes of the test that run on."""
        found = [process for pid in self._processes() if (process := procfs.read_process(pid)) is not None]
        for process in found:
            _kill(process)
        _wait_until(lambda: not self._processes(), PATIENCE_SECONDS)


def _kill(process: procfs.Process) -> None:
    """Through a pidfd, and with a second look, so that nobody who was given the number meanwhile is hit."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except (OSError, AttributeError):  # it has ended; or the kernel, or Python, has no pidfds
        return
    try:
        now = procfs.read_process(process.pid)
        if now is not None and now.key == process.key:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        pass  # it has ended, or is another user's
    finally:
        os.close(pidfd)


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)
    return True


# ---- pytest ----


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini options."""
    parser.addini("childproof_check", f"what a test must not leave: {', '.join(KINDS)}", "args", DEFAULT_KINDS)
    parser.addini("childproof_patience", "seconds that what a test leaves has to end by itself", default="2")


def pytest_configure(config: pytest.Config) -> None:
    """The marker; and the options are checked once, not for each test.

    Raises:
        pytest.UsageError: one of them is wrong.

    """
    config.addinivalue_line("markers", "may_leave(kind, ...): what the test may leave behind; all without arguments")
    _check_kinds(config.getini("childproof_check"), "childproof_check")
    try:
        config.stash[_patience] = float(config.getini("childproof_patience"))
    except ValueError:
        raise pytest.UsageError("childproof_patience must be a number of seconds") from None


_patience = pytest.StashKey[float]()


def _check_kinds(kinds: Any, where: str) -> set[str]:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise pytest.UsageError(f"{where} has {unknown[0]!r}; there are {', '.join(KINDS)}")
    return set(kinds)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note that the test has failed."""
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


def _kinds_of(item: pytest.Item) -> set[str]:
    kinds = set(item.config.getini("childproof_check"))
    for mark in item.iter_markers("may_leave"):
        kinds -= _check_kinds(mark.args, "may_leave") or set(KINDS)
    return kinds


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Around each test: see the module."""
    kinds = _kinds_of(request.node)
    if not kinds:
        yield
        return
    with _Marked() as marked:
        before = Snapshot(marked.token)
        yield
        if request.node.stash.get(_failed, False):
            kinds -= {"descriptors", "threads"}
        left: list[str] = []

        def is_clean() -> bool:
            left[:] = before.left(kinds)
            if janitor.busy():
                left.append("childproof still drains a command's pipes, or waits for a child that can't be killed")
            return not left

        if not _wait_until(is_clean, request.config.stash[_patience]):
            before.stop()
    if left:
        pytest.fail("the test has left behind: " + "; ".join(left), pytrace=False)
