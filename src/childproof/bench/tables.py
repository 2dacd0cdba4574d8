"""Results as tables of text, for a terminal, a file, or whoever draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from childproof.bench.cases import CUT_OFF_SECONDS
from childproof.bench.model import Metric, Result, Scenario, Series, X
from childproof.bench.statistics import Ratio, paired_ratio, summarize
from childproof.bench.targets import TOLERANCE, Verdict


class Table(NamedTuple):
    """Text only, before any decoration.

    Attributes:
        title: above it.
        headings: one a column; the first column is set to the left, the others to the right.
        rows: as many cells as headings.
        below: sentences under it.

    """

    title: str
    headings: list[str]
    rows: list[list[str]]
    below: list[str]


# ---- numbers ----


def seconds(value: float) -> str:
    """With three digits and the unit that fits."""
    if value < 0:
        return "-" + seconds(-value)
    scaled, unit = value, "s"
    for smaller in ("ms", "µs"):
        if scaled >= 0.9995:
            break
        scaled, unit = scaled * 1000, smaller
    return f"{_three_digits(scaled)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def size(value: float) -> str:
    """Bytes with three digits and a binary unit."""
    units = ["B", "KiB", "MiB", "GiB"]
    while abs(value) >= 999.5 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{_three_digits(value)} {units[0]}"


def quantity(value: float, metric: Metric) -> str:
    """A number of this metric's."""
    if metric.unit == "seconds":
        return seconds(value)
    return size(value) if metric.unit == "bytes" else f"{value:.4g}"


def ratio(value: Ratio | None) -> str:
    """With its interval, if it has one."""
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


# ---- tables ----


def against_reference(scenario: Scenario, result: Result, series: Series) -> Ratio | None:
    """The first metric of a series to that of the reference, at the same value of the parameter."""
    other = result.find(scenario.reference, series.x)
    if other is None:
        return None
    name = scenario.metrics[0].name
    return paired_ratio(series.samples.get(name, {}), other.samples.get(name, {}))


def _cell(series: Series, metric: Metric) -> str:
    values = list(series.samples.get(metric.name, {}).values())
    return quantity(middle(values, metric), metric) if values else ""


def _spread(series: Series, metric: Metric) -> list[str]:
    values = list(series.samples.get(metric.name, {}).values())
    if not values:
        return ["", "", "", ""]
    summary = summarize(values)
    return [*(quantity(value, metric) for value in summary[:3]), str(summary.rounds)]


def of_result(scenario: Scenario, result: Result) -> Table:
    """The table of a scenario: one line a series."""
    first, *others = [
        metric for metric in scenario.metrics if any(metric.name in s.samples for s in result.series)
    ] or [scenario.metrics[0]]
    judged = any(series.label for series in result.series)
    headings = ["", *([scenario.x_label] if scenario.x_label else []), first.heading, "p10", "p90", "n"]
    if scenario.reference:
        headings.append(f"of {scenario.reference} [95 %]")
    headings += [metric.heading for metric in others] + (["verdict"] if judged else [])
    rows = []
    for series in result.series:
        row = [series.contender, *([parameter(series.x)] if scenario.x_label else []), *_spread(series, first)]
        if scenario.reference:
            row.append(ratio(against_reference(scenario, result, series)))
        row += [_cell(series, metric) for metric in others]
        rows.append(row + ([series.label or ""] if judged else []))
    return Table(f"{scenario.name}: {scenario.title}", headings, rows, [scenario.about, *notes(result)])


def notes(result: Result) -> list[str]:
    """What a reader has to know of the numbers."""
    return [*result.notes, *(f"not measured: {name}: {why}" for name, why in result.missing.items())]


def of_matrix(scenario: Scenario, result: Result) -> Table:
    """Verdicts: a line a contender, a column a value of the parameter."""
    columns = list(dict.fromkeys(series.x for series in result.series))
    rows = []
    for name in dict.fromkeys(series.contender for series in result.series):
        cells = [result.find(name, x) for x in columns]
        rows.append([name, *("" if series is None else short_verdict(series) for series in cells)])
    return Table(f"{scenario.name}: {scenario.title}", ["", *map(parameter, columns)], rows, [])


def short_verdict(series: Series) -> str:
    """For a cell: the worst, and the seconds where they say more than the word."""
    if series.severity == "untested":
        return "not tested"
    words = (series.label or "").split(", ")
    if words[0] in ("ok", "status lost"):
        return f"{words[0]}, {seconds(summarize(list(series.samples['seconds'].values())).median)}"
    if words[0] == "hangs":
        return f"hangs, > {CUT_OFF_SECONDS:g} s"
    return " + ".join(words)


def _word(verdict: Verdict) -> str:
    if verdict.ratio is None:
        return ""
    if verdict.met:
        return "met"
    if not verdict.target.checked:
        return "missed; not checked"
    return "missed, by less than 25 %" if verdict.tolerated else "missed"


def of_verdicts(verdicts: Sequence[Verdict]) -> Table:
    """The table of the targets."""
    rows = []
    for verdict in verdicts:
        measured = ratio(verdict.ratio) or "not measured"
        rows.append([verdict.target.text, f"≤ {verdict.target.limit:.2f}", measured, _word(verdict)])
    below = [
        "medians of the ratios of each round, with 95 % intervals;"
        f" --check fails where a median is above {TOLERANCE:g} times its target"
    ]
    return Table("targets", ["", "target", "measured", ""], rows, below)


def plain(table: Table) -> str:
    """With nothing but spaces."""
    lines = [table.headings, *table.rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(table.headings))]

    def text(line: list[str]) -> str:
        first, *others = zip(line, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()

    return "\n".join([table.title, "", *map(text, lines), "", *table.below, *([""] if table.below else [])])
