"""The family and scenario of many children at once, all asleep."""

from __future__ import annotations

import os
import resource
import select
from collections.abc import Callable

from childproof.bench import many, programs
from childproof.bench.contenders import Answer, Contender, Runner
from childproof.bench.meter import Meter
from childproof.bench.model import Metric, Progress, Result, Scenario, Settings, Task
from childproof.bench.spawning import chosen
from childproof.bench.turns import Level, Plan, take_turns

DESCRIPTORS_EACH = 4
STARTS_PER_SECOND = 500
"""So slow a contender may be for all to sleep at once: it sets how long they sleep."""


def _posix_spawn(task: Task) -> Runner:
    """The least that Python can do: two pipes each, one poll for all."""

    def start(poller: select.poll) -> tuple[int, int]:
        out, out_w = os.pipe()
        err, err_w = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, out_w, 1), (os.POSIX_SPAWN_DUP2, err_w, 2)]
        pid = os.posix_spawn(task.argv[0], task.argv, os.environ, file_actions=actions, setsid=True)
        for fd in (out_w, err_w):
            os.close(fd)
        for fd in (out, err):
            poller.register(fd, select.POLLIN)
        return pid, 2

    def run(meter: Meter) -> Answer:
        poller = select.poll()
        with meter:
            pids = [start(poller)[0] for _ in range(task.count)]
            left = 2 * len(pids)
            while left:
                for fd, _ in poller.poll():
                    if not os.read(fd, 1 << 16):
                        poller.unregister(fd)
                        os.close(fd)
                        left -= 1
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        return max(codes), b"", b""

    return run


def _each(make: Callable[[Task], Runner]) -> Callable[[Task], Runner]:
    """What is measured is what one child costs beside its sleep."""

    def made(task: Task) -> Runner:
        runner = make(task)
        sleep = float(task.argv[1])

        def run(meter: Meter) -> Answer:
            answer = runner(meter)
            seconds = meter.values["seconds"]
            if seconds > 2 * sleep:
                raise RuntimeError(f"they were not all asleep at once: {seconds:.1f} s for sleeps of {sleep:g} s")
            meter.values = {name: value / task.count for name, value in meter.values.items()}
            meter.values["seconds"] = (seconds - sleep) / task.count
            return answer

        return run

    return made


REFERENCE = "os.posix_spawn"


def everyone() -> tuple[Contender, ...]:
    """All contenders of this family."""
    people = (Contender(REFERENCE, "two pipes each, one poll", _posix_spawn), *many.THREADS, *many.LOOPS)
    return tuple(person._replace(make=_each(person.make)) for person in people)


def _measure(settings: Settings, progress: Progress) -> Result:
    nap = programs.compiled("nap")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = settings.pick((100, 1000, 4000), (500,), (5,))
    counts = [count for count in wanted if count * DESCRIPTORS_EACH + 64 <= hard]
    levels = [
        Level(n, Task((nap, f"{1 + n / STARTS_PER_SECOND:.2f}"), count=n, jobs=n), {"nofile": hard}) for n in counts
    ]
    plan = Plan("crowd", chosen(settings, everyone(), REFERENCE), levels, settings.rounds_of(2, 1, 1), fresh=True)
    result = take_turns(plan, settings, progress)
    if len(counts) < len(wanted):
        result.notes.append(f"{wanted[len(counts)]} children and more were left out: RLIMIT_NOFILE is {hard}")
    return result


SCENARIOS = (
    Scenario(
        "concurrent",
        "Children asleep at once",
        "Time: all of it less the children's sleep, divided by their number. Memory: the growth of the parent"
        " at its peak, divided by their number. The threads are one a child.",
        REFERENCE,
        _measure,
        (
            Metric("seconds", "time a child"),
            Metric("peak_each", "memory a child", "bytes"),
            Metric("parent_cpu", "CPU of the parent"),
        ),
        "children",
    ),
)
