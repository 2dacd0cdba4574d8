"""What holds the processes of a command together: a supervisor, a cgroup, a pid namespace."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import Contained, Outcome, _cgroup, _spawner
from childproof._command import make_command
from childproof._janitor import janitor
from childproof._processes import procfs
from childproof.pytest_plugin import children
from conftest import SLACK_SECONDS, is_alive, program, stop, wait_until
from test_hostile import STUBBORN

HAS_PIDNS = not _spawner.PORTABLE and childproof.run(["true"], contain="pidns").ok

needs_pidns = pytest.mark.skipif(
    not HAS_PIDNS, reason="no pid namespace may be made: run the tests as root, or allow user.max_user_namespaces"
)
pytestmark = pytest.mark.skipif(_spawner.PORTABLE, reason="a supervisor needs Linux")


class Sleepers:
    """Commands that sleep for a time that nobody else sleeps for, by which they are found."""

    def __init__(self) -> None:
        self.seconds = f"{random.randrange(600, 700)}.{random.randrange(10**9):09}"
        self.sleep = f"sleep {self.seconds}"

    def pids(self) -> list[int]:
        """Who sleeps."""
        return [pid for pid in procfs.pids() if is_alive(pid) and self.sleep == (procfs.command_line(pid) or "")]

    def gone(self) -> bool:
        """Whether nobody does."""
        return not self.pids()

    def come(self, count: int) -> bool:
        """Whether that many came to do so."""
        return wait_until(lambda: len(self.pids()) == count, 30)


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    """None of them is left."""
    found = Sleepers()
    yield found
    left = found.pids()
    for pid in left:
        stop(pid)
    assert not left, "left behind"


def family(sleep: str) -> str:
    """A shell command with four of them, each of which has got away from something: the group, the
    session, the environment, the pipes, the parent.
    """
    return (
        f"{sleep} & setsid {sleep} & "
        f"env -i setsid sh -c '{sleep} & exec {sleep}' </dev/null >/dev/null 2>&1 & "
        f"(setsid sh -c '(env -i {sleep} </dev/null >/dev/null 2>&1 &)' </dev/null >/dev/null 2>&1); "
    )


FAMILY = 5

HOST = """
import json, os, select, sys, threading, time
import childproof
options = json.loads(sys.argv[2])
"""


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_host() -> Iterator[Start]:
    """Starts a process that runs some code, in which `sys.argv[1]` is the command."""
    hosts = []

    def start(code: str, command: str, **options: Any) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", HOST + code, command, json.dumps(options)]
        hosts.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        return hosts[-1]

    yield start
    for host in hosts:
        if host.poll() is None:
            kill_host(host)


def line_of(host: subprocess.Popen[str]) -> str:
    """What it prints next; nothing if it prints nothing."""
    assert host.stdout is not None
    readable, _, _ = select.select([host.stdout], [], [], 60)
    return host.stdout.readline().strip() if readable else ""


def kill_host(host: subprocess.Popen[str]) -> None:
    """By SIGKILL, as the OOM killer does."""
    host.kill()
    host.wait()
    assert host.stdout is not None
    host.stdout.close()


# ---- die_with_parent: the host's death ----


@pytest.mark.needs_proc
def test_the_tree_dies_with_the_host(sleepers: Sleepers, start_host: Start) -> None:
    """Within a second of the host's SIGKILL nobody is left, whatever they did to get away."""
    host = start_host("childproof.run(sys.argv[1], **options)", family(sleepers.sleep) + "wait", die_with_parent=True)
    assert sleepers.come(FAMILY)
    kill_host(host)
    assert wait_until(sleepers.gone, 1 + SLACK_SECONDS)


@pytest.mark.needs_proc
def test_without_it_the_tree_lives(sleepers: Sleepers, start_host: Start) -> None:
    """The control: a host that is killed takes nobody along."""
    host = start_host("childproof.run(sys.argv[1], **options)", family(sleepers.sleep) + "wait")
    assert sleepers.come(FAMILY)
    kill_host(host)
    time.sleep(1)
    pids = sleepers.pids()
    assert len(pids) == FAMILY
    for pid in pids:
        stop(pid)


IN_A_THREAD = """
from childproof._command import make_command
from childproof._exchange import Exchange
exchange = Exchange(make_command(sys.argv[1], **options), select.poll(), time.monotonic())
def begin():
    exchange.begin()
    exchange.child.await_exec(-1)  # until then the end of the thread would end it
thread = threading.Thread(target=begin)
thread.start()
thread.join()
print("ended", flush=True)
time.sleep(600)
"""


@pytest.mark.needs_proc
def test_the_end_of_the_thread_that_started_it_is_not_the_hosts(sleepers: Sleepers, start_host: Start) -> None:
    """PR_SET_PDEATHSIG would fire when the thread ends; the command lives until the host does."""
    host = start_host(IN_A_THREAD, family(sleepers.sleep) + "wait", die_with_parent=True)
    assert line_of(host) == "ended"
    assert sleepers.come(FAMILY)
    time.sleep(1)
    assert len(sleepers.pids()) == FAMILY
    kill_host(host)
    assert wait_until(sleepers.gone, 1 + SLACK_SECONDS)


LEFTOVERS = """
def call():
    print(childproof.run(sys.argv[1], **options).code, flush=True)
thread = threading.Thread(target=call)
thread.start()
thread.join()
time.sleep(600)
"""


@pytest.mark.needs_proc
def test_leftovers_die_with_the_host(sleepers: Sleepers, start_host: Start) -> None:
    """The command has ended, its Result is there, its thread is over: what it left dies with the host."""
    host = start_host(LEFTOVERS, family(sleepers.sleep), die_with_parent=True)
    assert line_of(host) == "0"
    assert sleepers.come(FAMILY)
    kill_host(host)
    assert wait_until(sleepers.gone, 1 + SLACK_SECONDS)


AT_ONCE = """
print("begins", flush=True)
for _ in range(5):
    childproof.run("true", **options)
childproof.run(sys.argv[1], **options)
"""


@pytest.mark.parametrize("kind", ["die_with_parent", "pidns"])
def test_at_any_moment(kind: str, start_host: Start) -> None:
    """Whatever the host or the supervisor was at when the host was killed: nobody is left."""
    if kind == "pidns" and not HAS_PIDNS:
        pytest.skip("no pid namespace may be made")
    options: dict[str, Any] = {"contain": "pidns"} if kind == "pidns" else {"die_with_parent": True}
    for _ in range(10):
        tree = Sleepers()
        host = start_host(AT_ONCE, f"setsid {tree.sleep} & {tree.sleep}", **options)
        assert line_of(host) == "begins"
        time.sleep(random.uniform(0.0, 0.05))
        kill_host(host)
        assert wait_until(tree.gone, 1 + SLACK_SECONDS)
        time.sleep(0.05)
        assert tree.gone(), "it came later"


RAW_COPY = """
import ctypes
def copy():
    time.sleep(0.5)
    # Not through libc: no handler closes the copy's descriptors.
    if ctypes.CDLL(None).syscall(57 if os.uname().machine == "x86_64" else 0) == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
threading.Thread(target=copy, daemon=True).start()
childproof.run(sys.argv[1], **options)
"""


@pytest.mark.needs_proc
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="a raw fork by its number on x86_64")
def test_a_raw_copy_of_the_host_does_not_keep_the_tree(sleepers: Sleepers, start_host: Start) -> None:
    """A fork that bypasses libc holds the control socket for life; the host's pidfd tells its end."""
    host = start_host(RAW_COPY, f"{sleepers.sleep} & wait", die_with_parent=True)
    copy = int(line_of(host))
    assert sleepers.come(1)
    try:
        kill_host(host)
        assert wait_until(sleepers.gone, 1 + SLACK_SECONDS)
        assert is_alive(copy)
    finally:
        stop(copy)


# ---- die_with_parent: the command is as without ----


def test_the_result_is_the_commands() -> None:
    """Status, pid and usage are the command's; its supervisor is gone; nobody is left, and that is proven."""
    result = childproof.run("echo $$; exit 3", die_with_parent=True)
    assert (result.code, result.out, result.outcome) == (3, str(result.pid), Outcome.EXITED)
    assert result.contained == Contained("session", proven=True)
    result = childproof.run("kill -9 $$", die_with_parent=True)
    assert (result.code, result.outcome) == (-9, Outcome.SIGNALED)
    burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
    result = childproof.run(burn, die_with_parent=True)
    assert result.usage is not None
    assert result.usage.user > 0.01
    assert result.usage.max_rss is not None
    assert result.usage.max_rss < 10_000_000, "the host's own peak"


def test_without_a_supervisor_nothing_is_proven() -> None:
    """In a session somebody may have escaped unseen, so emptiness is never claimed."""
    assert childproof.run("true").contained == Contained("session", proven=False)
    assert childproof.run(["/nonexistent"]).contained is None


def test_failures_are_told_as_without() -> None:
    """Stage, errno and code go through the supervisor."""
    for supervised in (False, True):
        result = childproof.run(["no-such-program-anywhere"], die_with_parent=supervised)
        assert (result.code, result.outcome) == (127, Outcome.NOT_STARTED)
        assert result.error is not None
        assert result.error.stage == "exec"
        result = childproof.run(["true"], cwd="/nonexistent", die_with_parent=supervised)
        assert result.error is not None
        assert (result.code, result.error.stage) == (125, "chdir")
        result = childproof.run(["/etc/passwd"], die_with_parent=supervised)
        assert (result.code, result.outcome) == (126, Outcome.NOT_STARTED)


@pytest.mark.needs_proc
def test_attributes_are_the_commands(tmp_path: Path) -> None:
    """Limits, umask, niceness, directory, environment and descriptors are the command's, as asked for; the
    supervisor, which one process or one second of CPU would end, has none of them.
    """
    end = os.open(tmp_path, os.O_RDONLY)
    try:
        result = childproof.run(
            "umask; nice; pwd; ulimit -t; ulimit -n; echo $A; readlink /proc/self/fd/$B",
            die_with_parent=True,
            umask=0o27,
            nice=3,
            cwd=tmp_path,
            limits={"cpu": 7, "nofile": (64, 64), "nproc": 200},
            env={"A": "a b", "B": str(end), "PATH": os.environ["PATH"]},
            pass_fds=[end],
        )
        assert result.out.split("\n") == ["0027", "3", str(tmp_path), "7", "64", "a b", str(tmp_path)], result
        assert childproof.run("pwd", die_with_parent=True, cwd=end).out == str(tmp_path)
    finally:
        os.close(end)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_ids_are_the_commands() -> None:
    """The supervisor stays who the host is, and so can kill what has become somebody else."""
    result = childproof.run("id -u; id -g; id -G", die_with_parent=True, user=65534, group=65534, extra_groups=[])
    assert result.out.split() == ["65534", "65534", "65534"]
    result = childproof.run("sleep 600", die_with_parent=True, user=65534, timeout=1)
    assert (result.code, result.survivors) == (124, ())


def test_the_command_gets_nothing_of_the_supervisor() -> None:
    """0, 1 and 2, and no more."""
    result = childproof.run(program("fds"), die_with_parent=True)
    assert [line.split()[0] for line in result.out.splitlines()] == ["0", "1", "2"]


@pytest.mark.parametrize("options", [{"die_with_parent": True}, pytest.param({"contain": "pidns"}, marks=needs_pidns)])
def test_the_pidfd_is_the_commands(options: dict[str, Any]) -> None:
    """`start` hands out a real one, which signals the command and tells its end."""
    with childproof.start(["sleep", "600"], **options) as child:
        poller = select.poll()
        poller.register(child.pidfd, select.POLLIN)
        assert not poller.poll(50)
        signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)
        assert poller.poll(60_000)
        assert child.result(60).code == -signal.SIGTERM


@pytest.mark.needs_proc
def test_no_session() -> None:
    """new_session=False leaves the command in the host's session and group, and the supervisor too."""
    result = childproof.run("ps -o pgid=,sid= -p $$", die_with_parent=True, new_session=False)
    assert [int(word) for word in result.out.split()] == [os.getpgrp(), os.getsid(0)]
    result = childproof.run("sleep 600 & setsid sleep 600", die_with_parent=True, new_session=False, timeout=1)
    assert (result.code, len(result.killed), result.survivors) == (124, 3, ())
    assert result.contained == Contained("session", proven=True)


def test_a_group_signal_is_not_the_supervisors() -> None:
    """Ctrl-C goes to all in the terminal's group; the supervisor leaves it to the command."""
    code = "import os, signal; os.setpgid(0, 0); import childproof; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    command = 'trap "echo got it" INT; kill -INT 0; echo on; exit 4'
    code += f"print(childproof.run({command!r}, die_with_parent=True, new_session=False)[:2])"
    # The host ignores it, and so would the shell: hence a handler in a child of its own.
    code = code.replace("signal.SIG_IGN", "lambda *_: None")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "(4, 'got it\\non')\n", done


# ---- die_with_parent: leftovers, and the supervisor itself ----


def supervisors() -> list[int]:
    """Those of this process."""
    return [pid for pid in children() if "_supervisor" in (procfs.command_line(pid) or "")]


@pytest.mark.needs_proc
def test_the_supervisor_stays_with_leftovers(sleepers: Sleepers) -> None:
    """It lives on as long as they do, holding nothing of theirs, and is reaped when they have ended."""
    result = childproof.run(f"{sleepers.sleep} & echo $!", die_with_parent=True)
    assert result.contained == Contained("session", proven=False)
    assert [holder.pid for holder in result.held] == [int(result.out)]
    (supervisor,) = supervisors()
    links = [os.readlink(f"/proc/{supervisor}/fd/{fd}") for fd in os.listdir(f"/proc/{supervisor}/fd")]
    assert links.count("/dev/null") == 3
    assert sorted(link.partition(":")[0] for link in links if link != "/dev/null") == ["anon_inode"] * 3 + ["socket"]
    assert procfs.read_process(result.pid) is None, "a zombie"
    assert janitor.busy()
    stop(int(result.out))
    assert wait_until(lambda: not supervisors() and not janitor.busy())


@pytest.mark.needs_proc
def test_leftovers_can_be_killed_and_that_is_proven(sleepers: Sleepers) -> None:
    """leftovers="kill" finds all of them, since all descend from the supervisor."""
    result = childproof.run(family(sleepers.sleep) + "sleep 0.5", die_with_parent=True, leftovers="kill")
    assert sleepers.gone()
    assert len(result.killed) >= FAMILY
    assert result.contained == Contained("session", proven=True)


@pytest.mark.needs_proc
def test_those_without_evidence_die_at_the_deadline(sleepers: Sleepers) -> None:
    """No session, no mark, no pipe, no parent: with a supervisor they are found all the same."""
    result = childproof.run(family(sleepers.sleep) + "wait; sleep 600", die_with_parent=True, timeout=2)
    assert sleepers.gone()
    assert (result.code, result.survivors) == (124, ())
    assert result.contained == Contained("session", proven=True)


@pytest.mark.needs_proc
def test_a_supervisor_that_dies(sleepers: Sleepers) -> None:
    """The status is reported lost, and what can be found of the tree is killed."""
    began = time.monotonic()
    command = f"setsid {sleepers.sleep} & kill -9 $PPID; {sleepers.sleep}"
    result = childproof.run(command, die_with_parent=True, timeout=600)
    assert time.monotonic() - began < 2 + SLACK_SECONDS
    assert (result.code, result.outcome, result.usage) == (125, Outcome.STATUS_LOST, None)
    assert "supervisor" in str(result.error)
    assert sleepers.gone()
    assert result.contained == Contained("session", proven=False)


def test_a_supervisor_that_is_stopped() -> None:
    """A command that stops it does not change the deadline, nor who is left."""
    began = time.monotonic()
    result = childproof.run("kill -STOP $PPID; sleep 600; echo x", die_with_parent=True, timeout=1)
    assert time.monotonic() - began < 2 + SLACK_SECONDS
    assert (result.code, result.survivors) == (124, ())


def test_a_supervisor_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation is no fault of the command, and the error says so."""
    monkeypatch.setattr("childproof._request.SUPERVISOR", b"/nonexistent/supervisor")
    result = childproof.run(["true"], die_with_parent=True)
    assert (result.code, result.outcome) == (125, Outcome.NOT_STARTED)
    assert result.error is not None
    assert result.error.stage == "supervisor"


@pytest.mark.needs_proc
def test_an_interrupted_run_leaves_nobody(sleepers: Sleepers) -> None:
    """An exception kills tree and supervisor before it propagates."""

    def interrupt(stream: str, data: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        childproof.run(family(sleepers.sleep) + "echo; wait", die_with_parent=True, on_output=interrupt)
    assert sleepers.gone()
    assert wait_until(lambda: not supervisors())


def test_a_copy_of_the_host_does_not_keep_the_tree(sleepers: Sleepers) -> None:
    """os.fork() while a command runs: the copy neither keeps nor kills it."""
    pid = 0

    def fork(stream: str, data: bytes) -> None:
        nonlocal pid
        pid = os.fork()
        if pid == 0:
            time.sleep(0.5)
            os._exit(0)

    assert childproof.run("echo a; sleep 1; exit 6", die_with_parent=True, on_output=fork).code == 6
    os.waitpid(pid, 0)


@pytest.mark.needs_proc
def test_many_at_once() -> None:
    """Nothing is left of 100 of them, of which every other fails to start."""
    for i in range(100):
        result = childproof.run(["true" if i % 2 else "/nonexistent"], die_with_parent=True)
        assert result.code == (0 if i % 2 else 127)


@pytest.mark.needs_proc
def test_few_descriptors_in_the_supervisor() -> None:
    """A supervisor that can't do its work says so; nothing is half started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir("/proc/self/fd"))
    outcomes = set()
    for limit in range(open_now, open_now + 20):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            outcomes.add(childproof.run("exit 2", die_with_parent=True)[0])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert outcomes == {125, 2}


# ---- none is left ----

needs_cgroup = pytest.mark.skipif(
    not _cgroup.is_possible(),
    reason="no writable cgroup2: run the tests as root, or by systemd-run --user --scope -p Delegate=yes",
)

COMPLETE = {
    "die_with_parent": pytest.param({"die_with_parent": True}, "session", id="die_with_parent"),
    "cgroup": pytest.param({"contain": "cgroup"}, "cgroup", id="cgroup", marks=needs_cgroup),
    "both": pytest.param(
        {"contain": "cgroup", "die_with_parent": True}, "cgroup", id="cgroup, die_with_parent", marks=needs_cgroup
    ),
    "pidns": pytest.param({"contain": "pidns"}, "pidns", id="pidns", marks=needs_pidns),
}

HIDDEN_DAEMON = "(setsid sh -c '(env -i {sleep} </dev/null >/dev/null 2>&1 &)' </dev/null >/dev/null 2>&1)"
"""Double-forked, without environment and stdio."""

MOVER = (
    "import os, sys\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork(): os._exit(0)\n"
    "    os.setpgid(0, 0)\n"
    "    os.execve('/bin/sleep', ['sleep', sys.argv[1]], {})\n"
)
"""Moves to another session and to another group at once."""

ESCAPES: dict[str, Callable[[Sleepers], tuple[Any, int]]] = {
    "a fork bomb whose children call setsid": lambda s: (program("bomb", 150, s.sleep), 150),
    "a hidden daemon": lambda s: (HIDDEN_DAEMON.format(sleep=s.sleep) + "; sleep 600", 1),
    "a child that moves": lambda s: (f"{sys.executable} -c {shlex.quote(MOVER)} {s.seconds}; sleep 600", 1),
}


@pytest.mark.needs_proc
@pytest.mark.parametrize(("options", "kind"), COMPLETE.values())
@pytest.mark.parametrize("escape", ESCAPES)
def test_none_is_left(escape: str, options: dict[str, Any], kind: str, sleepers: Sleepers) -> None:
    """Whatever they do to get away: none is alive at the return, and that is proven."""
    command, count = ESCAPES[escape](sleepers)
    with childproof.start(command, timeout=600, **options) as child:
        assert sleepers.come(count)
        before = set(sleepers.pids())
        result = child.kill_tree()
    assert sleepers.gone()
    assert result.contained == Contained(kind, proven=True)
    assert result.survivors == ()
    assert before <= {info.pid for info in result.killed}


@pytest.mark.needs_proc
@pytest.mark.parametrize("escape", ESCAPES)
def test_a_session_claims_nobody_dead_whom_it_has_not_seen(escape: str, sleepers: Sleepers) -> None:
    """By session, ancestry, mark and pipes not everybody is found; it says that nothing is proven."""
    command, count = ESCAPES[escape](sleepers)
    with childproof.start(command, timeout=600) as child:
        assert sleepers.come(count)
        before = set(sleepers.pids())
        result = child.kill_tree()
    assert result.contained == Contained("session", proven=False)
    killed = {info.pid for info in result.killed}
    for pid in before & killed:
        assert not is_alive(pid), "claimed dead"
    for pid in before - killed:
        stop(pid)


# ---- cgroup ----


def groups() -> list[str]:
    """Those of this process that exist."""
    own = _cgroup.own_directory()
    return [name for name in os.listdir(own) if name.startswith(f"{_cgroup.PREFIX}{os.getpid()}-")]


@needs_cgroup
@pytest.mark.parametrize("supervised", [False, True])
def test_a_cgroup_of_its_own(supervised: bool) -> None:
    """The command is in one below ours; afterwards it is gone, and nobody of it is left."""
    ours = Path("/proc/self/cgroup").read_text()
    result = childproof.run("cat /proc/self/cgroup", contain="cgroup", die_with_parent=supervised)
    (line,) = [line for line in result.out.splitlines() if line.startswith("0::")]
    assert line.rpartition("/")[2].startswith(f"{_cgroup.PREFIX}{os.getpid()}-")
    assert result.contained == Contained("cgroup", proven=True)
    assert groups() == []
    assert Path("/proc/self/cgroup").read_text() == ours
    assert childproof.run("true", contain="auto").contained == Contained("cgroup", proven=True)


@needs_cgroup
def test_the_cgroup_stays_with_leftovers(sleepers: Sleepers) -> None:
    """It is removed when they have ended, and until then nothing is claimed."""
    result = childproof.run(f"{sleepers.sleep} & echo $!", contain="cgroup", linger=0)
    assert result.contained == Contained("cgroup", proven=False)
    assert len(groups()) == 1
    stop(int(result.out))
    assert wait_until(lambda: not groups())


@needs_cgroup
def test_a_cgroup_in_it_is_removed_too() -> None:
    """The command may make cgroups of its own; its processes in them are its own too."""
    inner = "d=$(echo /sys/fs/cgroup/unified$(sed -n s/^0:://p /proc/self/cgroup))"
    inner = inner.replace("/sys/fs/cgroup/unified", _mountpoint())
    command = f"{inner}; mkdir $d/inner; echo $$ >$d/inner/cgroup.procs; sleep 600 & sleep 600"
    result = childproof.run(command, contain="cgroup", timeout=1, env={"PATH": os.environ["PATH"]})
    assert (result.code, result.err, result.contained) == (124, "", Contained("cgroup", proven=True))
    assert groups() == []


def _mountpoint() -> str:
    own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    return _cgroup.own_directory().removesuffix(own.rstrip("/"))


@needs_cgroup
@pytest.mark.parametrize("freezer", [True, False])
def test_without_cgroup_kill(freezer: bool, sleepers: Sleepers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.14 it is frozen and they are killed one by one; without the freezer in passes."""
    write = _cgroup._write
    missing = ("cgroup.kill",) if freezer else ("cgroup.kill", "cgroup.freeze")

    def refuse(path: str, text: str) -> None:
        if path.endswith(missing):
            raise FileNotFoundError(2, "No such file or directory", path)
        write(path, text)

    monkeypatch.setattr(_cgroup, "_write", refuse)
    group = _cgroup.Group(childproof.Cgroup())
    group.create()
    with group.open_procs() as procs:
        command = make_command(program("bomb", 20, sleepers.sleep))
        child = _spawner.Child()
        attributes = command.attributes._replace(cgroup_fd=procs.fileno())
        assert child.spawn(command._replace(attributes=attributes), None)
    assert sleepers.come(20)
    assert not group.is_empty()
    for _ in range(50):
        group.kill()
        if group.becomes_empty():
            break
    assert group.is_empty()
    assert sleepers.gone()
    assert child.reap()
    child.release()
    assert group.remove()
    assert groups() == []


@needs_cgroup
def test_an_interrupt_leaves_no_cgroup(sleepers: Sleepers) -> None:
    """An exception kills the tree and removes the cgroup before it propagates."""

    def interrupt(stream: str, data: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        childproof.run(family(sleepers.sleep) + "echo; wait", contain="cgroup", on_output=interrupt)
    assert sleepers.gone()
    assert wait_until(lambda: not groups())


@needs_cgroup
def test_a_start_that_fails_leaves_no_cgroup() -> None:
    """And says why as it would without."""
    result = childproof.run(["no-such-program-anywhere"], contain="cgroup")
    assert (result.code, result.contained) == (127, None)
    assert groups() == []


def test_no_cgroup_to_be_had(tmp_path: Path) -> None:
    """A command that must have one is not started without; the error names stage and file."""
    missing = tmp_path / "missing"
    marker = tmp_path / "marker"
    result = childproof.run(["touch", marker], contain=childproof.Cgroup(parent=str(missing)))
    assert (result.code, result.outcome, result.contained, result.pid) == (125, Outcome.NOT_STARTED, None, 0)
    assert result.error is not None
    assert result.error.stage == "cgroup"
    assert str(missing) in str(result.error)
    assert not marker.exists()
    with pytest.raises(childproof.SpawnError, match="cgroup"):
        childproof.start(["touch", marker], contain=childproof.Cgroup(parent=str(missing)))


def test_auto_is_a_session_where_no_cgroup_is_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never fails for the want of one."""
    monkeypatch.setattr(_cgroup, "is_possible", lambda: False)
    result = childproof.run("true", contain="auto")
    assert (result.code, result.contained) == (0, Contained("session", proven=False))


UNPRIVILEGED = """
import os
import childproof
childproof.run("true", contain="auto"), childproof.run(["/nonexistent"])  # who may not import as another user
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(childproof.run("true", contain="auto").contained.kind)
result = childproof.run("true", contain="cgroup")
print(result.code, result.error.stage, result.error.strerror)
"""


@pytest.mark.needs_proc
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_an_unprivileged_host() -> None:
    """Where the cgroup is somebody else's: auto does without, and cgroup says why not."""
    done = subprocess.run([sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["session", "125 cgroup Permission denied"], done


MOUNTS = {
    "unified": ("0::/user.slice/a.scope", "30 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"),
    "hybrid": (
        "4:memory:/x\n0::/user.slice/a.scope",
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n41 31 0:38 / /sys/fs/cgroup rw shared:4 - cgroup2 none rw",
    ),
    "a part of it": ("0::/user.slice/a.scope", "30 23 0:28 /user.slice /sys/fs/cgroup/../cgroup rw - cgroup2 c rw"),
}


@pytest.mark.parametrize("name", MOUNTS)
def test_own_directory(name: str, tmp_path: Path) -> None:
    """The unified hierarchy is found by mountinfo, wherever it is mounted and how much of it."""
    cgroup, mounts = MOUNTS[name]
    (tmp_path / "cgroup").write_text(cgroup + "\n")
    (tmp_path / "mountinfo").write_text(mounts + "\n")
    part = "a.scope" if name == "a part of it" else "user.slice/a.scope"
    assert _cgroup.own_directory(str(tmp_path)) == f"/sys/fs/cgroup/{part}"


def test_no_own_directory(tmp_path: Path) -> None:
    """Version 1 only, or a hierarchy that is not mounted here."""
    (tmp_path / "cgroup").write_text("4:memory:/\n")
    (tmp_path / "mountinfo").write_text("30 23 0:28 / /mnt\\040a rw - cgroup2 cgroup2 rw\n")
    with pytest.raises(OSError, match="version 2"):
        _cgroup.own_directory(str(tmp_path))
    (tmp_path / "cgroup").write_text("0::/a b\n")
    assert _cgroup.own_directory(str(tmp_path)) == "/mnt a/a b"
    (tmp_path / "mountinfo").write_text("")
    with pytest.raises(OSError, match="no mounted cgroup2"):
        _cgroup.own_directory(str(tmp_path))


def test_limits_are_written(tmp_path: Path) -> None:
    """Each into its file; a controller that is not there yet is asked for first."""
    group = _cgroup.Group(childproof.Cgroup(memory_bytes=1 << 20, pids=7, parent=str(tmp_path)))
    group.create()
    assert Path(group.path, "memory.max").read_text() == "1048576"
    assert Path(group.path, "pids.max").read_text() == "7"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+pids"


def _has(controller: str) -> bool:
    try:
        own = _cgroup.own_directory()
        return _cgroup.is_possible() and controller in Path(own, "cgroup.subtree_control").read_text().split()
    except OSError:
        return False


@pytest.mark.skipif(not _has("pids"), reason="the pids controller of cgroup2 is not delegated to this process")
def test_a_limit_of_processes_holds() -> None:
    """The eleventh process can't be forked."""
    result = childproof.run("for i in 1 2 3 4 5 6 7 8 9 10 11; do sleep 600 & done", contain=childproof.Cgroup(pids=10))
    assert "fork" in result.err


@pytest.mark.skipif(_has("pids"), reason="the pids controller of cgroup2 is delegated to this process")
@needs_cgroup
def test_a_limit_that_cannot_be_had() -> None:
    """Without the controller the command is not started."""
    result = childproof.run("true", contain=childproof.Cgroup(pids=10))
    assert (result.code, result.outcome) == (125, Outcome.NOT_STARTED)
    assert "cgroup" in str(result.error)
    assert groups() == []


@needs_cgroup
def test_what_dead_hosts_have_left_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cgroup of a host that is gone is removed by the next one; others are left alone."""
    own = _cgroup.own_directory()
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    dead = Path(own, f"{_cgroup.PREFIX}{gone}-1-test")
    living = Path(own, f"{_cgroup.PREFIX}{os.getppid()}-1-test")
    dead.mkdir()
    living.mkdir()
    try:
        monkeypatch.setattr(_cgroup, "_swept", False)
        childproof.run("true", contain="cgroup")
        assert dead.exists(), "too young"
        monkeypatch.setattr(_cgroup, "_swept", False)
        monkeypatch.setattr(_cgroup, "STALE_SECONDS", 0.0)
        childproof.run("true", contain="cgroup")
        assert not dead.exists()
        assert living.exists()
    finally:
        for path in (dead, living):
            if path.exists():
                path.rmdir()


# ---- pidns ----


@pytest.mark.needs_proc
@needs_pidns
def test_a_pid_namespace_of_its_own() -> None:
    """The command sees itself, its init and nobody else; `pid` is what this process sees."""
    result = childproof.run("echo $$; ls -d /proc/[0-9]*; exit 3", contain="pidns")
    inside = result.out.split("\n")
    assert (result.code, inside[:2]) == (3, ["2", "/proc/1"])
    assert len(inside) <= 4
    assert result.contained == Contained("pidns", proven=True)
    with childproof.start(["sleep", "600"], contain="pidns") as child:
        assert procfs.command_line(child.pid) == "sleep 600"
        result = child.kill_tree()
    assert (result.code, [info.pid for info in result.killed]) == (-9, [result.pid])
    assert result.usage is not None


@pytest.mark.needs_proc
@needs_pidns
@pytest.mark.parametrize("command", STUBBORN.values(), ids=STUBBORN.keys())
def test_stubborn_commands_in_a_pid_namespace(command: str) -> None:
    """They die at the deadline as without, and that nobody is left is proven."""
    began = time.monotonic()
    result = childproof.run(command, timeout=1, contain="pidns")
    assert time.monotonic() - began < 2 + SLACK_SECONDS
    assert (result.code, result.out, result.survivors) == (124, "hi", ())
    assert result.contained == Contained("pidns", proven=True)


@needs_pidns
def test_failures_in_a_pid_namespace() -> None:
    """Are told as without."""
    result = childproof.run(["no-such-program-anywhere"], contain="pidns")
    assert (result.code, result.outcome) == (127, Outcome.NOT_STARTED)
    result = childproof.run(["true"], contain="pidns", cwd="/nonexistent")
    assert result.error is not None
    assert (result.code, result.error.stage) == (125, "chdir")


@pytest.mark.needs_proc
@needs_pidns
def test_a_pid_namespace_dies_with_the_host(sleepers: Sleepers, start_host: Start) -> None:
    """Its init does, and everybody with it."""
    host = start_host("childproof.run(sys.argv[1], **options)", family(sleepers.sleep) + "wait", contain="pidns")
    assert sleepers.come(FAMILY)
    kill_host(host)
    assert wait_until(sleepers.gone, 1 + SLACK_SECONDS)


@pytest.mark.needs_proc
@needs_pidns
def test_leftovers_in_a_pid_namespace(sleepers: Sleepers) -> None:
    """They live on, and so does their init, until they have ended."""
    result = childproof.run(f"setsid {sleepers.sleep} </dev/null >/dev/null 2>&1 &", contain="pidns")
    assert (result.code, result.contained) == (0, Contained("pidns", proven=False))
    assert sleepers.come(1)
    stop(sleepers.pids()[0])
    assert wait_until(lambda: not supervisors())


@pytest.mark.needs_proc
@needs_pidns
def test_the_death_of_the_init_is_everybodys(sleepers: Sleepers) -> None:
    """Killed from outside it takes all along; the command's status is lost, and that nobody is left is proven."""
    with childproof.start(family(sleepers.sleep) + "wait", contain="pidns") as child:
        assert sleepers.come(FAMILY)
        (supervisor,) = supervisors()
        (init,) = [process.pid for process in procfs.table().values() if process.ppid == supervisor]
        os.kill(init, signal.SIGKILL)
        result = child.result(60)
    assert (result.code, result.outcome) == (125, Outcome.STATUS_LOST)
    assert result.contained == Contained("pidns", proven=True)
    assert sleepers.gone()


@pytest.mark.parametrize("option", [{"user": 0}, {"group": 0}, {"extra_groups": []}])
def test_ids_are_excluded(option: dict[str, Any]) -> None:
    """Its user namespace has one user, whoever makes it."""
    with pytest.raises(ValueError, match="excludes user"):
        childproof.run("true", contain="pidns", **option)


AS_NOBODY = """
import json, os
import childproof
for words in ["true"], ["/nonexistent"]:
    childproof.run(words, contain="pidns", timeout=600)  # who may not import as another user
os.setgroups([]); os.setgid(65534); os.setuid(65534)
result = childproof.run("id -u; id -g; echo $$; ls -d /proc/[0-9]*", contain="pidns")
error = result.error
print(json.dumps([result.code, result.out.split(), error and [error.stage, error.strerror, str(error)]]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_pid_namespace_of_an_unprivileged_host() -> None:
    """In a user namespace where the kernel allows it, with the same ids; else one error that names the step."""
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, timeout=60)
    code, out, error = json.loads(done.stdout)
    if error is None:
        assert (code, out[:4]) == (0, ["65534", "65534", "2", "/proc/1"])
    else:
        assert code == 125
        assert error[0] in ("unshare", "idmap", "mount")
        assert error[0] in error[2]


FILTERED = """
import errno, json, sys
import childproof
import pyseccomp
childproof.run(["true"], contain="pidns")
filter = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
filter.add_rule(pyseccomp.ERRNO(errno.EPERM), sys.argv[1])
filter.load()
result = childproof.run(["true"], contain="pidns")
print(json.dumps([result.code, result.outcome.name, result.error.stage, result.error.errno, result.contained]))
"""


@pytest.mark.parametrize("call", ["unshare", "mount"])
def test_a_namespace_that_is_refused(call: str) -> None:
    """As containers do: the command is not started, and the error names the step."""
    pytest.importorskip("pyseccomp")
    if call == "mount" and not HAS_PIDNS:
        pytest.skip("the step before it is refused already")
    done = subprocess.run([sys.executable, "-c", FILTERED, call], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == [125, "NOT_STARTED", call, errno.EPERM, None], done


WRONG: dict[str, tuple[Any, type[Exception]]] = {
    "a word": ("jail", ValueError),
    "no word": (3, TypeError),
    "none": (None, TypeError),
    "no memory": (childproof.Cgroup(memory_bytes=0), ValueError),
    "half a process": (childproof.Cgroup(pids=0.5), TypeError),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_containments(name: str) -> None:
    """Refused before anything is created."""
    value, kind = WRONG[name]
    with pytest.raises(kind):
        childproof.run("true", contain=value)
