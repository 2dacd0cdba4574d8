"""KeyboardInterrupt at every executed line of our modules, MemoryError at every allocation.

``interrupts.py lines|memory STRIDE [SCENARIO...]``: every STRIDE-th point; prints one JSON object.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

import childproof
from interrupter import Interrupter
from invariants import Invariants, processes, warm_up

SCENARIOS: dict[str, Callable[[], Any]] = {
    "output": lambda: childproof.run("echo hi; exit 3", "input"),
    "file, attributes": lambda: childproof.run(
        ["/bin/echo", "x"], stdout="file", cwd="/", umask=0o22, limits={"core": 0}
    ),
    "fails": lambda: childproof.run(["/nonexistent"]),
    "deadline": lambda: childproof.run("sleep 600 & sleep 600", timeout=0.02),
    "grace": lambda: childproof.run("sleep 600 & sleep 600", timeout=0.02, grace=0.02),
    "leftovers killed": lambda: childproof.run("sleep 600 & echo x", linger=0.01, leftovers="kill"),
    "supervised": lambda: childproof.run("echo hi; exit 3", "input", die_with_parent=True),
    "supervised, deadline": lambda: childproof.run("sleep 600 & sleep 600", timeout=0.02, die_with_parent=True),
    "contained": lambda: childproof.run("echo hi; exit 3", contain="auto"),
    "contained, deadline": lambda: childproof.run("sleep 600 & sleep 600", timeout=0.02, contain="auto"),
    "leftovers held": lambda: childproof.run("sleep 0.1 & echo x", linger=0.01),
}


def interrupted_lines(run: Callable[[], Any], stride: int) -> Iterator[bool]:
    """One interrupt after the other, until there is no line left."""
    line = 1
    while True:
        interrupter = Interrupter(line)
        sys.settrace(interrupter)
        try:
            run()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        yield interrupter.seen >= line
        if interrupter.seen < line:
            return
        line += stride


def _runs_out(run: Callable[[], Any], nth: int) -> bool:
    """Whether there is an n-th allocation: in a copy of this process all from there on fail."""
    import _testcapi  # type: ignore[import-not-found]  # CPython's own, without a stub

    pid = os.fork()
    if pid == 0:
        signal.alarm(5)  # without any memory not even the end is certain
        _testcapi.set_nomemory(nth, 0)
        try:
            run()
            os._exit(0)
        except BaseException:
            os._exit(1)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for left in processes():
        os.kill(left, signal.SIGKILL)
    return ended != 0


def _may_fail(run: Callable[[], Any]) -> None:
    try:
        run()
    except (MemoryError, RuntimeError) as error:  # "can't allocate lock" is a RuntimeError
        if not isinstance(error, MemoryError) and "allocate" not in str(error):
            raise


def nested_code() -> list[Any]:
    """The code of the functions that ours make, many times. CPython 3.12 and 3.13.0 give up a reference to it too
    many when there is no memory for the function, and crash when none is left.
    """
    functions = [each for each in gc.get_objects() if isinstance(each, FunctionType)]
    found = [each.__code__ for each in functions if "/childproof/" in each.__code__.co_filename]
    for code in found:  # which grows
        found += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found * 1000


def failing_allocations(run: Callable[[], Any], stride: int) -> Iterator[bool]:
    """One allocation after the other fails, up to the last that a run has."""
    import _testcapi

    kept = nested_code()
    low, high = 1, 1 << 16
    while high - low > 1:
        middle = (low + high) // 2
        if _runs_out(run, middle):
            low = middle
        else:
            high = middle
    for nth in range(1, low + 1, stride):
        _testcapi.set_nomemory(nth, nth + 1)
        try:
            _may_fail(run)
        finally:
            _testcapi.remove_mem_hooks()
        yield True
    del kept


def main(kind: str, stride: int, wanted: list[str]) -> None:
    """See the module."""
    warm_up()
    bad: list[str] = []
    points: dict[str, int] = {}
    for name, run in SCENARIOS.items():
        if wanted and name not in wanted:
            continue
        run()
        began = time.monotonic()
        invariants = Invariants()
        points[name] = 0
        for reached in (interrupted_lines if kind == "lines" else failing_allocations)(run, stride):
            broken = invariants.broken()
            points[name] += reached
            if broken:
                bad.append(f"{name}: point {points[name]}: {broken}")
                invariants = Invariants()
        print(
            f"{kind}: {name:20} {points[name]:6} points {time.monotonic() - began:6.1f} s", file=sys.stderr, flush=True
        )
    print(json.dumps({"points": points, "bad": bad}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
