"""Prints the fault matrix as a table in Markdown, and what was not as it must be.

``fault_matrix.py [--full] [SCENARIO...]``: --full adds the points whose clean-up fails too.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import namespace_run  # found by the line before

Row = tuple[str, str, str, int, dict[str, int]]


def table(rows: list[Row]) -> list[str]:
    """One line for each call and set of outcomes, its errnos together."""
    merged: dict[tuple[str, str, tuple[str, ...]], tuple[list[str], Counter[str]]] = defaultdict(
        lambda: ([], Counter())
    )
    for origin, call, error, _, outcomes in rows:
        errors, counts = merged[origin, call, tuple(sorted(outcomes))]
        errors.append(error)
        counts.update(outcomes)
    lines = ["| whose | call | errno | points | outcome |", "|---|---|---|---:|---|"]
    for (origin, call, _), (errors, counts) in merged.items():
        told = ", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items()))
        lines.append(f"| {origin} | {call} | {' '.join(errors)} | {sum(counts.values())} | {told} |")
    return lines


def main(arguments: list[str]) -> int:
    """0 if all is as it must be."""
    full = "--full" in arguments
    wanted = [name for name in arguments if name != "--full"]
    with tempfile.TemporaryDirectory() as folder:
        out = namespace_run.run("faults", ["2000", "full" if full else "short", *wanted], Path(folder))
    answer = json.loads(out)
    kernel, python = os.uname().release.partition("-")[0], sys.version.split()[0]
    day = datetime.datetime.now().astimezone().date()
    print(f"{day}, Linux {kernel}, Python {python}: {answer['points']} points, {len(answer['bad'])} bad\n")
    print("\n".join(table(answer["rows"])))
    for sentence in answer["bad"]:
        print("BAD:", sentence)
    return 1 if answer["bad"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
