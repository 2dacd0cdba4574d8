"""Many threads, and forks in the midst of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import childproof
from conftest import SLACK_SECONDS, program, stop


def test_fifty_threads() -> None:
    """200 runs in each of 50 threads, short and long, with and without input: all results right."""

    def work(thread: int) -> list[str]:
        wrong = []
        for i in range(200):
            code, text = (thread + i) % 256, f"{thread}.{i}"
            if i % 100 == 99:
                result = childproof.run(f"sleep 0.2; cat; exit {code}", text, timeout=600)
            elif i % 10 == 9:
                result = childproof.run(["cat"], text, timeout=600)
                code = 0
            else:
                result = childproof.run(["sh", "-c", f"echo {text}; exit {code}"], timeout=600)
            if result != (code, text, ""):
                wrong.append(repr(result))
        return wrong

    with ThreadPoolExecutor(50) as pool:
        assert [wrong for wrong in pool.map(work, range(50)) if wrong] == []


def test_forks_in_another_thread() -> None:
    """Copies of this process that live on hold no run up: none is late, none is said not to have
    started, and `cat` sees the end of its input.
    """
    over = threading.Event()
    copies: list[int] = []

    def fork() -> None:
        while not over.is_set() and len(copies) < 200:
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                signal.pause()
                os._exit(0)
            copies.append(pid)
            time.sleep(0.005)

    thread = threading.Thread(target=fork)
    thread.start()
    try:
        for i in range(1000):
            began = time.monotonic()
            assert childproof.run(["cat"], str(i), timeout=600) == (0, str(i), "")
            assert time.monotonic() - began < SLACK_SECONDS
    finally:
        over.set()
        thread.join()
        for pid in copies:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert len(copies) > 10


def test_a_forked_copy_leaves_the_command_alone() -> None:
    """A fork in `on_output`: the copy neither kills nor reaps, and is told what it is."""
    read, write = os.pipe()

    def fork(stream: str, data: bytes) -> None:
        if os.fork() == 0:
            copies.append(0)

    copies: list[int] = []
    parent = os.getpid()
    try:
        result = childproof.run("echo hi; sleep 0.5; exit 5", on_output=fork)
    except RuntimeError as error:
        if os.getpid() != parent:
            os.write(write, str(error).encode())
            os._exit(0)
        raise
    finally:
        if os.getpid() != parent:
            os._exit(1)
    assert result == (5, "hi", "")
    os.close(write)
    assert b"forked copy" in os.read(read, 4096)
    os.close(read)
    os.wait()


def test_held_pipes_in_a_forked_copy() -> None:
    """The copy has none of the pipes that the background thread drains."""
    result = childproof.run(program("flood_then_hold", 1, 600), linger=0)
    (holder,) = result.held
    inode = os.readlink(f"/proc/{holder.pid}/fd/{holder.fds[0]}")
    pid = os.fork()
    if pid == 0:
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
        os._exit(inode in links)
    assert os.waitpid(pid, 0)[1] == 0
    stop(holder.pid)


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")
