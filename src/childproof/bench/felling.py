"""The family and scenario of killing a whole tree of processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, perf_counter, sleep

import childproof
from childproof.bench import programs
from childproof.bench.contenders import Answer, Contender, Runner
from childproof.bench.meter import Meter
from childproof.bench.model import Metric, MissingError, Progress, Result, Scenario, Settings, Task
from childproof.bench.spawning import chosen
from childproof.bench.turns import Level, Plan, take_turns

MARK = "CHILDPROOF_BENCH_TREE"
SETTLE_SECONDS = 0.2
"""After the killer has come back: a process that got SIGKILL may need a moment to die."""


def _members(token: str) -> list[int]:
    """The live processes of the tree, by their environment."""
    wanted = f"{MARK}={token}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:  # empty for a zombie
            if wanted in file.read().split(b"\0"):
                found.append(int(name))
    return found


def _sweep(token: str) -> int:
    """Kill what is left, and say how many that were. They can't have been replaced by strangers: a
    process of this mark is ours, and nobody else's has it.
    """
    sleep(SETTLE_SECONDS)
    left = _members(token)
    until = monotonic() + 10
    while (alive := _members(token)) and monotonic() < until:
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        sleep(0.01)
    return len(left)


def _grow(task: Task, token: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        task.argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, MARK: token},
        start_new_session=True,
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError(f"the tree did not grow: code {process.wait()}")
    return process


def _felled(kill: Callable[[int], None]) -> Callable[[Task], Runner]:
    """From what kills the tree under a pid."""

    def make(task: Task) -> Runner:
        def run(meter: Meter) -> Answer:
            token = os.urandom(8).hex()
            with _grow(task, token) as process:
                try:
                    with meter:
                        kill(process.pid)
                finally:
                    left = _sweep(token)
            meter.values = {**meter.values, "left": left}
            return 0, b"", b""

        return run

    return make


def _killpg(pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _psutil(pid: int) -> None:
    """The recipe of psutil's documentation, children first."""
    import psutil

    parent = psutil.Process(pid)
    processes = [*parent.children(recursive=True), parent]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def _kill_tree(task: Task) -> Runner:
    kill_tree = getattr(childproof, "kill_tree", None)
    if kill_tree is None:
        raise MissingError("this version has no kill_tree")
    return _felled(kill_tree)(task)


def _by_timeout(task: Task) -> Runner:
    """The deadline of `run`: what it takes beyond."""
    timeout = 0.3 + int(task.argv[1]) / 500

    def run(meter: Meter) -> Answer:
        token = os.urandom(8).hex()
        os.environ[MARK] = token
        try:
            began = perf_counter()
            with meter:
                result = childproof.run(list(task.argv), timeout=timeout)
            beyond = perf_counter() - began - timeout
        finally:
            del os.environ[MARK]
            left = _sweep(token)
        if result.out != "ready":
            raise RuntimeError(f"the tree did not grow within {timeout:g} s")
        meter.values = {**meter.values, "seconds": beyond, "left": left}
        return 0, b"", b""

    return run


REFERENCE = "os.killpg"


def everyone() -> tuple[Contender, ...]:
    """All contenders of this family."""
    return (
        Contender(REFERENCE, "one signal to the group, and waitid for its leader", _felled(_killpg)),
        Contender("psutil, children(recursive)", "kill each, wait_procs", _felled(_psutil), True),
        Contender("childproof.kill_tree", "kill_tree(pid)", _kill_tree, True),
        Contender("childproof.run, at its deadline", "run(argv, timeout=…): the time beyond it", _by_timeout, True),
    )


def _measure(settings: Settings, progress: Progress) -> Result:
    tree = programs.compiled("tree")
    levels = [Level(n, Task((tree, str(n))), {}) for n in settings.pick((10, 30, 100, 300, 1000), (100,), (4,))]
    plan = Plan("felling", chosen(settings, everyone(), REFERENCE), levels, settings.rounds_of(7, 3, 1), 1, untimed=0)
    result = take_turns(plan, settings, progress)
    result.notes.append("psutil waits until the orphans are reaped, which depends on what process 1 is here")
    return result


SCENARIOS = (
    Scenario(
        "kill",
        "Kill a whole tree",
        "The tree is four wide, and every fourth of its processes has a session of its own, as daemons do,"
        f" with all below it. Left alive: counted {SETTLE_SECONDS:g} s after the killer came back.",
        "",
        _measure,
        (Metric("seconds", "time"), Metric("left", "left alive", "count"), Metric("parent_cpu", "CPU")),
        "processes",
    ),
)
