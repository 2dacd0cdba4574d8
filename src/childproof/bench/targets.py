"""What childproof wants to reach, in one table: medians of ratios, measured in turns."""

from __future__ import annotations

import sys
from typing import NamedTuple

from childproof.bench.contenders import FLOOR, OURS, OURS_TIMEOUT, SUBPROCESS, SUBPROCESS_TIMEOUT
from childproof.bench.model import Result, X
from childproof.bench.statistics import Ratio, paired_ratio

TOLERANCE = 1.25
"""A check fails only on a ratio this much worse than its target: other machines differ, and so do days."""


class Target(NamedTuple):
    """One line of the table: the ratio of `above` to `below` is to be at most `limit`."""

    scenario: str
    above: tuple[str, X]
    below: tuple[str, X]
    metric: str
    limit: float

    @property
    def text(self) -> str:
        """What is compared, for a reader."""

        def side(place: tuple[str, X]) -> str:
            return place[0] if place[1] is None else f"{place[0]} at {place[1]}"

        return f"{self.scenario}: {self.metric.replace('_', ' ')} of {side(self.above)} / {side(self.below)}"


TARGETS = (
    Target("spawn", (OURS, None), (FLOOR, None), "seconds", 1.05),
    Target("spawn", (OURS, None), (SUBPROCESS, None), "seconds", 0.90),
    Target("spawn", (OURS_TIMEOUT, None), (FLOOR, None), "seconds", 1.06),
    Target("spawn", (OURS_TIMEOUT, None), (SUBPROCESS_TIMEOUT, None), "seconds", 0.33),
    Target("spawn", (OURS, None), (SUBPROCESS, None), "parent_cpu", 0.72),
)


class Verdict(NamedTuple):
    """A target and what was measured.

    Attributes:
        target: the line of the table.
        ratio: `None`: it was not measured.

    """

    target: Target
    ratio: Ratio | None

    @property
    def met(self) -> bool:
        """At most the limit."""
        return self.ratio is not None and self.ratio.median <= self.target.limit

    @property
    def tolerated(self) -> bool:
        """At most `TOLERANCE` times the limit."""
        return self.ratio is not None and self.ratio.median <= self.target.limit * TOLERANCE


def applies(target: Target) -> bool:
    """Whether it is one for this Python: from 3.14 on the stdlib does not poll with sleeps any more."""
    return not (target.below[0] == SUBPROCESS_TIMEOUT and sys.version_info >= (3, 14))


def judge(scenario: str, result: Result) -> list[Verdict]:
    """The targets of a scenario against its result."""
    verdicts = []
    for target in TARGETS:
        if target.scenario != scenario or not applies(target):
            continue
        above, below = result.find(*target.above), result.find(*target.below)
        ratio = None
        if above is not None and below is not None:
            ratio = paired_ratio(above.samples.get(target.metric, {}), below.samples.get(target.metric, {}))
        verdicts.append(Verdict(target, ratio))
    return verdicts
