"""One look at /proc for all the trees that one thread kills at the same time, and for all their holders."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from math import inf
from time import monotonic

from childproof._processes import procfs
from childproof._processes.census import Census, ticks_now
from childproof._processes.errands import Errands

OLDEST_SECONDS = 0.05
"""How old a census may be in which a tree is looked for the first time, beside `OLDEST_COSTS` times what its
making took."""

OLDEST_COSTS = 8

SLICE_SECONDS = 0.01
"""How long it is looked who has which pipe, at a stretch."""

ERRANDS_AT_ONCE = 256
"""So many are gathered before the background thread is woken, unless an answer is asked for before."""


class Holdings:
    """A look at who has which pipe open, a while at a time.

    Attributes:
        began: on `time.monotonic`: who had a pipe before and has it still is found.

    """

    def __init__(self) -> None:
        """Nobody has been looked at yet."""
        self.began = monotonic()
        self._left = procfs.oldest_first(procfs.pids())
        self._pids: dict[str, list[int]] = {}

    def go_on(self) -> bool:
        """Look for a while, at the youngest first; whether it is over."""
        until = monotonic() + SLICE_SECONDS
        while self._left:
            pid = self._left.pop()
            for link in procfs.pipe_links(pid) if pid != os.getpid() else procfs.written_pipes(pid):
                self._pids.setdefault(link, []).append(pid)
            if monotonic() >= until:
                break
        return not self._left

    def of(self, links: Iterable[str]) -> list[int]:
        """Who had any of these, told by their links as ``pipe:[123]``; the oldest first."""
        return procfs.oldest_first(list({pid for link in links for pid in self._pids.get(link, ())}))


class Survey:
    """See the module. Used by one thread, but for `tokens`.

    Attributes:
        tokens: the marks of strangers, by pid and start, as they were read for one of the trees.
        errands: what is read in the background for them.

    """

    def __init__(self, known_sessions: Callable[[], Container[int]]) -> None:
        """`known_sessions`: gives the sessions that those trees are told by."""
        self._known_sessions = known_sessions
        self._floor = ticks_now() - 1
        self._census: Census | None = None
        self._renewed_at = -inf
        self._holdings: Holdings | None = None
        self.tokens: dict[tuple[int, int], list[bytes]] = {}
        self.errands = Errands(ERRANDS_AT_ONCE)

    def renew(self) -> None:
        """Time has passed: what was read before does not count any more for a tree's first look."""
        self._renewed_at = monotonic()

    def census(self, since: float | None = None) -> Census:
        """Who there is.

        Args:
            since: on `time.monotonic`: a census will do that was begun after it, however long ago that is;
                `None`: one that is recent.

        """
        census = self._census
        if census is None or not (self._is_recent(census) if since is None else census.began >= since):
            census = self._census = Census(self._known_sessions(), self._floor)
        return census

    def _is_recent(self, census: Census) -> bool:
        age = monotonic() - census.began
        return census.began >= self._renewed_at and age < OLDEST_SECONDS + OLDEST_COSTS * census.cost_seconds

    def holdings(self, since: float) -> Holdings | None:
        """Who has which pipe, if a look at all that was begun after `since`, on `time.monotonic`, is over;
        else one is gone on with.
        """
        holdings = self._holdings
        if holdings is None or (holdings.began < since and holdings.go_on()):
            holdings = self._holdings = Holdings()
        return holdings if holdings.began >= since and holdings.go_on() else None
