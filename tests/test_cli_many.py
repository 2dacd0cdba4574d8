"""``childproof many``: an xargs -P that can't hang."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import SLACK_SECONDS, is_alive, wait_until

MANY = [sys.executable, "-m", "childproof", "many"]


def many(commands: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, given `commands`."""
    return subprocess.run([*MANY, *options], input=commands, capture_output=True, text=True, timeout=60)


def test_outputs_are_passed_on_whole() -> None:
    """Untouched, and none is mixed with another's."""
    done = many("".join(f"for n in 1 2 3 4; do echo {i}; sleep 0.0{i % 3}; done\n" for i in range(20)), "-j", "8")
    assert done.returncode == 0
    assert not done.stderr
    lines = done.stdout.split()
    assert sorted(lines[::4], key=int) == [str(i) for i in range(20)]
    assert all(len(set(lines[at : at + 4])) == 1 for at in range(0, 80, 4))


def test_keep_order() -> None:
    """As the commands were given, with blank lines and a missing newline at the end passed over."""
    done = many("sleep 0.5; echo a\n\n  \necho b\nprintf c", "--keep-order", "--jobs", "3")
    assert (done.returncode, done.stdout) == (0, "a\nb\nc")


def test_failures_are_named() -> None:
    """123, as xargs has it; the deadline is kept and what was killed is told."""
    done = many("exit 3\necho x >&2\nkill -9 $$\nsleep 600\n", "--timeout", "1", "-j", "4")
    assert done.returncode == 123
    lines = done.stderr.splitlines()
    assert "childproof: exit 3 exited with 3" in lines
    assert "childproof: kill -9 $$ died of signal 9" in lines
    assert "x" in lines
    assert "childproof: timed out after 1 s: sleep 600" in lines


def test_json() -> None:
    """One object a line."""
    done = many("echo hi; exit 4\n", "--json")
    assert done.returncode == 123
    answer = json.loads(done.stdout)
    assert (answer["position"], answer["cmd"], answer["code"], answer["out"]) == (0, "echo hi; exit 4", 4, "hi")


def test_a_nul_ends_a_command() -> None:
    """-0."""
    assert many("echo a\necho b\0echo c", "-0", "--keep-order").stdout == "a\nb\nc\n"


def test_fail_fast(tmp_path: Path) -> None:
    """What runs is killed, and no more is started."""
    done = many(f"exit 3\nsleep 600\nsleep 600\ntouch {tmp_path}/no\n", "--fail-fast", "-j", "3", "--keep-order")
    assert done.returncode == 123
    assert not (tmp_path / "no").exists()


def test_wrong_arguments() -> None:
    """2, and nothing is started."""
    for options in (["-j", "0"], ["--timeout", "-1"], ["--max-output", "-1"], ["--nonsense"]):
        assert many("touch /tmp/no\n", *options).returncode == 2
    assert "exit status" in many("", "--help").stdout


def test_a_command_starts_when_its_line_comes() -> None:
    """And deadlines are kept while the next line is awaited."""
    with subprocess.Popen([*MANY, "--timeout", "0.5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"echo first\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"first\n"
        process.stdin.write(b"echo second; sleep 600\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"second\n"
        process.stdin.close()
        assert process.wait(10 + SLACK_SECONDS) == 123


def test_a_reader_that_stops_does_not_hold_up_deadlines() -> None:
    """Of commands that run; and no more are started meanwhile than its output leaves room for."""
    cmds = b"head -c 3000000 /dev/zero\n" + b"echo $$ >&2; sleep 600\n" * 2
    with subprocess.Popen(
        [*MANY, "--timeout", "1", "-j", "3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(cmds)
        process.stdin.close()
        began = time.monotonic()
        assert wait_until(lambda: time.monotonic() - began > 2 and not _children(process.pid), 10 + SLACK_SECONDS)
        assert len(process.stdout.read()) == 3_000_000
        assert process.wait(10) == 123


def _children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_nobody_reads_the_output() -> None:
    """141, and what runs is killed."""
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen([*MANY, "-j", "2"], stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        process.communicate(b"echo x\nsleep 600\n", timeout=30)
    assert process.returncode == 141


def test_a_signal_kills_what_runs(tmp_path: Path) -> None:
    """128+N."""
    with subprocess.Popen([*MANY, "-j", "5"], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(f"echo $$ >> {tmp_path}/pids; setsid sleep 600 & sleep 600\n".encode() * 5)
        process.stdin.flush()
        assert wait_until(lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5 + SLACK_SECONDS) == 128 + signal.SIGTERM
    assert not any(is_alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_progress_is_for_a_terminal() -> None:
    """There it is drawn, and erased at the end."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([*MANY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(b"sleep 0.5\nexit 1\n")
        process.stdin.close()
        assert process.wait(30) == 123
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "0 done, 0 failed" in shown
    assert "running" in shown
    assert "childproof: exit 1 exited with 1" in shown
    assert shown.endswith("\r\x1b[K")
