"""Descriptor limits of the host, and many descriptors."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from forcing import of_linux

CHILDREN = Path(__file__).with_name("children.py")

HOST = """
import os, resource, sys
import childproof
null = os.open("/dev/null", os.O_RDONLY)
{prepare}
result = childproof.run([sys.executable, "-S", "-E", sys.argv[1], "fds"], timeout=120)
print([int(line.split()[0]) for line in result.out.splitlines() if "/fd" not in line.split()[1]], result.error or "")
"""

LOWERED = """
for fd in (7, 300, 900):
    os.dup2(null, fd)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
"""

MANY = """
for fd in range(10, 15010):
    os.dup2(null, fd)
"""


def _descriptors(prepare: str, closing: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", HOST.format(prepare=prepare), CHILDREN],
        env={**os.environ, "CHILDPROOF_CLOSE_FDS": closing},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout.strip() + done.stderr


@pytest.mark.parametrize("closing", [*of_linux("close_range", "proc"), "rlimit"])
def test_a_limit_lowered_below_what_is_open(closing: str) -> None:
    """Both limits are 40 and 300 and 900 are open: the child has 0, 1, 2 and nothing else."""
    assert _descriptors(LOWERED, closing) == "[0, 1, 2]"


@pytest.mark.parametrize("closing", [*of_linux("close_range", "proc"), "rlimit"])
def test_15000_descriptors(closing: str) -> None:
    """They are open and inheritable; the child has 0, 1, 2 and nothing else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 15100:
        if hard != resource.RLIM_INFINITY and hard < 15100:
            pytest.skip(f"the hard limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (15100, hard))
    try:
        assert _descriptors(MANY, closing) == "[0, 1, 2]"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
