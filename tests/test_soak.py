"""tools/soak, shortened: random faults among many commands."""

from __future__ import annotations

import sys
from pathlib import Path

import childproof

SOAK = Path(__file__).parents[1] / "tools" / "soak.py"


def test_a_short_soak() -> None:
    """Every Result is right, nothing is left behind, memory is flat. Long: ``tools/soak``."""
    result = childproof.run([sys.executable, SOAK, "--commands", "2000"], timeout=300)
    assert result.code == 0, result.out
    assert result.out.endswith("all right")
