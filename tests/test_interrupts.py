"""KeyboardInterrupt at executed lines and MemoryError at allocations; all of them: tools/check-interrupts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from namespace_run import NAMESPACE

if os.geteuid():
    pytest.skip("a PID namespace needs root", allow_module_level=True)

PROGRAM = Path(__file__).with_name("interrupts.py")


@pytest.mark.parametrize(
    ("kind", "stride", "scenario", "least"),
    [
        ("lines", 3, "output", 80),
        ("lines", 3, "fails", 80),
        ("lines", 40, "deadline", 15),
        ("lines", 7, "supervised", 40),
        ("lines", 15, "contained", 15),
        ("memory", 3, "output", 25),
        ("memory", 3, "fails", 25),
        ("memory", 30, "deadline", 4),
        ("memory", 30, "leftovers held", 4),
    ],
)
def test_nothing_leaks(kind: str, stride: int, scenario: str, least: int) -> None:
    """After an exception at every n-th point nothing is left; tools/check-interrupts has all points."""
    if kind == "memory":
        pytest.importorskip("_testcapi")
    done = subprocess.run(
        [*NAMESPACE, sys.executable, str(PROGRAM), kind, str(stride), scenario],
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["bad"] == []
    assert answer["points"][scenario] >= least
