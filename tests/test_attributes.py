"""What the child changes about itself: ids, limits, umask, niceness, descriptors; and how it was made."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import Outcome, _spawner
from conftest import program
from forcing import every_way, linux_build  # noqa: F401  # one is a fixture

NAMES = sorted(name[7:].lower() for name in dir(resource) if name.startswith("RLIMIT_"))
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


def tell(expression: str, **options: Any) -> Any:
    """What `expression` gives in the child, which has imported os and resource."""
    code = f"import json, os, resource; print(json.dumps({expression}))"
    result = childproof.run([sys.executable, "-S", "-E", "-c", code], timeout=60, **options)
    assert result.ok, result
    return json.loads(result.out)


IDS = ["grep", "-E", "^(Uid|Gid|Groups):", "/proc/self/status"]


def ids(**options: Any) -> list[list[int]]:
    """Real, effective and saved user and group id of the child, and its supplementary groups."""
    result = childproof.run(IDS, **options)
    assert result.ok, result
    uids, gids, groups = [list(map(int, line.split()[1:])) for line in result.out.splitlines()]
    return [uids[:3], gids[:3], sorted(groups)]


# ---- ids ----


@as_root
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"user": 65534}, [[65534] * 3, [0] * 3, [5, 7]]),
        ({"group": 65534}, [[0] * 3, [65534] * 3, [5, 7]]),
        ({"extra_groups": [11, 12]}, [[0] * 3, [0] * 3, [11, 12]]),
        ({"extra_groups": []}, [[0] * 3, [0] * 3, []]),
        ({"user": "nobody", "group": 12345, "extra_groups": ()}, [[65534] * 3, [12345] * 3, []]),
        ({"user": 4294967294, "group": "daemon", "extra_groups": ["tty", 1 << 20]}, None),
    ],
    ids=["user", "group", "groups", "no groups", "all", "largest"],
)
def test_ids(options: dict[str, Any], expected: Any) -> None:
    """Real, effective and saved id change, and the groups only if they are given: none is not "not given"."""
    before = os.getgroups()
    os.setgroups([5, 7])
    try:
        found = ids(**options)
    finally:
        os.setgroups(before)
    if expected is None:
        import grp

        daemon, tty = grp.getgrnam("daemon").gr_gid, grp.getgrnam("tty").gr_gid
        expected = [[4294967294] * 3, [daemon] * 3, sorted([tty, 1 << 20])]
    assert found == expected


@as_root
def test_ids_are_changed_in_a_copy_only() -> None:
    """A child that becomes somebody else never runs on our memory; the parent's ids do not change."""
    before = os.getresuid(), os.getresgid(), os.getgroups()
    result = childproof.run(["true"], user=65534, group=65534, extra_groups=[])
    assert result.ok
    assert result.spawned is not None
    assert result.spawned.start == "fork"
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


@as_root
def test_ids_that_may_not_be_changed() -> None:
    """Somebody who may not gets the stage and the errno, and no command runs."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        result = childproof.run(["true"], user=0)
        assert result.error is not None
        os.write(write, f"{result.code} {result.outcome.name} {result.error.stage} {result.error.errno}".encode())
        os._exit(0)
    os.close(write)
    with open(read) as answer:
        assert answer.read() == "125 NOT_STARTED ids 1"
    os.waitpid(pid, 0)


# ---- umask, niceness, privileges, directory ----


@pytest.mark.usefixtures("every_way")
def test_umask(tmp_path: Path) -> None:
    """The child's mask is what was asked for, the parent's is untouched."""
    result = childproof.run(f"umask; touch {tmp_path}/new", umask=0o027)
    assert result.out == "0027"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    now = os.umask(0o022)
    os.umask(now)
    assert now != 0o027


@pytest.mark.usefixtures("every_way")
def test_nice() -> None:
    """It is added to the niceness, as nice(2) does."""
    mine = os.nice(0)
    assert tell("os.nice(0)", nice=5) == min(mine + 5, 19)
    assert os.nice(0) == mine


@linux_build
@pytest.mark.usefixtures("every_way")
def test_no_new_privs() -> None:
    """The kernel's flag is set in the child, and in it only."""
    status = "[line.split()[1] for line in open('/proc/self/status') if line.startswith('NoNewPrivs')]"
    assert tell(status, no_new_privs=True) == ["1"]
    assert tell(status) == ["0"]


@pytest.mark.usefixtures("every_way")
def test_directory_by_descriptor(tmp_path: Path) -> None:
    """The directory may be the descriptor of a directory, which needs no path that leads there."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert childproof.run("pwd", cwd=fd).out == str(tmp_path)
        moved = tmp_path.with_name("moved")
        tmp_path.rename(moved)
        assert childproof.run("pwd -P", cwd=fd).out == str(moved)
        missing = childproof.run(["./missing"], cwd=fd)
        assert (missing.code, missing.outcome) == (127, Outcome.NOT_STARTED)
        moved.rename(tmp_path)
    finally:
        os.close(fd)


# ---- limits ----


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("every_way")
def test_every_limit(name: str) -> None:
    """Soft and hard limit are set in the child, and not in the parent."""
    number = getattr(resource, f"RLIMIT_{name.upper()}")
    before = resource.getrlimit(number)
    # Little enough to be lowered to by anybody, and enough for an interpreter.
    value = 1 << 33 if before[1] == resource.RLIM_INFINITY else before[1]
    soft = value - 1 if value else 0
    asked = f"resource.getrlimit(resource.RLIMIT_{name.upper()})"
    assert tell(asked, limits={name: (soft, value)}) == [soft, value]
    assert resource.getrlimit(number) == before


def test_a_limit_of_one_value_is_soft_and_hard() -> None:
    """One value is both; -1, None and inf mean infinity."""
    assert tell("resource.getrlimit(resource.RLIMIT_CORE)", limits={"core": 0}) == [0, 0]
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard == resource.RLIM_INFINITY:
        for endless in (-1, None, float("inf")):
            assert tell("resource.getrlimit(resource.RLIMIT_CPU)", limits={"cpu": endless}) == [-1, -1]


@pytest.mark.usefixtures("every_way")
def test_a_limit_of_descriptors_below_what_is_open() -> None:
    """It is set when all is closed, so the number of the host's descriptors does not matter."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
    try:
        result = childproof.run("ulimit -n", limits={"nofile": 20})
    finally:
        for fd in fds:
            os.close(fd)
    assert result.out == "20"


def test_a_limit_that_is_enforced() -> None:
    """CPU time: the command dies of SIGXCPU, which is its own death, not a timeout."""
    result = childproof.run("while :; do :; done", limits={"cpu": (1, 2)}, timeout=600)
    assert result.outcome is Outcome.SIGNALED
    assert result.code in (-24, -9)


@as_root
def test_a_limit_that_may_not_be_raised() -> None:
    """The stage is limits, the errno the kernel's."""
    beyond = int(Path("/proc/sys/fs/nr_open").read_text()) + 1
    result = childproof.run(["true"], limits={"nofile": beyond})
    assert (result.code, result.outcome) == (125, Outcome.NOT_STARTED)
    assert result.error is not None
    assert (result.error.stage, result.error.errno) == ("limits", 1)


# ---- passed descriptors ----


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """Some descriptors that are close-on-exec, some of them high."""
    made = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    made += [fcntl.fcntl(made[0], fcntl.F_DUPFD_CLOEXEC, 1000 + 7 * i) for i in range(40)]
    yield made
    for fd in made:
        os.close(fd)


@pytest.mark.usefixtures("every_way")
def test_passed_descriptors(fds: list[int]) -> None:
    """The child has those under their numbers, and 0, 1, 2, and nothing else; here they stay close-on-exec."""
    wanted = [fds[1], fds[-1], *fds[10:20], 1]
    result = childproof.run(program("fds"), pass_fds=wanted)
    seen = [line.split(maxsplit=1) for line in result.out.splitlines()]
    own = [int(fd) for fd, target in seen if "/proc/" not in target]  # the listing's own descriptor
    assert own == sorted({0, 1, 2, *wanted}), result
    assert not any(os.get_inheritable(fd) for fd in fds)


@pytest.mark.parametrize("options", [{}, {"die_with_parent": True}, {"contain": "auto"}], ids=str)
def test_a_given_descriptor_that_is_closed(fds: list[int], options: dict[str, Any]) -> None:
    """It is refused before a descriptor of ours could take its number and go to the child."""
    closed = os.dup(fds[0])
    os.close(closed)
    with pytest.raises(ValueError, match=f"pass_fds has a descriptor that is not open: {closed}"):
        childproof.run(program("fds"), pass_fds=[closed], **options)
    if options:
        for name in ("stdin", "stdout", "stderr"):
            arguments: dict[str, Any] = {name: closed, **options}
            with pytest.raises(ValueError, match=f"{name} has a descriptor that is not open: {closed}"):
                childproof.run(program("fds"), **arguments)


# ---- how it was made ----


@pytest.mark.parametrize("start", ["clone", "vfork", "fork"])
@pytest.mark.parametrize("closing", ["close_range", "proc", "rlimit"])
def test_how_it_was_made(start: Any, closing: Any) -> None:
    """What is asked for is what is used, and the Result says so, with the number that was closed."""
    if _spawner.PORTABLE and (start, closing) != ("fork", "rlimit"):
        result = childproof.run(["true"], start=start, closing=closing)
        assert (result.code, result.outcome) == (125, Outcome.NOT_STARTED)
        return
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
    try:
        spawned = [childproof.run(["true"], start=start, closing=closing).spawned for _ in range(2)]
    finally:
        for fd in fds:
            os.close(fd)
    assert spawned[0] is not None
    assert spawned[0].start == start
    assert spawned[0].closing == closing
    assert spawned[0].exact
    closed = spawned[0].closed
    assert closed is None if closing == "close_range" else closed is not None and closed >= 10
    assert spawned[1] == spawned[0]


def test_the_option_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """CHILDPROOF_START forces what "auto" means, not what is asked for."""
    monkeypatch.setattr(_spawner, "settings", _spawner.settings._replace(start=_spawner.STARTS["fork"]))
    spawned = childproof.run(["true"]).spawned
    assert spawned is not None
    assert spawned.start == "fork"
    if not _spawner.PORTABLE:
        spawned = childproof.run(["true"], start="vfork").spawned
        assert spawned is not None
        assert spawned.start == "vfork"


def test_what_did_not_start_was_not_made() -> None:
    """`spawned` is about a child that has run."""
    assert childproof.run(["/no/such/program"]).spawned is None


# ---- what a careless spawn would hand down ----


def test_leaky_fds(tmp_path: Path) -> None:
    """Inheritable descriptors above 2 are listed with what they are; close-on-exec ones are not."""
    before = childproof.leaky_fds()
    path = tmp_path / "leak"
    leaky = os.open(path, os.O_RDWR | os.O_CREAT)
    tight = os.open(path, os.O_RDWR)
    os.set_inheritable(leaky, True)
    try:
        assert [fd for fd in childproof.leaky_fds() if fd not in before] == [(leaky, str(path))]
        careless = os.spawnv(
            os.P_WAIT, "/bin/sh", ["sh", "-c", f"[ -e /proc/self/fd/{leaky} ] && [ ! -e /proc/self/fd/{tight} ]"]
        )
        assert careless == 0, "what was listed is not what leaks"
        assert childproof.run(f"[ ! -e /proc/self/fd/{leaky} ]").ok
    finally:
        os.close(leaky)
        os.close(tight)
