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
        ("lines", 1, "output", 250),
        ("lines", 1, "fails", 250),
        ("lines", 9, "deadline", 60),
        ("lines", 9, "leftovers held", 60),
        ("lines", 1, "supervised", 250),
        ("lines", 3, "contained", 60),
        ("memory", 1, "output", 80),
        ("memory", 1, "fails", 80),
        ("memory", 9, "deadline", 15),
        ("memory", 9, "leftovers held", 15),
    ],
)
def test_nothing_leaks(kind: str, stride: int, scenario: str, least: int) -> None:
    """After an exception at every (or every 9th) point: no descriptor, child or process is left."""
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
