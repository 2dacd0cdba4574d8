"""Results as tables: with rich if it is there, else as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from childproof.bench.model import Metric, Result, Scenario, Series, X
from childproof.bench.statistics import Ratio, paired_ratio, summarize
from childproof.bench.targets import TOLERANCE, Verdict


class Table(NamedTuple):
    """Text only, before any decoration."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    below: list[str]


def seconds(value: float) -> str:
    """With three digits and the unit that fits."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1 or unit == "µs":
            return f"{value * factor:.3g} {unit}" if value * factor < 999.5 else f"{value * factor:.0f} {unit}"
    raise AssertionError("the last unit takes everything")


def size(value: float) -> str:
    """Bytes with three digits and a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"


def quantity(value: float, metric: Metric) -> str:
    """A number of this metric's."""
    if metric.unit == "seconds":
        return seconds(value)
    return size(value) if metric.unit == "bytes" else f"{value:.4g}"


def ratio(value: Ratio | None) -> str:
    """With its interval."""
    if value is None:
        return ""
    if value.low is None or value.high is None:
        return f"{value.median:.2f}"
    return f"{value.median:.2f} [{value.low:.2f}, {value.high:.2f}]"


def parameter(x: X) -> str:
    """A value of a scenario's parameter."""
    return "" if x is None else x if isinstance(x, str) else f"{x:,.10g}"


def middle(values: Sequence[float], metric: Metric) -> float:
    """The one number that stands for all."""
    return sum(values) / len(values) if metric.statistic == "mean" else summarize(values).median


def reference_of(scenario: Scenario, result: Result, series: Series) -> dict[int, float]:
    """By round, what the series is compared with: the reference at the same value of the parameter."""
    other = result.find(scenario.reference, series.x)
    return {} if other is None else other.samples.get(scenario.metrics[0].name, {})


def of_result(scenario: Scenario, result: Result) -> Table:
    """The table of a scenario."""
    first, *others = [metric for metric in scenario.metrics if any(metric.name in s.samples for s in result.series)]
    headings = ["", *([scenario.x_label] if scenario.x_label else []), first.heading, "p10", "p90", "n"]
    if scenario.reference:
        headings.append(f"of {scenario.reference} [95 %]")
    rows = []
    for series in result.series:
        summary = summarize(list(series.samples[first.name].values()))
        row = [series.contender, *([parameter(series.x)] if scenario.x_label else [])]
        row += [quantity(value, first) for value in summary[:3]] + [str(summary.rounds)]
        if scenario.reference:
            pair = paired_ratio(series.samples[first.name], reference_of(scenario, result, series))
            row.append(ratio(pair))
        for metric in others:
            values = list(series.samples.get(metric.name, {}).values())
            row.append(quantity(middle(values, metric), metric) if values else "")
        rows.append(row)
    below = [*result.notes, *(f"{name}: not measured: {why}" for name, why in result.missing.items())]
    title = f"{scenario.name}: {scenario.title}"
    return Table(title, headings + [metric.heading for metric in others], rows, [scenario.about, *below])


def of_verdicts(verdicts: Sequence[Verdict]) -> Table:
    """The table of the targets."""
    rows = []
    for verdict in verdicts:
        word = "met" if verdict.met else "missed, within 25 %" if verdict.tolerated else "missed"
        measured = ratio(verdict.ratio) or "not measured"
        rows.append([verdict.target.text, f"≤ {verdict.target.limit:.2f}", measured, word if verdict.ratio else ""])
    below = [f"ratios: median over rounds, with a 95 % interval; --check fails above {TOLERANCE:g} times the target"]
    return Table("targets", ["", "target", "measured", ""], rows, below)


def plain(table: Table) -> str:
    """With nothing but spaces."""
    lines = [table.headings, *table.rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(table.headings))]

    def text(line: list[str]) -> str:
        cells = [
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([table.title, "", *map(text, lines), *(["", *table.below] if table.below else []), ""])
