"""The child until its exec: it runs no code but ours, allocates nothing, writes on its block only.

Proved in the real library, instruction by instruction, by tests/c/trace.c; and by an interposed malloc.
A child that sins on purpose must fail both proofs, or they would prove nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import variants
from forcing import of_linux

if os.uname().machine != "x86_64":
    pytest.skip("the tracer reads the registers of x86_64", allow_module_level=True)

SINS = {"malloc": 1, "errno": 2, "a global": 3}

RUNS = """
import childproof
for command in (["/bin/echo", "x"], ["/nonexistent"], "echo x"):
    childproof.run(command, timeout=60, cwd="/", umask=0o22, limits={"core": 0}, stdout="file", input="x")
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tracer and the interposer are."""
    folder = tmp_path_factory.mktemp("tools")
    variants.gcc("-O2", "-w", "-o", str(folder / "trace"), str(variants.TESTS_C / "trace.c"))
    library = folder / "nomalloc.so"
    variants.gcc("-O2", "-w", "-shared", "-fPIC", "-o", str(library), str(variants.TESTS_C / "nomalloc.c"), "-ldl")
    return folder


@pytest.fixture(scope="module", params=list(SINS.values()), ids=list(SINS))
def sinner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, str]]:
    """A build whose child does one thing that it must not; which, and the environment."""
    folder = variants.build(
        tmp_path_factory.mktemp("bad"),
        ["-O1", f"-DBAD={request.param}"],
        child_flags=["-Dcp_child_main=cp_good_child"],
        more=[variants.TESTS_C / "bad_child.c"],
    )
    return request.param, variants.environment(folder)


def _trace(tools: Path, environment: dict[str, str]) -> tuple[int, list[tuple[int, int, int]]]:
    """The tracer's verdict; and of each child: instructions, foreign ones, bytes written elsewhere."""
    done = subprocess.run(
        [tools / "trace", "_native.abi3.so", sys.executable, "-c", RUNS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = re.findall(
        r"child \d+: (\d+) instructions, (\d+) of them foreign.*; (\d+) bytes written outside", done.stdout
    )
    assert len(found) >= 3, done.stdout + done.stderr
    return done.returncode, [(int(a), int(b), int(c)) for a, b, c in found]


@pytest.mark.parametrize("start", of_linux("clone", "vfork"))
def test_the_child_runs_our_code_only_and_writes_on_its_block_only(tools: Path, start: str) -> None:
    """No instruction of libc's, no byte of the parent's memory but the block's, thread-local storage
    included.
    """
    code, children = _trace(tools, {**os.environ, "CHILDPROOF_START": start})
    assert code == 0, children
    for instructions, foreign, written in children:
        assert instructions > 300
        assert (foreign, written) == (0, 0)


def test_a_sin_is_seen(tools: Path, sinner: tuple[int, dict[str, str]]) -> None:
    """Libc's code runs for malloc and errno; errno and a global are not the block's memory. What malloc
    writes, free may put back.
    """
    sin, environment = sinner
    code, children = _trace(tools, {**environment, "CHILDPROOF_START": "clone"})
    assert code == 1, children
    for _, foreign, written in children:
        assert written > 0 or sin == SINS["malloc"]
        assert (foreign > 0) == (sin != SINS["a global"])


def _outcomes(environment: dict[str, str], tools: Path) -> str:
    script = "import childproof; print([childproof.run(['/bin/echo', 'x'], timeout=60).outcome.name for _ in range(3)])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "LD_PRELOAD": str(tools / "nomalloc.so")},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("start", [*of_linux("clone", "vfork"), "fork"])
def test_the_child_allocates_nothing(tools: Path, start: str) -> None:
    """Under a malloc that ends whoever calls it in another process than the one that loaded it."""
    assert _outcomes({**os.environ, "CHILDPROOF_START": start}, tools) == str(["EXITED"] * 3)


def test_an_allocation_is_seen(tools: Path, sinner: tuple[int, dict[str, str]]) -> None:
    """The sinner does not come as far as its exec; the others, who do not allocate, do."""
    sin, environment = sinner
    expected = "NOT_STARTED" if sin == SINS["malloc"] else "EXITED"
    assert _outcomes({**environment, "CHILDPROOF_START": "clone"}, tools) == str([expected] * 3)
