"""The family and scenario of a child's death: how long until the caller knows.

The child sleeps, so that whoever waits for it is asleep by then, writes the time into shared memory,
and dies at once. What is measured is from that moment to the return in Python.
"""

from __future__ import annotations

import mmap
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from childproof.bench import contenders, floor, programs
from childproof.bench.contenders import OURS, OURS_TIMEOUT, SUBPROCESS, SUBPROCESS_TIMEOUT, Answer, Contender, Runner
from childproof.bench.meter import Meter
from childproof.bench.model import Metric, MissingError, Progress, Result, Scenario, Settings, Task
from childproof.bench.spawning import chosen
from childproof.bench.turns import Level, Plan, take_turns

LIFE_MICROSECONDS = 20_000


class _Stamp:
    """Eight bytes that the child writes and we read."""

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile(prefix="childproof-bench-", delete=False) as file:
            file.write(bytes(8))
            file.flush()
            self.path = file.name
            self._memory = mmap.mmap(file.fileno(), 8)
        weakref.finalize(self, _remove, self.path)

    def take(self) -> int:
        """The time of death, in ns on ``CLOCK_MONOTONIC``; then nothing, until the next."""
        time = int(struct.unpack_from("q", self._memory)[0])
        struct.pack_into("q", self._memory, 0, 0)
        if not time:
            raise RuntimeError("the child did not write the time of its death")
        return time


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        Path(path).unlink()


def _since_death(make: Callable[[Task], Runner]) -> Callable[[Task], Runner]:
    def made(task: Task) -> Runner:
        stamp = _Stamp()
        runner = make(Task((task.argv[0], stamp.path, *task.argv[1:])))

        def run(meter: Meter) -> Answer:
            answer = runner(meter)
            meter.values = {"seconds": (meter.ended_ns - stamp.take()) / 1e9}
            return answer

        return run

    return made


def _floor(task: Task) -> Runner:
    if floor.FAILED is not None:
        raise MissingError(f"its C was not built: {floor.FAILED}")
    machine = floor.Floor(task.words)

    def run(meter: Meter) -> Answer:
        with meter:
            machine.wait()
        return machine.code, b"", b""

    return run


def _wait(timeout: float | None) -> Callable[[Task], Runner]:
    def make(task: Task) -> Runner:
        null = subprocess.DEVNULL

        def run(meter: Meter) -> Answer:
            process = subprocess.Popen(task.words, stdin=null, stdout=null, stderr=null)
            with meter:
                code = process.wait(timeout)
            return code, b"", b""

        return run

    return make


FLOOR = "C: poll on a pidfd"


def everyone() -> tuple[Contender, ...]:
    """All contenders of this family."""
    own = (
        Contender(FLOOR, "the C floor without pipes: poll on the child's pidfd, waitid", _since_death(_floor)),
        Contender("Popen.wait()", "no pipes: blocks in waitpid", _since_death(_wait(None))),
        Contender("Popen.wait(timeout)", "no pipes: sleeps and asks", _since_death(_wait(contenders.TIMEOUT_SECONDS))),
    )
    wanted = {SUBPROCESS, SUBPROCESS_TIMEOUT, "asyncio", OURS, OURS_TIMEOUT}
    from childproof.bench.third_party import THIRD_PARTY

    others = [*(person for person in contenders.STANDARD if person.name in wanted), *THIRD_PARTY]
    return (*own, *(person._replace(make=_since_death(person.make)) for person in others))


def _measure(settings: Settings, progress: Progress) -> Result:
    people = list(everyone())
    if settings.size == "short":
        people = [person for person in people if person.name in (FLOOR, SUBPROCESS, OURS)]
    task = Task((programs.compiled("stamp"), str(LIFE_MICROSECONDS)))
    plan = Plan(
        "latency", chosen(settings, people, FLOOR), [Level(None, task, {})], settings.rounds_of(200, 150), untimed=0
    )
    return take_turns(plan, settings, progress)


SCENARIOS = (
    Scenario(
        "exit-latency",
        "From a child's death to the return of the call",
        f"The child dies after {LIFE_MICROSECONDS // 1000} ms; its last act is to write down the time.",
        FLOOR,
        _measure,
        (Metric("seconds", "time"),),
    ),
)
