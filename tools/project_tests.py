"""What project-tests does: each suite twice, without and with `childproof.patch`.

The source distributions come from PyPI, with the tests that are in them. Fails when a test has
another outcome when patched than without. A test that differs is run again, both ways, before it is
said to: the suites have tests that depend on the machine's load.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(tempfile.gettempdir(), "childproof-project-tests")
"""Not in this checkout, whose pytest configuration would hold for those that have none."""

MOST_SECONDS = 1800

Outcomes = dict[str, str]


class Project(NamedTuple):
    """One suite.

    Attributes:
        name, version: on PyPI.
        needs: what its tests need besides it and pytest.
        tests: what to run, relative to the unpacked source.
        options: for pytest.
        excepted: tests that a deviation in docs/migrate.md makes fail, to its anchor.

    """

    name: str
    version: str
    needs: tuple[str, ...]
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()
    excepted: dict[str, str] = {}  # noqa: RUF012  # a NamedTuple's default, which nobody changes


PROJECTS = (
    Project("sarge", "0.1.8", (), ("test_sarge.py",)),
    Project(
        "plumbum",
        "2.0.2",
        ("pytest<9", "pytest-asyncio", "pytest-cov", "pytest-mock", "pytest-timeout", "psutil", "paramiko"),
        ("tests",),
        ("-p", "no:cacheprovider"),
    ),
    Project("nox", "2026.10.20", ("coverage", "pytest-xdist", "tox", "uv"), ("tests",)),
    Project(
        "trio",
        "0.35.0",
        ("astor", "trustme", "pyOpenSSL"),
        ("src/trio/_tests/test_subprocess.py",),
        ("--run-slow",),
        # They want the returncode 0 of a process that was killed while SIGCHLD is ignored.
        {"test_wait_reapable_fails": "lost", "test_wait_reapable_fails_no_pidfd": "lost"},
    ),
    Project(
        "anyio",
        "4.16.0",
        (
            "trio",
            "psutil",
            "pytest-mock",
            "pytest-timeout",
            "trustme",
            "truststore",
            "hypothesis",
            "blockbuster",
            "exceptiongroup",
            "uvloop",
        ),
        ("tests/test_subprocesses.py",),
    ),
    Project("execnet", "2.1.2", ("pytest-timeout",), ("testing",)),
    Project("pexpect", "4.9.0", (), ("tests/test_popen_spawn.py", "tests/test_run.py")),
)


def source(project: Project) -> Path:
    """The unpacked source distribution."""
    folder = BUILD / project.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", project.name, "--dest", str(folder), f"{project.name}=={project.version}"]
    subprocess.run(command, check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


def prepare(project: Project) -> tuple[Path, str]:
    """The source, and the python of an environment with it and with this checkout."""
    unpacked = source(project)
    environment = BUILD / project.name / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = str(environment / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "pytest", *project.needs, str(unpacked), str(ROOT)], check=True)
    return unpacked, python


def outcome_of(case: ElementTree.Element) -> str:
    """Of one test in pytest's XML."""
    for name in ("failure", "error", "skipped"):
        if case.find(name) is not None:
            return "failed" if name != "skipped" else name
    return "passed"


def run(project: Project, unpacked: Path, python: str, patched: bool, chosen: list[str]) -> Outcomes:
    """The outcome of each test, of all or of those that contain one of the names `chosen`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [python, "-m", "pytest", "-q", f"--junit-xml={report}", *project.options, *project.tests]
        if patched:
            command[3:3] = ["-p", "childproof_patched"]
        if chosen:
            command += ["-k", " or ".join(sorted(set(map(bare, chosen))))]
        variables = {"PYTHONPATH": str(ROOT / "tools" / "plugin"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command,
            cwd=unpacked,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=MOST_SECONDS,
        )
        if not report.exists():
            raise SystemExit(done.stdout.decode(errors="replace"))
        cases = ElementTree.parse(report).iter("testcase")
        return {f"{case.get('classname')}::{case.get('name')}": outcome_of(case) for case in cases}


def different(without: Outcomes, patched: Outcomes) -> list[str]:
    """Tests whose outcomes differ."""
    return sorted(name for name in without.keys() | patched.keys() if without.get(name) != patched.get(name))


def bare(name: str) -> str:
    """The name of a test function."""
    return name.rpartition("::")[2].partition("[")[0]


def column(outcomes: Outcomes) -> str:
    """For people."""
    counts = Counter(outcomes.values())
    return ", ".join(f"{counts[name]} {name}" for name in ("passed", "skipped", "failed"))


def check(project: Project) -> bool:
    """Both runs of one project; whether they agree."""
    unpacked, python = prepare(project)
    without = run(project, unpacked, python, False, [])
    patched = run(project, unpacked, python, True, [])
    print(f"{project.name} {project.version}: without: {column(without)}; patched: {column(patched)}", flush=True)
    names = different(without, patched)
    agreed = [name for name in names if bare(name) in project.excepted]
    missing = project.excepted.keys() - set(map(bare, agreed))
    names = [name for name in names if name not in agreed]
    again = [run(project, unpacked, python, way, names) for way in (False, True)] if names else [{}, {}]
    unsteady = [name for name in names if again[0].get(name) == again[1].get(name)]
    for name in names + agreed:
        why = f"; excepted, docs/migrate.md#{project.excepted[bare(name)]}" if name in agreed else ""
        why += "; the same when run again" if name in unsteady else ""
        print(f"  {name}: without: {without.get(name)}, patched: {patched.get(name)}{why}", flush=True)
    for name in missing:
        print(f"  {name} is excepted, and yet the same both ways", flush=True)
    return not missing and unsteady == names and "passed" in without.values()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("projects", nargs="*", metavar="PROJECT", help=", ".join(p.name for p in PROJECTS))
    chosen = parser.parse_args().projects
    known = [project.name for project in PROJECTS]
    if wrong := [name for name in chosen if name not in known]:
        parser.error(f"there is no {', '.join(wrong)}; there are {', '.join(known)}")
    results = [check(project) for project in PROJECTS if not chosen or project.name in chosen]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
