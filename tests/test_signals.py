"""The mask and all 64 dispositions that a program gets, and signals that come while it is started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

import childproof
from forcing import of_linux

HOST = """
import json, signal, sys
import childproof
fixed = {signal.SIGKILL, signal.SIGSTOP, 32, 33}  # the last two are libc's
handler = {"default": signal.SIG_DFL, "ignored": signal.SIG_IGN, "handled": lambda number, frame: None}[sys.argv[1]]
for number in set(range(1, 65)) - fixed:
    signal.signal(number, handler)
blocked = {signal.SIGUSR1, signal.SIGTERM, signal.SIGRTMIN + 5, signal.SIGRTMAX}
signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
found = {}
for line in childproof.run(["/bin/cat", "/proc/self/status"], timeout=60).out.splitlines():
    name, _, value = line.partition(":")
    if name in ("SigBlk", "SigIgn", "SigCgt"):
        found[name] = [number for number in range(1, 65) if int(value, 16) >> (number - 1) & 1]
print(json.dumps([found, sorted(blocked)]))
"""

STANDARD = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD}
"""Set to default even where the host ignores them: Python does with two, and the third takes a
program's own children from it.
"""

IGNORABLE = set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}


@pytest.mark.parametrize("start", [*of_linux("clone", "vfork"), "fork"])
@pytest.mark.parametrize("kind", ["default", "ignored", "handled"])
def test_all_dispositions_and_the_mask(start: str, kind: str) -> None:
    """What is ignored stays so, but for three; nothing is caught; what the caller blocks is blocked. In a
    host of its own, since the test runner handles some of them in C.
    """
    done = subprocess.run(
        [sys.executable, "-c", HOST, kind],
        env={**os.environ, "CHILDPROOF_START": start},
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    )
    found, blocked = json.loads(done.stdout)
    assert found["SigBlk"] == blocked
    assert found["SigCgt"] == []
    assert set(found["SigIgn"]) == (IGNORABLE - STANDARD if kind == "ignored" else set())


def test_signals_without_pause_reach_the_host_and_no_child() -> None:
    """Under a storm of a signal with a handler every run ends well, and the handler runs in the host.
    That it runs in no child, and that none is lost, is counted in C: tests/c/storm.c.
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
