"""A service's pidfile: written whole or not at all, and never over that of a service that runs."""

from __future__ import annotations

import os
import stat
import time
from errno import EEXIST
from time import CLOCK_BOOTTIME, clock_gettime

from childproof._errors import SpawnError
from childproof._processes import procfs

SLACK_SECONDS = 2.0
"""How much later than its pidfile a service may seem to have started: clocks are coarse."""


def _started_at(process: procfs.Process) -> float:
    """On `time.time`."""
    return time.time() - (clock_gettime(CLOCK_BOOTTIME) - process.start / procfs.TICKS_PER_SECOND)


def _refusal(path: str, why: str) -> SpawnError:
    return SpawnError(EEXIST, os.strerror(EEXIST), path, "pidfile", f"pidfile {path}: {why}")


def refuse_running(path: str) -> None:
    """See that `path` may be written: there is nothing, or the pidfile of a process that has ended.

    A process that has the number but started after the file was written is another one.

    Raises:
        SpawnError: it names a process that runs, or is no pidfile.

    """
    try:
        with open(path, "rb", opener=_open_plain) as file:
            status = os.fstat(file.fileno())
            content = file.read(64).strip()
    except FileNotFoundError:
        return
    except OSError as error:
        raise SpawnError(error.errno or EEXIST, str(error.strerror), path, "pidfile", f"pidfile {error}") from None
    if not stat.S_ISREG(status.st_mode) or (content and not content.isdigit()):
        raise _refusal(path, "exists and is no pidfile")
    process = procfs.read_process(int(content)) if content else None
    if process is not None and process.alive and _started_at(process) <= status.st_mtime + SLACK_SECONDS:
        raise _refusal(path, f"pid {process.pid} ({process.name}) runs")


def _open_plain(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a FIFO must not hold us up


def write(path: str, pid: int) -> None:
    """Put `pid` there: a temporary file beside it, synced, takes its place at once.

    Raises:
        SpawnError: it can't be written.

    """
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.urandom(6).hex()}")
    try:
        try:
            with open(temporary, "x") as file:
                file.write(f"{pid}\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            remove(temporary)
            raise
        _sync_directory(os.path.dirname(path) or os.curdir)
    except OSError as error:
        raise SpawnError(error.errno or EEXIST, str(error.strerror), path, "pidfile", f"pidfile {error}") from None


def remove(path: str) -> None:
    """If it is there."""
    try:
        os.unlink(path)
    except OSError:
        return


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
