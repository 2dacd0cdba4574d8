"""What a Result is, what it says about each way a command can end, and how it travels."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import CommandError, Outcome, Result, SpawnError, Usage
from conftest import SLACK_SECONDS, stop

FACTS = ("cmd", "pid", "outcome", "duration", "usage", "truncated", "held", "killed", "survivors")


# ---- the triple ----


def test_a_result_is_a_tuple_of_three() -> None:
    """It unpacks, compares and hashes as (code, out, err), and is nothing longer."""
    result = childproof.run("echo a; echo b >&2; exit 4")
    code, out, err = result
    assert isinstance(result, tuple)
    assert (code, out, err) == result == (4, "a", "b") == (result.code, result.out, result.err)
    assert len(result) == 3
    assert hash(result) == hash((4, "a", "b"))


def test_what_else_it_has() -> None:
    """The attributes of an ordinary command."""
    cmd = ["sh", "-c", "echo $$"]
    result = childproof.run(cmd)
    assert result.cmd is cmd
    assert result.pid == int(result.out)
    assert result.outcome is Outcome.EXITED
    assert result.ok
    assert 0 < result.duration < SLACK_SECONDS
    assert result.truncated is False
    assert (result.held, result.killed, result.survivors, result.error) == ((), (), (), None)
    pattern = f"Result(code=0, out='{result.pid}', err='', outcome=EXITED, pid={result.pid}, duration=0."
    assert repr(result).startswith(pattern)


# ---- how a command can end ----


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with programs that can't be executed, each in its own way."""
    for name, mode, text in [
        ("plain", 0o644, "#!/bin/sh\n"),
        ("lost", 0o755, "#!/no/such/interpreter\n"),
        ("text", 0o755, "echo a shell would run this\n"),
        ("empty", 0o755, ""),
    ]:
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    ("cmd", "code", "outcome"),
    [
        ("exit 0", 0, Outcome.EXITED),
        ("exit 3", 3, Outcome.EXITED),
        ("exit 124", 124, Outcome.EXITED),
        ("exit 127", 127, Outcome.EXITED),
        ("exit 255", 255, Outcome.EXITED),
        ("no-such-program-in-the-shell 2>&-", 127, Outcome.EXITED),
        ("kill -9 $$", -9, Outcome.SIGNALED),
        ("kill -1 $$", -1, Outcome.SIGNALED),
        ("kill -64 $$", -64, Outcome.SIGNALED),
    ],
)
def test_a_command_that_ran(cmd: str, code: int, outcome: Outcome) -> None:
    """The code is the exit status, or the signal's number below zero; there is no error."""
    result = childproof.run(cmd)
    assert result == (code, "", "")
    assert result.outcome is outcome
    assert result.error is None
    assert result.ok is (code == 0)


@pytest.mark.parametrize(
    ("cmd", "more", "code", "stage", "number", "path"),
    [
        (["no-such-program"], {"env": {"PATH": "/no:/bin"}}, 127, "exec", errno.ENOENT, "no-such-program"),
        (["{}/missing"], {}, 127, "exec", errno.ENOENT, "{}/missing"),
        (["{}/plain"], {}, 126, "exec", errno.EACCES, "{}/plain"),
        (["plain"], {"env": {"PATH": "/no:{}:/bin"}}, 126, "exec", errno.EACCES, "plain"),
        (["{}"], {}, 126, "exec", errno.EACCES, "{}"),
        (["{}/lost"], {}, 126, "exec", errno.ENOENT, "{}/lost"),
        (["lost"], {"env": {"PATH": "{}"}}, 126, "exec", errno.ENOENT, "lost"),
        (["{}/text"], {}, 126, "exec", errno.ENOEXEC, "{}/text"),
        (["{}/empty"], {}, 126, "exec", errno.ENOEXEC, "{}/empty"),
        (["{}/loop"], {}, 126, "exec", errno.ELOOP, "{}/loop"),
        (["/bin/true", "x" * (1 << 18)], {}, 126, "exec", errno.E2BIG, "/bin/true"),
        ("true", {"cwd": "{}/missing"}, 125, "chdir", errno.ENOENT, "{}/missing"),
        ("true", {"cwd": "{}/plain"}, 125, "chdir", errno.ENOTDIR, "{}/plain"),
        (["no-such-program"], {"cwd": "{}/missing"}, 125, "chdir", errno.ENOENT, "{}/missing"),
        ("true", {"stdin": "{}/missing"}, 125, "open", errno.ENOENT, "{}/missing"),
        ("true", {"stdout": "{}"}, 125, "open", errno.EISDIR, "{}"),
        ("true", {"stderr": "{}/missing/x"}, 125, "open", errno.ENOENT, "{}/missing/x"),
        ("true", {"stdout": 1023}, 125, "dup", errno.EBADF, "/bin/sh"),
    ],
)
@pytest.mark.parametrize("text", [True, False])
def test_a_command_that_could_not_start(
    files: Path, cmd: Any, more: dict[str, Any], code: int, stage: str, number: int, path: str, text: bool
) -> None:
    """`error` and `err` name the stage, what it was about and the system's reason; no shell steps in."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return value.replace("{}", str(files)) if isinstance(value, str) else value

    result = childproof.run(fill(cmd), text=text, **fill(more))
    assert (result.code, result.outcome) == (code, Outcome.NOT_STARTED)
    error = result.error
    assert isinstance(error, SpawnError)
    assert isinstance(error, OSError)
    assert (error.stage, error.errno, error.filename) == (stage, number, fill(path))
    assert error.strerror == os.strerror(number)
    assert result.err == (str(error) if text else str(error).encode())
    for part in (f"{stage}: ", os.strerror(number), fill(path)):
        assert part in str(error)
    assert not result.out
    assert result.usage is None


def test_a_script_without_its_interpreter_is_explained(files: Path) -> None:
    """ENOENT for a file that is there would puzzle; the sentence says what is missing."""
    assert "interpreter" in childproof.run([files / "lost"]).err
    assert "interpreter" not in childproof.run([files / "missing"]).err


def test_a_timeout() -> None:
    """124, with what was read; its sentence is in `error` and not in `err`."""
    result = childproof.run("echo out; echo err >&2; sleep 70", timeout=0.3)
    assert result == (124, "out", "err")
    assert result.outcome is Outcome.TIMED_OUT
    assert not result.ok
    assert isinstance(result.error, SpawnError)
    assert (result.error.stage, result.error.errno) == ("run", errno.ETIMEDOUT)
    assert "timed out after 0.3 s" in str(result.error)


# ---- check ----


def test_check_of_a_success() -> None:
    """`check()` hands back the result itself, as does check=True."""
    result = childproof.run("echo a")
    assert result.check() is result
    assert childproof.run("echo a", check=True) == (0, "a", "")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"cmd": "echo why >&2; exit 3"}, "echo why >&2; exit 3 exited with 3: why"),
        ({"cmd": ["false", "a b"]}, "false 'a b' exited with 1"),
        ({"cmd": "kill -9 $$"}, "kill -9 $$ died of signal 9"),
        ({"cmd": "printf '\\377' >&2; exit 1", "text": False}, "printf '\\377' >&2; exit 1 exited with 1: \\xff"),
        ({"cmd": ["/no/such"]}, "cannot start /no/such: exec: No such file or directory"),
        ({"cmd": "true", "timeout": 0}, "timed out after 0 s: true"),
    ],
)
def test_check_of_a_failure(call: dict[str, Any], message: str) -> None:
    """`check()` and check=True raise CommandError, which says how it ended and has the result."""
    result = childproof.run(**call)
    with pytest.raises(CommandError) as caught:
        result.check()
    assert caught.value.result is result
    assert str(caught.value) == message
    with pytest.raises(CommandError) as caught:
        childproof.run(**call, check=True)
    assert caught.value.result == result


def test_check_quotes_the_end_of_the_errors() -> None:
    """Of long errors the last characters are quoted, which say most."""
    result = childproof.run("seq 1000 >&2; exit 1")
    with pytest.raises(CommandError, match=r"1000$") as caught:
        result.check()
    assert len(str(caught.value)) < 500


# ---- travelling ----


def by_pickle(protocol: int, value: Any) -> Any:
    """`value`, there and back."""
    return pickle.loads(pickle.dumps(value, protocol))


COPIES: dict[str, Callable[[Any], Any]] = {
    **{f"pickle {protocol}": partial(by_pickle, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize(
    "call",
    [
        {"cmd": ["echo", Path("a"), b"\xff"]},
        {"cmd": "echo a; exit 2", "text": False, "max_output": 1},
        {"cmd": ["/no/such"], "secrets": ("such",)},
        {"cmd": "sleep 71", "timeout": 0.1},
    ],
    ids=lambda call: str(call["cmd"]),
)
def test_a_result_pickles_with_all_it_has(call: dict[str, Any], duplicate: Callable[[Any], Any]) -> None:
    """The copy is equal in the triple and in every attribute, and complains alike."""
    result = childproof.run(**call)
    twin = duplicate(result)
    assert type(twin) is Result
    assert twin == result
    assert [getattr(twin, name) for name in FACTS] == [getattr(result, name) for name in FACTS]
    assert repr(twin) == repr(result)
    if result.error is not None:
        assert type(twin.error) is SpawnError
        for name in ("errno", "strerror", "filename", "stage", "args"):
            assert getattr(twin.error, name) == getattr(result.error, name)
        assert str(twin.error) == str(result.error)
    if not result.ok:
        with pytest.raises(CommandError) as caught:
            twin.check()
        error = duplicate(caught.value)
        assert str(error) == str(caught.value)
        assert error.result == result
        assert error.result.outcome is result.outcome


def test_held_pickles() -> None:
    """So do the holders."""
    result = childproof.run("sleep 72 &", linger=0)
    stop(result.held[0].pid)
    assert pickle.loads(pickle.dumps(result)).held == result.held != ()


# ---- usage ----

BURN = "import time\nwhile time.process_time() < 0.3: pass"


@pytest.mark.parametrize(
    "cmd",
    [[sys.executable, "-S", "-c", BURN], ["sh", "-c", '"$0" -S -c "$1"; :', sys.executable, BURN]],
    ids=["child", "its child"],
)
def test_usage_counts_the_processor(cmd: list[str]) -> None:
    """User and system seconds of the child, and of those whose end it has waited for."""
    usage = childproof.run(cmd).usage
    assert isinstance(usage, Usage)
    assert 0.3 <= usage.user + usage.system < 0.3 + SLACK_SECONDS
    assert usage.user >= 0
    assert usage.system >= 0


def test_a_sleeper_uses_nothing() -> None:
    """Waiting is no use of the processor."""
    usage = childproof.run("sleep 0.3").usage
    assert usage is not None
    assert usage.user + usage.system < 0.2


def test_the_peak_of_a_small_child_is_not_known() -> None:
    """A child smaller than its host shows the host's peak, which is not passed on."""
    usage = childproof.run("/bin/true").usage
    assert usage is not None
    assert usage.max_rss is None


def test_the_peak_of_a_large_child_is_known() -> None:
    """In bytes, once it exceeds the host's own."""
    size = 300 << 20
    usage = childproof.run([sys.executable, "-S", "-c", f"bytearray(b'x') * {size}"]).usage
    assert usage is not None
    assert usage.max_rss is not None
    assert size < usage.max_rss < size + (100 << 20)


def test_usage_of_a_killed_child_is_known() -> None:
    """The status of a killed child carries its usage too."""
    assert childproof.run("sleep 73", timeout=0.1).usage is not None
