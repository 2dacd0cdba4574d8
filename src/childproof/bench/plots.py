"""Pictures of results, as SVG and PNG.

Colours are from Okabe and Ito's palette, which people with any colour vision can tell apart, and no
picture depends on them: lines and cells are labelled where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, log, log2
from pathlib import Path
from typing import Any

from childproof.bench.findings import finding
from childproof.bench.model import BenchError, Metric, Result, Scenario, Series
from childproof.bench.record import machine_line
from childproof.bench.statistics import Summary, summarize
from childproof.bench.tables import against_reference, parameter, quantity, short_verdict

BLUE, VERMILION, GREEN, ORANGE, SKY, PINK = "#0072B2", "#D55E00", "#009E73", "#B57A00", "#3A93C4", "#B0588E"
INK, GREY, FAINT = "#1A1A1A", "#6F757D", "#D9DCE0"

STYLE = {
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": INK,
    "figure.facecolor": "white",
    "svg.hashsalt": "childproof",
}
PNG_DPI = 150

PANELS = {
    "spawn": ("seconds", "parent_cpu"),
    "shell": ("seconds", "parent_cpu"),
    "capture": ("seconds", "peak_share"),
    "concurrent": ("seconds", "peak_each"),
    "kill": ("seconds", "left"),
}
"""The metrics that get a panel; else the first."""

HIDDEN = ("childproof.run, close_range", "childproof.run, clone")
"""In `spawn` and `shell`: what the default is already."""


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise BenchError(f"--plot needs matplotlib ({error}): pip install 'childproof[bench]'") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw(results: Mapping[Scenario, Result], machine: Mapping[str, Any], directory: Path) -> Iterator[Path]:
    """One picture a scenario, in two files.

    Args:
        results: what was measured.
        machine: where; for the foot.
        directory: is made if it is not there.

    Yields:
        The paths, as they are written.

    Raises:
        BenchError: there is no matplotlib.

    """
    pyplot = _pyplot()
    directory.mkdir(parents=True, exist_ok=True)
    for scenario, result in results.items():
        if not any(series.samples for series in result.series):
            continue
        with pyplot.rc_context(STYLE):
            figure = _figure(pyplot, scenario, result)
            figure.text(0.01, 0.01, machine_line(machine), color=GREY, fontsize=8, ha="left", va="bottom")
            for ending in ("svg", "png"):
                path = directory / f"{scenario.name}.{ending}"
                date = {"metadata": {"Date": None}} if ending == "svg" else {}
                figure.savefig(path, dpi=PNG_DPI, **date)
                yield path
            pyplot.close(figure)


def _figure(pyplot: Any, scenario: Scenario, result: Result) -> Any:
    if any(series.severity for series in result.series):
        return _matrix(pyplot, scenario, result)
    numeric = any(isinstance(series.x, int | float) for series in result.series)
    return _curves(pyplot, scenario, result) if numeric else _dots(pyplot, scenario, result)


def _metrics(scenario: Scenario, result: Result) -> list[Metric]:
    wanted = PANELS.get(scenario.name, (scenario.metrics[0].name,))
    return [
        metric
        for metric in scenario.metrics
        if metric.name in wanted and any(metric.name in series.samples for series in result.series)
    ]


def _head(figure: Any, scenario: Scenario, result: Result) -> None:
    figure.text(0.01, 0.985, finding(scenario, result), fontsize=16, weight="bold", color=INK, ha="left", va="top")


def _foot(figure: Any, text: str) -> None:
    figure.text(0.99, 0.01, text, color=GREY, fontsize=9, ha="right", va="bottom")


def _summary(series: Series, metric: Metric) -> Summary | None:
    values = list(series.samples.get(metric.name, {}).values())
    return summarize(values) if values else None


def _colour(name: str) -> str:
    if name.startswith(("childproof", "import childproof", "threads, childproof")):
        return BLUE
    if name.startswith(("C floor", "C:")):
        return INK
    if name.startswith(("subprocess", "Popen", "import subprocess", "threads, subprocess")):
        return VERMILION
    return GREY


# ---- one value each ----


def _dots(pyplot: Any, scenario: Scenario, result: Result) -> Any:
    metrics = _metrics(scenario, result)
    shown = [series for series in result.series if series.samples and series.contender not in HIDDEN]
    shown.sort(key=lambda series: -_central(series, metrics[0]))
    height = 1.7 + 0.33 * len(shown)
    figure, axes = pyplot.subplots(1, len(metrics), figsize=(11.5, height), sharey=True, squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        _dot_panel(axis, metric, shown, _factors(scenario, result) if metric is metrics[0] else {})
    axes[0][0].set_ylim(-0.6, len(shown) - 0.4)
    axes[0][0].set_yticks(range(len(shown)), [series.contender for series in shown])
    for label, series in zip(axes[0][0].get_yticklabels(), shown, strict=True):
        label.set_color(_colour(series.contender))
        label.set_fontweight("bold" if _colour(series.contender) == BLUE else "normal")
    _head(figure, scenario, result)
    _foot(figure, "dot: median, bar: p10 to p90")
    figure.tight_layout(rect=(0, 0.3 / height, 1, 1 - 0.45 / height), w_pad=2.5)
    return figure


def _central(series: Series, metric: Metric) -> float:
    summary = _summary(series, metric)
    return 0.0 if summary is None else summary.median


def _factors(scenario: Scenario, result: Result) -> dict[str, str]:
    """By contender, how many times the reference it takes."""
    found = {}
    for series in result.series:
        pair = against_reference(scenario, result, series)
        if pair is not None and series.contender != scenario.reference:
            found[series.contender] = f"   {pair.median:.2f} x"
    return found


def _dot_panel(axis: Any, metric: Metric, shown: Sequence[Series], factors: Mapping[str, str]) -> None:
    found = [(place, series, _summary(series, metric)) for place, series in enumerate(shown)]
    medians = [summary.median for _, _, summary in found if summary]
    logarithmic = min(medians) > 0 and max(medians) > 8 * min(medians)
    axis.set_xscale("log" if logarithmic else "linear")
    for place, series, summary in found:
        if summary is None:
            continue
        colour = _colour(series.contender)
        axis.plot([summary.p10, summary.p90], [place, place], color=colour, linewidth=3, alpha=0.35, zorder=2)
        axis.plot(summary.median, place, "o", color=colour, markersize=8, zorder=3)
        axis.annotate(
            quantity(summary.median, metric) + factors.get(series.contender, ""),
            (max(summary.p90, summary.median), place),
            textcoords="offset points",
            xytext=(8, 0),
            va="center",
            fontsize=10,
            color=colour,
        )
    if logarithmic:
        axis.set_xlim(min(medians) * 0.6, max(medians) * (8 if factors else 4))
    else:
        axis.set_xlim(0, max(summary.p90 for _, _, summary in found if summary) * (1.35 if factors else 1.2) or 1)
    _scale(axis.xaxis, metric, logarithmic)
    axis.set_xlabel(metric.heading + (", log scale" if logarithmic else ""))
    axis.grid(axis="x", color=FAINT, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)


def _scale(axis: Any, metric: Metric, logarithmic: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator, NullFormatter

    if metric.unit == "bytes" and not logarithmic:
        axis.set_major_locator(MultipleLocator(2 ** ceil(log2(max(axis.get_view_interval()[1], 1) / 6))))
    axis.set_major_formatter(FuncFormatter(lambda value, _: "0" if value == 0 else _tick(value, metric)))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float, metric: Metric) -> str:
    """As in the tables, without digits that say nothing."""
    number, _, unit = quantity(value, metric).partition(" ")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {unit}".strip()


# ---- curves ----

LINES = {
    "C floor": (INK, "--"),
    "os.killpg": (INK, "--"),
    "os.posix_spawn": (GREEN, "-"),
    "os.fork, os.execv": (ORANGE, "-"),
    "subprocess.run": (VERMILION, "-"),
    "threads, subprocess.run": (VERMILION, "-"),
    "psutil, children(recursive)": (VERMILION, "-"),
    "asyncio": (ORANGE, "-"),
    "childproof.run, fork": (PINK, "-"),
    "childproof.run, rlimit": (PINK, "-"),
    "childproof.run, proc": (SKY, "-"),
    "childproof.run, close_range": (BLUE, ":"),
    "threads, childproof.run": (SKY, "-"),
    "childproof.run, at its deadline": (SKY, "-"),
}


def _curves(pyplot: Any, scenario: Scenario, result: Result) -> Any:
    metrics = _metrics(scenario, result)
    names = list(dict.fromkeys(series.contender for series in result.series if series.samples))
    figure, axes = pyplot.subplots(1, len(metrics), figsize=(11.5, 6), squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        _curve_panel(axis, metric, scenario, {name: _points(result, name, metric) for name in names})
    _head(figure, scenario, result)
    _foot(figure, "line: median, band: p10 to p90")
    figure.tight_layout(rect=(0, 0.04, 1, 0.93), w_pad=2)
    return figure


def _points(result: Result, name: str, metric: Metric) -> list[tuple[float, Summary]]:
    found = []
    for series in result.series:
        summary = _summary(series, metric)
        if series.contender == name and isinstance(series.x, int | float) and summary is not None:
            found.append((float(series.x), summary))
    return sorted(found)


def _curve_panel(
    axis: Any, metric: Metric, scenario: Scenario, lines: Mapping[str, list[tuple[float, Summary]]]
) -> None:
    values = [point[1].median for points in lines.values() for point in points]
    logarithmic = min(values) > 0 and max(values) > 8 * min(values)
    places = sorted({point[0] for points in lines.values() for point in points})
    spread_x = places[0] > 0 and places[-1] > 20 * places[0]
    axis.set_xscale("log", base=2) if spread_x else None
    axis.set_yscale("log" if logarithmic else "linear")
    ends: list[tuple[float, str, str]] = []
    for name, points in lines.items():
        if not points:
            continue
        colour, dash = LINES.get(name, (_colour(name), "-"))
        x, middle = [point[0] for point in points], [point[1].median for point in points]
        axis.fill_between(
            x, [p[1].p10 for p in points], [p[1].p90 for p in points], color=colour, alpha=0.12, linewidth=0
        )
        axis.plot(x, middle, dash, color=colour, marker="o", markersize=5, linewidth=2.2)
        ends.append((middle[-1], name, colour))
    if not logarithmic:
        highest = max(point[1].p90 for points in lines.values() for point in points)
        axis.set_ylim(0, min(highest, 1.5 * max(values)) * 1.05 or 1)
    _scale(axis.yaxis, metric, logarithmic)
    shown = places if spread_x else _apart(places)
    axis.set_xticks(shown, [parameter(place) for place in shown], rotation=0 if len(shown) < 6 else 30)
    axis.xaxis.minorticks_off()
    axis.set_xlabel(scenario.x_label)
    axis.set_ylabel(metric.heading + (", log scale" if logarithmic else ""))
    axis.grid(axis="y", color=FAINT, linewidth=0.8)
    axis.set_axisbelow(True)
    _label_ends(axis, ends, logarithmic)


def _apart(places: Sequence[float]) -> list[float]:
    """Without those whose labels would cover the next one's."""
    shown: list[float] = []
    for place in places:
        if not shown or place - shown[-1] > (places[-1] - places[0]) / 25:
            shown.append(place)
    return shown


def _label_ends(axis: Any, ends: list[tuple[float, str, str]], logarithmic: bool) -> None:
    """Names at the right ends, pushed apart until none covers another."""
    measure = log if logarithmic else float
    low, high = map(measure, axis.get_ylim())
    ends = sorted(ends)
    places = spaced([(measure(value) - low) / (high - low) for value, _, _ in ends], 0.048)
    for y, (_, name, colour) in zip(places, ends, strict=True):
        axis.annotate(
            name,
            (1.0, y),
            xycoords="axes fraction",
            textcoords="offset points",
            xytext=(6, 0),
            va="center",
            fontsize=10,
            color=colour,
            weight="bold" if colour == BLUE else "normal",
            annotation_clip=False,
        )


def spaced(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places in 0 to 1, moved as little as it takes to be `gap` apart."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    ceiling = 1.0
    for number in reversed(range(len(moved))):  # from the top down again, if that has gone too far
        moved[number] = min(moved[number], ceiling)
        ceiling = moved[number] - gap
    return moved


# ---- the matrix ----

CELLS = {
    "ok": ("#D6EAF5", "#0B4A6F"),
    "flaw": ("#FBE2B4", "#6B4300"),
    "failure": ("#C44E00", "white"),
    "untested": ("#F1F2F4", GREY),
}


def _matrix(pyplot: Any, scenario: Scenario, result: Result) -> Any:
    people = list(dict.fromkeys(series.contender for series in result.series))
    columns = list(dict.fromkeys(series.x for series in result.series))
    height = 2.1 + 0.52 * len(people)
    figure, axis = pyplot.subplots(figsize=(14, height))
    for row, name in enumerate(people):
        for column, x in enumerate(columns):
            series = result.find(name, x)
            if series is not None:
                _cell(axis, column, row, series)
    axis.set_xlim(-0.5, len(columns) - 0.5)
    axis.set_ylim(len(people) - 0.5, -0.5)
    axis.set_xticks(range(len(columns)), [parameter(x) for x in columns], fontsize=11.5)
    axis.set_yticks(range(len(people)), people, fontsize=12)
    axis.get_yticklabels()[0].set_fontweight("bold")
    axis.get_yticklabels()[0].set_color(BLUE)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.tick_params(axis="x", colors=INK)
    for spine in axis.spines.values():
        spine.set_visible(False)
    _head(figure, scenario, result)
    _foot(
        figure,
        "blue: right    yellow: late, or leaves processes or descriptors    red: hangs, raises, or says what is not so",
    )
    figure.tight_layout(rect=(0, 0.3 / height, 1, 1 - 0.5 / height))
    return figure


def _cell(axis: Any, column: int, row: int, series: Series) -> None:
    from matplotlib.patches import Rectangle

    back, ink = CELLS[series.severity or "untested"]
    axis.add_patch(Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=back, linewidth=0))
    words = (
        short_verdict(series)
        .replace("raises ", "")
        .replace(" + ", "\n")
        .replace("hangs, ", "hangs\n")
        .replace("Error", "\nError")
    )
    axis.text(column, row, words, ha="center", va="center", fontsize=9.5, color=ink, linespacing=1.15)


__all__ = ["draw"]
