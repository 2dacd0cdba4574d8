"""Judge gcov's account of csrc: every branch must be taken, or be named with its reason.

``branches.py DIRECTORY LIST``: DIRECTORY has gcov's ``*.gcov.json.gz``; LIST has lines
``file | function | line of code | reason`` for what no test here can make happen; ``*`` is any function or
line. A branch that is not taken and not named fails, and so does a name of which all branches are taken.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any


def untaken(report: dict[str, Any], sources: Path) -> tuple[int, int, dict[tuple[str, str, str], int]]:
    """Branches in all, those taken, and the rest by file, function and line of code."""
    total = taken = 0
    missing: dict[tuple[str, str, str], int] = {}
    for file in report["files"]:
        path = Path(file["file"])
        if path.parent.name != sources.name or not path.exists():
            continue
        text = path.read_text().splitlines()
        for line in file["lines"]:
            key = path.name, str(line.get("function_name", "?")), text[line["line_number"] - 1].strip()
            for branch in line["branches"]:
                if branch["throw"]:
                    continue
                total += 1
                taken += branch["count"] > 0
                if branch["count"] == 0:
                    missing[key] = missing.get(key, 0) + 1
            if line["count"] == 0:
                missing.setdefault(key, 0)
    return total, taken, missing


def named(path: Path) -> dict[tuple[str, str, str], str]:
    """The list: what is not taken, and why."""
    entries = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            file, function, code, reason = (part.strip() for part in line.split(" | "))
            entries[file, function, code] = reason
    return entries


def _fits(name: tuple[str, str, str], key: tuple[str, str, str]) -> bool:
    return all(a in ("*", b) for a, b in zip(name, key, strict=True))


def main(directory: Path, names: Path) -> int:
    """Print the account; 1 if something is neither taken nor named, or named in vain."""
    total = taken = 0
    missing: dict[tuple[str, str, str], int] = {}
    merged: dict[tuple[str, str, str], int] = {}
    for path in sorted(directory.glob("*.gcov.json.gz")):
        with gzip.open(path) as file:
            all_here, taken_here, missing_here = untaken(json.load(file), Path("csrc"))
        total += all_here
        taken += taken_here
        for key, count in missing_here.items():
            if not key[0].endswith(".h"):  # inline functions are counted in every file that has them
                merged[key] = merged.get(key, 0) + count
    missing = merged
    known = named(names)
    used = {name: [key for key in missing if _fits(name, key)] for name in known}
    new = sorted(set(missing) - {key for keys in used.values() for key in keys})
    vain = sorted(name for name, keys in used.items() if not keys)
    where = f"{len(missing)} lines, {len(missing) - len(new)} of them named"
    print(f"{taken} of {total} branches taken; {sum(missing.values())} not, on {where}")
    for key in new:
        print("not taken:", " | ".join(key), f"({missing[key]})")
    for key in vain:
        print("named, but taken:", " | ".join(key))
    return 1 if new or vain else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
