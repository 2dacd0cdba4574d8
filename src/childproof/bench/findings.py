"""The sentence above a picture: what it shows, from the numbers that it shows."""

from __future__ import annotations

from childproof.bench import imports, latency
from childproof.bench.contenders import FLOOR, OURS, SUBPROCESS
from childproof.bench.model import Result, Scenario, X
from childproof.bench.statistics import paired_ratio, summarize
from childproof.bench.tables import parameter, seconds, size


class _UnknownError(Exception):
    """Something that the sentence needs was not measured."""


def _median(result: Result, name: str, x: X = None, metric: str = "seconds") -> float:
    series = result.find(name, x)
    if series is None or metric not in series.samples:
        raise _UnknownError
    return summarize(list(series.samples[metric].values())).median


def _ratio(result: Result, above: str, below: str, metric: str = "seconds") -> str:
    one, other = result.find(above), result.find(below)
    pair = None if one is None or other is None else paired_ratio(one.samples[metric], other.samples[metric])
    if pair is None:
        raise _UnknownError
    return f"{pair.median:.2f}"


def _most(result: Result) -> float:
    """The highest value of the parameter."""
    values = [series.x for series in result.series if isinstance(series.x, int | float)]
    if not values:
        raise _UnknownError
    return max(values)


def _spawn(result: Result) -> str:
    floor, other = _ratio(result, OURS, FLOOR), _ratio(result, OURS, SUBPROCESS)
    return f"childproof.run takes {floor} times the C floor and {other} times subprocess.run"


def _rss(result: Result) -> str:
    most = _most(result)
    ours, fork = _median(result, OURS, most), _median(result, "os.fork, os.execv", most)
    return f"From a process of {most:g} GiB childproof.run takes {seconds(ours)}, a fork {seconds(fork)}"


def _closing(result: Result, what: str) -> str:
    most = _most(result)
    ranged, loop = (_median(result, f"childproof.run, {how}", most) for how in ("close_range", "rlimit"))
    return f"{what.format(parameter(most))}: {seconds(ranged)} with close_range, {seconds(loop)} with the loop"


def _fds(result: Result) -> str:
    return _closing(result, "{} open descriptors")


def _limits(result: Result) -> str:
    return _closing(result, "RLIMIT_NOFILE at {}")


def _many(result: Result) -> str:
    names = ("childproof.run_many", "threads, childproof.run")
    best = next((name for name in names if result.find(name)), None)
    if best is None:
        raise _UnknownError
    ours, threads = _median(result, best), _median(result, "threads, subprocess.run")
    return f"{best}: {seconds(ours)}; threads with subprocess.run: {seconds(threads)}"


def _threads(result: Result) -> str:
    most = _most(result)
    ours, other = _median(result, OURS, most), _median(result, SUBPROCESS, most)
    return f"{most:g} threads at once: {seconds(ours)} a command by childproof.run, {seconds(other)} by subprocess.run"


def _concurrent(result: Result) -> str:
    most = _most(result)
    for name in ("childproof.run_many", "threads, childproof.run"):
        if result.find(name, most):
            each, memory = _median(result, name, most), _median(result, name, most, "peak_each")
            return f"{most:,.0f} children at once by {name}: {seconds(each)} and {size(memory)} each"
    raise _UnknownError


def _capture(result: Result) -> str:
    ours, theirs = (_median(result, name, None, "peak_share") for name in (OURS, SUBPROCESS))
    time = _ratio(result, OURS, SUBPROCESS)
    return f"{time} of subprocess.run's time, and a peak of {ours:.2f} times the output instead of {theirs:.2f}"


def _feed(result: Result) -> str:
    return f"childproof.run feeds it in {_ratio(result, OURS, SUBPROCESS)} of subprocess.run's time"


def _import(result: Result) -> str:
    ratio = _ratio(result, imports.OURS, imports.SUBPROCESS)
    return f"import childproof takes {ratio} times import subprocess"


def _latency(result: Result) -> str:
    ours, floor = _median(result, OURS), _median(result, latency.FLOOR)
    words = f"A death is known after {seconds(ours)}; by a poll in C after {seconds(floor)}"
    if result.find("Popen.wait(timeout)"):
        words += f", by Popen.wait(timeout) after {seconds(_median(result, 'Popen.wait(timeout)'))}"
    return words


def _kill(result: Result) -> str:
    most = _most(result)
    for name in ("childproof.kill_tree", "childproof.run, at its deadline"):
        if result.find(name, most):
            ours, left = _median(result, name, most), _median(result, name, most, "left")
            stay = _median(result, "os.killpg", most, "left")
            return f"Of {most:,.0f} processes killpg leaves {stay:.0f}; {name} leaves {left:.0f}, in {seconds(ours)}"
    raise _UnknownError


def score(result: Result, contender: str) -> tuple[int, int]:
    """How many cells are right, of how many that were tested."""
    own = [one for one in result.series if one.contender == contender and one.severity != "untested"]
    return sum(one.severity == "ok" for one in own), len(own)


def _hostile(result: Result) -> str:
    ours, tested = score(result, OURS)
    others = [score(result, one.contender)[0] for one in result.series if one.contender != OURS]
    if not others or not tested:
        raise _UnknownError
    return f"childproof.run gets {ours} of {tested} hard cases right; nobody else more than {max(others)}"


_SENTENCES = {
    "spawn": _spawn,
    "shell": _spawn,
    "rss": _rss,
    "fds": _fds,
    "limits": _limits,
    "many": _many,
    "threads": _threads,
    "concurrent": _concurrent,
    "capture": _capture,
    "feed": _feed,
    "import": _import,
    "exit-latency": _latency,
    "kill": _kill,
    "hostile": _hostile,
}


def finding(scenario: Scenario, result: Result) -> str:
    """One sentence; the scenario's title where what it needs was not measured."""
    try:
        return _SENTENCES[scenario.name](result)
    except (KeyError, _UnknownError):
        return scenario.title
