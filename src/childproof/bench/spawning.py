"""Scenarios of one program, started and waited for, by hosts of every size."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence

from childproof._text import did_you_mean
from childproof.bench import contenders, programs
from childproof.bench.contenders import CLOSINGS, FLOOR, OURS, STANDARD, STARTS, SUBPROCESS, Contender
from childproof.bench.model import Metric, MissingError, Progress, Result, Scenario, Settings, Task
from childproof.bench.turns import Level, Plan, take_turns

COSTS = (
    Metric("seconds", "time"),
    Metric("parent_cpu", "CPU of the parent"),
    Metric("parent_user", "of it user", statistic="mean"),
    Metric("parent_system", "of it system", statistic="mean"),
    Metric("child_cpu", "CPU of the child"),
)
GIB = 1 << 30
FORK = "os.fork, os.execv"
SPAWN_CALL = "os.posix_spawn"


def chosen(settings: Settings, people: Sequence[Contender], always: str = "") -> list[Contender]:
    """Those of `people` that the command line left in: all, if it names none.

    Raises:
        MissingError: it names nobody of them.

    """
    if not settings.only:
        return list(people)
    names = [contender.name for contender in people]
    if not set(settings.only) & set(names):
        meant = did_you_mean(settings.only[0], names)
        raise MissingError(f"nobody here is called {settings.only[0]!r}: there are {'; '.join(names)}{meant}")
    return [contender for contender in people if contender.name in settings.only or contender.name == always]


def named(*names: str) -> list[Contender]:
    """The standard contenders of those names."""
    return [contender for contender in (*STANDARD, *STARTS, *CLOSINGS) if contender.name in names]


# ---- one program ----


def _single(settings: Settings, progress: Progress, task: Task, note: str) -> Result:
    people = STANDARD if settings.size == "short" else contenders.everyone()
    plan = Plan(
        "contenders",
        chosen(settings, people, FLOOR),
        [Level(None, task, {})],
        settings.rounds_of(400, 200),
        slow_share=5,
    )
    result = take_turns(plan, settings, progress)
    result.notes.append(note)
    return result


def _spawn(settings: Settings, progress: Progress) -> Result:
    path, note = programs.true()
    return _single(settings, progress, Task((path,)), note)


def _shell(settings: Settings, progress: Progress) -> Result:
    task = Task(("exit 0",), shell=True)  # noqa: S604 - the shell is what is measured
    return _single(settings, progress, task, "the line is `exit 0`, for /bin/sh")


# ---- by hosts that are burdened ----


def _burdened(
    settings: Settings, progress: Progress, people: list[Contender], levels: dict[float, dict[str, int]], rounds: int
) -> Result:
    path, note = programs.true()
    plan = Plan(
        "contenders",
        chosen(settings, people, OURS),
        [Level(x, Task((path,)), ballast) for x, ballast in levels.items()],
        rounds,
        slow_share=5,
    )
    result = take_turns(plan, settings, progress)
    result.notes.append(note)
    return result


def _available_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _rss(settings: Settings, progress: Progress) -> Result:
    wanted = settings.pick((0, 0.25, 1, 2, 4), (0, 4), (0, 0.01))
    fitting = [gib for gib in wanted if gib * GIB < _available_bytes() / 3]
    people = named(FLOOR, SPAWN_CALL, FORK, SUBPROCESS, OURS, "childproof.run, fork")
    if settings.size == "short":
        people = named(SUBPROCESS, OURS)
    levels = {gib: {"rss_bytes": int(gib * GIB)} for gib in fitting}
    result = _burdened(settings, progress, people, levels, settings.rounds_of(100, 80))
    if len(fitting) < len(wanted):
        result.notes.append(f"{wanted[len(fitting)]} GiB and more were left out: too little memory is free")
    return result


def _fds(settings: Settings, progress: Progress) -> Result:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    room = hard - 64  # for the host's own
    wanted = settings.pick((0, 100, 1000, 5000, 15000), (0, 15000), (0, 50))
    levels = {n: {"fds": n, "nofile": hard} for n in wanted if n <= room}
    people = named(FLOOR, FORK, SUBPROCESS, OURS, *(contender.name for contender in CLOSINGS))
    if settings.size == "short":
        people = named(SUBPROCESS, OURS)
    result = _burdened(settings, progress, people, levels, settings.rounds_of(100, 80))
    result.notes.append(f"RLIMIT_NOFILE was {hard}, soft and hard")
    if len(levels) < len(wanted):
        result.notes.append(f"more than {room} descriptors were left out: RLIMIT_NOFILE allows no more")
    return result


RAISE = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)"


def _may_have(limit: int) -> bool:
    """Whether a process of ours may be given this limit: a lower one always, a higher one with
    CAP_SYS_RESOURCE. Tried in a process of its own, since there is no way back for those without.
    """
    words = [sys.executable, "-S", "-E", "-c", RAISE, str(limit)]
    return subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _limits(settings: Settings, progress: Progress) -> Result:
    wanted = settings.pick((1024, 4096, 16384, 65536, 262144, 1048576), (1024, 16384), (1024, 2048))
    levels = {n: {"nofile": n} for n in wanted if _may_have(n)}
    people = named(SUBPROCESS, OURS, *(contender.name for contender in CLOSINGS))
    result = _burdened(settings, progress, people, levels, settings.rounds_of(60, 20))
    if len(levels) < len(wanted):
        result.notes.append(f"limits above {max(levels)} were left out: this user can't set them")
    return result


SCENARIOS = (
    Scenario(
        "spawn",
        "Run a program that does nothing",
        "From the call to the answer, with both outputs captured, stdin empty and a session of its own.",
        FLOOR,
        _spawn,
        COSTS,
    ),
    Scenario(
        "shell",
        "Run a line by the shell",
        "The same for a line that /bin/sh runs, as a user would call it: shell=True, or a str.",
        FLOOR,
        _shell,
        COSTS,
    ),
    Scenario(
        "rss",
        "Run it from a process with much memory",
        "The memory is private, anonymous, in pages of 4 KiB, all written to.",
        FLOOR,
        _rss,
        COSTS,
        "GiB resident",
    ),
    Scenario(
        "fds",
        "Run it from a process with many open descriptors",
        "All of them inheritable. The three strategies of closing them in the child are forced in turn.",
        FLOOR,
        _fds,
        COSTS,
        "open descriptors",
    ),
    Scenario(
        "limits",
        "Run it where many descriptors are allowed",
        "Nothing is open but the limit is high: what a loop up to RLIMIT_NOFILE has to pay.",
        SUBPROCESS,
        _limits,
        COSTS,
        "RLIMIT_NOFILE",
    ),
)
