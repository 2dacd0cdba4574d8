"""What stdlib-tests does: the tests of each interpreter, against the list of exceptions.

Prints for each version and way to start what has passed, was skipped and is excepted. Fails on a test
that fails and is no exception, on an exception that passes or does not exist, and on a test that is
skipped with the drop-in only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "stdlib-tests"
EXCEPTIONS = ROOT / "tools" / "stdlib-tests.exceptions"
DEVIATIONS = ROOT / "docs" / "migrate.md"
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
STDLIB = {"CHILDPROOF_TEST_STDLIB": "1"}
WAYS = {"as it is": {}, "forked": {"CHILDPROOF_START": "fork"}}
MOST_SECONDS = 1800

Outcomes = dict[str, str]


class Interpreter(NamedTuple):
    """A Python with its tests."""

    version: str
    path: str


def exceptions_for(version: str) -> dict[str, str]:
    """Test id to reason."""
    found = {}
    known = DEVIATIONS.read_text()
    for line in EXCEPTIONS.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        test, versions, deviation, reason = (part.strip() for part in line.split("|"))
        if f'id="{deviation}"' not in known or test.rpartition(".")[2] not in known:
            raise SystemExit(f"{EXCEPTIONS.name}: docs/migrate.md has no deviation {deviation} that cites {test}")
        if version in versions.split():
            found[test] = reason
    return found


def ask(path: str) -> Interpreter | None:
    """The interpreter at `path`, if it is one and has the tests."""
    code = (
        "import ensurepip, sys, venv, test.test_subprocess, test.test_asyncio.test_subprocess\n"
        "print('%d.%d' % sys.version_info[:2])"
    )
    try:
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=120)
    except OSError:
        return None
    return Interpreter(done.stdout.strip(), path) if done.returncode == 0 else None


def interpreters() -> list[Interpreter]:
    """One of each version: the machine's own, of PATH, of pyenv."""
    base = f"{sys.base_prefix}/bin/python{OWN}"
    pyenv = Path.home() / ".pyenv" / "versions"
    paths = [base, *(f"python{version}" for version in VERSIONS)]
    paths += [str(path) for version in VERSIONS for path in sorted(pyenv.glob(f"{version}.*/bin/python3"))]
    found: dict[str, Interpreter] = {}
    for path in paths:
        interpreter = ask(path)
        if interpreter is not None and interpreter.version in VERSIONS:
            found.setdefault(interpreter.version, interpreter)
    return [found[version] for version in VERSIONS if version in found]


def prepare(interpreter: Interpreter) -> str:
    """A virtual environment with this checkout; its python."""
    folder = BUILD / interpreter.version
    subprocess.run([interpreter.path, "-m", "venv", "--clear", folder], check=True)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-script-location"]
    subprocess.run([*install, str(ROOT)], check=True)
    return python


def run(python: str, variables: dict[str, str]) -> Outcomes:
    """The outcome of each test."""
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder, "report.json"), Path(folder, "log")
        with log.open("wb") as file:
            done = subprocess.run(
                [python, str(ROOT / "tools" / "stdlib_tests_runner.py"), str(report)],
                cwd=folder,
                env={**os.environ, **variables},
                stdout=file,
                stderr=file,
                timeout=MOST_SECONDS,
            )
        if done.returncode != 0 or not report.exists():
            sys.stdout.write("\n".join(log.read_text(errors="replace").splitlines()[-60:]) + "\n")
            raise SystemExit(f"{python}: the tests did not come to an end: {done.returncode}")
        outcomes: Outcomes = json.loads(report.read_text())
        return outcomes


def complaints(outcomes: Outcomes, baseline: Outcomes, excepted: dict[str, str]) -> list[str]:
    """What is wrong with `outcomes`."""
    wrong = []
    for test, outcome in outcomes.items():
        if outcome.startswith("failed") and test not in excepted:
            wrong.append(f"{test} {outcome}")
        if outcome.startswith("skipped") and not baseline.get(test, "").startswith("skipped"):
            wrong.append(f"{test} is skipped with the drop-in only: {outcome}")
    wrong += [
        f"{test} is an exception, and yet: {outcomes.get(test, 'there is no such test')}"
        for test in excepted
        if not outcomes.get(test, "").startswith("failed")
    ]
    if outcomes.keys() != baseline.keys():
        wrong.append(f"other tests than those of the stdlib: {sorted(outcomes.keys() ^ baseline.keys())}")
    return wrong


def check(interpreter: Interpreter) -> bool:
    """Run all ways of one interpreter; whether all is well."""
    excepted = exceptions_for(interpreter.version)
    python = prepare(interpreter)
    with ThreadPoolExecutor() as pool:  # most of the tests wait most of the time
        baseline, *found = pool.map(lambda variables: run(python, variables), [STDLIB, *WAYS.values()])
    well = True
    for way, outcomes in zip(WAYS, found, strict=True):
        wrong = complaints(outcomes, baseline, excepted)
        skipped = sum(outcome.startswith("skipped") for outcome in outcomes.values())
        passed = sum(outcome == "passed" for outcome in outcomes.values())
        print(
            f"{interpreter.version}, {way}: {passed} passed, {skipped} skipped as with the stdlib,"
            f" {len(excepted)} excepted{', WRONG:' if wrong else ''}",
            flush=True,
        )
        for text in wrong:
            print(f"  {text}", flush=True)
        well = well and not wrong
    return well


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--own", action="store_true", help="only the version that this runs on")
    args = parser.parse_args()
    found = interpreters()
    if args.own:
        found = [interpreter for interpreter in found if interpreter.version == OWN]
    if not found:
        print("no Python here has its tests; on Debian they come with libpython3-testsuite", file=sys.stderr)
        return 1
    results = [check(interpreter) for interpreter in found]  # all of them, whatever the first says
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
