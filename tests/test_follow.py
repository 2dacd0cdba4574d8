"""The short way: what happens to a command that is followed in C is what its Result says all the same."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import childproof
from childproof import Outcome, _caught, _follow, _run
from childproof._command import make_command
from childproof._exchange import Exchange
from childproof._many.followed import Followed
from childproof._spawner import Child, has_pidfd
from conftest import SLACK_SECONDS, is_alive, wait_until
from forcing import force

pytestmark = pytest.mark.skipif(not has_pidfd(), reason="without a pidfd nobody goes the short way")

ROOM = _caught.ROOM_BYTES


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    """Those that had to go on."""
    made: list[Exchange] = []
    take_over = Exchange.take_over

    def noting(self: Exchange, caught: Any) -> None:
        made.append(self)
        take_over(self, caught)

    monkeypatch.setattr(Exchange, "take_over", noting)
    return made


@pytest.mark.parametrize(
    ("options", "short"),
    [
        ({}, True),
        ({"timeout": 60}, True),
        ({"input": "x" * _follow.SMALL_INPUT}, True),
        ({"input": "x" * _follow.SMALL_INPUT + "x"}, False),
        ({"stdout": "null", "stderr": "inherit"}, True),
        ({"merge": True}, True),
        ({"cwd": "/", "umask": 0o77, "start": "fork"}, True),
        ({"stdout": "file"}, False),
        ({"on_output": print}, False),
        ({"max_output": 10}, False),
        ({"leftovers": "kill"}, False),
        ({"autopsy": True}, False),
        ({"die_with_parent": True}, False),
        ({"contain": "auto"}, False),
        ({"start": "vfork"}, False),
    ],
    ids=str,
)
def test_who_goes_the_short_way(options: dict[str, Any], short: bool) -> None:
    """All for whom nothing has to be decided unless something happens."""
    assert _follow.may_follow(make_command(["true"], **options)) is short


def test_nobody_does_without_a_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the end has to be looked for."""
    force(monkeypatch, disabled=1)
    assert not _follow.may_follow(make_command(["true"]))


def test_nobody_does_where_waiting_in_c_would_stop_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under gevent, whose `poll` lets the other greenlets run."""

    class Green:
        """In the place of `select.poll`."""

    monkeypatch.setattr(select, "poll", Green)
    assert not _follow.may_follow(make_command(["true"]))


def test_a_plain_command_needs_no_exchange(exchanges: list[Exchange]) -> None:
    """Output, errors, input and status are all there."""
    result = childproof.run("cat; echo err >&2; exit 3", input="in", timeout=60)
    assert result == (3, "in", "err")
    assert (result.outcome, result.held, result.killed, result.error) == (Outcome.EXITED, (), (), None)
    assert result.usage is not None
    assert result.spawned is not None
    assert result.contained == childproof.Contained("session", False)
    assert not exchanges


@pytest.mark.parametrize("size", [0, 1, ROOM - 1, ROOM, ROOM + 1, 3 * ROOM, 3_000_001])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_of_any_size(exchanges: list[Exchange], size: int, stream: str) -> None:
    """What does not fit goes to the exchange, behind what has been read."""
    code = f"import sys; sys.{stream}.write(''.join(map(str, range({size})))[:{size}])"
    result = childproof.run([sys.executable, "-c", code], timeout=60)
    expected = "".join(map(str, range(size)))[:size]
    assert (result.out, result.err) == ((expected, "") if stream == "stdout" else ("", expected))
    assert len(exchanges) == (size >= ROOM)


def test_room_that_is_used_again_has_nothing_of_the_last() -> None:
    """Long, then short, then none."""
    assert childproof.run("echo aaaaaaaa; echo bbbbbbbb >&2") == (0, "aaaaaaaa", "bbbbbbbb")
    assert childproof.run("echo c") == (0, "c", "")
    assert childproof.run("true") == (0, "", "")


def test_many_threads_have_rooms_of_their_own() -> None:
    """None reads another's output."""
    wrong = []

    def work(number: int) -> None:
        for i in range(20):
            text = f"{number}-{i} " * 200
            result = childproof.run(["cat"], input=text, timeout=60)
            if result != (0, text.strip(), ""):
                wrong.append(result)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_held_pipe_is_told_of(exchanges: list[Exchange]) -> None:
    """Who outlives the child with its pipes is the exchange's."""
    result = childproof.run("sleep 600 & echo $!", linger=0.1, timeout=60)
    os.kill(int(result.out), signal.SIGKILL)
    assert result.code == 0
    assert {stream for holder in result.held for stream in holder.streams} == {"stdout", "stderr"}
    assert len(exchanges) == 1


def test_at_the_deadline_what_was_read_is_kept(exchanges: list[Exchange]) -> None:
    """And the tree dies, with those who have left its session."""
    result = childproof.run("setsid sleep 600 & echo $!; echo err >&2; sleep 600", timeout=1)
    assert (result.code, result.err) == (124, "err")
    assert result.duration < 1 + SLACK_SECONDS
    assert len(exchanges) == 1
    assert wait_until(lambda: not is_alive(int(result.out)))


def test_the_end_is_the_child_s_not_that_of_its_pipes(exchanges: list[Exchange]) -> None:
    """A child that closes them early is waited for."""
    began = monotonic()
    assert childproof.run("exec >&- 2>&-; sleep 0.3; exit 5", timeout=60).code == 5
    assert monotonic() - began >= 0.3
    assert not exchanges


def test_input_that_nobody_reads_is_no_error(exchanges: list[Exchange]) -> None:
    """Even if the child has closed it."""
    for _ in range(20):
        assert childproof.run("exec <&-; echo done", input="x" * 4096) == (0, "done", "")
    assert not exchanges


def test_a_program_that_is_not_there(exchanges: list[Exchange]) -> None:
    """The sentence is as ever."""
    result = childproof.run(["/no/such/program"])
    assert (result.code, result.outcome, result.contained) == (127, Outcome.NOT_STARTED, None)
    assert "No such file" in result.err
    assert not exchanges


def test_signal_handlers_run_meanwhile() -> None:
    """A wait in C holds up nobody: the handler runs while the child does, and nothing is lost."""
    heard: list[float] = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(monotonic()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        result = childproof.run("for i in 1 2 3 4 5; do sleep 0.1; echo $i; done", timeout=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert result.out.split() == list("12345")
    assert len(heard) > 1


def _raise(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.needs_proc
def test_what_a_handler_raises_ends_the_tree(tmp_path: Path) -> None:
    """Those too who have left the session: the evidence is there though no exchange was."""
    path = tmp_path / "pid"
    before = signal.signal(signal.SIGALRM, _raise)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1)
        with pytest.raises(KeyboardInterrupt):
            childproof.run(f"(setsid sh -c 'echo $$ >{path}; exec sleep 600' &) ; sleep 600", timeout=600)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert wait_until(lambda: not is_alive(int(path.read_text())))


def test_a_fork_in_a_handler_is_not_the_host() -> None:
    """The copy is told so, and the command goes on for who has started it."""
    told, tell = os.pipe()
    copies: list[int] = []

    def fork(*_: object) -> None:
        copies.append(os.fork())

    before = signal.signal(signal.SIGALRM, fork)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        result = childproof.run("sleep 0.5; echo done", timeout=60)
    except RuntimeError:
        if copies == [0]:
            os.write(tell, b"refused")
        os._exit(0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if copies == [0]:
            os._exit(1)
    assert result == (0, "done", "")
    os.waitpid(copies[0], 0)
    assert os.read(told, 16) == b"refused"
    os.close(told)
    os.close(tell)


def _closing(what: Callable[[Child], int]) -> Callable[..., int]:
    """`Child.follow`, whose descriptor `what` the host closes before."""
    real = Child.follow

    def follow(self: Child, caught: Any, deadline: float) -> int:
        fd = what(self)
        if fd >= 0:
            os.close(fd)
            # Another may have the number by now: a regular file is always ready.
        return real(self, caught, deadline)

    return follow


def test_a_pidfd_that_the_host_has_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not taken for the child's end: `os.closerange` in the host must not change what is told."""
    monkeypatch.setattr(Child, "follow", _closing(lambda child: child.pidfd))
    result = childproof.run("sleep 0.3; echo done; exit 4", timeout=60)
    assert (result.code, result.out) == (4, "done")


# ---- many ----


@pytest.mark.parametrize("jobs", [2, 100])
def test_many_take_the_short_way(exchanges: list[Exchange], jobs: int) -> None:
    """Poll and epoll; what is right for one is right for each."""
    results = list(childproof.run_many([f"echo {i}; exit {i}" for i in range(50)], jobs=jobs, order="given"))
    assert [(r.code, r.out) for r in results] == [(i, str(i)) for i in range(50)]
    del exchanges[:]


def test_what_takes_longer_goes_to_an_exchange(exchanges: list[Exchange]) -> None:
    """With what has been read by then; deadlines hold."""
    slow = "echo early; sleep 0.5; echo late"
    stuck = {"cmd": "echo partly; sleep 600", "timeout": 1}
    first, second = childproof.run_many([slow, stuck], jobs=2, order="given")
    assert first == (0, "early\nlate", "")
    assert (second.code, second.out) == (124, "partly")
    assert len(exchanges) == 2


def test_one_of_many_that_is_not_there(exchanges: list[Exchange]) -> None:
    """A failed start is for the exchange, which knows whether to try again."""
    (result,) = childproof.run_many([["/no/such/program"]])
    assert (result.code, result.outcome) == (127, Outcome.NOT_STARTED)
    assert len(exchanges) == 1


def test_leaving_early_ends_what_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is spared for being on the short way yet."""
    monkeypatch.setattr("childproof._many.followed.FOLLOW_SECONDS", 600.0)
    pids: list[int] = []
    begin = Followed.begin

    def noting(self: Followed) -> None:
        begin(self)
        pids.append(self.child.pid)

    monkeypatch.setattr(Followed, "begin", noting)
    results = childproof.run_many(["true", *["sleep 600"] * 5], jobs=6)
    assert next(results).ok
    results.close()
    assert len(pids) == 6
    assert not [pid for pid in pids if is_alive(pid)]


def test_the_plain_ways_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the short way gives is what the exchange gives."""
    commands: list[Any] = ["echo a; echo b >&2; exit 3", ["true"], "kill -9 $$", ["/no/such"], "printf ' x '"]
    short = [childproof.run(cmd) for cmd in commands]
    monkeypatch.setattr(_run, "may_follow", lambda command: False)
    for result, other in zip(short, [childproof.run(cmd) for cmd in commands], strict=True):
        assert result == other
        for name in ("outcome", "spawned", "contained", "truncated", "held", "killed", "survivors", "autopsy"):
            assert getattr(result, name) == getattr(other, name), name
        assert str(result.error) == str(other.error)
