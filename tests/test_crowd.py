"""Hundreds of trees that one thread kills at the same time, or whose pipes are held: one look serves all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from childproof import Outcome, _exchange, run_many
from childproof._janitor import Janitor, janitor
from childproof._processes import errands, holders, procfs, tree
from childproof._processes.errands import Errands
from childproof._processes.marks import Marks
from childproof._processes.survey import Survey
from childproof._processes.tree import Evidence, Tree
from conftest import SLACK_SECONDS, is_alive, stop, wait_until

COUNT = 120


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], list[int]]:
    """Counts the calls of a function."""

    def count(owner: Any, name: str) -> list[int]:
        made: list[int] = []
        function = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            made.append(1)
            return function(*args, **options)

        monkeypatch.setattr(owner, name, counted)
        return made

    return count


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine names come late."""
    monkeypatch.setattr(tree, "NAMES_SECONDS", 5)
    monkeypatch.setattr(_exchange, "CLEARING_SECONDS", 20)
    monkeypatch.setattr(holders, "SEARCH_SECONDS", 5)


def together(cmd: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Commands that reach their deadline at the same moment."""
    deadline = time.monotonic() + seconds
    for _ in range(COUNT):
        yield {"cmd": cmd, "timeout": deadline - time.monotonic()}


@pytest.mark.parametrize(
    ("cmd", "size"), [("sleep 600 & sleep 600", 3), ("setsid sleep 600 & sleep 600", 3)], ids=["session", "escapees"]
)
def test_one_deadline(cmd: str, size: int, calls: Any, patience: None) -> None:
    """All die and are named, with a few looks at /proc, a few jobs of the background thread, and no mark read twice."""
    looks, jobs = calls(procfs, "table"), calls(Janitor, "submit")
    results = list(run_many(together(cmd, 6), jobs=COUNT))
    assert {result.outcome for result in results} == {Outcome.TIMED_OUT}
    assert [len(result.killed) for result in results] == [size] * COUNT
    assert not any(result.survivors for result in results)
    assert not any(info.command.startswith("[") for result in results for info in result.killed)
    assert len(looks) < COUNT / 4
    assert len(jobs) < COUNT / 4


def test_held_pipes(calls: Any, patience: None) -> None:
    """By commands that end together: the holders are found and named by a few looks at all processes."""
    looks = calls(procfs, "pids")
    end = time.monotonic() + 4
    cmds = (f"sleep 600 & echo $!; exec sleep {end - time.monotonic():.3f}" for _ in range(COUNT))
    results = list(run_many(cmds, jobs=COUNT, timeout=600))
    assert len(looks) < COUNT / 2
    for result in results:
        stop(int(result.out))
    assert [[(h.pid, h.command) for h in r.held] for r in results] == [[(int(r.out), "sleep 600")] for r in results]


def test_cost_of_an_event(calls: Any) -> None:
    """It does not grow with the number of those that sleep: as many looks at the heap and the poller for each."""
    ticks, ready = calls(_exchange.Exchange, "tick"), calls(_exchange.Exchange, "ready")
    each = []
    for count in (50, 300):
        ticks.clear()
        ready.clear()
        assert all(result.ok for result in run_many([["sleep", "2"]] * count, jobs=count))
        each.append((len(ticks) + len(ready)) / count)
    assert each[1] < 1.5 * each[0] + 1


# ---- what an old look is good for ----


@pytest.mark.parametrize("jobs", [1, 8])
def test_a_look_from_before_the_childs_end(jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or from before its start: who says by it that nobody is left would let live what the child has made. The
    ends are far apart: a look that falls on one is not kept for long but in this test.
    """
    monkeypatch.setattr(Survey, "_is_recent", lambda self, census: True)

    def commands() -> Iterator[Any]:
        yield "sleep 0.1; true"
        yield {"cmd": "sleep 600 & echo $!", "leftovers": "kill"}
        yield {"cmd": "sleep 3; sleep 600 & echo $!", "leftovers": "kill"}

    results = list(run_many(commands(), jobs=jobs, timeout=600, order="given", leftovers="kill"))
    assert [len(result.killed) for result in results[1:]] == [1, 1]
    assert not any(is_alive(int(result.out)) for result in results[1:])


def test_who_has_left_the_group_since_is_not_settled() -> None:
    """He may not have had the group's SIGKILL, so he is not only waited for."""
    process = procfs.read_process(1)
    assert process is not None
    one = Tree(_Nobody(), Evidence(0.0, None, {}, ()), 0, Survey(set))
    assert not one.is_settled([process])
    one._struck[process.key] = process.pgrp
    assert one.is_settled([process])
    assert not one.is_settled([process._replace(pgrp=process.pgrp + 1)])


class _Nobody:
    """A root without a process."""

    pid = 0
    leads_group = False
    supervisors = ()

    def kill_supervised(self) -> None:
        """Nobody is."""

    def ended(self) -> int:
        """It has."""
        return -1

    def signal(self, number: int) -> int:
        """Nobody is signalled."""
        raise AssertionError(number)

    signal_group = signal


# ---- errands ----


@pytest.fixture
def hang() -> Iterator[Callable[[], None]]:
    """Blocks until the test is over, as a file of /proc may."""
    over = threading.Event()
    before = background_threads()
    yield lambda: assert_over(over)
    over.set()
    assert wait_until(lambda: len(background_threads() - before) <= 1)


def background_threads() -> set[threading.Thread]:
    """Those of ours; other tests may have left one that hangs yet."""
    return {thread for thread in threading.enumerate() if thread.name == "childproof"}


def assert_over(over: threading.Event) -> None:
    """Wait for the end of the test."""
    assert over.wait(60)


def test_an_errand_that_hangs(hang: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those behind it are answered, and it is lost."""
    monkeypatch.setattr(errands, "STUCK_SECONDS", 0.05)
    queue = Errands(100)
    first, second = queue.ask(hang), queue.ask(lambda: 7)
    assert wait_until(lambda: queue.answered(second))
    assert queue.take(second) == 7
    assert first.lost
    assert queue.take(first) is None


def test_an_errand_that_nobody_waits_for(hang: Callable[[], None]) -> None:
    """The thread that hangs in it is replaced at once."""
    queue = Errands()
    errand = queue.ask(hang)
    assert wait_until(lambda: queue._running is errand)
    assert queue.take(errand) is None
    began = time.monotonic()
    errand = queue.ask(lambda: 7)
    assert wait_until(lambda: queue.answered(errand))
    assert time.monotonic() - began < SLACK_SECONDS
    assert queue.take(errand) == 7


def test_many_errands_are_one_job(calls: Any) -> None:
    """Nothing is sent before it is asked whether one is answered."""
    jobs = calls(Janitor, "submit")
    queue = Errands(100)
    asked = [queue.ask(lambda value=value: value) for value in range(99)]  # type: ignore[misc]
    assert not jobs
    assert wait_until(lambda: all(queue.answered(errand) for errand in asked))
    assert [queue.take(errand) for errand in asked] == list(range(99))
    assert len(jobs) <= 3


def test_errands_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are done at once, without a value."""

    class Refused:
        done = threading.Event()

    Refused.done.set()
    monkeypatch.setattr(janitor, "submit", lambda function: Refused)
    queue = Errands()
    errand = queue.ask(lambda: 7)
    assert queue.answered(errand)
    assert queue.take(errand) is None
    assert queue.refused


def test_marks_are_read_once(calls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whichever tree asks first; again only of those whose environment could not be seen."""
    seen: dict[int, list[bytes] | None] = {2: [b"a", b"b"], 3: None, 4: []}
    monkeypatch.setattr(procfs, "seen_tokens", lambda pid: seen[pid])
    monkeypatch.setattr(procfs, "command_lines", lambda pids: dict.fromkeys(pids, "line"))
    reads = calls(procfs, "seen_tokens")
    marks, keys = Marks(Errands()), frozenset({(2, 0), (3, 0), (4, 0)})
    for expected in (3, 4):
        marks.ask(keys)
        assert wait_until(marks.answered)
        assert len(reads) == expected
        seen[3] = [b"b"]
    assert (marks.of(b"a"), marks.of(b"b")) == ({(2, 0)}, {(2, 0), (3, 0)})
    assert marks.commands == {(2, 0): "line", (3, 0): "line"}
    marks.keep(frozenset({(3, 0)}))
    assert (marks.of(b"a"), marks.of(b"b")) == (set(), {(3, 0)})
