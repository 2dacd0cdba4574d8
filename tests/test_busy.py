"""Scripts that were just written, while other threads fork: "Text file busy"."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import childproof

THREADS = 20
SCRIPTS = int(os.environ.get("CHILDPROOF_BUSY_SCRIPTS", "40"))
"""For each thread; 1,000 in tools/nightly."""


def test_a_script_that_was_just_written_runs(tmp_path: Path) -> None:
    """Of the scripts that 20 threads write and run at once none fails."""

    def write_and_run(thread: int) -> list[object]:
        failures: list[object] = []
        for number in range(SCRIPTS):
            path = tmp_path / f"{thread}-{number}"
            path.write_text(f"#!/bin/sh\nexit {number % 100}\n")
            path.chmod(0o700)
            result = childproof.run([path], timeout=120)
            if result.code != number % 100 or result.outcome is not childproof.Outcome.EXITED:
                failures.append(result)
            path.unlink()
        return failures

    with ThreadPoolExecutor(THREADS) as pool:
        failures = [failure for found in pool.map(write_and_run, range(THREADS)) for failure in found]
    assert failures == []
