"""What must be after a run as it was before, for programs that try thousands of points.

They run in a PID namespace of their own (namespace_run.py), where whoever is there is theirs, and what
is left behind by a point is killed. Anywhere else this can't even be imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

if os.environ.get("CHILDPROOF_OUTER_NAMESPACE", "") in ("", os.readlink("/proc/self/ns/pid")):
    raise ImportError("this kills every process that it sees: it must be started by namespace_run.py")

import childproof
from childproof._janitor import janitor


def warm_up() -> None:
    """What is imported or started late is so now."""
    threading.Thread(target=int).start()  # glibc takes two signals with the first
    childproof.run("sleep 0.2 & sleep 600", timeout=0.05)
    childproof.run("sleep 0.1 & echo", linger=0)
    settled(lambda: not janitor.busy())


def descriptors() -> dict[int, str]:
    """Ours, but for the background thread's."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    for fd in janitor.descriptors():
        found.pop(fd, None)
    return found


def signals() -> list[str]:
    """Mask and dispositions."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]


def processes() -> set[int]:
    """Everybody in the namespace but the ancestors of this process, the dead and unreaped among them."""
    found, outer = {}, {os.getpid()}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found[int(name)] = int(fields[1])
    pid = os.getpid()
    while pid := found.get(pid, 0):
        outer.add(pid)
    return set(found) - outer


def settled(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    """Whether `condition` became true in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True


class Invariants:
    """What must be as it was."""

    def __init__(self) -> None:
        self.descriptors = descriptors()
        self.signals = signals()

    def broken(self) -> str:
        """What is not, or ``""``."""
        if not settled(lambda: not janitor.busy()):
            thread = janitor._current
            frame = None if thread is None else sys._current_frames().get(thread.ident or 0)
            at = "".join(traceback.format_stack(frame)) if frame is not None else f"{thread} has no frame"
            return f"the background thread is busy: {at}"
        if not settled(lambda: not processes()):
            left = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") for pid in processes()}
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            for pid in left:
                try:
                    os.waitpid(pid, 0)
                except ChildProcessError:
                    continue
            return f"processes left: {left}"
        if descriptors() != self.descriptors:
            return f"descriptors {descriptors()}, were {self.descriptors}"
        if signals() != self.signals:
            return f"signals {signals()}, were {self.signals}"
        return ""
