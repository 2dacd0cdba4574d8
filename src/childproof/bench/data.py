"""Scenarios of much output and much input, each run in a process of its own."""

from __future__ import annotations

from childproof.bench import programs
from childproof.bench.contenders import OURS, SUBPROCESS, Contender
from childproof.bench.model import Metric, Progress, Result, Scenario, Settings, Task
from childproof.bench.spawning import chosen, named
from childproof.bench.turns import Level, Plan, take_turns

MIB = 1 << 20
ADDRESS_BYTES, ADDRESS_SHARE = 1 << 30, 6
"""How much address space a contender gets: so much, and so many times the data."""


def _people(settings: Settings) -> list[Contender]:
    if settings.size == "short":
        return named(SUBPROCESS, OURS)
    from childproof.bench.third_party import THIRD_PARTY

    return [*named(SUBPROCESS, "asyncio", OURS), *THIRD_PARTY]


def _measure(settings: Settings, progress: Progress, task: Task, size: int) -> Result:
    plan = Plan(
        "contenders",
        chosen(settings, _people(settings), SUBPROCESS),
        [Level(None, task, {"address_bytes": ADDRESS_BYTES + ADDRESS_SHARE * size})],
        settings.rounds_of(9, 5, 1),
        fresh=True,
    )
    return take_turns(plan, settings, progress)


def _capture(settings: Settings, progress: Progress) -> Result:
    size = settings.pick(1024 * MIB, 512 * MIB, MIB)
    task = Task((programs.compiled("source"), str(size)), raw=True, output_bytes=size)
    result = _measure(settings, progress, task, size)
    result.notes.append(f"{size // MIB} MiB of output, as bytes where the interface gives them")
    return result


def _feed(settings: Settings, progress: Progress) -> Result:
    size = settings.pick(1024 * MIB, 512 * MIB, MIB)
    task = Task((programs.compiled("sink"),), raw=True, input_bytes=size, output_bytes=len(str(size)))
    result = _measure(settings, progress, task, size)
    result.notes.append(f"{size // MIB} MiB of input, one bytes object")
    return result


SCENARIOS = (
    Scenario(
        "capture",
        "Capture one gigabyte of output",
        "The writer is a C program with blocks of 1 MiB. The peak is how far the caller's memory grew"
        " at most, the result included; of the output: 1.0 is the result itself.",
        SUBPROCESS,
        _capture,
        (
            Metric("seconds", "time"),
            Metric("peak_bytes", "peak memory", "bytes"),
            Metric("peak_share", "of the output", "count"),
            Metric("parent_cpu", "CPU of the parent"),
            Metric("child_cpu", "CPU of the child"),
        ),
    ),
    Scenario(
        "feed",
        "Feed one gigabyte of input",
        "The reader is a C program with blocks of 1 MiB. The peak is beside the input, which is there before.",
        SUBPROCESS,
        _feed,
        (
            Metric("seconds", "time"),
            Metric("peak_bytes", "peak memory", "bytes"),
            Metric("parent_cpu", "CPU of the parent"),
            Metric("child_cpu", "CPU of the child"),
        ),
    ),
)
