"""What the tree was at when the deadline came, and what `childproof tree` shows of any process."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import Examined, Outcome
from childproof._processes import autopsy, inspector, procfs, waits
from conftest import SLACK_SECONDS, stop, wait_until

AT_MOST_SECONDS = 60


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read in the background comes late where the processors are others': it is waited for."""
    monkeypatch.setattr(autopsy, "AUTOPSY_SECONDS", SLACK_SECONDS)


def by_command(result: childproof.Result[Any]) -> dict[str, Examined]:
    """The processes of the autopsy by their command lines."""
    return {examined.command: examined for examined in result.autopsy}


@pytest.mark.needs_proc
def test_it_tells_what_each_is_blocked_in(tmp_path: Path) -> None:
    """The system call, with the pipe that is read, and the child that is waited for."""
    os.mkfifo(tmp_path / "fifo")
    script = f"exec 3<>{tmp_path}/fifo; cat <&3 & sleep 600 & wait"
    result = childproof.run(["sh", "-c", script], timeout=2, autopsy=True)
    assert result.outcome is Outcome.TIMED_OUT
    assert not result.survivors
    found = by_command(result)
    assert found["cat"].waits_in == f"read(0 {tmp_path}/fifo)"
    assert found["sleep 600"].waits_in == "clock_nanosleep"
    shell = found[f"sh -c {script}"]
    assert shell.waits_in in ("wait4(any child)", "rt_sigsuspend")
    assert (shell.pid, shell.ppid) == (result.pid, os.getpid())
    assert {found["cat"].ppid, found["sleep 600"].ppid} == {result.pid}
    assert {examined.state for examined in result.autopsy} == {"S"}
    assert all(0.5 < examined.age < 2 + SLACK_SECONDS for examined in result.autopsy)
    assert {info.pid for info in result.killed} == {examined.pid for examined in result.autopsy}


@pytest.mark.needs_proc
def test_it_tells_who_uses_the_processor() -> None:
    """The time that it has used, and that it is not blocked."""
    (examined,) = childproof.run(["sh", "-c", "while :; do :; done"], timeout=2, autopsy=True).autopsy
    assert examined.state == "R"
    assert examined.waits_in in ("running", "")
    assert examined.cpu > 0.1


@pytest.mark.needs_proc
def test_it_tells_who_holds_which_pipe() -> None:
    """By stream and descriptor, also who has left the session; nobody for a closed one."""
    script = "setsid sleep 600 2>/dev/null & exec sleep 601 >&- 7>&2"
    found = by_command(childproof.run(["sh", "-c", script], "x" * 1_000_000, timeout=2, autopsy=True))
    assert found["sleep 600"].held == (("stdout", 1),)
    assert found["sleep 601"].held == (("stdin", 0), ("stderr", 2), ("stderr", 7))


@pytest.mark.needs_proc
def test_the_threads_of_one_process() -> None:
    """What several wait in is told together."""
    script = (
        "import threading, time\n"
        "for i in range(3): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "threading.Event().wait()"
    )
    (examined,) = childproof.run([sys.executable, "-c", script], timeout=2, autopsy=True).autopsy
    assert examined.threads == 4
    assert sorted(examined.waits_in.split(", ")) == ["clock_nanosleep x 3", "futex"]


@pytest.mark.needs_proc
def test_it_is_taken_before_anybody_is_signalled() -> None:
    """With a grace too: who obeys SIGTERM is in the picture, blocked in what it was at."""
    began = time.monotonic()
    script = "trap 'exit 0' TERM; sleep 600 & wait"
    result = childproof.run(["sh", "-c", script], timeout=0.5, grace=600, autopsy=True)
    assert time.monotonic() - began < 2 + SLACK_SECONDS
    assert {examined.command for examined in result.autopsy} == {f"sh -c {script}", "sleep 600"}
    assert by_command(result)["sleep 600"].waits_in == "clock_nanosleep"


def test_only_on_demand_and_only_at_the_deadline() -> None:
    """Empty otherwise."""
    assert childproof.run(["sleep", "600"], timeout=0.2).autopsy == ()
    assert childproof.run(["true"], timeout=60, autopsy=True).autopsy == ()
    assert childproof.run(["/nonexistent"], timeout=60, autopsy=True).autopsy == ()
    assert childproof.run(["true"], timeout=0, autopsy=True).autopsy == ()


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """/proc/PID/syscall that blocks, as while its process hangs in an exec."""
    release = threading.Event()
    monkeypatch.setattr(waits, "_task_waits", lambda process, tid: str(release.wait(600)))
    monkeypatch.setattr(autopsy, "AUTOPSY_SECONDS", 0.1)
    yield
    release.set()


@pytest.mark.needs_proc
@pytest.mark.usefixtures("stuck")
def test_it_does_not_hold_up_the_killing() -> None:
    """Where the system call can't be read the rest is told, and the promise is kept."""
    began = time.monotonic()
    result = childproof.run("sleep 600; sleep 600", timeout=0.5, autopsy=True)
    assert time.monotonic() - began < 1.5 + SLACK_SECONDS
    assert len(result.killed) == 2
    assert not result.survivors
    assert [examined.waits_in for examined in result.autopsy] == ["", ""]
    assert [examined.state for examined in result.autopsy] == ["S", "S"]
    assert [len(examined.held) for examined in result.autopsy] == [2, 2]


@pytest.mark.needs_proc
def test_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then names are in brackets, and the rest is there."""
    from childproof._janitor import janitor

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(janitor, "_current", None)
    result = childproof.run(["sleep", "600"], timeout=0.5, autopsy=True)
    assert [(examined.command, examined.waits_in) for examined in result.autopsy] == [("[sleep]", "")]


def test_an_interrupt_in_the_autopsy_kills_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a state as the others: what is raised in it propagates after the killing."""

    def interrupt(autopsy: autopsy.Autopsy, now: float) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(autopsy.Autopsy, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        childproof.run("sleep 600; sleep 600", timeout=0.2, autopsy=True)


@pytest.mark.needs_proc
def test_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each process, in which no secret stands and no line can be forged."""
    result = childproof.run(["sh", "-c", "sleep 600; echo hush\nforged"], timeout=1, autopsy=True, secrets=["hush"])
    lines = [record.getMessage() for record in caplog.records if "at the deadline" in record.getMessage()]
    assert len(lines) == 2
    assert lines[0].startswith(f"at the deadline: pid {result.pid} (sh -c sleep 600; echo ***\\nforged), child of ")
    assert "(sleep 600)" in lines[1]
    assert ", in clock_nanosleep; holds stdout (its fd 1), stderr (its fd 2)" in lines[1]
    assert not any("hush" in line or "\n" in line for line in lines)


@pytest.mark.needs_proc
def test_it_pickles() -> None:
    """With the whole Result."""
    result = childproof.run(["sleep", "600"], timeout=0.2, autopsy=True)
    assert len(result.autopsy) == 1
    assert pickle.loads(pickle.dumps(result)).autopsy == result.autopsy


@pytest.mark.needs_proc
@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("running", "running"),
        ("0 0x63 0x0 0x0 0x0 0x0 0x0 0x7ffc00000000 0x7f0000000000", "read(99)"),
        ("61 0xffffffff 0x0 0x0 0x0 0x0 0x0 0x7ffc00000000 0x7f0000000000", "wait4(any child)"),
        ("61 0x4d2 0x0 0x0 0x0 0x0 0x0 0x7ffc00000000 0x7f0000000000", "wait4(1234)"),
        ("7 0x4d2 0x0 0x0 0x0 0x0 0x0 0xffc00000 0xf7000000", "system call 7 of a 32-bit program"),
        ("9999 0x0 0x0 0x0 0x0 0x0 0x0 0x7ffc00000000 0x7f0000000000", "system call 9999"),
        ("-1 0x7ffc00000000 0x7f0000000000", "kernel: some_function"),
        ("", "kernel: some_function"),
    ],
)
def test_the_kernels_line(line: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As proc(5) has it; numbers of system calls are this machine's."""
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are those of x86_64")
    files = {"syscall": line.encode(), "wchan": b"some_function"}
    monkeypatch.setattr(inspector, "read_proc", lambda path, limit: files[path.rpartition("/")[2]])
    process = procfs.read_process(os.getpid())
    assert process is not None
    assert waits._task_waits(process, process.pid) == text


# ---- the command line ----


PATIENT = """
import sys
from childproof import _cli
from childproof._processes import autopsy
autopsy.AUTOPSY_SECONDS = 5
sys.argv[0] = "childproof"
sys.exit(_cli.main())
"""


def cli(*args: str | int, code: int = 0) -> str:
    """What ``childproof`` prints: on stdout, or if there is nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PATIENT, *map(str, args)], capture_output=True, timeout=AT_MOST_SECONDS
    )
    assert done.returncode == code, done
    return (done.stdout or done.stderr).decode()


@pytest.mark.needs_proc
def test_run_with_an_autopsy() -> None:
    """On stderr behind the sentence about the deadline; in JSON all of it."""
    text = cli("run", "--autopsy", "--timeout", "1", "sleep 600; echo", code=124)
    lines = [line for line in text.splitlines() if "at the deadline" in line]
    assert len(lines) == 2
    assert "in clock_nanosleep" in lines[1]
    answer = json.loads(cli("run", "--json", "--autopsy", "--timeout", "1", "sleep 600; echo", code=124))
    assert [examined["waits_in"] for examined in answer["autopsy"]][1] == "clock_nanosleep"


TREE = (
    "sleep 600 & setsid sleep 601 & "
    "setsid sh -c 'sleep 602 >/dev/null 2>&1 </dev/null &'; "
    "setsid env -i sh -c 'sleep 603 &'; "
    "(sleep 604 &); "
    "echo ready; sleep 605"
)


@pytest.fixture
def tree() -> Iterator[int]:
    """A command run in the background, that has members which each evidence tells; its pid."""
    script = f"import childproof, sys\nchildproof.run(['sh', '-c', {TREE!r}], timeout=600, on_output=print)"
    host = subprocess.Popen([sys.executable, "-u", "-c", script], stdout=subprocess.PIPE)
    assert host.stdout is not None
    host.stdout.readline()
    (pid,) = (p.pid for p in procfs.table().values() if p.ppid == host.pid)
    yield pid
    host.send_signal(signal.SIGINT)
    host.stdout.close()
    host.wait(AT_MOST_SECONDS)
    for process in procfs.table().values():
        if (procfs.command_line(process.pid) or "").startswith("sleep 60") and _is_ours(process.pid, pid):
            stop(process.pid)


def _is_ours(pid: int, root: int) -> bool:
    return procfs.has_mark(pid, os.environ["CHILDPROOF_RUN"].encode())


@pytest.mark.needs_proc
def test_tree(tree: int) -> None:
    """Each with the evidence by which the deadline would find it."""
    assert wait_until(lambda: "sleep 605" in cli("tree", tree))
    answer = json.loads(cli("tree", "--json", tree))
    found = {row["command"]: row for row in answer["processes"]}
    by = {command: row["found_by"] for command, row in found.items() if command.startswith("sleep")}
    assert by == {
        "sleep 600": ["ancestry", "session", "mark", "pipe"],
        "sleep 601": ["ancestry", "mark", "pipe"],
        "sleep 602": ["mark"],
        "sleep 603": ["pipe"],
        "sleep 604": ["session", "mark", "pipe"],
        "sleep 605": ["ancestry", "session", "mark", "pipe"],
    }
    root = answer["processes"][0]
    assert (root["pid"], root["found_by"], root["depth"]) == (tree, ["root"], 0)
    assert root["waits_in"] == f"wait4({'any child'})"
    assert found["sleep 600"]["waits_in"] == "clock_nanosleep"
    assert found["sleep 600"]["depth"] == 1
    assert found["sleep 600"]["state"] == "S"


@pytest.mark.needs_proc
def test_tree_as_a_table(tree: int) -> None:
    """Children are indented under their parents."""
    assert wait_until(lambda: "sleep 605" in cli("tree", tree))
    head, first, *rows = cli("tree", tree).splitlines()
    assert re.split(r"  +", head) == ["PID", "STATE", "AGE", "CPU", "FOUND BY", "IN", "COMMAND"]
    assert first.split()[0] == str(tree)
    (row,) = (row for row in rows if "sleep 600" in row)
    assert re.fullmatch(r"\d+ +S +\d+\.\ds +0\.\d\d +ancestry,session,mark,pipe +clock_nanosleep +  sleep 600", row)


def test_tree_of_nobody() -> None:
    """Is said, on one line."""
    assert cli("tree", procfs.PID_LIMIT, code=125).count("\n") == 1
    assert "invalid int" in cli("tree", "x", code=2)


@pytest.mark.needs_proc
def test_tree_of_an_ancestor_does_not_show_itself() -> None:
    """The process that looks is no part of what it looks at."""
    answer = json.loads(cli("tree", "--json", os.getpid()))
    assert not [row for row in answer["processes"] if "autopsy.AUTOPSY_SECONDS" in row["command"]]
    assert answer["processes"][0]["pid"] == os.getpid()
