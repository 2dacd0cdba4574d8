"""The one background thread: for what a finished command leaves to be done.

It reads and discards what the holders of an output pipe still write, reaps children that could not
be reaped in time, and reads the files of /proc that may block. It is started when first needed and
ends with the process. A thread that hangs in such a file is replaced; it ends when it wakes.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic, sleep
from typing import Any

from childproof import _journal
from childproof._spawner import DISOWNED, STDERR, STDOUT, Child

MOST_PIPES = 256
"""Held pipes that are drained at once; beyond it the oldest are closed."""

STUCK_AFTER = 1.0
"""Seconds after which a thread that is busy with one job is given up."""

CHORE_SECONDS = 0.5
"""How often is tried again what could not be done."""

SCRATCH = bytearray(65536)

REST_SECONDS = 0.001
"""How long a pipe is left alone after each reading: its writer gets 64 MB/s, and a processor is not
spent on one that writes without end."""

REST_SHARE = 9
"""The thread rests at least this many times as long as it has read."""


class Job:
    """Something that may block; `value` is what it returned once `done` is set."""

    __slots__ = ("_function", "done", "value")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self.done = threading.Event()
        self.value: Any = None

    def run(self) -> None:
        """Called in the background thread."""
        try:
            self.value = self._function()
        except Exception:  # whoever waits sees None; the thread has others to serve
            self.value = None
        self.done.set()


class Janitor:
    """See the module. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler of the host may come here again
        self._children: list[Child] = []
        self._jobs: deque[Job] = deque()
        self._current: threading.Thread | None = None
        self._busy_since: float | None = None
        self._running: Job | None = None
        self._chores: list[Callable[[], bool]] = []
        self._refusing: set[int] = set()  # pidfds of the dead that can't be reaped yet
        self._wake: tuple[int, int] | None = None

    def submit(self, function: Callable[[], Any]) -> Job:
        """Have `function` called in the background; where no thread can be had it is done at once,
        and its value is `None`.
        """
        job = Job(function)
        with self._lock:
            try:
                self._jobs.append(job)
                started = self._ensure_thread()
            except BaseException:  # an interrupt: the thread may not have been woken for it
                if job in self._jobs:
                    self._jobs.remove(job)
                raise
            if not started:
                self._jobs.remove(job)
                job.done.set()
        return job

    def answer(self, job: Job) -> Any:
        """The value of `job` if it is done, else `None`, and nobody waits for it any more: a thread
        that hangs in it is replaced at once.
        """
        if job.done.is_set():
            return job.value
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)
            elif job is self._running:
                self._busy_since = float("-inf")
                self._ensure_thread()
        return None

    def adopt(self, child: Child) -> None:
        """Drain and reap `child`, which the caller must not touch any more."""
        with self._lock:
            try:
                if child not in self._children:  # once more, after an interrupt here
                    self._children.append(child)
                self._ensure_thread()
            except BaseException:  # an interrupt: the child is adopted all the same
                self._poke()
                raise
        self._shed()

    def retry(self, chore: Callable[[], bool]) -> None:
        """Call `chore`, which must not block, twice a second until it returns `True`."""
        with self._lock:
            self._chores.append(chore)
            self._ensure_thread()

    def busy(self) -> bool:
        """Whether anything is left to do; for tests."""
        with self._lock:
            return bool(self._children or self._jobs or self._chores or self._busy_since is not None)

    def descriptors(self) -> set[int]:
        """What it has open: its own two, and the pipes that it drains."""
        with self._lock:
            own = set(self._wake or ())
            for child in self._children:
                own.update(fd for fd in child.fds() if fd >= 0)
            return own

    def forget(self) -> None:
        """After a fork, in the copy: the thread is gone, and the children are the parent's."""
        if self._wake is not None:
            for fd in self._wake:
                os.close(fd)
        Janitor.__init__(self)

    # ---- under the lock ----

    def _ensure_thread(self) -> bool:
        """Start the thread, or wake it; whether there is one."""
        stuck = self._busy_since is not None and monotonic() - self._busy_since > STUCK_AFTER
        if self._current is None or not self._current.is_alive() or stuck:
            self._running = None
            self._busy_since = None
            try:
                self._current = threading.Thread(target=self._loop, name="childproof", daemon=True)
                self._current.start()
            except RuntimeError:  # no thread can be had now; what waits is done when one can
                self._current = None
                return False
        else:
            self._poke()
        return True

    def _poke(self) -> None:
        if self._wake is None:
            return  # the thread is young, and looks by itself; or it has no descriptor, and looks often
        try:
            os.write(self._wake[1], b"x")
        except OSError:
            pass  # enough of them are in the pipe

    # ---- holders beyond the bound ----

    def _shed(self) -> None:
        import resource  # rarely here

        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = MOST_PIPES if soft == resource.RLIM_INFINITY else min(MOST_PIPES, max(soft // 4, 2))
        with self._lock:
            excess = sum(len(_pipes(child)) for child in self._children) - most
            shed = []
            for child in self._children:
                if excess <= 0:
                    break
                for slot in _pipes(child):
                    child.close(slot)
                    excess -= 1
                shed.append(child.pid)
            if shed:
                self._poke()
        for pid in shed:
            _journal.warn(
                "too many held pipes: closed those of pid %d; whoever still writes there gets SIGPIPE",
                pid,
            )

    # ---- the thread ----

    def _loop(self) -> None:
        me = threading.current_thread()
        while True:
            try:
                if self._wake is None:
                    # Made here: an interrupt, which is the main thread's, can't come between.
                    with self._lock, suppress(OSError):
                        self._wake = _wake_pipe()
                if not self._step(me):
                    return
            except MemoryError:  # others may free some; what waits here must not wait for ever
                self._drop_job(me)
                sleep(0.05)

    def _step(self, me: threading.Thread) -> bool:
        """One job, or one wait; whether this thread is still wanted."""
        self._do_chores()
        with self._lock:
            if self._current is not me:
                return False
            job = self._jobs.popleft() if self._jobs else None
            if job is not None:
                self._busy_since = monotonic()
                self._running = job
        if job is None:
            self._serve()
            return True
        job.run()
        with self._lock:
            if self._current is not me:
                return False
            self._busy_since = self._running = None
        return True

    def _drop_job(self, me: threading.Thread) -> None:
        """The one that was taken, if any, could not even begin, or end."""
        with suppress(MemoryError), self._lock:
            if self._current is me and self._running is not None:
                job, self._running, self._busy_since = self._running, None, None
                job.done.set()

    def _do_chores(self) -> None:
        with self._lock:
            chores = list(self._chores)
        for chore in chores:
            if chore():
                with self._lock:
                    self._chores.remove(chore)

    def _serve(self) -> None:
        """Wait for something to drain or to reap, and do it, until what is waited for changes."""
        poller = select.poll()
        with self._lock:
            wake, owners, wait_seconds = self._listen(poller)
        look_at = monotonic() + wait_seconds
        resting: list[int] = []
        rest_seconds = inf
        while True:
            seconds = min(look_at - monotonic(), rest_seconds)
            try:
                ready = poller.poll(None if seconds == inf else max(seconds, 0) * 1000)
            except OSError:  # no memory for it just now
                sleep(0.05)
                return
            began = monotonic()
            for fd in resting:
                poller.modify(fd, select.POLLIN)
            resting = []
            with self._lock:
                if self._current is not threading.current_thread():
                    return
                changed = began >= look_at
                for fd, _ in ready:
                    if fd == wake:
                        with suppress(OSError):  # whether it was emptied or not, we are awake
                            os.read(wake, 4096)
                        changed = True
                    elif fd not in owners:
                        changed = True
                        self._refusing.add(fd)  # if it can be reaped now, it goes below
                    elif _drain(*owners[fd]):
                        changed = True
                    else:
                        resting.append(fd)
                if changed:
                    self._children = [child for child in self._children if not _finished(child)]
                    self._refusing &= {child.watch_fd for child in self._children if not child.reaped}
                    return
            for fd in resting:
                poller.modify(fd, 0)  # its end is told all the same
            rest_seconds = max(REST_SECONDS, REST_SHARE * (monotonic() - began)) if resting else inf

    def _listen(self, poller: select.poll) -> tuple[int, dict[int, tuple[Child, int]], float]:
        """Register all that is waited for. The wake pipe, whose each pipe is, and after how many seconds
        to look for what no descriptor tells.
        """
        owners: dict[int, tuple[Child, int]] = {}
        wake, wait_seconds = -1, inf
        if self._wake is not None:
            wake = self._wake[0]
            poller.register(wake, select.POLLIN)
        else:
            wait_seconds = 0.05
        for child in self._children:
            for slot, fd in _pipes(child).items():
                owners[fd] = child, slot
                poller.register(fd, select.POLLIN)
            if not child.reaped:
                if child.watch_fd >= 0 and child.watch_fd not in self._refusing:
                    poller.register(child.watch_fd, select.POLLIN)
                else:
                    wait_seconds = min(wait_seconds, 0.2)
        if self._chores:
            wait_seconds = min(wait_seconds, CHORE_SECONDS)
        return wake, owners, wait_seconds


def _wake_pipe() -> tuple[int, int]:
    """A pipe above 2: a hole of the host's among 0, 1, 2 must stay one."""
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    if min(ends) > 2:
        return ends
    import fcntl

    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


def _pipes(child: Child) -> dict[int, int]:
    return {slot: fd for slot in (STDOUT, STDERR) if (fd := child.fd(slot)) >= 0}


def _drain(child: Child, slot: int) -> bool:
    """Read once and discard; whether the pipe is now closed."""
    fd = child.fd(slot)
    if fd < 0:
        return True
    try:
        if os.readv(fd, [SCRATCH]) > 0:
            return False
    except BlockingIOError:
        return False
    except OSError:
        pass
    child.close(slot)
    return True


def _finished(child: Child) -> bool:
    """Reap what can be reaped; let go of a child that needs nothing more, or that was released already
    by whoever an interrupt kept from knowing that it is ours.
    """
    if child.state != DISOWNED and not child.let_go:
        if not child.reaped:
            child.settle(child.ended() != 0)
            child.reap()
        if not child.reaped or _pipes(child):
            return False
    child.release()
    return True


janitor = Janitor()
os.register_at_fork(after_in_child=janitor.forget)
