"""A process number that is given anew: whoever has it now is a stranger, and is left alone.

Forced through ns_last_pid (proc(5)), in a pid namespace of its own, so that nobody else takes the number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from childproof._spawner import PORTABLE

ROUNDS = 100
AT_MOST_SECONDS = 300

PROLOGUE = """
import json, os, signal, subprocess, sys, time
import childproof
from childproof._processes import procfs, tree
from childproof._spawner import Child

def born_as(pid, *, leads=False):
    "A stranger with this number: another's child, which only sleeps."
    for _ in range(1000):
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))
        made = os.fork()
        if made == 0:
            if leads:
                os.setsid()
            signal.pause()
            os._exit(1)
        if made == pid:
            while leads and procfs.read_process(pid).session != pid:
                pass
            return pid
        os.kill(made, signal.SIGKILL)
        os.waitpid(made, 0)
    raise SystemExit(f"the number {pid} can't be had")

def untouched(pid):
    "Nothing has been sent to it: it neither ended nor was stopped."
    return os.waitpid(pid, os.WNOHANG | os.WUNTRACED) == (0, 0)

def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

def start(*words, **options):
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, **options)

answer = {"untouched": 0, "rounds": 0, "other": []}
def judge(pid):
    answer["rounds"] += 1
    answer["untouched"] += untouched(pid)
    end(pid)
"""

INIT = """
import os, sys
script = os.fork()
if script == 0:
    os.execv(sys.executable, [sys.executable, "-c", {script!r}])
while True:
    pid, status = os.wait()
    if pid == script:
        sys.exit(os.waitstatus_to_exitcode(status))
"""

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"]


def in_namespace(code: str) -> Any:
    """What `code` leaves in `answer`, as the init of a pid namespace of its own."""
    probe = [*UNSHARE, "sh", "-c", "echo 100 >/proc/sys/kernel/ns_last_pid"]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        if os.environ.get("CHILDPROOF_REQUIRE_FACILITIES"):
            pytest.fail("no pid namespace with ns_last_pid here, and CHILDPROOF_REQUIRE_FACILITIES is set")
        pytest.skip("no pid namespace with a writable ns_last_pid")
    script = PROLOGUE + code + "\nprint(json.dumps(answer), flush=True)\n"
    init = INIT.format(script=script)  # which reaps, so that numbers become free
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", init], capture_output=True, text=True, timeout=AT_MOST_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_process_that_was_looked_at() -> None:
    """Between the look and the signal the number was given anew, to a child of the same parent, in the same
    session, or leading one: with pidfds and without.
    """
    answer = in_namespace(f"""
from childproof import _spawner
for round in range({ROUNDS}):
    target = start("sleep", "600")
    seen = procfs.read_process(target.pid)
    target.kill(); target.wait(); target.stdout.close()
    time.sleep(0.02)  # past the tick of the start, as the numbers of a machine never come round
    stranger = born_as(target.pid, leads=round % 2 == 0)
    disabled = _spawner.FEATURES["pidfd"] if round % 3 == 0 else 0
    _spawner.settings = _spawner.settings._replace(disabled=disabled)
    error = tree.send(seen, signal.SIGKILL)
    answer["other"].append(error)
    judge(stranger)
""")
    assert (answer["untouched"], answer["rounds"]) == (ROUNDS, ROUNDS)
    assert set(answer["other"]) == {3}, "ESRCH"


@pytest.mark.skipif(PORTABLE, reason="without pidfds a child that another wait took is like one that has its number")
def test_the_child_was_reaped_and_its_number_given_anew() -> None:
    """Somebody else has reaped the child and a stranger has its number, as a pid, session and group. The
    deadline kills the child's tree, of which a member is left, and not the stranger.
    """
    answer = in_namespace(f"""
import threading
def steal(pid):
    global stranger
    os.waitpid(pid, 0)
    time.sleep(0.02)
    stranger = born_as(pid, leads=True)
for round in range({ROUNDS}):
    stranger = None
    def on_output(stream, data):
        numbers.append(int(data))
        steal(numbers[0])
    numbers = []
    # the child ends at once; one in a session of its own holds the pipe
    script = "setsid sleep 600 & echo $$"
    result = childproof.run(script, timeout=600, leftovers="kill", linger=0.01, on_output=on_output)
    answer["other"].append([info.command for info in result.killed])
    judge(stranger)
""")
    assert (answer["untouched"], answer["rounds"]) == (ROUNDS, ROUNDS)
    assert [killed for killed in answer["other"] if killed != ["sleep 600"]] == []


def test_a_tree_whose_root_is_gone() -> None:
    """In the middle of `kill_tree` the root is reaped, and its number given to a stranger that leads a
    session: nobody is in the tree because of that number any more.
    """
    answer = in_namespace(f"""
strike = tree.Tree.signal
def and_then_reuse(tree, members, number):
    global stranger
    done = strike(tree, members, number)
    if stranger is None and number == signal.SIGKILL:
        root.wait()
        time.sleep(0.02)
        stranger = born_as(root.pid, leads=True)
    return done
tree.Tree.signal = and_then_reuse
for round in range({ROUNDS}):
    stranger = None
    root = start("sh", "-c", "sleep 600 & echo; wait", start_new_session=round % 2 == 0)
    root.stdout.readline()
    killed, survivors = childproof.kill_tree(root.pid, timeout=60)
    answer["other"].append([len(killed), len(survivors)])
    root.stdout.close()
    judge(stranger)
""")
    assert (answer["untouched"], answer["rounds"]) == (ROUNDS, ROUNDS)
    assert all(counts == [2, 0] for counts in answer["other"])


def test_a_parent_whose_number_was_given_anew_while_the_table_was_read() -> None:
    """A stranger's child with a member's number as its parent is none of the tree's, though the table that
    was read meanwhile has the member in it.
    """
    answer = in_namespace(f"""
table = procfs.table
def and_then_reuse():
    global stranger, inner
    found = table()
    calls.append(1)
    if len(calls) == 2:  # it is known to be a member since the first look
        member = found[numbers[0]]
        os.kill(member.pid, signal.SIGKILL)
        os.waitpid(member.pid, 0)
        time.sleep(0.02)
        stranger = born_as(member.pid)
        inner = subprocess.Popen(["sh", "-c", "exec sleep 600"])
        fake = procfs.read_process(inner.pid)._replace(ppid=member.pid)
        found[inner.pid] = fake
        found[member.pid] = member
    return found
procfs.table = and_then_reuse
for round in range({ROUNDS}):
    stranger = inner = None
    calls = []
    root = start("sleep", "600")
    numbers = [root.pid]
    killed, survivors = childproof.kill_tree(root.pid, timeout=0.3)
    time.sleep(0.002)
    answer["other"].append(untouched(inner.pid))
    inner.kill(); inner.wait(); root.stdout.close(); root.returncode = 0
    judge(stranger)
""")
    assert (answer["untouched"], answer["rounds"]) == (ROUNDS, ROUNDS)
    assert set(answer["other"]) == {True}, "the stranger's child is untouched too"


def test_what_a_stranger_would_look_like() -> None:
    """The facility works: without the check of the start the stranger is hit, so the tests can fail."""
    answer = in_namespace("""
target = start("sleep", "600")
target.kill(); target.wait(); target.stdout.close()
time.sleep(0.02)
stranger = born_as(target.pid)
error = tree.send(procfs.read_process(stranger), signal.SIGKILL)
time.sleep(0.1)
answer["other"] = [error, stranger == target.pid]
answer["untouched"] += untouched(stranger)
""")
    assert answer["other"] == [0, True]
    assert answer["untouched"] == 0


def test_the_number_of_a_thread() -> None:
    """A thread's number is no process's: nothing is sent to the process that it belongs to."""
    answer = in_namespace("""
import threading
tids = []
threads = [threading.Thread(target=lambda: (tids.append(threading.get_native_id()), time.sleep(1))) for _ in range(3)]
for thread in threads: thread.start()
while len(tids) < 3: pass
signal.signal(signal.SIGUSR1, lambda *args: answer["other"].append("hit"))
from childproof import _spawner
for disabled in (0, _spawner.FEATURES["pidfd"]):
    _spawner.settings = _spawner.settings._replace(disabled=disabled)
    for tid in tids:
        seen = procfs.read_process(tid)
        answer["rounds"] += 1
        answer["untouched"] += tree.send(seen._replace(start=seen.start + 1), signal.SIGUSR1) != 0
        if not disabled:
            answer["untouched"] += tree.send(seen, signal.SIGUSR1) != 0
""")
    assert answer["other"] == []
    assert (answer["rounds"], answer["untouched"]) == (6, 6 if PORTABLE else 9)  # the portable build has no pidfds


def test_the_facility_is_named() -> None:
    """What is skipped here is said by name; CI requires it."""
    assert "CHILDPROOF_REQUIRE_FACILITIES" in (Path(__file__).parents[1] / ".ci" / "run").read_text()
