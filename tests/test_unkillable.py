"""Who does not die of SIGKILL at once: the call is back by its bound, says so, and nobody waits for ever.

A v1 freezer cgroup is as D state: SIGKILL has no effect until it is thawed. A stopped tracer keeps what it
traces from being reaped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import childproof
from childproof import Outcome
from childproof._janitor import janitor
from childproof._processes import procfs, tree
from conftest import SLACK_SECONDS, children, is_alive, stop, wait_until
from forcing import every_way  # noqa: F401  # a fixture

pytestmark = pytest.mark.needs_proc  # all of it: they look at the state of processes


def background_threads() -> int:
    """How many there are."""
    return sum(thread.name == "childproof" for thread in threading.enumerate())


def lacking(what: str) -> None:
    """Skip, by name, or fail where the facility is required."""
    if os.environ.get("CHILDPROOF_REQUIRE_FACILITIES"):
        pytest.fail(f"{what}, and CHILDPROOF_REQUIRE_FACILITIES is set")
    pytest.skip(what)


# ---- frozen ----


class Freezer:
    """A freezer cgroup of v1 of our own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take(self, pid: int) -> None:
        """Put `pid` into it."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def set(self, state: str) -> None:
        """FROZEN or THAWED, and wait for it."""
        (self.path / "freezer.state").write_text(state)
        assert wait_until(lambda: (self.path / "freezer.state").read_text().strip() == state)


def _mounted() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        kind, _, options = tail.split()[:3]
        if kind == "cgroup" and "freezer" in options.split(","):
            return Path(head.split()[4])
    return None


@pytest.fixture
def freezer(tmp_path: Path) -> Iterator[Freezer]:
    """Made for the test, thawed and removed after it."""
    mounted = _mounted()
    path = None if mounted is None else mounted / f"childproof-test-{os.getpid()}"
    try:
        if path is not None:
            path.mkdir()
    except OSError:
        path = None
    if path is None or not (path / "freezer.state").exists():
        lacking("no writable freezer cgroup of v1")
        return
    frozen = Freezer(path)
    yield frozen
    frozen.set("THAWED")
    assert wait_until(lambda: not (path / "cgroup.procs").read_text())
    path.rmdir()


def freeze_when_it_speaks(freezer: Freezer) -> Callable[[str, bytes], None]:
    """For `on_output`: freezes the process whose pid the output says."""

    def on_output(stream: str, data: bytes) -> None:
        freezer.take(int(data))
        freezer.set("FROZEN")

    return on_output


@pytest.mark.usefixtures("every_way")
def test_a_frozen_child(freezer: Freezer) -> None:
    """Back by the bound, `survivors` names it, and it is reaped by the background when it is thawed."""
    began = time.monotonic()
    result = childproof.run(
        ["sh", "-c", "echo $$; exec sleep 600"], timeout=0.5, on_output=freeze_when_it_speaks(freezer)
    )
    assert time.monotonic() - began < 1.5 + SLACK_SECONDS
    assert (result.code, result.outcome) == (124, Outcome.TIMED_OUT)
    assert [info.pid for info in result.survivors] == [result.pid]
    assert result.killed == ()
    assert f"could not be killed: pid {result.pid}" in str(result.error)
    assert is_alive(result.pid)
    freezer.set("THAWED")
    assert wait_until(lambda: procfs.read_process(result.pid) is None), "nobody has reaped it"
    assert wait_until(lambda: not janitor.busy())


def test_a_frozen_grandchild(freezer: Freezer) -> None:
    """The rest of the tree is dead, and the child reaped; the holder of the pipes is told."""
    result = childproof.run(
        "sleep 600 & echo $!; wait", timeout=0.5, on_output=freeze_when_it_speaks(freezer), autopsy=True
    )
    pid = int(result.out)
    assert [info.pid for info in result.survivors] == [pid]
    assert [info.pid for info in result.killed] == [result.pid]
    assert [holder.pid for holder in result.held] == [pid]
    assert result.pid not in children()
    assert {examined.pid: examined.state for examined in result.autopsy}[pid] == "D"
    freezer.set("THAWED")
    assert wait_until(lambda: not is_alive(pid)), "the SIGKILL that it had got was lost"


def test_no_thread_is_stuck(freezer: Freezer) -> None:
    """While one command's child is frozen the background serves others as ever."""
    threads = background_threads()  # other tests may have started some
    result = childproof.run(
        ["sh", "-c", "echo $$; exec sleep 600"], timeout=0.5, on_output=freeze_when_it_speaks(freezer)
    )
    assert result.survivors
    assert wait_until(lambda: background_threads() <= threads + 1), "one is stuck, and was replaced"
    assert janitor.answer(_done(janitor.submit(lambda: 7))) == 7
    other = childproof.run("sleep 600 & echo ok")
    assert other.held[0].command in ("sleep 600", "[sleep]")
    stop(other.held[0].pid)
    freezer.set("THAWED")
    assert wait_until(lambda: result.pid not in children())


def _done(job: janitor.Job) -> janitor.Job:  # type: ignore[name-defined]  # an attribute of the module
    assert job.done.wait(10)
    return job


def test_kill_tree_of_a_frozen_one(freezer: Freezer) -> None:
    """Another's child, by the bound that is given."""
    with subprocess.Popen(["sleep", "600"]) as process:
        freezer.take(process.pid)
        freezer.set("FROZEN")
        began = time.monotonic()
        killed, survivors = childproof.kill_tree(process.pid, timeout=0.3)
        assert 0.3 <= time.monotonic() - began < 0.5 + SLACK_SECONDS
        assert killed == ()
        assert [(info.pid, info.state) for info in survivors] == [(process.pid, "D")]
        freezer.set("THAWED")
        assert process.wait(10) == -signal.SIGKILL


# ---- traced by one who is stopped ----

TRACER = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
pid = int(sys.argv[1])
if libc.ptrace(PTRACE_SEIZE, pid, None, None) != 0:
    print(os.strerror(ctypes.get_errno()), flush=True)
else:
    print("traced", flush=True)
signal.pause()
"""


class Tracer:
    """A process that traces others, and stops."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def trace(self, pid: int) -> None:
        """`pid` is traced, and its tracer stopped."""
        process = subprocess.Popen([sys.executable, "-c", TRACER, str(pid)], stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if said != "traced":
            lacking(f"ptrace: {said}")
        process.send_signal(signal.SIGSTOP)
        assert wait_until(lambda: (p := procfs.read_process(process.pid)) is not None and p.state == "T")

    def end(self) -> None:
        """What they traced goes back to its parent."""
        for process in self.processes:
            process.kill()
            assert process.stdout is not None
            process.stdout.close()
            process.wait()


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    """Ended after the test."""
    tracer = Tracer()
    yield tracer
    tracer.end()


@pytest.mark.usefixtures("every_way")
def test_a_child_under_a_stopped_tracer(tracer: Tracer) -> None:
    """It is dead and can't be reaped: a survivor, until its tracer is gone."""
    threads = background_threads()  # other tests may have started some
    began = time.monotonic()
    result = childproof.run(
        ["sh", "-c", "echo $$; exec sleep 600"], timeout=1, on_output=lambda _, data: tracer.trace(int(data))
    )
    assert time.monotonic() - began < 2 + SLACK_SECONDS
    assert result.code == 124
    assert [info.pid for info in result.survivors] == [result.pid]
    assert procfs.read_process(result.pid) is not None
    assert wait_until(lambda: background_threads() <= threads + 1), "one is stuck, and was replaced"
    tracer.end()
    tracer.processes.clear()
    assert wait_until(lambda: procfs.read_process(result.pid) is None), "nobody has reaped it"


def test_a_traced_child_that_ends_by_itself(tracer: Tracer) -> None:
    """The deadline is kept though its end can't be seen; its output is there."""
    began = time.monotonic()
    result = childproof.run(
        ["sh", "-c", "echo $$; read x; echo end"],
        timeout=3,
        input=GoOn(tracer),
        on_output=lambda _, data: tracer.trace(int(data)) if data[:1].isdigit() else None,
    )
    assert time.monotonic() - began < 4 + SLACK_SECONDS
    assert result.out.endswith("end")
    assert result.pid in children() or not is_alive(result.pid)
    tracer.end()
    tracer.processes.clear()
    assert wait_until(lambda: result.pid not in children())


class GoOn:
    """Input that comes when the tracer is there."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def read(self, size: int) -> bytes:
        """One line, then the end."""
        if not self.tracer.processes:
            time.sleep(0.05)
            return b" "
        return b""


# ---- those whose end is under way are no survivors ----


@pytest.mark.parametrize(
    ("letter", "exiting", "kill_pending", "is_ending"),
    [
        ("Z", 0, 0, True),
        ("R", 1, 0, True),
        ("R", 0, 1, True),
        ("S", 0, 1, True),
        ("S", 0, 0, False),
        ("R", 0, 0, False),
        ("D", 1, 0, False),
        ("D", 0, 1, False),
        ("t", 0, 1, False),
        ("T", 0, 1, False),
    ],
)
def test_what_counts_as_ending(letter: str, exiting: int, kill_pending: int, is_ending: bool) -> None:
    """Who was killed and goes on to its end; not who is held up, in D state or by a tracer."""
    process = procfs.read_process(os.getpid())
    assert process is not None
    seen = process._replace(letter=ord(letter), exiting=exiting, kill_pending=kill_pending)
    assert seen.is_ending is is_ending


def test_the_kernel_tells_of_a_pending_kill(freezer: Freezer) -> None:
    """A frozen process with SIGKILL: pending, in D state."""
    with subprocess.Popen(["sleep", "600"]) as process:
        freezer.take(process.pid)
        freezer.set("FROZEN")
        process.kill()
        seen = procfs.read_process(process.pid)
        assert seen is not None
        assert (seen.state, seen.kill_pending, seen.is_ending) == ("D", 1, False)
        freezer.set("THAWED")


def test_who_is_about_to_end_at_the_bound_is_no_survivor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree so large that it has not ended when the time is over: nothing holds it up, so it is killed."""
    read = procfs.read_process
    late: list[int] = []

    def still_there(pid: int) -> procfs.Process | None:
        process = read(pid)
        if process is not None and pid in late:
            return process._replace(letter=ord("R"), threads=1, exiting=1)
        return process

    with subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        late.append(int(process.stdout.readline()))
        members = tree.Tree.members

        def never_gone(tree: tree.Tree) -> list[procfs.Process]:
            found = members(tree)
            gone = [tree._known[key] for key in tree._known if key[0] in late and key[0] not in {p.pid for p in found}]
            return [*found, *gone]

        monkeypatch.setattr(procfs, "read_process", still_there)
        monkeypatch.setattr(tree.Tree, "members", never_gone)
        began = time.monotonic()
        killed, survivors = childproof.kill_tree(process.pid, timeout=0.3)
        assert time.monotonic() - began < 0.4 + SLACK_SECONDS
        monkeypatch.undo()
    assert survivors == ()
    assert {info.pid for info in killed} >= {process.pid}
