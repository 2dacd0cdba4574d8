"""Runs one of the programs that try thousands of points, in a PID namespace of its own.

``namespace_run.py faults|interrupts ARGUMENT...``
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import variants

TESTS = Path(__file__).parent

OUTER = Path("/proc/self/ns/pid")
NAMESPACE = [
    "env", f"CHILDPROOF_OUTER_NAMESPACE={os.readlink(OUTER) if OUTER.exists() else 'hidden'}",
    "unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL",
    "sh", "-c", '"$@"; exit $?', "sh",
]  # fmt: skip
"""What a command is put behind to have one. The shell, as its first process, reaps orphans."""


def run(program: str, arguments: list[str], build: Path) -> str:
    """What it printed; the test build that faults need is made in `build`."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    if program == "faults":
        environment = variants.build_with_faults(build)
    done = subprocess.run(
        [*NAMESPACE, sys.executable, str(TESTS / f"{program}.py"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("a PID namespace needs root")
    with tempfile.TemporaryDirectory() as folder:
        print(run(sys.argv[1], sys.argv[2:], Path(folder)), end="")
