"""How many commands may run at once for want of descriptors."""

from __future__ import annotations

import os
import resource
from math import inf
from time import monotonic

from childproof import _journal

SPAWNING_FDS, RUNNING_FDS, FEEDING_FDS, SUPERVISING_FDS = 9, 3, 1, 2
"""Descriptors of a command on its way to the exec, of one that runs, and what input and a supervisor add."""

HOST_SHARE = 16
"""Of the soft limit this part is left to the host."""

COUNT_SECONDS = 0.5
"""How long a count of what is open is taken for true where it matters."""

GUESSED_FDS = 64
"""What others have open where /proc does not tell."""


class Budget:
    """The soft limit of descriptors, what others have open, and what our commands use.

    Attributes:
        used: what those commands are reckoned with that run.

    """

    def __init__(self) -> None:
        self.used = 0
        self._free = 0.0  # with none of ours
        self._counted_at = -inf
        self._most_jobs = 0
        self._most_until = -inf
        self._told = False

    def allows(self, running: int) -> bool:
        """Whether one more may be started beside `running` others. One alone always may, since nobody
        would ever give back anything.
        """
        if running == 0:
            return True
        if running >= self._most_jobs and monotonic() < self._most_until:
            return False
        if self.used > self._free / 2 or self._counted_at == -inf:
            self._count(running)  # others may have opened some, or closed
        if self._free - self.used >= SPAWNING_FDS:
            return True
        self._tell(running, "the soft limit of open files is near")
        return False

    def starve(self, running: int, why: str) -> None:
        """A start has failed for want of something: for a while no more than `running` at once."""
        self._most_jobs = running
        self._most_until = monotonic() + COUNT_SECONDS
        self._tell(running, why)

    def _tell(self, running: int, why: str) -> None:
        if not self._told:
            self._told = True
            _journal.warn("fewer commands run at once than were asked for, at present %d: %s", running, why)

    def _count(self, running: int) -> None:
        now = monotonic()
        if now < self._counted_at + COUNT_SECONDS:
            return
        self._counted_at = now
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if soft == resource.RLIM_INFINITY:
            self._free = inf
            return
        try:
            below = sum(int(name) < soft for name in os.listdir("/proc/self/fd"))
            others = below - running * RUNNING_FDS
        except OSError:
            others = GUESSED_FDS
        self._free = soft - soft // HOST_SHARE - max(others, 0)
