"""Faults that are injected: a part of the matrix, a parent that dies, a slow /proc, odd limits.

In a test build (variants.py), in other processes. The whole matrix: tools/fault-matrix.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import variants
from conftest import SLACK_SECONDS
from namespace_run import NAMESPACE

if os.geteuid():
    pytest.skip("a PID namespace needs root", allow_module_level=True)

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a build in which calls can be made to fail."""
    return variants.build_with_faults(tmp_path_factory.mktemp("faults"))


def _python(environment: dict[str, str], *arguments: object, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NAMESPACE, sys.executable, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.mark.parametrize(
    ("scenario", "by"), [("output", ""), ("no such program", ""), ("input, cwd", "Python"), ("files", "Python")]
)
def test_no_fault_is_hidden_or_leaks(faulty: dict[str, str], scenario: str, by: str) -> None:
    """The n-th call of each kind fails with each errno, once and for ever: the result is true or names the
    errno, and nothing is left. What goes the short way makes no call in Python.
    """
    done = _python(faulty, TESTS / "faults.py", 1000, "short", scenario)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["bad"] == []
    assert answer["points"] > 100
    origins = {row[0] for row in answer["rows"]}
    assert origins == {"C, parent", "C, child", by} - {""}


# ---- the parent dies ----

HOST = """
import os, sys
import childproof
from fault_plan import plan
childproof.run(["/bin/true"])
plan.pid, plan.origin, plan.kill_parent_at = os.getpid(), -1, int(sys.argv[1])
plan.armed = 1
childproof.run(["/bin/sh", "-c", "echo > " + sys.argv[2]], cwd="/", umask=0o22, stdin="null")
plan.armed = 0
print(plan.child_calls)
"""

BEHIND_THE_CLEARING = 2
"""The mask and the execve: from there on nothing is promised."""


@pytest.mark.parametrize("start", ["clone", "vfork", "fork"])
def test_a_child_dies_with_its_parent_at_every_step(faulty: dict[str, str], tmp_path: Path, start: str) -> None:
    """The parent is killed with SIGKILL before each system call of the child, up to the one that clears
    PDEATHSIG: the program is never run.
    """
    environment = {**faulty, "CHILDPROOF_START": start}

    def survives(nth: int) -> bool:
        """Whether the program ran, though the parent was dead before the child's n-th call."""
        mark = tmp_path / f"{start}-{nth}"
        # No namespace: its first process would end the rest.
        host = subprocess.run(
            [sys.executable, "-c", HOST, str(nth), str(mark)],
            env=environment,
            stdout=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        assert host.returncode == -9
        time.sleep(0.2)
        return mark.exists()

    mark = tmp_path / "whole"
    whole = subprocess.run(
        [sys.executable, "-c", HOST, "0", str(mark)], env=environment, stdout=subprocess.PIPE, timeout=60, check=True
    )
    assert mark.exists()
    calls = int(whole.stdout)
    assert calls > 8
    assert [nth for nth in range(1, calls - BEHIND_THE_CLEARING + 1) if survives(nth)] == []


# ---- a slow /proc ----

SLOW = """
import json, os, sys, time
import childproof
from fault_plan import plan
childproof.run("sleep 0.1 & sleep 600", timeout=0.05)
plan.pid, plan.origin, plan.slow_names_s = os.getpid(), -1, 60
plan.armed = 1
began = time.monotonic()
result = eval(sys.argv[1])
print(json.dumps([time.monotonic() - began, result.outcome.name, len(result.held), len(result.survivors)]), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("call", "bound", "outcome"),
    [
        ("childproof.run('setsid sleep 600 & sleep 600', timeout=0.3)", 0.3, "TIMED_OUT"),
        ("childproof.run('sleep 600 & echo x', linger=0.3)", 0.3, "EXITED"),
        ("childproof.run('setsid sleep 600 & echo x', linger=0.3, leftovers='kill')", 0.3, "EXITED"),
    ],
    ids=["deadline", "held", "leftovers"],
)
def test_names_that_take_a_minute_do_not_delay(faulty: dict[str, str], call: str, bound: float, outcome: str) -> None:
    """Though cmdline and environ take 60 s to open, as under a held mmap lock, `run` is back by its bound."""
    done = _python(faulty, "-c", SLOW, call, seconds=120)
    assert done.returncode == 0, done.stderr
    took, name, held, survivors = json.loads(done.stdout)
    assert took < bound + 1 + SLACK_SECONDS
    assert (name, survivors) == (outcome, 0)
    assert held == ("leftovers" not in call and "timeout" not in call)


# ---- limits ----

LIMITS = """
import os, sys
import childproof
from fault_plan import plan
null = os.open("/dev/null", os.O_RDONLY)
for fd in (7, 300, 1500):
    os.dup2(null, fd)
plan.pid, plan.origin, plan.nofile = os.getpid(), -1, int(sys.argv[1])
plan.armed = 1
result = childproof.run([sys.executable, "-S", "-E", sys.argv[2], "fds"], timeout=120)
plan.armed = 0
print([int(line.split()[0]) for line in result.out.splitlines() if "/fd" not in line.split()[1]], result.error or "")
"""


@pytest.mark.parametrize("closing", ["close_range", "proc", "rlimit"])
@pytest.mark.parametrize("limit", [16, 1 << 30, (1 << 64) - 1], ids=["16", "1 G", "infinity"])
def test_whatever_getrlimit_says_the_child_has_three(faulty: dict[str, str], closing: str, limit: int) -> None:
    """A limit below what is open, of 1 G, and of infinity, as the spawner's own getrlimit is told."""
    environment = {**faulty, "CHILDPROOF_CLOSE_FDS": closing}
    done = _python(environment, "-c", LIMITS, limit, TESTS / "children.py")
    assert done.stdout.strip() == "[0, 1, 2]", done.stdout + done.stderr
