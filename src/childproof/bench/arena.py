"""Where a contender is watched without being trusted: ``python -m childproof.bench.arena``.

This process is the subreaper (prctl(2)) of all below it: whatever a contender starts, and however
that tries to get away, it stays a descendant of this process. So what is left is found by walking
down from here, and ended by pid while nobody else can have reaped it.

One request as a line of JSON on stdin, one answer on stdout.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from time import monotonic, sleep
from typing import Any

from childproof._processes import procfs
from childproof.bench.cases import STUCK, Cell
from childproof.bench.model import MissingError

PR_SET_CHILD_SUBREAPER = 36
FAN_CLASS_CONTENT, FAN_CLOEXEC = 4, 1
FAN_MARK_ADD, FAN_OPEN_EXEC_PERM = 1, 0x40000
AT_FDCWD = -100

START_SECONDS = 30.0
"""For the imports of a contender and its first, harmless run."""

SETTLE_SECONDS = 0.5
"""A process that was signalled may need a moment to die."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Adopt every orphan below this process.

    Raises:
        OSError: the kernel can't (before Linux 3.4).

    """
    if _libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def hold_exec(path: str) -> int:
    """From now on an exec of this file waits for our answer, which never comes, until the returned
    descriptor is closed: fanotify(7), FAN_OPEN_EXEC_PERM, Linux 5.0.

    Raises:
        MissingError: it takes root and a kernel built with it.

    """
    libc = _libc()
    libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
    fd: int = libc.fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, os.O_RDONLY)
    if fd < 0:
        raise MissingError(f"fanotify_init: {os.strerror(ctypes.get_errno())}")
    if libc.fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN_EXEC_PERM, AT_FDCWD, os.fsencode(path)):
        number = ctypes.get_errno()
        os.close(fd)
        raise MissingError(f"fanotify_mark: {os.strerror(number)}")
    return fd


def descendants() -> dict[int, procfs.Process]:
    """All below this process, zombies too."""
    table = procfs.table()
    found: dict[int, procfs.Process] = {}
    parents = {os.getpid()}
    while parents:
        below = {pid: process for pid, process in table.items() if process.ppid in parents and pid not in found}
        found.update(below)
        parents = set(below)
    return found


def _reap() -> None:
    """Everything that was given to us and has ended; the subject too, which nobody asks for its code."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_all(spared: int = 0) -> None:
    """Kill every descendant but one, until there is none. By pid: they can't be replaced by strangers,
    since only we, or a parent that is a descendant itself, could reap them.
    """
    until = monotonic() + 10
    while monotonic() < until:
        alive = [pid for pid, process in descendants().items() if pid != spared and process.alive]
        if not alive:
            return
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        sleep(0.02)


class Subject:
    """The process with the contender."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "childproof.bench.subject"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._pending = b""
        self.pid = self._process.pid
        self.tell(request)

    def tell(self, request: dict[str, Any]) -> None:
        """A line for it."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def hear(self, seconds: float) -> dict[str, Any] | None:
        """Its next line, or `None` if there is none within `seconds`.

        Raises:
            EOFError: it has died.

        """
        assert self._process.stdout is not None
        until = monotonic() + seconds
        poller = select.poll()
        poller.register(self._process.stdout.fileno(), select.POLLIN)
        while b"\n" not in self._pending:
            if not poller.poll(max(until - monotonic(), 0) * 1000):
                return None
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise EOFError
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _look(cell: Cell, subject: int) -> None:
    """What is left, once those that were signalled have had their moment."""
    sleep(SETTLE_SECONDS)
    found = descendants()
    others = {pid: process for pid, process in found.items() if pid != subject}
    cell.leftovers = [procfs.command_line(pid) or "?" for pid, process in others.items() if process.alive]
    cell.zombies = sum(process.ppid == subject and not process.alive for process in others.values())


def _result(subject: Subject, cut_off: float) -> Cell:
    began = monotonic()
    try:
        seen = subject.hear(cut_off)
    except EOFError:
        return Cell(died=True, seconds=monotonic() - began)
    cell = Cell(hung=seen is None, seconds=monotonic() - began)
    for name, value in (seen or {}).items():
        setattr(cell, name, value)
    return cell


def _watch(request: dict[str, Any]) -> Cell:
    subject = Subject(request)
    try:
        ready = subject.hear(START_SECONDS)
    except EOFError:
        ready = {"missing": "its process dies at a command that does nothing"}
    if ready is None or "missing" in ready:
        return Cell(missing="it does not start" if ready is None else ready["missing"])
    subject.tell({})
    cell = _result(subject, request["cut_off"])
    _look(cell, subject.pid)
    if cell.hung or cell.died:
        return cell
    end_all(subject.pid)
    _reap()
    sleep(SETTLE_SECONDS)  # who held a descriptor for a process that lived has let go of it
    subject.tell({})
    for name, value in (subject.hear(START_SECONDS) or {}).items():
        setattr(cell, name, value)
    return cell


def run_case(request: dict[str, Any]) -> Cell:
    """One contender in one case.

    Args:
        request: ``module`` and ``contender``, ``task``, ``ignore_sigchld``, ``stuck``; and ``timeout``
            and ``cut_off`` in seconds.

    """
    become_subreaper()
    with tempfile.TemporaryDirectory(prefix="childproof-bench-") as directory:
        gate = -1
        try:
            if request["stuck"]:
                program = os.path.join(directory, "program")
                shutil.copy(shutil.which("true") or "/bin/true", program)
                gate = hold_exec(program)
                request["task"]["argv"] = [program if word == STUCK else word for word in request["task"]["argv"]]
            return _watch(request)
        except MissingError as error:
            return Cell(missing=str(error))
        finally:
            end_all()
            if gate >= 0:
                os.close(gate)
            _reap()


def main() -> None:
    """One request, one answer."""
    request = json.loads(sys.stdin.readline())
    print(json.dumps(asdict(run_case(request))))


if __name__ == "__main__":
    main()
