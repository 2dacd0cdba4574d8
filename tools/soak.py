"""Many commands with random faults: every Result is right, nothing is left behind, memory is flat."""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import childproof
from childproof import Outcome, Result, run_many
from childproof._janitor import janitor
from childproof._processes import procfs

MOST_GROWTH_BYTES = 16 << 20
"""Of resident memory, from when a tenth of the commands are over to the end; the allocator's own."""

HOLD_SECONDS = 0.3
"""How long a holder of a pipe lives."""


class Case(NamedTuple):
    """A command and what is to come of it.

    Attributes:
        kind: its name in the summary.
        cmd: an element of the commands of `run_many`.
        code, outcome, out: as in the Result.
        held: by how many its pipes may be held at its end.

    """

    kind: str
    cmd: Any
    code: int
    outcome: Outcome
    out: str = ""
    held: int = 0


def _exit(lot: random.Random) -> Case:
    code = lot.randrange(256)
    return Case("exit", ["sh", "-c", f"exit {code}"], code, Outcome.EXITED)


def _plain(lot: random.Random) -> Case:
    word = str(lot.random())
    return Case("plain", ["echo", word], 0, Outcome.EXITED, word)


def _killed(lot: random.Random) -> Case:
    number = lot.choice([1, 2, 3, 6, 9, 10, 12, 13, 15])
    return Case("killed", f"echo x; kill -{number} $$; sleep 600", -number, Outcome.SIGNALED, "x")


def _stopped(_: random.Random) -> Case:
    return Case("stopped", {"cmd": "echo x; kill -STOP $$", "timeout": 0.5}, 124, Outcome.TIMED_OUT, "x")


def _hangs(_: random.Random) -> Case:
    cmd = "echo x; setsid sleep 600 & sleep 600 & wait"
    return Case("hangs", {"cmd": cmd, "timeout": 0.5}, 124, Outcome.TIMED_OUT, "x")


def _holds(_: random.Random) -> Case:
    return Case("holds", {"cmd": f"sleep {HOLD_SECONDS} & echo x", "linger": 0.01}, 0, Outcome.EXITED, "x", 1)


def _floods(lot: random.Random) -> Case:
    size = lot.randrange(1 << 20)
    return Case("floods", f"head -c {size} /dev/zero | tr '\\0' x", 0, Outcome.EXITED, "x" * size)


def _floods_for_ever(_: random.Random) -> Case:
    cmd = {"cmd": ["yes"], "timeout": 0.3, "max_output": 10}
    return Case("floods for ever", cmd, 124, Outcome.TIMED_OUT, "y\ny\ny\ny\ny")


def _missing(lot: random.Random) -> Case:
    return Case("missing", [f"/nonexistent/{lot.random()}"], 127, Outcome.NOT_STARTED)


def _fed(lot: random.Random) -> Case:
    text = "x" * lot.randrange(1 << 18)
    return Case("fed", {"cmd": ["cat"], "input": text}, 0, Outcome.EXITED, text)


def _unread(_: random.Random) -> Case:
    return Case("unread", {"cmd": ["true"], "input": "x" * (1 << 18)}, 0, Outcome.EXITED)


KINDS: dict[Callable[[random.Random], Case], int] = {
    _exit: 350,
    _plain: 350,
    _killed: 80,
    _missing: 80,
    _fed: 50,
    _unread: 30,
    _floods: 30,
    _holds: 10,
    _stopped: 10,
    _hangs: 5,
    _floods_for_ever: 5,
}
"""How often each comes, in a thousand."""


def cases(count: int, seed: int) -> Iterator[Case]:
    """The same for the same seed."""
    lot = random.Random(seed)
    kinds, weights = list(KINDS), list(KINDS.values())
    for _ in range(count):
        yield lot.choices(kinds, weights)[0](lot)


def wrong(case: Case, result: Result[str]) -> str:
    """What is wrong with `result`, or nothing."""
    if (result.code, result.outcome) != (case.code, case.outcome):
        return f"{result!r}, not {case.code}, {case.outcome.name}"
    if result.out != case.out and case.kind != "floods for ever":
        return f"output of {len(result.out)}, not {len(case.out)}"
    if case.kind == "floods for ever" and (not result.truncated or set(result.out) != {"y", "\n"}):
        return f"output {result.out!r}"
    if len(result.held) > case.held and not result.survivors:
        return f"held by {result.held}"
    return ""


# ---- what is left ----


def descriptors() -> set[str]:
    """Ours, without those of the background thread."""
    own = {str(fd) for fd in janitor.descriptors()}
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")} - own


def left_behind(token: bytes) -> dict[int, str]:
    """Processes that are marked as ours, and alive, and our zombies."""
    found = {}
    for process in procfs.table().values():
        if process.pid == os.getpid():
            continue
        if process.ppid == os.getpid() or (process.alive and procfs.has_mark(process.pid, token)):
            found[process.pid] = procfs.command_line(process.pid) or process.name
    return found


def resident_bytes() -> int:
    """Of this process, now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether it became true."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


def soak(count: int, jobs: int, seed: int) -> list[str]:
    """What was wrong."""
    token = os.urandom(8).hex()
    os.environ["CHILDPROOF_RUN"] = token
    childproof.run("sleep 0.1 & echo", linger=0)  # starts the background thread
    before = descriptors()
    waiting: dict[int, Case] = {}

    def cmds() -> Iterator[Any]:
        for position, case in enumerate(cases(count, seed)):
            waiting[position] = case
            yield case.cmd

    mistakes: list[str] = []
    kinds: Counter[str] = Counter()
    base = late = 0
    began = time.monotonic()
    for done, result in enumerate(run_many(cmds(), jobs=jobs, timeout=60), 1):
        assert result.position is not None
        case = waiting.pop(result.position)
        kinds[case.kind] += 1
        late += bool(result.survivors)
        if mistake := wrong(case, result):
            mistakes.append(f"{case.kind}: {mistake}")
        if done == max(count // 10, 1):
            base = resident_bytes()
    seconds = time.monotonic() - began
    grown = resident_bytes() - base
    if sum(kinds.values()) != count or waiting:
        mistakes.append(f"{sum(kinds.values())} results for {count} commands")
    if grown > MOST_GROWTH_BYTES:
        mistakes.append(f"memory has grown by {grown >> 10} KiB")
    if not until(lambda: not left_behind(token.encode()) and not janitor.busy(), 10):
        mistakes.append(f"left behind: {left_behind(token.encode())}")
    if (now := descriptors()) != before:
        mistakes.append(f"descriptors: {sorted(now ^ before)}")
    if extra := [thread.name for thread in threading.enumerate()[1:] if thread.name != "childproof"]:
        mistakes.append(f"threads: {extra}")
    print(f"{count} commands, {jobs} at once, seed {seed}: {seconds:.1f} s, memory {grown / 1024:+.0f} KiB")
    print(f"{late} told of processes that had not died in time; all of them had at the end, unless said below")
    print(", ".join(f"{kind} {number}" for kind, number in kinds.most_common()))
    return mistakes


def main() -> int:
    """The tool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=100_000, metavar="N", help="how many (default: 100000)")
    parser.add_argument("--jobs", type=int, default=64, metavar="N", help="how many at once (default: 64)")
    parser.add_argument("--seed", type=int, default=int(time.time()), metavar="N", help="of what is drawn by lot")
    args = parser.parse_args()
    mistakes = soak(args.commands, args.jobs, args.seed)
    for mistake in mistakes[:50]:
        print(f"WRONG: {mistake[:1000]}")
    print(f"{len(mistakes)} wrong" if mistakes else "all right")
    return bool(mistakes)


if __name__ == "__main__":
    sys.exit(main())
