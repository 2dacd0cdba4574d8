"""The scenario of the conformance table: every case with every contender."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict

from childproof.bench import guarded, programs
from childproof.bench.cases import (
    CUT_OFF_SECONDS,
    DEADLINE_SECONDS,
    Case,
    Cell,
    cases,
    judge,
)
from childproof.bench.model import BenchError, Metric, MissingError, Progress, Result, Scenario, Series, Settings

AT_ONCE = 4
"""Cells measured at the same time: they mostly sleep."""

PATIENCE_SECONDS = 120.0
"""For one cell, the start of its processes and the cleaning included."""


def watch(
    case: Case,
    contender: str,
    module: str = "childproof.bench.guarded",
    cut_off: float = CUT_OFF_SECONDS,
) -> Cell:
    """One cell, in processes of its own.

    Args:
        case: the case.
        contender: a name in the `CALLS` of `module`.
        module: where it is found.
        cut_off: seconds after which it is given up.

    Raises:
        BenchError: the arena itself failed.

    """
    request = {
        "module": module,
        "contender": contender,
        "task": asdict(case.task),
        "ignore_sigchld": case.ignore_sigchld,
        "stuck": case.stuck,
        "timeout": case.timeout,
        "cut_off": cut_off,
    }
    done = subprocess.run(
        [sys.executable, "-m", "childproof.bench.arena"],
        input=json.dumps(request) + "\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
        raise BenchError(f"hostile, {case.name}, {contender}: {reason}")
    return Cell(**json.loads(done.stdout))


def _source() -> str:
    try:
        return programs.compiled("source")
    except MissingError:
        return ""


def as_series(case: Case, contender: str, cells: Sequence[Cell]) -> Series:
    """The cells of every round as a line of the result: the verdict is the most frequent one."""
    verdicts = [judge(case, cell) for cell in cells]
    verdict = max(verdicts, key=verdicts.count)
    series = Series(contender, case.name, label=", ".join(verdict.words), severity=verdict.severity)
    for turn, cell in enumerate(cells):
        if cell.missing is None:
            series.add(turn, _values(cell))
    return series


def _values(cell: Cell) -> dict[str, float]:
    return {
        "seconds": cell.seconds,
        "leftovers": len(cell.leftovers),
        "held_fds": cell.held_fds,
        "leaked_fds": cell.leaked_fds,
        "peak_bytes": cell.peak_bytes,
    }


def _repeat(case: Case, contender: str, rounds: int) -> list[Cell]:
    """So often; who hangs or can't be tested, once."""
    cells: list[Cell] = []
    while len(cells) < rounds and not (cells and (cells[-1].hung or cells[-1].missing)):
        cells.append(watch(case, contender))
    return cells


def _wavering(case: Case, contender: str, cells: Sequence[Cell]) -> list[str]:
    """A note where not every round gave the same."""
    words = [", ".join(judge(case, cell).words) for cell in cells]
    return [f"{contender}, {case.name}: not the same each time: {'; '.join(words)}"] if len(set(words)) > 1 else []


def _chosen(settings: Settings) -> tuple[list[Case], list[str]]:
    wanted = [case for case in cases(_source()) if case.task.argv[0]]
    people = [name for name in guarded.CALLS if not settings.only or name in settings.only]
    if settings.size == "short":
        people = people[:2]
    if settings.size == "tiny":
        wanted, people = wanted[-1:], people[:2]
    return wanted, people


def _measure(settings: Settings, progress: Progress) -> Result:
    wanted, people = _chosen(settings)
    found: dict[tuple[str, str], list[Cell]] = {}
    rounds = settings.rounds_of(3, 1, 1)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = {pool.submit(_repeat, case, name, rounds): (case, name) for case in wanted for name in people}
        try:
            for done in as_completed(waiting):
                case, name = waiting[done]
                found[case.name, name] = done.result()
                progress(len(found), len(waiting))
        except BaseException:  # a Ctrl-C too waits only for those that run
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    result = Result([as_series(case, name, found[case.name, name]) for case in wanted for name in people])
    result.missing = _not_installed(result.series, people)
    result.series = [series for series in result.series if series.contender not in result.missing]
    result.notes = [
        "descriptors: more than before, where a plain run and one that timed out had been before",
        f"timeout {DEADLINE_SECONDS:g} s, for the output 10 s; cut off after {CUT_OFF_SECONDS:g} s",
        f"{AT_ONCE} cells at a time; each {rounds} times, unless it hangs",
        *(f"{case.name}: {case.about}" for case in wanted),
        *(note for case in wanted for name in people for note in _wavering(case, name, found[case.name, name])),
    ]
    if shutil.which("setsid") is None:
        result.notes.append("there is no setsid(1): two of the cases test nothing")
    return result


def _not_installed(series: Sequence[Series], people: Sequence[str]) -> dict[str, str]:
    """Who was tested in no case, and why."""
    missing = {}
    for name in people:
        own = [one for one in series if one.contender == name]
        if own and all(one.severity == "untested" for one in own):
            missing[name] = own[0].label or ""
    return missing


SCENARIOS = (
    Scenario(
        "hostile",
        "What goes wrong in the field, with everybody",
        "Each cell is a process of its own under a subreaper, which finds what is left without asking.",
        "",
        _measure,
        (
            Metric("seconds", "time"),
            Metric("leftovers", "left alive", "count"),
            Metric("held_fds", "descriptors left", "count"),
            Metric("leaked_fds", "of them leaked", "count"),
            Metric("peak_bytes", "peak memory", "bytes"),
        ),
        "case",
    ),
)
