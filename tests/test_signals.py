"""The mask and all 64 dispositions that a program gets, and signals that come while it is started."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

import childproof

LIBC = {32, 33}
FIXED = {signal.SIGKILL, signal.SIGSTOP}
SETTABLE = [number for number in range(1, 65) if number not in FIXED | LIBC]
STANDARD = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD}
"""Set to default even where the host ignores them: Python does with two, and the third takes a
program's own children from it.
"""

Handler = Callable[[int, object], None] | signal.Handlers


def _child(**options: object) -> dict[str, set[int]]:
    result = childproof.run(["cat", "/proc/self/status"], timeout=60, **options)  # type: ignore[call-overload]
    found = {}
    for line in result.out.splitlines():
        name, _, value = line.partition(":")
        if name in ("SigBlk", "SigIgn", "SigCgt"):
            found[name] = {number for number in range(1, 65) if int(value, 16) >> (number - 1) & 1}
    return found


def _set_all(handler: Handler) -> dict[int, object]:
    return {number: signal.signal(number, handler) for number in SETTABLE}


@pytest.mark.parametrize(
    ("handler", "ignored"),
    [
        (signal.SIG_DFL, set()),
        (signal.SIG_IGN, set(SETTABLE) - STANDARD),
        (lambda number, frame: None, set()),
    ],
    ids=["default", "ignored", "handled"],
)
def test_all_dispositions(every_way: object, handler: Handler, ignored: set[int]) -> None:
    """What is ignored stays so, but for three; nothing is caught or blocked."""
    before = _set_all(handler)
    try:
        found = _child()
    finally:
        for number, old in before.items():
            signal.signal(number, old)  # type: ignore[arg-type]
    assert found == {"SigBlk": set(), "SigIgn": ignored, "SigCgt": set()}


def test_the_mask_is_the_callers(every_way: object) -> None:
    """What the calling thread blocks is blocked in the child, and nothing else."""
    wanted = {signal.SIGUSR1, signal.SIGTERM, signal.SIGRTMIN + 5, signal.SIGRTMAX}
    before = signal.pthread_sigmask(signal.SIG_SETMASK, wanted)
    try:
        assert _child()["SigBlk"] == {int(number) for number in wanted}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_signals_without_pause_reach_the_host_and_no_child() -> None:
    """Under a storm of a signal with a handler every run ends well, and the handler runs in the host.
    (That it runs in no child, and that none is lost, is counted in C: tests/c/storm.c.)
    """
    seen = set()
    over = threading.Event()

    def handler(number: int, frame: object) -> None:
        seen.add(os.getpid())

    def storm() -> None:
        while not over.wait(0.0005):
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=storm)
    thread.start()
    try:
        results = [childproof.run(["/bin/echo", "x"], timeout=60) for _ in range(200)]
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert {(result.code, result.out) for result in results} == {(0, "x")}
    assert seen == {os.getpid()}
