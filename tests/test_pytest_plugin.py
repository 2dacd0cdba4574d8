"""The plugin: a test that leaves something behind has an error, and one that does not has none."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import childproof
from conftest import is_alive

EXAMPLES = '''
"""Tests of somebody else's: what each is called says what must come of it."""
import os, select, signal, subprocess, sys, threading, time
import pytest
import childproof

kept = []

@pytest.fixture(scope="module")
def server():
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()

class EventLoop:
    def __init__(self):
        self.epoll = select.epoll()

    def open_anew(self):
        old = self.epoll
        self.epoll = select.epoll()
        old.close()

@pytest.fixture(scope="module")
def event_loop():
    loop = EventLoop()
    yield loop
    loop.epoll.close()

def test_good(server, tmp_path):
    childproof.run("true")
    subprocess.run(["true"])
    with open(tmp_path / "file", "w"):
        pass

def test_good_since_what_ends_soon_is_no_fault():
    childproof.run("exec >/dev/null 2>&1; sleep 0.2 &")

def test_good_since_it_may(server):
    pass

@pytest.mark.may_leave("descriptors")
def test_good_since_the_mark_allows_it():
    kept.append(os.open("/dev/null", os.O_RDONLY))

@pytest.mark.may_leave
def test_good_since_the_mark_allows_all():
    kept.append(os.open("/dev/null", os.O_RDONLY))

def test_good_with_the_helper_of_multiprocessing():
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(create=True, size=1)
    memory.close()
    memory.unlink()

def test_good_since_the_event_loop_is_only_opened_anew(event_loop):
    event_loop.open_anew()

def test_bad_event_loop(event_loop):
    kept.append(select.epoll())

def test_bad_descriptor_open():
    kept.append(os.open("/etc/passwd", os.O_RDONLY))

def test_bad_descriptor_closed():
    os.close(kept.pop())

def test_bad_child():
    kept.append(subprocess.Popen(["sleep", "601"]))

def test_bad_zombie():
    pid = os.fork()
    if pid == 0:
        os._exit(0)

def test_bad_orphan():
    childproof.run("setsid sleep 602 >/dev/null 2>&1 &")

def test_bad_orphan_without_a_mark():
    kept.append(subprocess.Popen(["env", "-i", "sh", "-c", "sleep 603; :"]))

def test_bad_thread():
    kept.append(threading.Thread(target=time.sleep, args=(3,)))
    kept[-1].start()

def test_bad_signal():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)

def test_failed_is_not_compared():
    descriptor = open("/dev/null")
    assert False, "on purpose"

def test_good_in_the_end():
    pass
'''

EXPECTED = {
    "test_bad_event_loop": r"descriptors that were not open before: \d+ \(anon_inode:\[eventpoll\]\)$",
    "test_bad_descriptor_open": r"descriptors that were not open before: \d+ \(/etc/passwd\)",
    "test_bad_descriptor_closed": r"that are open no more: \d+ \(/etc/passwd\)",
    "test_bad_child": r"children that are not reaped: pid \d+ \(sleep 601\)",
    "test_bad_zombie": r"children that are not reaped: pid \d+ \[\w+\], a zombie",
    "test_bad_orphan": r"processes that run on: pid \d+ \(sleep 602\)",
    "test_bad_orphan_without_a_mark": r"children .*pid \d+ \(sh -c .*; processes that run on: pid \d+ \(sleep 603\)",
    "test_bad_thread": r"threads that run on: Thread-",
    "test_bad_signal": r"signals are not as they were: SigIgn: 1\w+ is now 1\w+",
}


def _pytest(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run on `folder` as its user would: exit code, output."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *arguments]
    code, out, err = childproof.run(command, cwd=folder, timeout=120)
    return code, f"{out}\n{err}"


def _examples(folder: Path) -> None:
    (folder / "test_examples.py").write_text(EXAMPLES)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = ignore\n")


def test_who_leaves_something_is_told(tmp_path: Path) -> None:
    """Each kind in a sentence that names it; those who leave nothing, or what they may, are left alone."""
    _examples(tmp_path)
    kinds = "childproof_check=descriptors children processes threads signals"
    code, text = _pytest(tmp_path, "-p", "childproof.pytest_plugin", "-o", kinds, "-o", "childproof_patience=0.8")
    errors = dict(re.findall(r"^ERROR test_examples.py::(\w+) - (.*)$", text, re.MULTILINE))
    assert code == 1
    assert set(errors) == set(EXPECTED), text
    told = {
        name: rest.partition("the test has left behind: ")[2]
        for name, rest in re.findall(r"at teardown of (\w+) _+\n(.*?)\n(?=_____|=====)", text, re.DOTALL)
    }
    for name, pattern in EXPECTED.items():
        assert re.match(pattern, told[name]), (name, told[name])
    assert re.findall(r"^FAILED test_examples.py::(\w+)", text, re.MULTILINE) == ["test_failed_is_not_compared"]


def test_who_is_left_is_killed(tmp_path: Path) -> None:
    """The processes that were named do not live on; the module's fixture of before does, until its end."""
    _examples(tmp_path)
    _, text = _pytest(tmp_path, "-p", "childproof.pytest_plugin", "-o", "childproof_patience=0.2")
    pids = [int(pid) for pid in re.findall(r"pid (\d+) \((?:sleep|sh)", text)]
    assert len(pids) >= 4
    assert not any(map(is_alive, pids))


def test_it_is_opt_in(tmp_path: Path) -> None:
    """Without it nobody is told anything, though childproof is installed."""
    (tmp_path / "test_leak.py").write_text(
        dedent("""
        import os
        def test_leak():
            os.open("/dev/null", os.O_RDONLY)
        """)
    )
    code, text = _pytest(tmp_path)
    assert (code, "1 passed" in text) == (0, True), text
    assert "CHILDPROOF_RUN" in os.environ, "this suite runs under it"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("childproof_check=descriptors childs", "childproof_check has 'childs'; there are descriptors, children, "),
        ("childproof_patience=long", "childproof_patience must be a number of seconds"),
    ],
)
def test_wrong_settings(tmp_path: Path, setting: str, message: str) -> None:
    """They are told once, before a test runs."""
    code, text = _pytest(tmp_path, "-p", "childproof.pytest_plugin", "-o", setting)
    assert code == 4
    assert message in text
