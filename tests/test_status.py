"""The status is the true one or is reported lost; failures of the kernel are reported."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import childproof
from childproof import Outcome, _spawner
from childproof._processes import procfs
from conftest import SLACK_SECONDS, children
from forcing import force
from injection import inject
from interrupter import Interrupter

INFO = _spawner.FEATURES["pidfd_info"]


def kernel_tells() -> bool:
    """PIDFD_INFO_EXIT came with Linux 6.15; the portable build has no pidfd to ask."""
    if _spawner.PORTABLE:
        return False
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 15)


@pytest.fixture
def sigchld_ignored() -> Iterator[None]:
    """As hosts do that want no zombies."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("sigchld_ignored")
@pytest.mark.parametrize("command", ["exit 7", "kill -9 $$", "true"])
def test_sigchld_ignored(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reaps: the true code where it tells it, else STATUS_LOST; never 0."""
    true_code = {"exit 7": 7, "kill -9 $$": -9, "true": 0}[command]
    result = childproof.run(command)
    lost = (125, Outcome.STATUS_LOST)
    if kernel_tells():
        assert result.code == true_code
    else:
        assert (result.code, result.outcome) == lost
    force(monkeypatch, disabled=INFO)
    result = childproof.run(command)
    assert (result.code, result.outcome) == lost
    assert result.usage is None
    assert "lost" in str(result.error)


@pytest.mark.parametrize("told", [True, False])
def test_another_thread_waits_for_any_child(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thief in waitpid(-1): the true code or STATUS_LOST, over 100 runs."""
    if not told:
        force(monkeypatch, disabled=INFO)
    over = threading.Event()

    def thief() -> None:
        while not over.is_set():
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.0005)

    thread = threading.Thread(target=thief)
    thread.start()
    try:
        results = [childproof.run("exit 7") for _ in range(100)]
    finally:
        over.set()
        thread.join()
    for result in results:
        expected = {7} if told and kernel_tells() else {7, 125}
        assert result.code in expected
        assert (result.outcome is Outcome.STATUS_LOST) == (result.code == 125)


def test_killed_before_its_exec() -> None:
    """It is the start that failed, with the stage that was reached; not a program that died."""
    answer = inject(
        ["setsid:signal=KILL"],
        "r = childproof.run('echo ran')\nanswer = [r.code, r.outcome.name, r.error.stage, str(r.error)]",
    )
    assert answer[:3] == [125, "NOT_STARTED", "setsid"], answer
    assert "died of signal 9 at setsid, before its exec" in answer[3]


@pytest.mark.parametrize("kills", [1, 2])
def test_a_child_that_dies_with_its_spawning_thread_is_started_again_once(kills: int, tmp_path: Path) -> None:
    """SIGKILL before the exec, as PDEATHSIG sends it when the thread ends: one more try, no third."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    killed: list[int] = []

    def kill_those_that_wait() -> None:
        while len(killed) < kills:
            for pid in children() - set(killed):
                process = procfs.read_process(pid)
                if process is not None and process.state == "S":
                    killed.append(pid)
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        if kills == 1:
            reader.append(os.open(fifo, os.O_RDONLY))

    reader: list[int] = []
    thread = threading.Thread(target=kill_those_that_wait)
    thread.start()
    result = childproof.run("echo ran", "input", stdout=fifo, timeout=60)
    thread.join()
    if kills == 1:
        assert (result.code, result.outcome) == (0, Outcome.EXITED)
        assert os.read(reader[0], 100) == b"ran\n"
        os.close(reader[0])
    else:
        assert (result.code, result.outcome) == (125, Outcome.NOT_STARTED)
        assert result.error is not None
        assert result.error.stage == "open"
    assert result.pid not in killed[:1]


@pytest.mark.parametrize(
    "fault", ["clone,clone3:error=EAGAIN", "clone,clone3:error=ENOMEM", "mmap:error=ENOMEM:when=1"]
)
def test_no_process_can_be_had(fault: str) -> None:
    """EAGAIN and ENOMEM are reported at once, with stage and reason, and nothing leaks."""
    answer = inject(
        [fault],
        "before = sorted(os.listdir('/proc/self/fd'))\n"
        "r = childproof.run(['true'])\n"
        "answer = [r.code, r.error.stage if r.error else '', r.err, before == sorted(os.listdir('/proc/self/fd'))]",
    )
    assert answer[0] == 125, answer
    assert answer[1] == "fork"
    assert "cannot start true: fork: " in answer[2]
    assert answer[3]


def test_a_refused_primitive_is_replaced() -> None:
    """A filter that refuses the shared-memory clone: the plain one serves."""
    answer = inject(["clone:error=EPERM:when=1"], "answer = list(childproof.run('exit 3'))")
    assert answer == [3, "", ""]


def test_keyboard_interrupt_while_waiting() -> None:
    """It propagates, promptly, after the tree is dead and reaped; the fixture looks for leftovers."""
    began = time.monotonic()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        childproof.run("sleep 600 & setsid sleep 600 & sleep 600")
    timer.join()
    assert time.monotonic() - began < 1.5 + SLACK_SECONDS


def test_an_exception_from_the_callers_code() -> None:
    """What on_output raises propagates, and the tree is dead."""

    def refuse(stream: str, data: bytes) -> None:
        raise LookupError(stream, data)

    with pytest.raises(LookupError):
        childproof.run("echo hi; sleep 600", on_output=refuse)


class Stop(BaseException):
    """What a host's signal handler raises."""


@pytest.fixture
def stopping_signal() -> Iterator[None]:
    """SIGUSR1 raises `Stop`."""

    def stop(number: int, frame: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, stop)
    yield
    signal.signal(signal.SIGUSR1, before)


# A handler may run in a weakref callback of the standard library's, where Python drops what it raises.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("stopping_signal")
@pytest.mark.parametrize("delay_seconds", [0.0005, 0.002, 0.005])
def test_a_second_exception_while_the_tree_is_killed(delay_seconds: float) -> None:
    """Killing is taken up again, then the exception propagates; the fixture looks for survivors."""
    timers = [threading.Timer(delay_seconds, os.kill, (os.getpid(), signal.SIGUSR1))]

    def refuse(stream: str, data: bytes) -> None:
        timers[0].start()
        raise LookupError(stream)

    with pytest.raises((Stop, LookupError)):
        childproof.run("for i in 1 2 3 4 5 6 7 8; do setsid sleep 600 & done; echo; sleep 600", on_output=refuse)
    try:
        timers[0].join()
        time.sleep(0.01)
    except Stop:  # it came after the end
        pass


def lines_until_interrupted(line: int, command: str, timeout: float | None) -> int:
    """Run with an interrupt at the n-th line; how many lines were seen."""
    interrupter = Interrupter(line)
    sys.settrace(interrupter)
    try:
        childproof.run(command, "input", timeout=timeout)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return interrupter.seen


def test_keyboard_interrupt_at_every_line() -> None:
    """An interrupt at any line of our modules leaves no child and no descriptor behind."""
    line = 1
    while lines_until_interrupted(line, "echo hi; exit 3", None) >= line:
        line += 1
    assert line > 100, "the whole of a run was walked through"


def test_keyboard_interrupt_while_the_deadline_kills() -> None:
    """The same on the way through the deadline, at 150 lines spread over it."""
    command = "echo hi; setsid sleep 600 & sleep 600"
    lines = lines_until_interrupted(0, command, 0.02)
    assert lines > 300
    for line in range(1, lines, max(lines // 150, 1)):
        lines_until_interrupted(line, command, 0.02)
