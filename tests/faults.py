"""The fault matrix: `childproof.run` with the n-th call of a kind failing, n = 1, 2, … until none is left.

To be run in a build of `variants.build_with_faults`, with its environment, and better in a PID
namespace of its own, where nobody else's processes are: tools/fault-matrix. Prints one JSON object.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import childproof
from childproof import _spawner
from fault_plan import Plan, library, plan
from invariants import Invariants, warm_up

ORIGINS = ("C, parent", "C, child", "Python")
FOR_EVER = 1_000_000
MOST_AGAIN = 20
"""How often a call is interrupted or not ready: it is tried again, so for ever would be for ever."""

TRIED_AGAIN = {"read", "write", "poll"}

IMPOSSIBLE = {("Python", "write", errno.EAGAIN), ("Python", "write", errno.EPIPE)}
"""What Python itself writes goes to the pipe that wakes the background thread: it is full only if the
thread has yet to read, and never without a reader, since that is us.
"""

CLOSE_ERRORS = (0, errno.EIO, errno.EINTR)


def calls() -> list[str]:
    """The names of the table in tests/c/fault.c, by their numbers."""
    names: list[str] = []
    while (name := library.cpf_name(len(names))) is not None:
        names.append(name.decode())
    return names


def errors(call: int) -> list[int]:
    """The errnos that the man page of `call` names, as far as they are plausible."""
    found: list[int] = []
    while number := library.cpf_errno(call, len(found)):
        found.append(number)
    return found


class Scenario(NamedTuple):
    """One kind of run, under forced settings."""

    name: str
    run: Callable[[], Any]
    settings: dict[str, int]


class Answer(NamedTuple):
    """What `run` said, as far as it must be the same each time."""

    code: int
    out: str
    err: str
    outcome: str


def scenarios() -> Iterator[Scenario]:
    """All that are tried."""
    run = childproof.run
    start, closing, feature = _spawner.STARTS, _spawner.CLOSINGS, _spawner.FEATURES
    plain = ["/bin/sh", "-c", "echo out; echo err >&2"]
    yield Scenario("output", lambda: run(plain), {})
    yield Scenario("output; vfork, proc", lambda: run(plain), {"start": start["vfork"], "closing": closing["proc"]})
    yield Scenario("output; fork, no pidfd", lambda: run(plain), {"start": start["fork"], "disabled": feature["pidfd"]})
    yield Scenario("input, cwd", lambda: run(["/bin/cat"], input="x" * 100_000, cwd="/"), {})
    yield Scenario("files", lambda: run(plain, stdout="file", stderr="/dev/null"), {})
    yield Scenario(
        "attributes",
        lambda: run(plain, umask=0o27, nice=1, limits={"core": 0}, user=65534, group=65534, extra_groups=[65534]),
        {},
    )
    yield Scenario("no such program", lambda: run(["/nonexistent"]), {})
    yield Scenario("deadline", lambda: run(["/bin/sleep", "600"], timeout=0.05), {})
    yield Scenario(
        "deadline; fork, no pidfd",
        lambda: run(["/bin/sleep", "600"], timeout=0.05),
        {
            "start": start["fork"],
            "disabled": feature["pidfd"],
        },
    )
    yield Scenario("tree, grace", lambda: run("sleep 600 & sleep 600", timeout=0.05, grace=0.05), {})
    yield Scenario("leftovers killed", lambda: run("sleep 600 & echo x", linger=0.02, leftovers="kill"), {})
    yield Scenario("leftovers held", lambda: run("sleep 0.3 & echo x", linger=0.02), {})


# ---- one point ----


def answer_of(result: Any) -> Answer:
    """What of `result` must be the same each time."""
    return Answer(result.code, result.out, result.err, result.outcome.name)


def judge(result: Any, good: Answer, name: str, error: int) -> tuple[str, bool]:
    """What `result` amounts to, and whether that is honest."""
    answer = answer_of(result)
    if answer == good:
        return "true result", True
    if result.outcome.name == "NOT_STARTED" and name != "getppid":
        named = result.error.errno == error
        if result.error.stage == "exec" and error == errno.ENOTDIR:  # of a directory in PATH
            named |= result.error.errno == errno.ENOENT
        return f"not started: {result.error.stage}", named
    if result.outcome.name == "NOT_STARTED" and name == "getppid":  # as if the parent had died
        return f"not started: {result.error.stage}", True
    if name == "write" and error == errno.EPIPE and result.outcome.name == good.outcome:
        return "input not read", True  # by the contract no error
    if result.truncated:
        return "truncated", True
    if result.outcome.name == "STATUS_LOST":
        return "status lost", error == errno.ECHILD and answer[1:3] == good[1:3]
    if result.error is not None and result.error.errno == error:
        return f"error: {result.error.stage}", True
    return f"false: {result!r}", False


class Matrix:
    """Collects what came of the points."""

    def __init__(self) -> None:
        self.names = calls()
        self.table: dict[tuple[int, int, int], Counter[str]] = {}
        self.bad: list[str] = []
        self.points = 0

    def point(
        self, scenario: Scenario, good: Answer, origin: int, call: int, nth: int, times: int, error: int, close: int
    ) -> bool:
        """Try one; whether the call was reached."""
        invariants = Invariants()
        for name, value in (("origin", origin), ("call", call), ("nth", nth), ("times", times), ("error", error)):
            setattr(plan, name, value)
        plan.close_error = close
        ctypes.memset(ctypes.addressof(plan) + Plan.counts.offset, 0, ctypes.sizeof(plan.counts))
        plan.armed = 1
        signal.alarm(10)
        try:
            result = scenario.run()
        except BaseException as exception:
            plan.armed = 0
            # The host is out of memory: the one thing that is raised, once all is killed and closed.
            outcome = f"raised {type(exception).__name__}"
            honest = isinstance(exception, OSError) and exception.errno == error == errno.ENOMEM
            detail = repr(exception)
        else:
            plan.armed = 0
            outcome, honest = judge(result, good, self.names[call], error)
            detail = f"{result!r} {result.error!r}"
            for info in result.survivors:  # it says that it could not: then we must
                os.kill(info.pid, signal.SIGKILL)
        signal.alarm(0)
        reached = plan.counts[origin][call] >= nth if origin >= 0 else False
        broken = invariants.broken()
        if broken and origin < 0:
            self.bad.append(f"{scenario.name}: {broken}")
        if not reached:
            return False
        self.points += 1
        where = f"{scenario.name}: {ORIGINS[origin]}: {self.names[call]} {nth} {errno.errorcode.get(error)} " + (
            ("once" if times == 1 else "for ever") + (f", close {errno.errorcode[close]}" if close else "")
        )
        if broken:
            self.report(f"{where}: {broken}")
        if not honest:
            self.report(f"{where}: {outcome}: {detail}"[:400])
        self.table.setdefault((origin, call, error), Counter())[outcome if honest else outcome.split(":")[0]] += 1
        return reached

    def report(self, sentence: str) -> None:
        """One bad point; at once, since the whole may take long."""
        self.bad.append(sentence)
        print(sentence, file=sys.stderr, flush=True)

    def scenario(self, scenario: Scenario, most: int, full: bool) -> None:
        """All points of one."""
        good = answer_of(scenario.run())
        plan.pid = os.getpid()
        before, bad = self.points, len(self.bad)
        began = time.monotonic()
        self.point(scenario, good, -1, 0, 1, 1, 0, 0)
        counts = [list(row) for row in plan.counts]
        for origin, row in enumerate(counts):
            for call, count in enumerate(row):
                if count:
                    self.call(scenario, good, origin, call, most, full)
        self.point(scenario, good, -1, 0, 1, 1, 0, 0)
        print(
            f"{scenario.name:26} {self.points - before:6} points {len(self.bad) - bad:4} bad "
            f"{time.monotonic() - began:6.1f} s",
            file=sys.stderr,
            flush=True,
        )

    def call(self, scenario: Scenario, good: Answer, origin: int, call: int, most: int, full: bool) -> None:
        """All points of one call."""
        for error in errors(call):
            if (ORIGINS[origin], self.names[call], error) in IMPOSSIBLE:
                continue
            for times in (
                1,
                MOST_AGAIN if error in (errno.EINTR, errno.EAGAIN) and self.names[call] in TRIED_AGAIN else FOR_EVER,
            ):
                for close in CLOSE_ERRORS if full else (0,):
                    nth = 1
                    while nth <= most and self.point(scenario, good, origin, call, nth, times, error, close):
                        nth += 1


def hung(number: int, frame: Any) -> None:
    """The handler of SIGALRM."""
    plan.armed = 0
    raise TimeoutError("it hangs")


def main(wanted: list[str], most: int, full: bool) -> None:
    """Run the scenarios `wanted`, or all."""
    signal.signal(signal.SIGALRM, hung)
    matrix = Matrix()
    warm_up()
    for scenario in scenarios():
        if wanted and scenario.name not in wanted:
            continue
        before = _spawner.settings
        _spawner.settings = before._replace(**scenario.settings)
        try:
            matrix.scenario(scenario, most, full)
        finally:
            _spawner.settings = before
    rows = [
        (ORIGINS[origin], matrix.names[call], errno.errorcode[error], sum(outcomes.values()), dict(outcomes))
        for (origin, call, error), outcomes in sorted(matrix.table.items())
    ]
    print(json.dumps({"points": matrix.points, "bad": matrix.bad, "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[3:], int(sys.argv[1]), sys.argv[2] == "full")
