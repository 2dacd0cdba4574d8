"""What the stdlib gets wrong, each with its issue in docs/migrate.md, comes out right.

With ``CHILDPROOF_TEST_STDLIB=1`` the same tests run on the stdlib's module, to see them fail there.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import resource
import signal
import subprocess as stdlib
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import subprocess as dropin
from childproof._spawner import PORTABLE, has_pidfd
from conftest import SLACK_SECONDS, is_alive, stop, wait_until

STDLIB = os.environ.get("CHILDPROOF_TEST_STDLIB") == "1"

subprocess: Any = stdlib if STDLIB else dropin

HELD_SECONDS = 60
"""How long what is left behind holds the pipes: longer than any bound here, and no more, since on the
stdlib the tests wait for it."""


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    """That output is cut is said by a warning, which is tested elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", childproof.OutputCut)
        yield


def _took_less_than(seconds: float, began: float) -> bool:
    return time.monotonic() - began < seconds + SLACK_SECONDS


@pytest.mark.parametrize("options", [{"stdout": -1}, {"stdout": -1, "stderr": -1}, {"stdout": -1, "timeout": 600}])
def test_communicate_does_not_wait_for_a_background_process(options: dict[str, Any]) -> None:
    """bpo-31447: the child has ended, and only a process that it started holds the pipe."""
    began = time.monotonic()
    done = subprocess.run(f"sleep {HELD_SECONDS} & echo $!", shell=True, **options)
    assert _took_less_than(0.5, began)
    pid = int(done.stdout)
    assert is_alive(pid)
    assert [(holder.pid, holder.streams[0]) for holder in done.held] == [(pid, "stdout")]
    stop(pid)


def test_a_background_process_that_holds_stdin_does_not_keep_the_input() -> None:
    """What nobody reads is not waited for once the child has ended."""
    began = time.monotonic()
    command = f"exec 3<&0; sleep {HELD_SECONDS} <&3 >&- 2>&- & exit 0"
    subprocess.run(command, shell=True, input=b"x" * 1_000_000)
    assert _took_less_than(0.5, began)
    for pid in _sleepers():
        stop(pid)


def _sleepers() -> list[int]:
    from childproof._processes import procfs

    return [p.pid for p in procfs.table().values() if p.name == "sleep" and procfs.has_mark(p.pid, _token())]


def _token() -> bytes:
    return os.environb[b"CHILDPROOF_RUN"]


def test_a_timeout_ends_the_shell_s_grandchild_too(tmp_path: Path) -> None:
    """bpo-37424: `run` killed the shell only, and its command went on; and it is back at once."""
    pid_file = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(stdlib.TimeoutExpired):
        subprocess.run(
            f"sleep {HELD_SECONDS} & echo $! >{pid_file}; wait; echo end", shell=True, stdout=-1, stderr=-1, timeout=1
        )
    assert _took_less_than(1, began)
    pid = int(pid_file.read_text())
    assert wait_until(lambda: not is_alive(pid), SLACK_SECONDS)


def test_asyncio_s_wait_after_kill_does_not_wait_for_a_holder() -> None:
    """gh-119710: the process has ended, its pipe has not."""

    async def main() -> tuple[int, float]:
        process = await asyncio.create_subprocess_shell(f"sleep {HELD_SECONDS}; true", stdout=asyncio.subprocess.PIPE)
        await asyncio.sleep(0.2)
        began = time.monotonic()
        process.kill()
        code = await process.wait()
        seconds = time.monotonic() - began
        await asyncio.sleep(0.1 + SLACK_SECONDS / 2)  # then it lets go of the pipe, before the loop is closed
        return code, seconds

    if not STDLIB:
        childproof.patch(linger=0.1)
    try:
        code, seconds = asyncio.run(main())
    finally:
        childproof.unpatch()
    assert code == -signal.SIGKILL
    assert seconds < SLACK_SECONDS
    for pid in _sleepers():
        stop(pid)


def test_the_status_is_true_though_sigchld_is_ignored() -> None:
    """bpo-15756: it was 0 for whatever the child did. Without the kernel's help it is 125, never 0."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", childproof.StatusLost)
            assert subprocess.run(["sh", "-c", "exit 3"]).returncode in (3, 125)
            assert subprocess.run(["sh", "-c", "kill -9 $$"], timeout=600).returncode in (-9, 125)
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.skipif(not STDLIB and PORTABLE, reason="no pidfd tells its own status, which is lost")
def test_the_child_s_own_children_do_not_get_an_ignored_sigchld() -> None:
    """It survives exec: the child would lose the status of each of its own children."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        code = "import os; p = os.spawnlp(os.P_NOWAIT, 'sh', 'sh', '-c', 'exit 3'); print(os.waitpid(p, 0)[1] >> 8)"
        out = subprocess.Popen([sys.executable, "-c", code], stdout=-1).communicate()[0]
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert out == b"3\n"


@pytest.fixture
def stuck_program(tmp_path: Path) -> Iterator[Path]:
    """A program whose exec blocks in open(2) for fs.lease-break-time (45 s), as on a dead disk."""
    path = tmp_path / "stuck"
    path.write_bytes(Path("/bin/true").read_bytes())
    path.chmod(0o755)
    fd = os.open(path, os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGWINCH)  # not SIGIO, which kills
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    yield path
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    os.close(fd)


@pytest.mark.parametrize("name", ["run", "call"])
def test_the_timeout_covers_a_stuck_exec(stuck_program: Path, name: str) -> None:
    """gh-103911: the constructor waited for it without a bound."""
    began = time.monotonic()
    with pytest.raises(stdlib.TimeoutExpired, match="1 seconds"):
        getattr(subprocess, name)([str(stuck_program)], timeout=1)
    assert _took_less_than(1, began)


def test_the_output_of_a_timeout_is_text_in_text_mode() -> None:
    """gh-87597: it was bytes. A character that was cut in the middle is left out."""
    with pytest.raises(stdlib.TimeoutExpired) as caught:
        subprocess.run(
            ["sh", "-c", r"printf 'a\303\251b\303'; exec sleep 600"], stdout=-1, stderr=-1, encoding="utf-8", timeout=1
        )
    error: Any = caught.value
    assert (error.output, error.stdout, error.stderr) == ("aéb", "aéb", None)


def test_the_timeout_of_an_error_is_what_was_asked_for() -> None:
    """Where the pipe ends before the child does, it was what remained of it, and the output was gone."""
    with pytest.raises(stdlib.TimeoutExpired) as caught:
        subprocess.run("echo out; exec >&-; exec sleep 600", shell=True, stdout=-1, timeout=1)
    assert (caught.value.timeout, caught.value.output) == (1, b"out\n")


@pytest.mark.skipif(not STDLIB and not has_pidfd(), reason="without pidfds a wait looks now and then")
def test_waiting_with_a_timeout_does_not_poll() -> None:
    """gh-83069: 20 wake-ups a second. Counted as voluntary context switches of the waiting thread."""
    with subprocess.Popen(["sleep", "600"]) as process:
        before = resource.getrusage(resource.RUSAGE_THREAD)
        with pytest.raises(stdlib.TimeoutExpired):
            process.wait(timeout=5)
        after = resource.getrusage(resource.RUSAGE_THREAD)
        process.kill()
    assert after.ru_nvcsw - before.ru_nvcsw < 20
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.01


def test_input_of_wide_items_is_written_whole() -> None:
    """gh-134453: a memoryview of doubles was taken to be an eighth of its size."""
    data = array.array("d", range(100_000))
    assert subprocess.run(["cat"], input=memoryview(data), stdout=-1).stdout == data.tobytes()


def test_a_second_communicate_writes_the_rest_of_the_input() -> None:
    """gh-141473: what a first one with a timeout had not written was never written."""
    data = b"x" * 1_000_000
    with subprocess.Popen(["sh", "-c", "sleep 1; exec cat"], stdin=-1, stdout=-1) as process:
        with pytest.raises(stdlib.TimeoutExpired):
            process.communicate(data, timeout=0.2)
        try:
            assert process.communicate(timeout=SLACK_SECONDS + 5)[0] == data
        finally:
            process.kill()


HOST = """\
import errno, os, resource, sys
import pyseccomp
from childproof import subprocess as dropin
import subprocess as stdlib

module = stdlib if sys.argv[1] == "1" else dropin
fd = os.dup2(os.open("/dev/zero", os.O_RDONLY), 900, inheritable=True)
hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "close_range")
rules.load()
assert not os.path.exists("/proc/self")
code = "import os\\ntry: os.fstat(900)\\nexcept OSError: raise SystemExit(0)\\nraise SystemExit(9)"
sys.exit(module.call([sys.executable, "-S", "-E", "-c", code]))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="hiding /proc needs a mount namespace, so root")
def test_all_descriptors_are_closed_without_proc_and_close_range(tmp_path: Path) -> None:
    """A container hides the one and refuses the other, and the soft limit has been lowered since the
    descriptor was opened: the stdlib closes up to that.
    """
    script = tmp_path / "host.py"
    script.write_text(HOST)
    command = 'mount -t tmpfs none /proc && exec "$@"'
    done = childproof.run(
        ["unshare", "-m", "sh", "-c", command, "sh", sys.executable, str(script), "1" if STDLIB else "0"], timeout=60
    )
    assert done.code == 0, done.err
