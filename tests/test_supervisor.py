"""A supervisor whose notes are lost, and one that is let go of early."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
from typing import Any

import pytest

import childproof
from childproof import _spawner
from childproof._command import make_command
from conftest import children, is_alive, stop, wait_until

pytestmark = pytest.mark.skipif(_spawner.PORTABLE, reason="a supervisor needs Linux")

MOST_MS = 20_000
PIDFD_GETFD = 438
SPAWNED, SETTLED = 2, 4  # cp_note_kind


def started(*words: str) -> _spawner.Child:
    """A supervised command of which nothing has been heard yet."""
    child = _spawner.Child()
    assert child.spawn(make_command(words, die_with_parent=True), None)
    return child


def take_notes(child: _spawner.Child) -> int:
    """Take what the supervisor says, up to the exec, before the host hears it; the command's pid."""
    pid = 0
    with socket.socket(fileno=os.dup(child.fd(_spawner.CONTROL))) as control:
        while True:
            assert select.select([control], [], [], 60)[0]
            kind, number = struct.unpack_from("ii", control.recv(4096))
            pid = number if kind == SPAWNED else pid
            if kind == SETTLED:
                return pid


def end(child: _spawner.Child) -> None:
    """Reap and release it."""
    assert wait_until(lambda: child.reap() and child.reaped)
    child.release()


def test_the_end_tells_what_no_note_has() -> None:
    """That a command has ended, with its status, means that it has been started; nobody spins meanwhile."""
    child = started("sh", "-c", "exit 3")
    take_notes(child)
    assert child.await_exec(MOST_MS) == _spawner.STARTED
    assert child.ended() == 1
    assert child.status() == 3
    end(child)


def copy_of_its_end(supervisor: int) -> list[int]:
    """What a command has that is stuck before its exec: a copy of the supervisor's end of the socket."""
    folder = f"/proc/{supervisor}/fd"
    numbers = [int(name) for name in os.listdir(folder) if os.readlink(f"{folder}/{name}").startswith("socket:")]
    pidfd = os.pidfd_open(supervisor)
    try:
        return [ctypes.CDLL(None).syscall(PIDFD_GETFD, pidfd, number, 0) for number in numbers]
    finally:
        os.close(pidfd)


@pytest.mark.needs_proc
def test_the_death_of_the_supervisor_is_seen_without_an_end_of_file() -> None:
    """Its pidfd tells, though somebody holds its end of the socket."""
    child = started("sleep", "600")
    pid = take_notes(child)
    copies = copy_of_its_end(child.supervisor)
    if not copies or min(copies) < 0:
        stop(child.supervisor)
        child.release()
        pytest.skip("pidfd_getfd(2) is refused")
    os.kill(child.supervisor, signal.SIGKILL)
    assert child.await_exec(MOST_MS) != _spawner.SPAWNING
    assert child.lost
    end(child)
    stop(pid)
    for copy in copies:
        os.close(copy)


class Interrupted:
    """A poll object whose first wait an interrupt ends."""

    def __init__(self, poller: Any) -> None:
        self._poller = poller
        self._came = False

    def poll(self, *timeout: Any) -> Any:
        """See `select.poll`."""
        if self._came:
            return self._poller.poll(*timeout)
        self._came = True
        raise KeyboardInterrupt


def test_an_interrupt_while_a_handle_is_let_go_of() -> None:
    """Nobody will close it again: the tree is killed, and command and supervisor are reaped all the same."""
    child: Any = childproof.start(["sleep", "600"], die_with_parent=True)
    pids = child.pid, child._exchange.child.supervisor
    child._poller = Interrupted(child._poller)
    with pytest.raises(KeyboardInterrupt):
        child.abandon()
    assert wait_until(lambda: not any(map(is_alive, pids)))
    assert wait_until(lambda: not children() & set(pids))
    child._closed = True
