"""What is asked of the background thread: by one alone, or by many at once, which is then one job for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from childproof._janitor import Job, janitor

STUCK_SECONDS = 0.5
"""An errand of many that takes longer is given up: others wait behind it."""


class Errand:
    """Something that may block.

    Attributes:
        done: it is over, or can't be had.
        lost: it can't be had: it took too long, and others waited behind it.
        value: what it returned; `None` if it raised.

    """

    __slots__ = ("_function", "done", "lost", "unwanted", "value")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self.done = False
        self.lost = False
        self.unwanted = False
        self.value: Any = None

    def run(self) -> None:
        """Called in the background thread."""
        try:
            if not self.unwanted:
                self.value = self._function()
        except Exception:  # whoever waits sees None; the thread has others to serve
            self.value = None
        self.done = True


class Errands:
    """A queue of them, which one job of the background thread works off. Used by one thread.

    Attributes:
        refused: no thread could be had the last time.

    """

    def __init__(self, at_once: int = 1) -> None:
        """`at_once`: so many are gathered before the thread is woken, unless somebody asks for an answer."""
        self._at_once = at_once
        self._waiting: deque[Errand] = deque()
        self._job: Job | None = None
        self._turn = 0  # of the job that may take from the queue
        self._begun = 0
        self._running: Errand | None = None
        self._running_since = 0.0
        self.refused = False

    def ask(self, function: Callable[[], Any]) -> Errand:
        """Have `function` called in the background."""
        errand = Errand(function)
        self._waiting.append(errand)
        if len(self._waiting) >= self._at_once:
            self._send()
        return errand

    def answered(self, errand: Errand) -> bool:
        """Whether it is done; if it has not been sent for yet, it is now, with all others."""
        if not errand.done:
            self._send()
        return errand.done

    def take(self, errand: Errand) -> Any:
        """Its value if it is done, else `None`, and nobody waits for it any more: a thread that hangs in it
        is replaced at once.
        """
        if errand.done:
            return errand.value
        errand.unwanted = True
        if errand is self._running:
            self._give_up_job()
            self._send()
        elif self._at_once == 1 and errand in self._waiting:
            self._waiting.remove(errand)
        return None

    def _send(self) -> None:
        if self._is_stuck():
            self._give_up_job()
        if not self._waiting or (self._job is not None and not self._job.done.is_set()):
            return
        self._turn += 1
        turn = self._turn
        self._job = janitor.submit(lambda: self._work_off(turn))
        self.refused = self._job.done.is_set() and self._begun != turn
        while self.refused and self._waiting:
            self._waiting.popleft().done = True

    def _is_stuck(self) -> bool:
        """Whether the one that runs keeps others waiting too long. Who is alone knows himself how long he waits."""
        running = self._running is not None and self._job is not None and not self._job.done.is_set()
        return running and self._at_once > 1 and monotonic() - self._running_since >= STUCK_SECONDS

    def _give_up_job(self) -> None:
        self._turn += 1
        if self._running is not None:
            self._running.lost = self._running.done = True
        if self._job is not None:
            janitor.answer(self._job)
        self._job = self._running = None

    def _work_off(self, turn: int) -> None:
        """In the background."""
        self._begun = turn
        while self._turn == turn and self._waiting:
            self._running_since = monotonic()
            self._running = errand = self._waiting[0]
            self._waiting.popleft()
            errand.run()
            if self._turn == turn:
                self._running = None
