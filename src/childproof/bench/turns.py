"""Contenders measured in turns: the order of every round is drawn anew."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any, NamedTuple

from childproof.bench.contenders import Contender
from childproof.bench.model import BenchError, Progress, Result, Series, Settings, Task, X

SLOW_SECONDS = 0.01


class Level(NamedTuple):
    """One value of a scenario's parameter.

    Attributes:
        x: the value.
        task: what is run there.
        ballast: arguments of `childproof.bench.host.Ballast`.

    """

    x: X
    task: Task
    ballast: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """What is measured in turns.

    Attributes:
        family: the module whose contenders they are.
        people: the contenders.
        levels: the values of the parameter.
        rounds: how many.
        warm_ups: runs of a contender before the first round.
        untimed: runs of a contender just before each that is timed.
        block: so many rounds a host does at a stretch before the next host has its turn: what wakes
            up anew finds other CPUs and caches, and for some milliseconds measures that.
        slow_share: whoever takes more than `SLOW_SECONDS` takes part in every so many-th round only.
        fresh: every measurement has a process of its own, whose growth is measured too.
        patience_seconds: for the rounds of a block.

    """

    family: str
    people: Sequence[Contender]
    levels: Sequence[Level]
    rounds: int
    warm_ups: int = 3
    untimed: int = 2
    block: int = 10
    slow_share: int = 1
    fresh: bool = False
    patience_seconds: float = 120.0


class StuckError(BenchError):
    """A contender has not come back."""


class Host:
    """A process that measures; see `childproof.bench.host`."""

    def __init__(self, ballast: dict[str, int], patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._pending = b""
        self._stuck = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "childproof.bench.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self.ask(ballast)
        except BaseException:
            self.close()
            raise

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request, one answer.

        Raises:
            BenchError: it ended or failed.
            StuckError: it did not answer in time.

        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reading says that it has ended
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._read_line(request))
        if "failed" in answer:
            raise BenchError(f"{answer['failed']}, at {request}")
        return answer

    def _read_line(self, request: dict[str, Any]) -> bytes:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        until = monotonic() + self._patience_seconds
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        while b"\n" not in self._pending:
            if not poller.poll(max(until - monotonic(), 0) * 1000):
                self._stuck = True
                raise StuckError(f"no answer within {self._patience_seconds:g} s to {request}")
            data = os.read(fd, 1 << 16)
            if not data:
                raise BenchError(f"the measuring process ended with code {self._process.wait()} at {request}")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def close(self) -> None:
        """End it; by force if it is stuck."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(0 if self._stuck else 5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # not reaped yet, so the group is its own
            self._process.wait()
        self._process.stdout.close()


class _Hosts:
    """Started when they are first needed: one a level for all, and one more for who is to be alone."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._started: dict[tuple[int, str], Host] = {}

    def get(self, level: int, contender: Contender) -> Host:
        key = level, contender.name if contender.alone else ""
        if key not in self._started:
            self._started[key] = Host(self._plan.levels[level].ballast, self._plan.patience_seconds)
        return self._started[key]

    def close(self) -> None:
        for host in self._started.values():
            host.close()


@dataclass(eq=False)
class _Entry:
    """One contender at one level."""

    contender: Contender
    level: Level
    series: Series
    host: Host | None = None
    every: int = 1


@dataclass
class _Course:
    """The entries of a plan, and what has come out so far."""

    plan: Plan
    result: Result = field(default_factory=Result)
    entries: list[_Entry] = field(default_factory=list)

    def enter(self, contender: Contender, level: Level) -> _Entry:
        entry = _Entry(contender, level, Series(contender.name, level.x))
        self.entries.append(entry)
        self.result.series.append(entry.series)
        return entry

    def prepare(self, host: Host, entry: _Entry, warm_ups: int) -> dict[str, Any]:
        return host.ask(
            {
                "do": "prepare",
                "family": self.plan.family,
                "contender": entry.contender.name,
                "task": asdict(entry.level.task),
                "warm_ups": warm_ups,
            }
        )

    def drop(self, entry: _Entry, why: str) -> None:
        """It can't be measured here. What it has given so far is kept."""
        self.entries.remove(entry)
        if not entry.series.samples:
            self.result.series.remove(entry.series)
        where = "" if entry.level.x is None else f" (at {entry.level.x})"
        self.result.missing[entry.contender.name] = why + where


def _in_turns(course: _Course, hosts: _Hosts, order: random.Random) -> Iterator[int]:
    plan = course.plan
    for contender in plan.people:
        for number, level in enumerate(plan.levels):
            entry = course.enter(contender, level)
            entry.host = hosts.get(number, contender)
            answer = course.prepare(entry.host, entry, plan.warm_ups)
            if "missing" in answer:
                course.drop(entry, answer["missing"])
            elif answer["seconds"] > SLOW_SECONDS:
                entry.every = min(plan.slow_share, plan.rounds)
    together: dict[Host, list[_Entry]] = {}
    for entry in course.entries:
        assert entry.host is not None
        together.setdefault(entry.host, []).append(entry)
    for first in range(0, plan.rounds, plan.block):
        block = range(first, min(first + plan.block, plan.rounds))
        waiting = list(together)
        order.shuffle(waiting)
        for host in waiting:
            _block(host, together[host], block, plan.untimed, order)
        yield block[-1]


def _block(host: Host, entries: list[_Entry], block: range, untimed: int, order: random.Random) -> None:
    """Some rounds in one host, one after another."""
    orders = []
    for turn in block:
        taking_part = [entry.contender.name for entry in entries if turn % entry.every == 0]
        order.shuffle(taking_part)
        orders.append(taking_part)
    rounds = host.ask({"do": "turns", "orders": orders, "untimed": untimed})["rounds"]
    for turn, values in zip(block, rounds, strict=True):
        for entry in entries:
            if entry.contender.name in values:
                entry.series.add(turn, values[entry.contender.name])


def _freshly(course: _Course, order: random.Random) -> Iterator[int]:
    plan = course.plan
    for contender in plan.people:
        for level in plan.levels:
            course.enter(contender, level)
    for turn in range(plan.rounds):
        taking_part = list(course.entries)
        order.shuffle(taking_part)
        for entry in taking_part:
            host = Host(entry.level.ballast, plan.patience_seconds)
            try:
                answer = course.prepare(host, entry, 0)
                if "missing" in answer:
                    course.drop(entry, answer["missing"])
                else:
                    entry.series.add(turn, host.ask({"do": "weigh", "name": entry.contender.name}))
            except BenchError as error:
                course.drop(entry, str(error))
            finally:
                host.close()
        yield turn


def take_turns(plan: Plan, settings: Settings, progress: Progress) -> Result:
    """Measure every contender at every level, in turns.

    Raises:
        BenchError: a contender that was fine at first has failed or does not come back. Where each
            measurement has a process of its own, that one is reported as missing instead.

    """
    course = _Course(plan)
    order = random.Random(settings.seed)  # noqa: S311 - an order, not a secret
    hosts = _Hosts(plan)
    try:
        for turn in _freshly(course, order) if plan.fresh else _in_turns(course, hosts, order):
            progress(turn + 1, plan.rounds)
    finally:
        hosts.close()
    return course.result
