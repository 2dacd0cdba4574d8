"""Contenders of the conformance table that do wrong, for test_bench, which asks whether the table sees it."""

import os
import subprocess
import time

from childproof.bench.guarded import Said, _subprocess
from childproof.bench.model import Task

_first = [True, True]
"""The two warm-ups are innocent."""


def _innocent(task: Task, timeout: float) -> Said | None:
    if _first:
        _first.pop()
        return _subprocess(task, timeout)
    return None


def _leaks_descriptor(task: Task, timeout: float) -> Said:
    said = _innocent(task, timeout) or _subprocess(task, timeout)
    os.open(os.devnull, os.O_RDONLY)
    return said


def _leaves_process(task: Task, timeout: float) -> Said:
    said = _innocent(task, timeout)
    if said is None:  # as far away as a daemon gets
        subprocess.Popen(["/bin/sh", "-c", "(setsid sleep 600 >/dev/null 2>&1 &)"]).wait()
        said = _subprocess(task, timeout)
    return said


def _leaves_zombie(task: Task, timeout: float) -> Said:
    said = _innocent(task, timeout)
    if said is None:
        os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], os.environ)
        said = _subprocess(task, timeout)
    return said


def _invents_code(task: Task, timeout: float) -> Said:
    said = _innocent(task, timeout) or _subprocess(task, timeout)
    return said._replace(timed_out=False, code=0)


def _loses_output(task: Task, timeout: float) -> Said:
    said = _innocent(task, timeout) or _subprocess(task, timeout)
    return said._replace(out=said.out[:-1])


def _hangs(task: Task, timeout: float) -> Said:
    said = _innocent(task, timeout)
    if said is None:
        time.sleep(600)
    assert said is not None
    return said


def _raises(task: Task, timeout: float) -> Said:
    said = _innocent(task, timeout)
    if said is None:
        raise RuntimeError("no reason")
    return said


def _dies(task: Task, timeout: float) -> Said:
    said = _innocent(task, timeout)
    if said is None:
        os._exit(3)
    return said


CALLS = {
    "leaks a descriptor": _leaks_descriptor,
    "leaves a process": _leaves_process,
    "leaves a zombie": _leaves_zombie,
    "invents code 0": _invents_code,
    "loses output": _loses_output,
    "hangs": _hangs,
    "raises": _raises,
    "dies": _dies,
}
