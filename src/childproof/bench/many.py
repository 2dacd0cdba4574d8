"""The family and scenario of many commands, some at a time."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import childproof
from childproof.bench import contenders, programs
from childproof.bench.contenders import Answer, Contender, Runner
from childproof.bench.meter import Meter
from childproof.bench.model import Metric, MissingError, Progress, Result, Scenario, Settings, Task
from childproof.bench.spawning import chosen
from childproof.bench.turns import Level, Plan, take_turns

FINE: Answer = (0, b"", b"")


def _verdict(codes: list[int]) -> Answer:
    wrong = [code for code in codes if code]
    return (wrong[0] if wrong else 0), b"", b""


def _xargs(task: Task) -> Runner:
    program = shutil.which("xargs")
    if program is None:
        raise MissingError("there is no xargs")
    words = [program, f"-P{task.jobs}", "-n1", *task.argv]
    lines = b"".join(b"%d\n" % number for number in range(task.count))

    def run(meter: Meter) -> Answer:
        with meter:
            done = subprocess.run(words, input=lines, check=False)
        return done.returncode, b"", b""

    return run


def _threads(work: Callable[[list[str]], int]) -> Callable[[Task], Runner]:
    def make(task: Task) -> Runner:
        commands = [list(task.argv)] * task.count

        def run(meter: Meter) -> Answer:
            with meter, ThreadPoolExecutor(task.jobs) as pool:
                codes = list(pool.map(work, commands))
            return _verdict(codes)

        return run

    return make


def by_subprocess(command: list[str]) -> int:
    """One command, by the stdlib."""
    return subprocess.run(
        command, capture_output=True, stdin=subprocess.DEVNULL, start_new_session=True, check=False
    ).returncode


def by_childproof(command: list[str]) -> int:
    """One command, by us."""
    return childproof.run(command).code


def _asyncio(task: Task) -> Runner:
    import asyncio

    pipe, null = subprocess.PIPE, subprocess.DEVNULL

    async def one(gate: asyncio.Semaphore) -> int:
        async with gate:
            process = await asyncio.create_subprocess_exec(
                *task.argv, stdin=null, stdout=pipe, stderr=pipe, start_new_session=True
            )
            await process.communicate()
            return process.returncode or 0

    async def all_of_them() -> list[int]:
        gate = asyncio.Semaphore(task.jobs)
        return list(await asyncio.gather(*(one(gate) for _ in range(task.count))))

    def run(meter: Meter) -> Answer:
        with meter:
            codes = asyncio.run(all_of_them())
        return _verdict(codes)

    return run


def _run_many(task: Task) -> Runner:
    run_many = getattr(childproof, "run_many", None)
    if run_many is None:
        raise MissingError("this version has no run_many")
    commands = [list(task.argv)] * task.count

    def run(meter: Meter) -> Answer:
        with meter:
            codes = [result.code for result in run_many(commands, jobs=task.jobs)]
        return _verdict(codes)

    return run


XARGS, SUBPROCESS, ASYNCIO, OURS = "xargs -P", "threads, subprocess.run", "asyncio", "childproof.run_many"
THREADS = (
    Contender(SUBPROCESS, "ThreadPoolExecutor(jobs).map", _threads(by_subprocess), True),
    Contender("threads, childproof.run", "ThreadPoolExecutor(jobs).map", _threads(by_childproof), True),
)
LOOPS = (
    Contender(ASYNCIO, "create_subprocess_exec behind a Semaphore(jobs)", _asyncio, True),
    Contender(OURS, "run_many(commands, jobs=jobs)", _run_many, True),
)


def everyone() -> tuple[Contender, ...]:
    """All contenders of this family."""
    return (Contender(XARGS, "xargs -P jobs -n 1: captures nothing", _xargs, True), *THREADS, *LOOPS)


def _measure(settings: Settings, progress: Progress) -> Result:
    path, note = programs.true()
    count = settings.pick(2000, 400, 16)
    task = Task((path,), count=count, jobs=8)
    people = list(everyone())
    if settings.size == "short":
        people = [person for person in people if person.name in (XARGS, SUBPROCESS, ASYNCIO, OURS)]
    plan = Plan("many", chosen(settings, people, XARGS), [Level(None, task, {})], settings.rounds_of(15, 12), untimed=0)
    result = take_turns(plan, settings, progress)
    result.notes += [f"{count} commands, 8 at a time", note]
    return result


# ---- threads ----


def _spread(contender: Contender) -> Contender:
    """The same from several threads at once; what is measured is the time of one command."""

    def make(task: Task) -> Runner:
        runners = [contender.make(Task(task.argv)) for _ in range(task.jobs)]
        meters = [Meter() for _ in runners]
        share = task.count // task.jobs

        def work(number: int) -> Answer:
            for _ in range(share):
                answer = runners[number](meters[number])
            return answer

        def run(meter: Meter) -> Answer:
            with ThreadPoolExecutor(task.jobs) as pool:
                list(pool.map(lambda _: None, range(task.jobs)))  # the threads are there
                with meter:
                    answers = list(pool.map(work, range(task.jobs)))
            meter.values = {name: value / (share * task.jobs) for name, value in meter.values.items()}
            return answers[-1]

        return run

    return contender._replace(make=make, alone=True)


def spread() -> tuple[Contender, ...]:
    """The contenders of the scenario `threads`."""
    wanted = (contenders.FLOOR, "os.posix_spawn", "os.fork, os.execv", contenders.SUBPROCESS, contenders.OURS)
    return tuple(_spread(person) for person in contenders.STANDARD if person.name in wanted)


def _measure_threads(settings: Settings, progress: Progress) -> Result:
    path, note = programs.true()
    levels = settings.pick((1, 2, 4, 8, 16, 32, 64), (1, 8), (1, 2))
    count = settings.pick(256, 64, 4)
    plan = Plan(
        "threads",
        chosen(settings, spread(), contenders.FLOOR),
        [Level(jobs, Task((path,), count=count, jobs=jobs), {}) for jobs in levels],
        settings.rounds_of(25, 5),
        untimed=0,
    )
    result = take_turns(plan, settings, progress)
    result.notes += [f"{count} commands, spread over the threads; on {_cpus()} CPUs", note]
    return result


def _cpus() -> int:
    import os

    return len(os.sched_getaffinity(0))


SCENARIOS = (
    Scenario(
        "many",
        "Run many short commands, eight at a time",
        "The whole of it, both outputs of every command captured, except by xargs, which captures nothing.",
        XARGS,
        _measure,
        (
            Metric("seconds", "time"),
            Metric("parent_cpu", "CPU of the parent"),
            Metric("child_cpu", "CPU of the children"),
        ),
    ),
    Scenario(
        "threads",
        "Run commands from many threads at once",
        "Time of one command: all of them, divided by how many.",
        contenders.FLOOR,
        _measure_threads,
        (Metric("seconds", "time a command"), Metric("parent_cpu", "CPU of the parent")),
        "threads",
    ),
)
