"""`kill_tree`: the tree of any process, nobody else, and never the caller."""

from __future__ import annotations

import errno
import os
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
from childproof._processes import procfs
from childproof._processes import tree as trees
from childproof._spawner import FEATURES
from conftest import SLACK_SECONDS, is_alive, stop, wait_until
from forcing import force

Popen = subprocess.Popen


@pytest.fixture(params=["pidfd", "no pidfd", "no group by pidfd"])
def every_signalling(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through pidfds, the group at once; by number; through pidfds one by one."""
    disabled = {"no pidfd": FEATURES["pidfd"], "no group by pidfd": FEATURES["pidfd_group"]}
    force(monkeypatch, disabled=disabled.get(request.param, 0))


@pytest.fixture
def start() -> Iterator[Any]:
    """Start shells that print pids; gives the process and the pids. All are ended and reaped."""
    started: list[Popen[str]] = []

    def start(script: str, count: int, **options: Any) -> tuple[Popen[str], list[int]]:
        process = Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, **options)
        started.append(process)
        assert process.stdout is not None
        return process, [int(process.stdout.readline()) for _ in range(count)]

    yield start
    for process in started:
        if process.poll() is None:
            childproof.kill_tree(process.pid)
        assert process.stdout is not None
        process.stdout.close()
        process.wait()


def pids_of(found: tuple[childproof.ProcessInfo, ...]) -> set[int]:
    """As a set."""
    return {info.pid for info in found}


@pytest.mark.usefixtures("every_signalling")
def test_the_descendants_die_and_nobody_else(start: Any) -> None:
    """Also those in sessions of their own; a sibling in the same session lives."""
    sibling, _ = start("echo 1; sleep 600", 1)
    root, pids = start("sleep 600 & echo $!; setsid sh -c 'sleep 600 & echo $!; wait' & echo $!; wait", 3)
    began = time.monotonic()
    killed, survivors = childproof.kill_tree(root.pid, timeout=600)
    assert time.monotonic() - began < 2 + SLACK_SECONDS
    assert pids_of(killed) == {root.pid, *pids}
    assert "sleep 600" in {info.command for info in killed}
    assert survivors == ()
    assert not any(is_alive(pid) for pid in (root.pid, *pids))
    assert is_alive(sibling.pid)
    assert root.wait() == -signal.SIGKILL, "nobody else has reaped it"


@pytest.mark.usefixtures("every_signalling")
def test_the_session_dies_where_the_root_leads_it(start: Any) -> None:
    """An orphan of the root's session is told by it; in another's session it is not, and lives."""
    script = "(sleep 600 & echo $!) ; echo $$; sleep 600"  # the second line comes when the subshell has ended
    leader, (orphan, _) = start(script, 2, start_new_session=True)
    assert orphan in pids_of(childproof.kill_tree(leader.pid).killed)
    assert not is_alive(orphan)
    member, (orphan, _) = start(script, 2)
    killed, _ = childproof.kill_tree(member.pid)
    assert orphan not in pids_of(killed)
    assert is_alive(orphan)
    stop(orphan)


def test_the_session_of_an_ended_leader(start: Any) -> None:
    """A zombie still has its number: its session is its own, and dies."""
    leader, (left,) = start("sleep 600 >/dev/null & echo $!", 1, start_new_session=True)
    assert wait_until(lambda: not is_alive(leader.pid))
    assert pids_of(childproof.kill_tree(leader.pid).killed) == {left}


def test_who_loses_the_parent_while_it_is_killed(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known from the first look on: what the killing itself orphans is found again."""
    root, pids = start("for i in 1 2 3; do setsid sh -c 'setsid sleep 600 & echo $!; wait' & done; wait", 3)
    struck = []
    send_all = trees.Tree.signal

    def kill_only_the_first(tree: Any, members: list[Any], number: int) -> list[Any]:
        if number != signal.SIGKILL:
            return send_all(tree, members, number)
        struck.append(len(members))
        trees.send(members[0], number)
        return members[:1]

    monkeypatch.setattr(trees.Tree, "signal", kill_only_the_first)
    killed, survivors = childproof.kill_tree(root.pid, timeout=60)
    assert len(killed) == 7
    assert not survivors
    assert struck[0] == 7
    assert not any(is_alive(pid) for pid in pids)


def test_a_tree_that_grows_while_it_is_killed(start: Any) -> None:
    """Without a session of its own a child that is made between the look and the kill would be lost with its
    parent: so all are stopped first. The fixture finds who is left.
    """
    for _ in range(8):
        root, _ = start("echo 1; i=0; while [ $i -lt 200 ]; do sleep 600 & i=$((i+1)); done; wait", 1)
        killed, survivors = childproof.kill_tree(root.pid, timeout=60)
        assert root.pid in pids_of(killed)
        assert not survivors


@pytest.mark.parametrize(
    ("pid", "error"),
    [(0, ValueError), (-1, ValueError), (1, ValueError), (True, TypeError), ("1", TypeError), (1.5, TypeError)],
)
def test_wrong_pids(pid: Any, error: type[Exception]) -> None:
    """No group, no init and no nonsense."""
    with pytest.raises(error, match=str(pid)):
        childproof.kill_tree(pid)


@pytest.mark.parametrize("name", ["grace", "timeout"])
@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_wrong_times(name: str, seconds: float) -> None:
    """A budget that has run out is not for ever, and nobody is killed."""
    with subprocess.Popen(["sleep", "600"]) as process:
        with pytest.raises(ValueError, match=name):
            childproof.kill_tree(process.pid, **{name: seconds})
        assert is_alive(process.pid)
        process.kill()


def test_never_the_caller_nor_its_ancestors() -> None:
    """They are refused, each with its reason."""
    with pytest.raises(ValueError, match="this process itself"):
        childproof.kill_tree(os.getpid())
    with pytest.raises(ValueError, match="ancestor"):
        childproof.kill_tree(os.getppid())
    if (procfs.read_process(2) or 0) and procfs.read_process(2).kernel_thread:  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="kernel"):
            childproof.kill_tree(2)


def test_no_such_process() -> None:
    """Nobody, and a thread, which is no process."""
    with pytest.raises(ProcessLookupError):
        childproof.kill_tree(procfs.PID_LIMIT)
    with subprocess.Popen([sys.executable, "-c", THREADED], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        tid = int(process.stdout.readline())
        with pytest.raises(ProcessLookupError):
            childproof.kill_tree(tid)
        assert is_alive(process.pid)
        process.kill()


THREADED = """
import threading, time
thread = threading.Thread(target=time.sleep, args=(600,))
thread.start()
print(thread.native_id, flush=True)
"""


def test_a_caller_in_the_session_of_the_root(tmp_path: Path) -> None:
    """The caller has lost its line to the leader: the session is no evidence then, since its own children
    are in it.
    """
    script = (
        f"import os, subprocess, sys\n"
        f"if os.fork() == 0:\n"
        f"    if os.fork(): os._exit(0)\n"
        f"    os.execv(sys.executable, [sys.executable, '-c', {CALLER!r}, str(os.getsid(0)), sys.argv[1]])\n"
        f"os.wait()\n"
        f"subprocess.run(['sleep', '600'])\n"
    )
    answer = tmp_path / "answer"
    leader = Popen([sys.executable, "-c", script, str(answer)], start_new_session=True)
    try:
        assert wait_until(answer.exists, 60)
        killed, alive = answer.read_text().rsplit(maxsplit=1)
        assert alive == "True"
        assert str(leader.pid) in killed
        assert killed.count(",") == 1, "the leader and its sleep"
    finally:
        leader.kill()
        leader.wait()


CALLER = """
import os, subprocess, sys
import childproof
mine = subprocess.Popen(["sleep", "600"])
killed, survivors = childproof.kill_tree(int(sys.argv[1]))
alive = mine.poll() is None
mine.kill()
mine.wait()
with open(sys.argv[2] + ".new", "w") as file:
    print(sorted(info.pid for info in killed), alive, file=file)
os.rename(sys.argv[2] + ".new", sys.argv[2])
"""


def test_grace(start: Any, tmp_path: Path) -> None:
    """SIGTERM first; who obeys it is among the killed, and nobody waits longer than for them."""
    root, _ = start(f"trap 'touch {tmp_path}/obeyed; exit' TERM; echo 1; while :; do sleep 0.05; done", 1)
    began = time.monotonic()
    killed, survivors = childproof.kill_tree(root.pid, grace=600)
    assert time.monotonic() - began < 2 + SLACK_SECONDS
    assert (tmp_path / "obeyed").exists()
    assert root.pid in pids_of(killed)
    assert not survivors


def test_grace_ends(start: Any) -> None:
    """SIGKILL for whoever ignores SIGTERM, also where it is stopped."""
    root, _ = start("trap '' TERM; echo 1; kill -STOP $$; sleep 600", 1)
    assert wait_until(lambda: (procfs.read_process(root.pid) or 0) and is_alive(root.pid))
    began = time.monotonic()
    killed, _ = childproof.kill_tree(root.pid, grace=0.5, timeout=600)
    assert time.monotonic() - began >= 0.5
    assert root.pid in pids_of(killed)
    assert root.wait() == -signal.SIGKILL


def test_another_users_process(start: Any) -> None:
    """What may not be signalled is refused at once; nobody waits for the bound."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody who may not")
    root, _ = start("echo 1; sleep 600", 1)
    script = (
        "import childproof, os, sys\nkill = childproof.kill_tree\nos.setuid(65534)\n"
        "try: kill(int(sys.argv[1]), timeout=600)\nexcept PermissionError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(root.pid)], capture_output=True, text=True, timeout=60)
    assert "may not be signalled" in done.stdout, done
    assert is_alive(root.pid)


def test_a_member_of_another_user_survives() -> None:
    """The rest of the tree is dead, and who may not be signalled is named."""
    if os.getuid() != 0:
        pytest.skip("only root can start somebody else's process")
    tree = "import os, subprocess, sys\n" + "os.setegid(65534); os.seteuid(65534)\n"
    tree = "sleep 600 & echo $!; setpriv --reuid=65533 --regid=65533 --clear-groups sleep 600 & echo $!; wait"
    killer = (
        "import os, sys, childproof\n"
        "from childproof._processes import tree\n"
        "send = tree.send\n"
        "tree.send = lambda process, number: 1 if process.pid == int(sys.argv[2]) else send(process, number)\n"
        "killed, survivors = childproof.kill_tree(int(sys.argv[1]), timeout=0.3)\n"
        "print(sorted(info.pid for info in killed), [info.pid for info in survivors])"
    )
    root = Popen(["sh", "-c", tree], stdout=subprocess.PIPE, text=True)
    assert root.stdout is not None
    ours, others = (int(root.stdout.readline()) for _ in range(2))
    done = subprocess.run([sys.executable, "-c", killer, str(root.pid), str(others)], capture_output=True, timeout=60)
    root.stdout.close()
    root.wait()
    assert done.stdout.decode().split("[") == ["", f"{root.pid}, {ours}] ", f"{others}]\n"], done
    stop(others)


def test_a_thousand_are_killed_in_some_passes(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the passes over /proc it is looked cheaply who has ended: few passes, whatever the number."""
    count = 300
    script = f"i=0; while [ $i -lt {count} ]; do setsid sleep 600 & i=$((i+1)); done; echo $i; wait"
    root, _ = start(script, 1)
    passes = []
    members = trees.Tree.members

    def counted(tree: trees.Tree) -> list[Any]:
        passes.append(1)
        return members(tree)

    monkeypatch.setattr(trees.Tree, "members", counted)
    killed, survivors = childproof.kill_tree(root.pid, timeout=60)
    assert len(killed) == count + 1
    assert not survivors
    assert len(passes) <= 30


class Unborn:
    """A root that has no number: no child was made, or it is a copy's."""

    pid = 0
    leads_group = True
    supervisors = (0, 1)

    def kill_supervised(self) -> None:
        """Nobody is."""

    def ended(self) -> int:
        """As of one that runs, which is the worst that could be said."""
        return 0

    def signal(self, number: int) -> int:
        """Nobody has it."""
        return errno.ESRCH

    signal_group = signal


def test_nobody_is_in_the_session_of_a_root_without_a_number() -> None:
    """0 is what the session of a process reads as that was put into a container from outside, and 1 is the
    parent of every orphan: neither is evidence. Only looked, nobody is signalled.
    """
    tree = trees.Tree(Unborn(), trees.Evidence(0.0, None, {}, ()), 0)
    assert tree.members() == []


def test_from_several_threads(start: Any) -> None:
    """Each has its own tree."""
    roots = [start("sleep 600 & echo $!; wait", 1) for _ in range(8)]
    results: dict[int, set[int]] = {}

    def kill(pid: int) -> None:
        results[pid] = pids_of(childproof.kill_tree(pid, timeout=60).killed)

    threads = [threading.Thread(target=kill, args=(process.pid,)) for process, _ in roots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {process.pid: {process.pid, *pids} for process, pids in roots}
