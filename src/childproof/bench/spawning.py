"""Scenarios of one program, started and waited for."""

from __future__ import annotations

from collections.abc import Sequence

from childproof.bench import contenders, programs
from childproof.bench.contenders import Contender
from childproof.bench.model import Metric, Progress, Result, Scenario, Settings, Task
from childproof.bench.turns import take_turns

COSTS = (
    Metric("seconds", "time"),
    Metric("parent_cpu", "CPU of the parent"),
    Metric("parent_user", "of it user"),
    Metric("parent_system", "of it system"),
    Metric("child_cpu", "CPU of the child"),
)

SHORT = (contenders.FLOOR, contenders.SUBPROCESS, contenders.SUBPROCESS_TIMEOUT, contenders.OURS)


def chosen(settings: Settings, people: Sequence[Contender], always: Sequence[str]) -> list[Contender]:
    """Those of `people` that the command line left in: all, if it names none."""
    if not settings.only:
        return list(people)
    return [contender for contender in people if contender.name in settings.only or contender.name in always]


def _single(settings: Settings, progress: Progress, task: Task, note: str) -> Result:
    people: Sequence[Contender] = contenders.everyone()
    if settings.size == "short":
        people = contenders.STANDARD
    result = take_turns(
        [(None, {})],
        chosen(settings, people, [contenders.FLOOR]),
        task,
        settings.rounds_of(400, 150),
        settings,
        progress,
    )
    result.notes.append(note)
    return result


def _spawn(settings: Settings, progress: Progress) -> Result:
    path, note = programs.true()
    return _single(settings, progress, Task((path,)), note)


def _shell(settings: Settings, progress: Progress) -> Result:
    task = Task(("exit 0",), shell=True)  # noqa: S604 - the shell is what is measured
    return _single(settings, progress, task, "the line is `exit 0`, for /bin/sh")


SPAWN = Scenario(
    "spawn",
    "Run a program that does nothing",
    "From the call to the answer, with both outputs captured, stdin empty and a session of its own.",
    contenders.FLOOR,
    _spawn,
    COSTS,
)
SHELL = Scenario(
    "shell",
    "Run a line by the shell",
    "The same for a line that /bin/sh runs, as a user would call it: shell=True, or a str.",
    contenders.FLOOR,
    _shell,
    COSTS,
)
SCENARIOS = (SPAWN, SHELL)
