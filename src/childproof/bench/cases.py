"""The conformance table: ways in which commands go wrong, and what counts as right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from childproof.bench.model import Task

DEADLINE_SECONDS = 2.0
LATE_SECONDS = 1.5
"""So long after the deadline, or after the command's own end, a call may still come back."""

CUT_OFF_SECONDS = 15.0
"""When it is given up. Left alone, most of those would wait for 600 s."""

Severity = Literal["ok", "flaw", "failure", "untested"]


@dataclass(frozen=True)
class Case:
    """One way to go wrong.

    Attributes:
        name: short.
        about: what happens, and what is right.
        task: what is run.
        timeout: seconds that the contender gets for it.
        ends: ``"timeout"``: it has to be stopped by the timeout; else the exit code it ends with.
        out: what has to be read from stdout.
        spares: processes that outlive it may live on, since the command meant to start them.
        ignore_sigchld: the host ignores SIGCHLD.
        stuck: the program's exec does not come back.

    """

    name: str
    about: str
    task: Task
    timeout: float = DEADLINE_SECONDS
    ends: Literal["timeout"] | int = "timeout"
    out: str | None = None
    spares: bool = False
    ignore_sigchld: bool = False
    stuck: bool = False


def _shell(line: str, **fields: Any) -> Task:
    return Task((line,), shell=True, **fields)  # noqa: S604 - what shells do is what is tested


MEGABYTES = 200
STUCK = "STUCK"
"""Stands in a task for the path of the program whose exec is stuck."""


def cases(source: str) -> tuple[Case, ...]:
    """All of them.

    Args:
        source: a program that writes as many letters as its argument says.

    """
    return (
        Case(
            "held pipe",
            "the shell ends at once, a process in the background keeps its stdout: come back, with the output",
            _shell("echo start ok; sleep 600 &"),
            ends=0,
            out="start ok\n",
            spares=True,
        ),
        Case(
            "shell + sleep",
            "a shell waits for a sleep: at the timeout both have to end",
            _shell("sleep 600; echo never"),
        ),
        Case(
            "setsid",
            "a child in a session of its own, which holds the pipes: at the timeout it has to end too",
            _shell("setsid sleep 600 & sleep 600"),
        ),
        Case(
            "daemon",
            "a process that has forked twice, with a session and files of its own: the same",
            _shell("(setsid sleep 600 </dev/null >/dev/null 2>&1 &); sleep 600"),
        ),
        Case("TERM ignored", "a shell that ignores SIGTERM", _shell("trap '' TERM; while :; do sleep 1; done")),
        Case(
            "input not read",
            "10 MB of input for a program that does not read: the timeout holds all the same",
            Task(("/bin/sh", "-c", "exec sleep 600"), input_bytes=10_000_000),
        ),
        Case(
            f"{MEGABYTES} MB out",
            f"{MEGABYTES} MB of output arrive whole",
            Task((source, str(MEGABYTES * 1_000_000)), raw=True, output_bytes=MEGABYTES * 1_000_000),
            timeout=10.0,
            ends=0,
        ),
        Case(
            "stuck exec",
            "the exec of the program does not come back (a permission event of fanotify that nobody answers, as"
            " of a virus scanner that hangs): the timeout holds all the same",
            Task((STUCK,)),
            stuck=True,
        ),
        Case(
            "SIGCHLD ignored",
            "the host ignores SIGCHLD, so that the kernel reaps: never a code that is not the command's",
            _shell("exit 7"),
            ends=7,
            ignore_sigchld=True,
        ),
    )


@dataclass
class Cell:
    """What was seen of one contender in one case.

    Attributes:
        missing: why it was not tested.
        hung: it had to be cut off.
        died: it took its own process along.
        seconds: until it came back, or was cut off.
        error: an exception that is no timeout.
        timed_out: it says that the timeout came.
        code: the exit code it gives.
        out_bytes: how much output it gives.
        out: its beginning.
        leftovers: command lines of live processes that it has left, its own process not counted.
        zombies: children that ended and were not waited for.
        held_fds: descriptors more than before.
        leaked_fds: the same after all that was left had been killed.
        peak_bytes: how far its memory had grown at most.

    """

    missing: str | None = None
    hung: bool = False
    died: bool = False
    seconds: float = 0.0
    error: str | None = None
    timed_out: bool = False
    code: int | None = None
    out_bytes: int = 0
    out: str = ""
    leftovers: list[str] = field(default_factory=list)
    zombies: int = 0
    held_fds: int = 0
    leaked_fds: int = 0
    peak_bytes: int = 0


class Verdict(NamedTuple):
    """What is to be said of a cell.

    Attributes:
        severity: ``"failure"``: it hung, failed, or said what is not so; ``"flaw"``: it left something
            behind or was late.
        words: the worst first.

    """

    severity: Severity
    words: tuple[str, ...]


def _false(case: Case, cell: Cell) -> list[str]:
    """What it says that is not so."""
    if case.ends == "timeout":
        return [] if cell.timed_out else [f"says code {cell.code}"]
    if cell.timed_out:
        return ["says timeout"]
    wrong = [] if cell.code in (case.ends, None) else [f"says code {cell.code}"]
    expected = case.task.output_bytes
    if (case.out is not None and cell.out != case.out) or (expected is not None and cell.out_bytes != expected):
        wrong.append("output lost")
    return wrong


def judge(case: Case, cell: Cell) -> Verdict:
    """By these rules, the same for all."""
    if cell.missing is not None:
        return Verdict("untested", (cell.missing,))
    if cell.died:
        return Verdict("failure", ("dies",))
    if cell.hung:  # that its command still runs goes without saying
        return Verdict("failure", ("hangs",))
    if cell.timed_out and case.task.output_bytes is not None:  # the command was at work all the time
        return Verdict("flaw", ("too slow",))
    failures = [f"raises {cell.error}"] if cell.error is not None else _false(case, cell)
    flaws = [] if case.spares or not cell.leftovers else [f"leaves {len(cell.leftovers)}"]
    if cell.zombies:
        flaws.append(f"zombies: {cell.zombies}")
    if cell.leaked_fds:
        flaws.append(f"leaks fds: {cell.leaked_fds}")
    works = case.ends == "timeout" or case.task.output_bytes is not None
    if cell.seconds > (case.timeout if works else 0) + LATE_SECONDS:
        flaws.append("late")
    if not failures and not flaws and cell.code is None and not cell.timed_out:
        return Verdict("ok", ("status lost",))
    return Verdict("failure" if failures else "flaw" if flaws else "ok", (*failures, *flaws) or ("ok",))
