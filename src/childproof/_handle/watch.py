"""The thread that keeps the deadlines of commands that nobody waits for.

`run` waits, and so keeps its deadline itself. Of a command that was started and left alone, or whose
lines nobody fetches, somebody else must: a thread of its own and not the one of `_janitor`, which
may hang in a file of /proc. It is started for the first such command that has a deadline, and ends a
while after the last.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from math import inf
from queue import SimpleQueue
from time import monotonic
from typing import Protocol

from childproof import _journal

IDLE_SECONDS = 2.0
"""How long the thread waits for another deadline before it ends."""

MOST_SECONDS = 3600.0
"""Its longest single wait."""


class Watched(Protocol):
    """A command with a deadline."""

    def attend(self, now: float) -> float:
        """Do what is due if nobody else does; when to look again, on `time.monotonic`; inf: never.
        Called in the watching thread; does not wait.
        """

    def close(self) -> None:
        """Leave nothing behind."""


class Watch:
    """See the module. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler of the host may come here again
        self._due: dict[int, float] = {}
        self._open: dict[int, weakref.ref[Watched]] = {}
        self._thread: threading.Thread | None = None
        self._wakes_at = -inf
        # Its put() may come in the midst of another, as from a finalizer.
        self._pokes: SimpleQueue[None] = SimpleQueue()

    def add(self, watched: Watched, due: float) -> None:
        """Attend `watched` at `due`, inf: never. It is closed when this process ends by itself."""
        with self._lock:
            self._open[id(watched)] = weakref.ref(watched)
            if due == inf:
                return
            self._due[id(watched)] = due
            if self._thread is None or not self._thread.is_alive():
                self._start()
            elif due < self._wakes_at:
                self._pokes.put(None)

    def remove(self, watched: Watched) -> None:
        """It is closed, or about to be no more. Takes no lock: a finalizer may call this anywhere."""
        self._due.pop(id(watched), None)
        self._open.pop(id(watched), None)

    def forget(self) -> None:
        """After a fork, in the copy: the thread is gone, and the commands are the parent's."""
        Watch.__init__(self)

    def close_all(self) -> None:
        """At the end of this process: nothing of what it has started and not left is left behind."""
        for reference in list(self._open.values()):
            watched = reference()
            if watched is not None:
                watched.close()

    def _start(self) -> None:
        self._wakes_at = -inf
        self._thread = threading.Thread(target=self._loop, name="childproof", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be had now
            self._thread = None
            _journal.warn("no thread can be started: a deadline is kept only while the command is waited for")

    # ---- the thread ----

    def _loop(self) -> None:
        while True:
            with self._lock:
                now = monotonic()
                due = [key for key, at in list(self._due.items()) if at <= now]
                if not due:
                    soonest = min(list(self._due.values()), default=inf)
                    self._wakes_at = soonest
            if due:
                for key in due:
                    self._attend(key, now)
            elif not self._sleep(IDLE_SECONDS if soonest == inf else soonest - now, idle=soonest == inf):
                return

    def _sleep(self, seconds: float, idle: bool) -> bool:
        """Whether there may be something to do yet."""
        try:
            self._pokes.get(timeout=min(max(seconds, 0.0), MOST_SECONDS))
        except Exception:  # queue.Empty, which is also what this module's end at exit looks like
            if not idle:
                return True
            with self._lock:
                if not self._due:
                    self._thread = None
                    return False
        return True

    def _attend(self, key: int, now: float) -> None:
        reference = self._open.get(key)
        watched = reference() if reference is not None else None
        again = inf
        if watched is not None:
            try:
                again = watched.attend(now)
            except Exception as error:  # the others' deadlines count too
                _journal.warn("the deadline of a command could not be kept: %s", repr(error))
        with self._lock:
            if again == inf:
                self._due.pop(key, None)
            elif key in self._due:
                self._due[key] = again


watch = Watch()
os.register_at_fork(after_in_child=watch.forget)
atexit.register(watch.close_all)
