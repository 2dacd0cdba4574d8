"""One look at /proc for all the trees that one thread kills at the same time, and for all their holders."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from math import inf
from time import monotonic

from childproof._processes import procfs
from childproof._processes.census import Census, ticks_now
from childproof._processes.errands import Errands
from childproof._processes.inspector import Finder, Wanted
from childproof._processes.marks import Marks

OLDEST_SECONDS = 0.05
"""How old a census may be in which a tree is looked for the first time, beside `OLDEST_COSTS` times what its
making took."""

OLDEST_COSTS = 8

SLICE_SECONDS = 0.01
"""How long it is looked who has which pipe, at a stretch."""

FEW_PIPES = 64
"""Up to so many it is cheaper to compare each descriptor with all of them, in C."""

ERRANDS_AT_ONCE = 256
"""So many are gathered before the background thread is woken, unless an answer is asked for before."""


class Holdings:
    """A look at who may write to which of some pipes, a while at a time, the youngest first.

    Attributes:
        began: on `time.monotonic`: who had a pipe before and has it still is found.

    """

    def __init__(self, links: Iterable[str]) -> None:
        """Nobody has been looked at yet. `links`: those of the pipes, as ``pipe:[123]``."""
        self.began = monotonic()
        self._links = list(links)
        self._finder = Finder([Wanted(link) for link in self._links]) if len(self._links) <= FEW_PIPES else None
        self._left = procfs.oldest_first(procfs.pids())
        self._pids: dict[str, list[int]] = {}

    def go_on(self) -> bool:
        """Look for a while; whether it is over."""
        until = monotonic() + SLICE_SECONDS
        while self._left:
            pid = self._left.pop()
            for link in self._pipes(pid):
                self._pids.setdefault(link, []).append(pid)
            if monotonic() >= until:
                break
        return not self._left

    def _pipes(self, pid: int) -> set[str]:
        if self._finder is not None:
            return {self._links[item.which] for item in self._finder.of(pid) or () if item.writes}
        return procfs.pipe_links(pid) if pid != os.getpid() else procfs.written_pipes(pid)

    def of(self, links: Iterable[str]) -> list[int]:
        """Who of those that have been looked at may have any of these, the oldest first."""
        found = {pid: None for link in links for pid in self._pids.get(link, ())}
        return list(reversed(found))


class Survey:
    """See the module. Used by one thread.

    Attributes:
        errands: what is read in the background for them.
        marks: those of strangers.

    """

    def __init__(self, known_sessions: Callable[[], Container[int]]) -> None:
        """`known_sessions`: gives the sessions that those trees are told by."""
        self._known_sessions = known_sessions
        self._floor = ticks_now() - 1
        self._census: Census | None = None
        self._renewed_at = -inf
        self._holdings: Holdings | None = None
        self._wanted: set[str] = set()
        self.errands = Errands(ERRANDS_AT_ONCE)
        self.marks = Marks(self.errands)

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
            self.marks.keep(census.stranger_keys)
        return census

    def _is_recent(self, census: Census) -> bool:
        age = monotonic() - census.began
        return census.began >= self._renewed_at and age < OLDEST_SECONDS + OLDEST_COSTS * census.cost_seconds

    def want(self, links: Iterable[str]) -> None:
        """Those pipes will be asked for; by `since` of `holdings` this moment will do."""
        self._wanted.update(links)

    def holdings(self, since: float) -> tuple[Holdings | None, bool]:
        """Go on with a look at who has the pipes that were wanted by `since`, on `time.monotonic`.

        Returns:
            It, or `None` as long as an earlier one is not over, and whether it is over.

        """
        holdings = self._holdings
        if holdings is None or (holdings.began < since and holdings.go_on()):
            holdings = self._holdings = Holdings(self._wanted)
            self._wanted = set()
        if holdings.began < since:
            return None, False
        return holdings, holdings.go_on()
