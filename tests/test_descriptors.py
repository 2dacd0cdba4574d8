"""The child gets 0, 1, 2 and nothing else, whatever the host has open or closed."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, combinations

import pytest

import childproof
from childproof import Outcome, _spawner
from conftest import descriptors, program
from forcing import WAYS, every_way, linux_build  # noqa: F401  # one is a fixture


@pytest.fixture
def many_descriptors() -> Iterator[list[int]]:
    """300 of them above 1024, inheritable."""
    base = os.open("/dev/null", os.O_RDONLY)
    fds = [1100 + 3 * i for i in range(300)]
    for fd in fds:
        os.dup2(base, fd, inheritable=True)
    yield fds
    for fd in (*fds, base):
        os.close(fd)


@pytest.mark.usefixtures("every_way", "many_descriptors")
def test_nothing_above_2_reaches_the_child() -> None:
    """The exact set, seen in the child."""
    result = childproof.run(program("fds"))
    seen = [line.split(maxsplit=1) for line in result.out.splitlines()]
    own = [fd for fd, target in seen if "/proc/" not in target]  # the listing's own descriptor
    assert own == ["0", "1", "2"], result


SUBSETS = list(chain.from_iterable(combinations((0, 1, 2), n) for n in range(4)))

CLOSED = """
import os, sys
closed = {closed!r}
keep = os.dup(2 if 2 not in closed else 1 if 1 not in closed else os.open("/dev/null", os.O_RDWR))
answer = os.open(sys.argv[1], os.O_WRONLY)
import childproof
from childproof import _spawner
_spawner.settings = _spawner.settings._replace(**{way!r})
for fd in closed:
    os.close(fd)

def is_open(fd):
    try:
        return os.fstat(fd) is not None
    except OSError:
        return False

def descriptors():
    return list(filter(is_open, range(256)))

before = descriptors()
code, out, err = childproof.run({program!r}, "data")
assert code == 0, (code, out, err)
lines = [line for line in out.splitlines() if "/proc/" not in line]
assert [line.split()[0] for line in lines] == ["0", "1", "2"], lines
assert all("pipe:" in line for line in lines), lines
result = childproof.run({program!r}, stdin="inherit", stderr="inherit")
assert result.code == 0, result
lines = [line for line in result.out.splitlines() if "/proc/" not in line]
expected = [str(fd) for fd in (0, 1, 2) if fd == 1 or fd not in closed]
assert [line.split()[0] for line in lines] == expected, (lines, "a hole must stay a hole")
assert descriptors() == before
os.write(answer, b"fine")
"""


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("closed", SUBSETS, ids=str)
def test_the_host_may_have_0_1_2_closed(closed: tuple[int, ...], way: dict[str, int], tmp_path: object) -> None:
    """In all 8 subsets: the pipes arrive where they should, and the host's holes stay holes."""
    answer = f"{tmp_path}/answer"
    open(answer, "wb").close()
    code = CLOSED.format(closed=closed, way=way, program=program("fds"))
    run = subprocess.run([sys.executable, "-c", code, answer], capture_output=True, text=True, timeout=60, check=False)
    with open(answer) as file:
        assert file.read() == "fine", run.stderr


@pytest.mark.usefixtures("every_way")
def test_failures_to_start_name_stage_path_and_reason(tmp_path: object) -> None:
    """127, 126, 125; in `error` and in err."""
    for program_name, cwd, code, stage, name, text in (
        ("no-such-program", None, 127, "exec", "no-such-program", "No such file"),
        ("/etc/passwd", None, 126, "exec", "/etc/passwd", "Permission denied"),
        ("true", f"{tmp_path}/none", 125, "chdir", f"{tmp_path}/none", "No such file"),
    ):
        result = childproof.run([program_name], cwd=cwd)
        assert result.error is not None
        assert (result.code, result.outcome) == (code, Outcome.NOT_STARTED)
        assert result.error.stage == stage
        assert result.error.filename == name
        for word in (stage, name, text):
            assert word in str(result.error)
            assert word in result.err


@pytest.fixture
def no_holes() -> Iterator[int]:
    """Every number below the one that is given is in use."""
    highest = max(descriptors())
    fillers = [os.dup(0)]
    while fillers[-1] < highest:
        fillers.append(os.dup(0))
    yield fillers[-1] + 1
    for fd in fillers:
        os.close(fd)


@pytest.mark.usefixtures("every_way")
def test_too_few_descriptors(no_holes: int) -> None:
    """With room for 0, 1, 2, … more: EMFILE is reported, nothing leaks, and with enough it runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    outcomes = []
    for room in range(16):
        resource.setrlimit(resource.RLIMIT_NOFILE, (no_holes + room, hard))
        try:
            result = childproof.run(["true"], "input")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        outcomes.append(result.outcome)
        if result.outcome is Outcome.NOT_STARTED:
            assert result.code == 125
            assert result.error is not None
            assert result.error.stage in ("pipe", "fork", "open", "dup", "close_fds", "supervisor", "cgroup")
            assert "Too many open files" in str(result.error)
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome is Outcome.EXITED)
    assert outcomes[0] is Outcome.NOT_STARTED
    assert outcomes[-1] is Outcome.EXITED


@linux_build
def test_the_rung_is_the_one_that_was_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forcing is visible, so that no test of a rung tests another."""
    from childproof._spawner import Child

    seen = []
    settle = Child.settle

    def spy(child: Child, dead: bool = False) -> int:
        state = settle(child, dead)
        if dead:
            seen.append((child._c.start, child._c.closing))
        return state

    monkeypatch.setattr(Child, "settle", spy)
    for start in ("clone", "vfork", "fork"):
        for closing in (
            ("close_range", "proc", "rlimit") if os.path.exists("/proc/self/fd") else ("close_range", "rlimit")
        ):
            wanted = _spawner.STARTS[start], _spawner.CLOSINGS[closing]
            monkeypatch.setattr(_spawner, "settings", _spawner.Settings(*wanted, 0))
            childproof.run(["true"])
            assert seen[-1] == wanted
