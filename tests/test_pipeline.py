"""`pipeline`: every stage has its Result, one deadline is for all, and no end of a pipe stays with us."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import CommandError, Outcome
from conftest import SLACK_SECONDS, is_alive


def test_each_reads_what_the_one_before_writes() -> None:
    """From the input to the last one's output."""
    result = childproof.pipeline(["cat"], ["tr", "a-z", "A-Z"], ["rev"], input="abc\n")
    assert result == (0, "CBA", "")
    assert result.ok
    assert [stage.code for stage in result.stages] == [0, 0, 0]
    assert [stage.out for stage in result.stages] == ["", "", "CBA"]
    assert result.check() is result


def test_much_data() -> None:
    """More than any pipe holds, both ways, with input and output in our hands."""
    data = os.urandom(3_000_000)
    result = childproof.pipeline(["cat"], ["cat"], ["cat"], input=data, text=False, strip=False, timeout=60)
    assert result.out == data


def test_errors_of_each_stage() -> None:
    """They are in its Result, and one behind the other in the pipeline's."""
    result = childproof.pipeline("echo one >&2", "echo two >&2; cat", "cat")
    assert [stage.err for stage in result.stages] == ["one", "two", ""]
    assert result.err == "one\ntwo"


@pytest.mark.parametrize(
    ("commands", "code", "codes"),
    [
        (["exit 3", "exit 4", "exit 0"], 4, [3, 4, 0]),
        (["exit 3", "cat"], 3, [3, 0]),
        (["echo", "cat; exit 5"], 5, [0, 5]),
        (["true", "kill -9 $$"], -9, [0, -9]),
    ],
)
def test_the_code_is_that_of_the_last_that_failed(commands: list[str], code: int, codes: list[int]) -> None:
    """As with the shells' pipefail."""
    result = childproof.pipeline(*commands)
    assert result.code == code
    assert [stage.code for stage in result.stages] == codes
    assert not result.ok
    with pytest.raises(CommandError) as caught:
        result.check()
    assert caught.value.result.code == code


@pytest.mark.parametrize(("first", "code"), [(["yes"], -signal.SIGPIPE), ("yes", 128 + signal.SIGPIPE)])
def test_sigpipe_of_an_early_stage(first: Any, code: int) -> None:
    """A later one wanted no more: that is seen, and no failure."""
    result = childproof.pipeline(first, ["head", "-n1"], timeout=60)
    assert (result.code, result.out, result.ok) == (0, "y", True)
    # dash may execute the last command of a line itself.
    assert result.stages[0].code in (code, -signal.SIGPIPE)


def test_sigpipe_of_the_last_stage() -> None:
    """There it is one: nobody but we read from it."""
    result = childproof.pipeline("true", "kill -PIPE $$")
    assert (result.code, result.ok) == (-signal.SIGPIPE, False)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_stage_that_can_not_be_started(position: int) -> None:
    """It is an end of input to the next, and whoever writes to it gets SIGPIPE."""
    commands: list[Any] = [["yes"] if position else ["true"], ["cat"], ["cat"]]
    commands[position] = ["/nonexistent"]
    result = childproof.pipeline(*commands, timeout=60)
    stage = result.stages[position]
    assert (stage.code, stage.outcome) == (127, Outcome.NOT_STARTED)
    assert result.code == 127
    assert "/nonexistent" in result.err
    assert all(stage.outcome is not Outcome.TIMED_OUT for stage in result.stages)


def test_one_deadline() -> None:
    """All that run are killed at once, and each says that it was the deadline."""
    began = time.monotonic()
    result = childproof.pipeline("echo $$ >&2; yes", "echo $$ >&2; setsid sleep 600 & sleep 600", "cat", timeout=1)
    assert time.monotonic() - began < 2 + SLACK_SECONDS
    assert result.code == 124
    assert [stage.outcome for stage in result.stages] == [Outcome.TIMED_OUT] * 3
    assert not any(is_alive(info.pid) for stage in result.stages for info in stage.killed)
    assert not any(is_alive(int(pid)) for pid in result.err.split())


def test_those_that_had_ended_before_the_deadline() -> None:
    """Their outcome is their own."""
    result = childproof.pipeline("exit 3", "sleep 600", timeout=0.5)
    assert [stage.code for stage in result.stages] == [3, 124]


def test_a_budget_that_has_run_out(tmp_path: Path) -> None:
    """timeout=0: nothing is started."""
    result = childproof.pipeline(["touch", tmp_path / "made"], "cat", timeout=0)
    assert [stage.code for stage in result.stages] == [124, 124]
    assert not (tmp_path / "made").exists()


def test_a_holder_does_not_hold_the_call() -> None:
    """As of `run`, for each stage."""
    began = time.monotonic()
    result = childproof.pipeline("echo x; sleep 600 >/dev/null &", "cat; sleep 600 &", leftovers="kill")
    assert time.monotonic() - began < 2 + SLACK_SECONDS
    assert result.out == "x"
    assert len([info for stage in result.stages for info in stage.killed]) == 2


def test_an_exception_kills_all() -> None:
    """It propagates when no stage is left."""
    pids = []

    def refuse(stream: str, data: bytes) -> None:
        pids.append(int(data))
        if len(pids) == 2:
            raise ZeroDivisionError

    command = "echo $$ >&2; sleep 600"
    with pytest.raises(ZeroDivisionError):
        childproof.pipeline(command, command, on_output=refuse)
    assert not any(map(is_alive, pids))


def test_options_of_one_stage(tmp_path: Path) -> None:
    """A mapping has its own, all others are everybody's."""
    result = childproof.pipeline(
        {"cmd": ["pwd"], "cwd": tmp_path},
        {"cmd": "cat; echo $A", "env": {"A": "own"}},
        "cat; echo $A",
        env={"A": "all"},
    )
    assert result.out.split() == [str(tmp_path), "own", "all"]


def test_stdin_and_stdout(tmp_path: Path) -> None:
    """They are the first's and the last's."""
    (tmp_path / "in").write_text("data")
    result = childproof.pipeline("cat", "cat", stdin=tmp_path / "in", stdout=tmp_path / "out")
    assert result == (0, "", "")
    assert (tmp_path / "out").read_text() == "data"


def test_merge() -> None:
    """Errors go into the pipe."""
    assert childproof.pipeline("echo a >&2", ["tr", "a", "b"], merge=True) == (0, "b", "")


@pytest.mark.parametrize(
    ("commands", "options"),
    [
        ([], {}),
        (["true", []], {}),
        (["true", {"cmd": "true", "stdin": "null"}], {}),
        ([{"cmd": "true", "stdout": "null"}, "true"], {}),
        (["true", {"cmd": "true", "timeout": 3}], {}),
        (["true", {"cmd": "true", "input": "x"}], {}),
        (["true", {}], {}),
        (["true"], {"nosuch": 1}),
    ],
)
def test_wrong_calls(commands: list[Any], options: dict[str, Any]) -> None:
    """Nothing is started."""
    with pytest.raises((TypeError, ValueError)):
        childproof.pipeline(*commands, **options)


def test_check() -> None:
    """The pipeline as a whole must succeed."""
    assert childproof.pipeline(["yes"], ["head", "-n1"], check=True).out == "y"
    with pytest.raises(CommandError, match="exited with 3"):
        childproof.pipeline("exit 3", "cat", check=True)


def test_it_pickles() -> None:
    """With its stages."""
    result = childproof.pipeline("exit 3", "cat", input="x")
    copy = pickle.loads(pickle.dumps(result))
    assert copy == result
    assert copy.stages[0].code == 3
    assert copy.duration == result.duration


def test_forks_in_another_thread() -> None:
    """Copies of this process that live on keep no end of a pipe between two stages: each stage sees the
    end of its input.
    """
    over = threading.Event()
    copies: list[int] = []

    def fork() -> None:
        while not over.is_set() and len(copies) < 100:
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                signal.pause()
                os._exit(0)
            copies.append(pid)
            time.sleep(0.005)

    thread = threading.Thread(target=fork)
    thread.start()
    try:
        for i in range(100):
            assert childproof.pipeline(["cat"], ["cat"], input=str(i), timeout=30) == (0, str(i), "")
    finally:
        over.set()
        thread.join()
        for pid in copies:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert copies
