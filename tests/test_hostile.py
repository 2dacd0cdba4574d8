"""Commands that hang, flood, hide and refuse to die: whoever drives comes back when it promised to."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import Outcome
from childproof._janitor import janitor
from childproof._processes import procfs
from conftest import SLACK_SECONDS, is_alive, program, stop, wait_until
from runners import Runner


def took_less_than(seconds: float, since: float) -> bool:
    """With the slack that every bound has here."""
    return time.monotonic() - since < seconds + SLACK_SECONDS


# ---- somebody holds the pipe ----


def test_a_holder_does_not_hold_the_call(runner_every_way: Runner) -> None:
    """The child's exit ends the call, `held` names who has the pipes, and it lives on."""
    began = time.monotonic()
    result = runner_every_way("sleep 600 & echo start ok")
    assert took_less_than(0.5 + 1, began)
    assert tuple(result) == (0, "start ok", "")
    assert result.outcome is Outcome.EXITED
    (holder,) = result.held
    try:
        assert holder.command == "sleep 600"
        assert (holder.fds, holder.streams) == ((1, 2), ("stdout", "stderr"))
        assert not holder.escaped
        assert is_alive(holder.pid)
        assert procfs.read_process(result.pid) is None, "a zombie"
    finally:
        stop(holder.pid)


def test_leftovers_can_be_killed(runner_every_way: Runner) -> None:
    """With leftovers="kill" whoever outlives the child is dead at the return."""
    result = runner_every_way("sleep 600 & echo $!", leftovers="kill")
    assert result.outcome is Outcome.EXITED
    assert not result.held
    pid = int(result.out)
    assert [info.pid for info in result.killed] == [pid]
    assert not is_alive(pid)


def test_leftovers_without_our_pipes_are_killed_at_once(runner: Runner) -> None:
    """Nobody lingers for a leftover that holds no pipe."""
    result = runner("sleep 600 >/dev/null 2>&1 & echo $!", leftovers="kill", linger=600)
    assert not is_alive(int(result.out))
    assert [info.command for info in result.killed] == ["sleep 600"]


def test_what_was_written_before_the_exit_arrives_whole(runner: Runner) -> None:
    """64 KiB written just before the exit are read although a holder lives, and linger is 0."""
    result = runner(program("flood_then_hold", 65536, 600), linger=0)
    assert len(result.out) == 65536
    for holder in result.held:
        stop(holder.pid)


def test_a_flooding_holder_does_not_hold_the_call(runner: Runner) -> None:
    """A holder that writes without end does not extend the linger, and memory is bounded."""
    began = time.monotonic()
    result = runner("yes & echo $!", max_output=1000, linger=0.2)
    assert took_less_than(1.2, began)
    assert result.truncated
    pid = int(result.out.split()[0]) if result.out.split()[0].isdigit() else result.held[0].pid
    assert is_alive(pid), "drained, not killed by SIGPIPE"
    stop(pid)


def test_a_holder_that_writes_later_lives(runner: Runner, tmp_path: Path) -> None:
    """What a leftover writes after the return is taken from it and discarded: it gets to its end."""
    done = tmp_path / "done"
    result = runner(f"(sleep 0.5; head -c 1000000 /dev/zero && touch {done}) & echo ok", linger=0)
    assert result.out == "ok"
    assert result.held
    assert wait_until(done.exists)


def test_no_thread_can_be_had(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started the deadline holds, and holders are told by their names alone."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(janitor, "_current", None)
    assert runner("echo hi; sleep 600; echo x", timeout=0.5)[:2] == (124, "hi")
    result = runner("sleep 600 & echo ok")
    assert [holder.command for holder in result.held] == ["[sleep]"]
    stop(result.held[0].pid)
    monkeypatch.undo()
    janitor.submit(int)  # the thread is there again, and does what was left to it


def test_the_deadline_cuts_the_linger(runner: Runner) -> None:
    """And the outcome is still the child's own."""
    began = time.monotonic()
    result = runner("sleep 600 & exit 3", timeout=0.5, linger=600)
    assert took_less_than(1.5, began)
    assert (result.code, result.outcome) == (3, Outcome.EXITED)
    stop(result.held[0].pid)


def test_an_early_end_of_output_is_no_exit(runner: Runner) -> None:
    """A child may close its output and live; its status counts."""
    assert runner("exec >&- 2>&-; sleep 0.3; exit 7").code == 7


# ---- the deadline ----

STUBBORN = {
    "a shell and its child": "echo hi; sleep 600; echo x",
    "stopped": "echo hi; kill -STOP $$; echo x",
    "ignores the polite signals": "trap '' TERM INT HUP; echo hi; sleep 600; sleep 600",
    "a grandchild in another session": "echo hi; setsid sleep 600",
    "a background one in another session": "echo hi; setsid sleep 600 & sleep 600",
    "closes its output": "echo hi; exec >&- 2>&-; sleep 600",
    "an escaped grandchild without a mark": "echo hi; setsid env -i sleep 600 & sleep 600",
    "an escaped grandchild without pipes": "echo hi; setsid sleep 600 </dev/null >/dev/null 2>&1 & sleep 600",
}


@pytest.mark.parametrize("command", STUBBORN.values(), ids=STUBBORN.keys())
def test_the_deadline_is_kept_and_the_tree_is_dead(runner_every_way: Runner, command: str) -> None:
    """124, what was read, nobody alive; the fixture looks for those who escaped."""
    began = time.monotonic()
    result = runner_every_way(command, timeout=1)
    assert took_less_than(2, began)
    assert (result.code, result.out, result.err) == (124, "hi", "")
    assert result.outcome is Outcome.TIMED_OUT
    assert result.error is not None
    assert "timed out after 1 s" in str(result.error)
    assert not result.survivors
    assert result.pid in [info.pid for info in result.killed]
    assert not any(is_alive(info.pid) for info in result.killed)


def test_a_double_forked_daemon_dies_too(runner_every_way: Runner) -> None:
    """It is init's child, in a session of its own; the pipe and the mark tell."""
    result = runner_every_way([*program("daemon", 600)], timeout=600)
    pid = int(result.out)
    assert result.held[0].escaped
    stop(pid)
    result = runner_every_way(" ".join(program("daemon", 600)) + "; sleep 600", timeout=2)
    pid = int(result.out)
    assert not is_alive(pid)
    assert pid in [info.pid for info in result.killed]


def test_input_that_nobody_reads(runner_every_way: Runner) -> None:
    """5 MB of it do not hold the deadline up."""
    began = time.monotonic()
    assert runner_every_way("sleep 600", "x" * 5_000_000, timeout=1).code == 124
    assert took_less_than(2, began)


def test_endless_output_is_bounded(runner_every_way: Runner) -> None:
    """`yes` for a second, in 1,000 bytes."""
    result = runner_every_way("yes", timeout=1, max_output=1000, strip=False)
    assert (result.code, len(result.out), result.truncated) == (124, 1000, True)


def test_grace(runner: Runner) -> None:
    """SIGTERM first, and time to obey it."""
    began = time.monotonic()
    result = runner("trap 'echo bye; exit 5' TERM; while :; do sleep 0.05; done", timeout=0.5, grace=600)
    assert took_less_than(2, began)
    assert (result.code, result.out) == (124, "bye")


def test_grace_is_for_the_whole_tree(runner: Runner) -> None:
    """The shell dies of SIGTERM at once; the server behind it gets its time."""
    server = "trap 'sleep 0.5; echo flushed; exit' TERM; while :; do sleep 0.05; done"
    result = runner(f"sh -c '{server.replace(chr(39), chr(34))}' & wait", timeout=0.5, grace=600)
    assert (result.code, result.out) == (124, "flushed")


def test_grace_ends(runner: Runner) -> None:
    """SIGKILL for whoever ignores SIGTERM, also where it is stopped."""
    began = time.monotonic()
    result = runner("trap '' TERM; sleep 600; sleep 600", timeout=0.5, grace=0.5)
    assert took_less_than(2, began)
    assert time.monotonic() - began >= 1
    assert result.code == 124


def test_without_a_session_the_tree_dies_too(runner: Runner) -> None:
    """new_session=False: by descent and by the pipes, never by the group, which is the host's."""
    result = runner("echo $$; sleep 600 & setsid sleep 600 & sleep 600", timeout=0.5, new_session=False)
    assert result.code == 124
    assert len(result.killed) == 4
    assert not result.survivors


def test_zero_starts_nothing(runner: Runner, tmp_path: Path) -> None:
    """timeout=0: a budget that has run out."""
    result = runner(["touch", tmp_path / "made"], timeout=0)
    assert (result.code, result.outcome, result.pid) == (124, Outcome.TIMED_OUT, 0)
    assert not (tmp_path / "made").exists()


# ---- the exec ----


@pytest.fixture
def stuck_program(tmp_path: Path) -> Iterator[Path]:
    """A program whose exec blocks in open(2) for fs.lease-break-time (45 s), as on a dead disk:
    this process holds a lease on it (fcntl(2)).
    """
    path = tmp_path / "stuck"
    path.write_bytes(Path("/bin/true").read_bytes())
    path.chmod(0o755)
    fd = os.open(path, os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGWINCH)  # not SIGIO, which kills
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    yield path
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    os.close(fd)


def test_the_deadline_covers_the_exec(runner_every_way: Runner, stuck_program: Path) -> None:
    """A program that can't be opened is given up at the deadline, and nothing is left."""
    began = time.monotonic()
    result = runner_every_way([stuck_program], timeout=1)
    assert took_less_than(2, began)
    assert (result.code, result.outcome) == (124, Outcome.TIMED_OUT)
    assert result.error is not None
    assert result.error.stage == "exec"
    assert not result.survivors


def test_a_busy_script_is_waited_for(runner: Runner, tmp_path: Path) -> None:
    """ETXTBSY passes as soon as the writer has closed it."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o755)
    with open(script, "ab"):
        result = runner(["sh", "-c", "exec 9>>script; exec ./script"], cwd=tmp_path, timeout=20)
        assert "busy" in result.err, "the shell reports it; ours is next"
    writer = os.open(script, os.O_WRONLY)
    pid = os.fork()
    if pid == 0:
        time.sleep(0.5)
        os._exit(0)
    os.close(writer)
    assert runner([script]).out == "ran"
    os.waitpid(pid, 0)


def test_the_deadline_holds_without_proc(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc shows nobody the child and its group are killed all the same."""
    monkeypatch.setattr(procfs, "pids", list)
    monkeypatch.setattr(procfs, "table", dict)
    monkeypatch.setattr(procfs, "read_process", lambda pid: None)
    began = time.monotonic()
    result = runner("echo $$; sleep 600; echo x", timeout=0.5)
    assert took_less_than(1.5, began)
    assert (result.code, result.out) == (124, str(result.pid))
    assert [info.pid for info in result.killed] == [result.pid]


def test_a_result_is_made_once(runner: Runner) -> None:
    """With no linger the end of the output and the end of the call coincide; the pid is not lost."""
    assert all(runner(["true"], linger=0).pid > 0 for _ in range(300))


def test_the_deadline_holds_without_a_descriptor_left(runner_every_way: Runner) -> None:
    """A host that is out of descriptors when the deadline comes: the tree dies, the call is back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def exhaust(stream: str, data: bytes) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))

    began = time.monotonic()
    try:
        result = runner_every_way("echo hi; sleep 600; echo x", timeout=0.5, on_output=exhaust)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert took_less_than(1.5, began)
    assert (result.code, result.out) == (124, "hi")


def test_a_mark_that_is_read_late_is_evidence_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who is found by nothing else dies too, where the background comes to it only after a while."""
    submit = janitor.submit

    def submit_late(function: Callable[[], Any]) -> Any:
        def late() -> Any:
            time.sleep(0.15)
            return function()

        return submit(late)

    monkeypatch.setattr(janitor, "submit", submit_late)
    pid_file = tmp_path / "pid"
    daemon = f"(setsid sh -c 'echo $$ >{pid_file}; exec sleep 600' </dev/null >/dev/null 2>&1 &); sleep 600"
    result = childproof.run(daemon, timeout=0.5)
    assert result.outcome is Outcome.TIMED_OUT
    assert not is_alive(int(pid_file.read_text()))
