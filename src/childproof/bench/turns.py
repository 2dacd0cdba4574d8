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
from itertools import groupby
from typing import Any

from childproof.bench.contenders import Contender
from childproof.bench.model import BenchError, Progress, Result, Series, Settings, Task, X

PATIENCE_SECONDS = 120.0
"""For one answer of a host: many times what the slowest round takes."""

SLOW_SECONDS, SLOW_SHARE = 0.01, 5
"""A contender slower than the first takes part in every so many-th round only."""


class Host:
    """A process that measures; see `childproof.bench.host`."""

    def __init__(self, ballast: dict[str, int]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "childproof.bench.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._pending = b""
        self.ask({"do": "burden", "ballast": ballast})

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request, one answer.

        Raises:
            BenchError: the host ended, or did not answer in time.

        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # reading says that it has ended
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        fd = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            if not poller.poll(PATIENCE_SECONDS * 1000):
                raise BenchError(f"no answer within {PATIENCE_SECONDS:g} s to {request}")
            data = os.read(fd, 1 << 16)
            if not data:
                raise BenchError(f"the measuring process ended with code {self._process.wait()} at {request}")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it; by force if it is stuck."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def hosts(burdens: Sequence[dict[str, int]]) -> Iterator[list[Host]]:
    """One host for each burden."""
    started: list[Host] = []
    try:
        for burden in burdens:
            started.append(Host(burden))  # noqa: PERF401 - one that fails must not hide the others from close
        yield started
    finally:
        for host in started:
            host.close()


class _Entry:
    """One contender in one host."""

    def __init__(self, host: Host, series: Series, seconds: float) -> None:
        self.host, self.series = host, series
        self.every = SLOW_SHARE if seconds > SLOW_SECONDS else 1


def take_turns(
    levels: Sequence[tuple[X, dict[str, int]]],
    people: Sequence[Contender],
    task: Task,
    rounds: int,
    settings: Settings,
    progress: Progress,
    code: int = 0,
) -> Result:
    """Measure every contender at every level, in turns.

    Args:
        levels: values of the parameter, each with the burden of its host.
        people: the contenders.
        task: what they run.
        rounds: how many rounds.
        settings: for the seed.
        progress: told after every round.
        code: the exit code that is right.

    """
    result = Result()
    with hosts([burden for _, burden in levels]) as started:
        entries = _prepare(levels, started, people, task, code, result)
        shuffle = random.Random(settings.seed)  # noqa: S311 - an order, not a secret
        for turn in range(rounds):
            taking_part = [entry for entry in entries if turn % entry.every == 0]
            shuffle.shuffle(taking_part)
            for host, group in groupby(taking_part, lambda entry: entry.host):
                together = list(group)
                values = host.ask({"do": "turn", "order": [entry.series.contender for entry in together]})
                for entry in together:
                    entry.series.add(turn, values[entry.series.contender])
            progress(turn + 1, rounds)
    return result


def _prepare(
    levels: Sequence[tuple[X, dict[str, int]]],
    started: Sequence[Host],
    people: Sequence[Contender],
    task: Task,
    code: int,
    result: Result,
) -> list[_Entry]:
    entries = []
    for contender in people:
        for (x, _), host in zip(levels, started, strict=True):
            request = {"do": "prepare", "contender": contender.name, "task": task.as_dict(), "code": code}
            answer = host.ask(request)
            if "missing" in answer:
                result.missing[contender.name] = answer["missing"]
                continue
            series = Series(contender.name, x)
            result.series.append(series)
            entries.append(_Entry(host, series, answer["seconds"]))
    return entries
