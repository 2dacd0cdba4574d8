"""Results as JSON, and back: what was measured, where, when and how."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from childproof.bench.model import BenchError, Result, Scenario, Series
from childproof.bench.statistics import summarize
from childproof.bench.tables import against_reference
from childproof.bench.targets import Verdict

FORMAT = 1
PACKAGES = [
    *("childproof", "cffi", "sh", "plumbum", "invoke", "trio", "anyio", "psutil"),
    *("bounded-subprocess", "command_runner"),
]


def _first(path: str, field: str) -> str | None:
    try:
        for line in Path(path).read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    except OSError:
        pass  # a container may hide it
    return None


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    load = os.getloadavg()
    return {
        "cpu": _first("/proc/cpuinfo", "model name") or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "hypervisor": "hypervisor" in (_first("/proc/cpuinfo", "flags") or "").split(),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": [round(value, 2) for value in load],
        "packages": _versions(),
    }


def machine_line(facts: Mapping[str, Any]) -> str:
    """For the foot of a picture."""
    virtual = ", virtual" if facts["hypervisor"] else ""
    return f"{facts['python']}, Linux {facts['kernel']}, {facts['cpus']} x {facts['cpu']}{virtual}"


def _series(scenario: Scenario, result: Result, series: Series) -> dict[str, Any]:
    pair = against_reference(scenario, result, series) if scenario.reference else None
    return {
        "contender": series.contender,
        "x": series.x,
        "label": series.label,
        "severity": series.severity,
        "ratio": None if pair is None else pair._asdict(),
        "summary": {name: summarize(list(values.values()))._asdict() for name, values in series.samples.items()},
        "samples": {
            name: {str(turn): value for turn, value in values.items()} for name, values in series.samples.items()
        },
    }


def document(
    results: Mapping[Scenario, Result], verdicts: Sequence[Verdict], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """All of a run, for `json.dump`. ``childproof bench --help`` says what is in it."""
    return {
        "format": FORMAT,
        "command": sys.argv[1:],
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": dict(facts),
        "scenarios": {
            scenario.name: {
                "title": scenario.title,
                "about": scenario.about,
                "reference": scenario.reference,
                "parameter": scenario.x_label,
                "metrics": {metric.name: metric.unit for metric in scenario.metrics},
                "series": [_series(scenario, result, series) for series in result.series],
                "missing": result.missing,
                "notes": result.notes,
            }
            for scenario, result in results.items()
        },
        "targets": [
            {
                "text": verdict.target.text,
                "limit": verdict.target.limit,
                "ratio": None if verdict.ratio is None else verdict.ratio._asdict(),
                "met": verdict.met,
            }
            for verdict in verdicts
        ],
    }


def results_of(record: Any, scenarios: Mapping[str, Scenario]) -> dict[Scenario, Result]:
    """What `document` has written.

    Raises:
        BenchError: it is no such document, or of another format.

    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise BenchError(f"no record of childproof bench in format {FORMAT}")
    found = {}
    for name, fields in record["scenarios"].items():
        result = Result(missing=fields["missing"], notes=fields["notes"])
        for one in fields["series"]:
            series = Series(one["contender"], one["x"], label=one["label"], severity=one["severity"])
            for metric, values in one["samples"].items():
                series.samples[metric] = {int(turn): value for turn, value in values.items()}
            result.series.append(series)
        found[scenarios[name]] = result
    return found
