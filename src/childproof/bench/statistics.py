"""Medians, percentiles, and the interval of a ratio: plain functions of numbers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

RESAMPLES = 1000
CONFIDENCE = 0.95
FEWEST = 8
"""With fewer pairs there is a ratio, but no interval: a bootstrap of a handful says nothing."""


class Summary(NamedTuple):
    """Of one series of measurements, in their own unit."""

    median: float
    p10: float
    p90: float
    rounds: int


class Ratio(NamedTuple):
    """How two series that were measured in turns relate.

    Attributes:
        median: the median of the ratios of each round.
        low: lower end of its bootstrap interval; `None` with fewer than `FEWEST` rounds.
        high: upper end.
        rounds: those in which both were measured.

    """

    median: float
    low: float | None
    high: float | None
    rounds: int


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Of a sorted, non-empty sequence, with linear interpolation between neighbours."""
    place = (len(ordered) - 1) * fraction
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summarize(values: Sequence[float]) -> Summary:
    """Median, 10th and 90th percentile.

    Raises:
        ValueError: there are no values.

    """
    if not values:
        raise ValueError("no measurements to summarize")
    ordered = sorted(values)
    return Summary(percentile(ordered, 0.5), percentile(ordered, 0.1), percentile(ordered, 0.9), len(ordered))


def paired_ratio(above: Mapping[int, float], below: Mapping[int, float], seed: int = 0) -> Ratio | None:
    """The median over rounds of `above / below`, with a bootstrap interval: the rounds are drawn anew
    with replacement, `RESAMPLES` times, and the middle `CONFIDENCE` of the medians is the interval.

    Both were measured within milliseconds of each other in a round, so that what slows the machine
    down for a while slows both, and their ratio stays.

    Args:
        above: value by round.
        below: value by round; a round in which it is 0 has no ratio.
        seed: of the random draws; the same input gives the same interval.

    Returns:
        `None` if there is no round with both.

    """
    ratios = [above[n] / below[n] for n in sorted(above.keys() & below.keys()) if below[n] > 0]
    if not ratios:
        return None
    median = percentile(sorted(ratios), 0.5)
    if len(ratios) < FEWEST:
        return Ratio(median, None, None, len(ratios))
    draw = random.Random(seed)  # noqa: S311 - resampling, not secrets
    medians = sorted(percentile(sorted(draw.choices(ratios, k=len(ratios))), 0.5) for _ in range(RESAMPLES))
    tail = (1 - CONFIDENCE) / 2
    return Ratio(median, percentile(medians, tail), percentile(medians, 1 - tail), len(ratios))
