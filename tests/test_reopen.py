"""A host with 15,000 descriptors: its table is not copied, and the child has and does what it should all the same."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from childproof import _spawner
from forcing import WAYS
from injection import inject

pytestmark = pytest.mark.skipif(_spawner.PORTABLE, reason="every child is a fork")

HOST = """
import json, os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
count = min(15000, hard - 600)
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 600, hard))
import childproof
from childproof import _spawner

shared = []  # of each child that is over, whether it shared the table

def release(child, release=_spawner.Child.release):
    if not child.let_go:
        shared.append(child._c.reopened)
    release(child)

_spawner.Child.release = release

def kinds():
    answer = {}
    for fd in range(count + 600):
        try:
            status = os.fstat(fd)
        except OSError:
            continue
        answer[fd] = status.st_dev, status.st_ino
    return answer

def changes(before):
    return sorted(set(kinds().items()) ^ set(before.items()))

PROBE = '''
import os
found = []
for fd in range(70000):
    try:
        os.fstat(fd)
    except OSError:
        continue
    found.append(fd)
print(found)
'''
probe = lambda **options: childproof.run([sys.executable, "-S", "-E", "-c", PROBE], timeout=600, **options)
childproof.run(["cat"], "warm", timeout=600)  # these import what is needed
childproof.run(["/nonexistent"], timeout=600)
null = os.open("/dev/null", os.O_RDONLY)
os.set_inheritable(null, True)
base = max(kinds())
many = [os.dup(null) for _ in range(count)]
for fd in many[::7]:
    os.set_inheritable(fd, True)
shared.clear()
"""


def host(code: str, *options: str, hidden: bool = False) -> Any:
    """What `code` assigns to `answer` in a host with many descriptors."""
    command = [sys.executable, "-c", HOST + code + "\nprint(json.dumps(answer), flush=True)", *options]
    if hidden:
        shell = 'mount -t tmpfs none /proc && "$@"; exit $?'
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "sh", "-c", shell, "sh", *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 0
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_the_child_has_nothing_else_and_the_host_has_all_it_had(way: dict[str, int]) -> None:
    """The exact sets, under each start and each closing; what is to be copied is."""
    code = f"_spawner.settings = _spawner.settings._replace(**{way!r})\n"
    code += "before = kinds()\nanswer = [probe()[:], probe(input='x')[:], shared, changes(before), len(before) > count]"
    first, second, shared, changed, many = host(code)
    assert first == second == [0, "[0, 1, 2]", ""]
    assert (changed, many) == ([], True)
    copies = way.get("start") in (_spawner.STARTS["vfork"], _spawner.STARTS["fork"])
    loops = way.get("closing") in (_spawner.CLOSINGS["proc"], _spawner.CLOSINGS["rlimit"])
    assert shared == [0 if copies or loops or not _is_fit() else 1] * 2


def _is_fit() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 11)


fit = pytest.mark.skipif(not _is_fit(), reason="this kernel leaves marks in the table that is left")


@fit
def test_every_kind_of_stdio() -> None:
    """Captured, merged, through a file, to a path, to nothing, inherited, and the other output's."""
    script = """
def child(**options):
    result = childproof.run("cat; echo out; echo err >&2", timeout=600, **options)
    return [result.code, result.out, result.err]
place = sys.argv[1]
answer = [
    child(input="in"),
    child(input="in", merge=True),
    child(stdout="file", stderr="file"),
    child(stdout="file", merge=True),
    child(stdout=place),
    child(stdout="null", stderr="null"),
    child(stdin="inherit"),
    child(stdout=2, stderr="null"),
]
answer = answer, open(place).read(), shared
"""
    place = "/dev/shm/childproof-reopen" if os.path.isdir("/dev/shm") else "/tmp/childproof-reopen"
    try:
        answers, written, shared = host(script, place)
    finally:
        os.unlink(place)
    assert answers[0] == [0, "in" + "out", "err"]
    assert answers[1] == [0, "in" + "out\nerr", ""]
    assert answers[2] == [0, "out", "err"]
    assert answers[3] == [0, "out\nerr", ""]
    assert answers[4] == [0, "", "err"]
    assert answers[5] == [0, "", ""]
    assert answers[6] == [0, "out", "err"]
    assert answers[7] == [0, "", ""]
    assert written == "out\n"
    assert shared == [1] * 8


@fit
def test_what_has_no_name_comes_with_a_copy() -> None:
    """Descriptors that are passed on, a socket, a directory: as ever."""
    script = """
import socket
ours, theirs = socket.socketpair()
folder = os.open("/usr", os.O_RDONLY)
passed = childproof.run(["bash", "-c", f"echo x >&{theirs.fileno()}"], pass_fds=[theirs.fileno()], timeout=600)
given = childproof.run(["echo", "y"], stdout=theirs, timeout=600)
there = childproof.run(["pwd"], cwd=folder, timeout=600)
answer = passed.code, given.code, ours.recv(9).decode(), there.out, shared
"""
    assert host(script) == [0, 0, "x\ny\n", "/usr", [0, 0, 0]]


@fit
def test_numbers_that_fell_into_holes_do_not_hide_the_size() -> None:
    """The pipes got low numbers, since the host has closed some."""
    script = """
for fd in range(base + 20, base + 60):
    os.close(fd)
answer = probe()[:], shared
"""
    assert host(script) == [[0, "[0, 1, 2]", ""], [1]]


@fit
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_a_host_without_0_1_2(closed: tuple[int, ...]) -> None:
    """Its pidfd would be there for a moment, where the child takes it along: so it gets a copy."""
    script = f"""
kept = [os.dup(fd) for fd in (0, 1, 2)]
for fd in {closed!r}:
    os.close(fd)
result = probe(stdin="inherit", stderr="inherit")
for fd in {closed!r}:
    os.dup2(kept[fd], fd)
answer = result.code, result.out, shared
"""
    expected = [fd for fd in (0, 1, 2) if fd == 1 or fd not in closed]
    code, out, shared = host(script)
    # A program without stdin opens something of its own there.
    assert (code, shared) == (0, [0]), out
    assert json.loads(out) in (expected, [0, 1, 2] if 0 in closed else expected)


@fit
def test_the_program_may_open_files_as_ever() -> None:
    """Its numbers go on from 3, without a gap, far beyond the size that a small table has."""
    script = """
numbers = "import os; print([os.open('/dev/null', 0) for _ in range(200)] == list(range(3, 203)))"
answer = childproof.run([sys.executable, "-S", "-E", "-c", numbers], timeout=600)[:], shared
"""
    assert host(script) == [[0, "True", ""], [1]]


@fit
def test_ends_of_input_and_output_are_seen() -> None:
    """`cat` ends with its input though another child was started meanwhile, and an output ends when the child
    closes it, long before the child's end.
    """
    script = """
import select, time
from childproof._command import make_command
from childproof._spawner import STARTED, Child

def start(*words):
    child = Child()
    assert child.spawn(make_command(words, "for its stdin"), None)
    assert child.await_exec(60000) == STARTED
    return child

copier, other, silent = start("cat"), start("sleep", "600"), start("sh", "-c", "exec >&- 2>&-; exec sleep 600")
os.write(copier.fd(0), b"x")
copier.close(0)
answer = []
for child, slot in ((copier, 1), (copier, 1), (silent, 1), (silent, 2)):
    ready = select.poll()
    ready.register(child.fd(slot), select.POLLIN)
    answer.append([len(ready.poll(60000)), os.read(child.fd(slot), 9).decode()])
writable = select.poll()
writable.register(other.fd(0), select.POLLOUT)
answer.append([silent.ended(), other.ended(), len(writable.poll(0))])
for child in (copier, other, silent):
    child.signal(9)
    while not child.reap():
        time.sleep(0.001)
    child.release()
answer.append(shared)
"""
    assert host(script) == [[1, "x"], [1, ""], [1, ""], [1, ""], [0, 0, 1], [1, 1, 1]]


@fit
def test_other_threads_open_and_close_meanwhile() -> None:
    """No descriptor of theirs is lost, none has another's content, and every run is right; so with forks."""
    script = """
import signal, tempfile, threading, time
before, wrong, done, over = kinds(), [], [0], threading.Event()

def work(name):
    while not over.is_set():
        with tempfile.TemporaryFile() as file:
            ends = os.pipe()
            file.write(name)
            os.write(ends[1], name)
            copy = os.dup(ends[0])
            os.close(ends[0])
            file.seek(0)
            if file.read() != name or os.read(copy, 99) != name:
                wrong.append(name)
            os.close(copy)
            os.close(ends[1])
        done[0] += 1

def fork():
    while not over.is_set():
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            signal.pause()
        copies.append(pid)
        time.sleep(0.05)

copies = []
threads = [threading.Thread(target=work, args=(b"%d" % i * 9,)) for i in range(3)] + [threading.Thread(target=fork)]
for thread in threads:
    thread.start()
for i in range(150):
    result = childproof.run("cat; ls /proc/$$/fd; true", f"{i}.", timeout=600)
    if result[:] != (0, f"{i}.0\\n1\\n2", "") or result.held:
        wrong.append(repr(result))
over.set()
for thread in threads:
    thread.join()
for pid in copies:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
answer = wrong, changes(before), done[0] > 10, set(shared) == {1}, len(copies) > 2
"""
    assert host(script) == [[], [], True, True, True]


NO_MATTER_WHY = """
before = kinds()
absent = childproof.run(["/nonexistent"], timeout=600)
answer = [probe()[:], probe(input="x")[:], absent.code, shared[:], changes(before)]
try:
    os.waitpid(-1, os.WNOHANG)
    answer.append("a child is left")
except ChildProcessError:
    pass
"""
ORDINARY = [[0, "[0, 1, 2]", ""], [0, "[0, 1, 2]", ""], 127, [0, 0, 0], []]
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@root
def test_without_proc() -> None:
    """The names are not there: the table is copied, and nobody notices."""
    assert host(NO_MATTER_WHY, hidden=True) == ORDINARY


@root
def test_proc_goes_away() -> None:
    """It was there for the first child."""
    script = """
first = probe()[:], shared[:]
shared.clear()
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0 and libc.mount(b"none", b"/", None, 0x44000, None) == 0
assert libc.mount(b"none", b"/proc", b"tmpfs", 0, None) == 0
"""
    answer = host(script + NO_MATTER_WHY + "answer = first, answer")
    assert answer == [[[0, "[0, 1, 2]", ""], [1 if _is_fit() else 0]], ORDINARY]


@root
def test_proc_shows_others() -> None:
    """What has our number there is not ours, and is not given to the child."""
    script = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0 and libc.mount(b"none", b"/", None, 0x44000, None) == 0
assert libc.mount(b"none", b"/proc", b"tmpfs", 0, None) == 0
os.makedirs(f"/proc/{os.getpid()}/fd")
for fd in range(count + 600):
    open(f"/proc/{os.getpid()}/fd/{fd}", "w").write("a stranger's")
"""
    assert host(script + NO_MATTER_WHY) == ORDINARY


def test_a_host_that_may_not_be_looked_into() -> None:
    """Not dumpable, as after a change of ids: its child may not open what it has by name."""
    script = """
import ctypes
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0
probe = lambda **options: childproof.run(["/bin/sh", "-c", "ls /proc/self/fd | wc -l"], timeout=600, **options)
"""
    expected = [[0, "4", ""], [0, "4", ""], *ORDINARY[2:]]  # and that of the listing
    assert host(script + NO_MATTER_WHY) == expected


REFUSED = {
    "close_range": "filter.add_rule(answer, 'close_range', seccomp.Arg(2, seccomp.EQ, 2))",
    "clone": (
        "filter.add_rule(answer, 'clone', seccomp.Arg(0, seccomp.MASKED_EQ, 0x10500, 0x500));"
        "filter.add_rule(seccomp.ERRNO(errno.ENOSYS), 'clone3')"
    ),
}
"""Rules for libseccomp: leaving the table; sharing it, but not with a thread."""


@pytest.mark.parametrize(("call", "error"), list(itertools.product(REFUSED, ("EINVAL", "EPERM"))))
def test_a_filter_refuses_it(call: str, error: str) -> None:
    """The table is copied, by the same primitive as ever."""
    pytest.importorskip("pyseccomp")
    script = f"""
import errno
import pyseccomp as seccomp
filter = seccomp.SyscallFilter(seccomp.ALLOW)
answer = seccomp.ERRNO(errno.{error})
{REFUSED[call]}
filter.load()
"""
    how = "answer.append(childproof.run(['true']).spawned.start)\n"
    assert host(script + NO_MATTER_WHY + how) == [*ORDINARY, "clone"]


@fit
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not here")
def test_a_child_that_does_not_come_on_is_started_again() -> None:
    """It is held up before it has left the table: the spawn does not wait for it, and is no failure."""
    code = """
many = [os.dup(0) for _ in range(600)]
result = childproof.run(["sh", "-c", "echo $$"], timeout=600)
answer = [result.code, result.out == str(result.pid)]
"""
    # Of each process the first: of this one, which asks whether there is the call, and of its children.
    assert inject(["close_range:delay_enter=3000000:when=1"], code, seconds=300) == [0, True]
