"""What a process waits in: ``/proc/PID/syscall`` and ``/proc/PID/wchan`` (proc(5)).

`syscall` may block, since the kernel waits there for an exec of the process to be over: for the
background thread only.
"""

from __future__ import annotations

import os
from collections import Counter
from time import monotonic

from childproof._processes import inspector, procfs
from childproof._processes.procfs import Process

MOST_TASKS = 32
"""Of how many threads of a process it is read."""

_WIDEST = 1 << 32
"""The stack of a 64-bit program is not below it; one of 32 bits has system calls of other numbers."""


def _call(pid: int, words: list[str]) -> str:
    """Of the seven numbers, the arguments and the stack pointer, as a call: ``read(0 pipe:[123])``."""
    number, first, stack = int(words[0]), int(words[1], 16), int(words[7], 16)
    if stack < _WIDEST:
        return f"system call {number} of a 32-bit program"
    known = inspector.syscall_name(number)
    if known is None:
        return f"system call {number}"
    name, argument = known
    if argument == inspector.ARGUMENT_FD:
        return f"{name}({_described(pid, first & 0xFFFFFFFF)})"
    if argument == inspector.ARGUMENT_PID:
        waited_for = (first + (1 << 31)) % (1 << 32) - (1 << 31)
        return f"{name}({'any child' if waited_for == -1 else waited_for})"
    return name


def _described(pid: int, fd: int) -> str:
    try:
        return f"{fd} {os.readlink(f'/proc/{pid}/fd/{fd}')}"
    except OSError:
        return str(fd)


def _task_waits(process: Process, tid: int) -> str:
    """What the thread `tid` is blocked in; ``""`` where that can't be known."""
    words = (inspector.read_proc(f"/proc/{tid}/syscall", 512) or b"").decode().split()
    if len(words) == 9:
        return _call(process.pid, words)
    if words == ["running"]:
        return "running"
    channel = (inspector.read_proc(f"/proc/{tid}/wchan", 128) or b"0").decode()
    return "" if channel == "0" else f"kernel: {channel}"


def waits(process: Process, until: float) -> str:
    """What `process` waits in, by its threads: the system call with its first argument, or else the
    kernel's function, or ``running``, or ``""``. May block for ever.

    Args:
        process: whose.
        until: on `time.monotonic`; threads that have not been looked at by then are left out.

    """
    tids = [process.pid] if process.threads == 1 else [task.pid for task in procfs.tasks(process)]
    found: Counter[str] = Counter()
    for tid in tids[:MOST_TASKS]:
        found[_task_waits(process, tid)] += 1
        if monotonic() > until:
            break
    del found[""]
    return ", ".join(text if count == 1 else f"{text} x {count}" for text, count in found.items())
