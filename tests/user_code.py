"""What a user writes: read by mypy --strict and by pyright's strict mode, and run by test_public.py.

Each function uses some public names as their documentation says, and states the types that a checker must
find. Nothing here is annotated but what strict modes want annotated.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import childproof
from childproof import (
    Child,
    CommandError,
    Examined,
    Holder,
    LeakyFd,
    Outcome,
    PipelineResult,
    ProcessInfo,
    Result,
    Spawned,
    SpawnError,
    Stream,
    Tee,
    TreeKilled,
    Usage,
)

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: object, kind: object) -> object:
        """As typing has it from Python 3.11 on."""
        return value


def run() -> None:
    """The triple and the facts, as text and as bytes."""
    code, out, err = childproof.run("echo yes", timeout=5)
    assert_type(code, int)
    assert_type(out, str)
    assert_type(err, str)
    result = childproof.run(["cat"], input=b"yes", timeout=5.5, text=False, strip=False, limits={"cpu": 10})
    assert_type(result, Result[bytes])
    assert_type(result.out, bytes)
    assert_type(result.outcome, Outcome)
    assert_type(result.usage, Usage | None)
    assert_type(result.spawned, Spawned | None)
    assert_type(result.held, tuple[Holder, ...])
    assert_type(result.killed, tuple[ProcessInfo, ...])
    assert_type(result.survivors, tuple[ProcessInfo, ...])
    assert_type(result.autopsy, tuple[Examined, ...])
    assert_type(result.error, SpawnError | None)
    assert_type(result.ok, bool)
    assert_type(result.duration, float)
    assert_type(result.check(), Result[bytes])
    assert (out, result.out) == ("yes", b"yes")


def errors() -> None:
    """What is raised, and what it has."""
    try:
        childproof.run(["false"], check=True)
    except CommandError as error:
        assert error.result.code == 1
    try:
        childproof.start(["/nowhere/to/be/found"])
    except SpawnError as error:
        assert_type(error.stage, str)
        assert error.errno is not None


def start() -> None:
    """A handle, and lines."""
    with childproof.start(["cat"], input="a\nb\n", timeout=60) as child:
        assert_type(child, Child[str])
        for stream, line in child.lines():
            assert_type(stream, str)
            assert_type(line, str)
        assert_type(child.wait(5), int | None)
        assert_type(child.result(), Result[str])
        assert_type(child.signal(signal.SIGTERM), bool)
    with childproof.stream(["echo", "a"], text=False) as lines:
        assert_type(lines, Stream[bytes])
        for _, data in lines:
            assert_type(data, bytes)
        assert_type(lines.result, Result[bytes] | None)


def several() -> None:
    """A pipeline, with the output shown too."""
    shown = childproof.tee(sys.stderr, None)
    assert_type(shown, Tee)
    result = childproof.pipeline(["echo", "b\na"], ["sort"], {"cmd": "cat", "umask": 0o077}, on_output=shown)
    assert_type(result, PipelineResult[str])
    assert_type(result.stages, tuple[Result[str], ...])
    assert result.out == "a\nb"


def looking() -> None:
    """Who holds what, and who is killed."""
    read, write = os.pipe()
    assert_type(childproof.holders(read), list[Holder])
    os.close(read)
    os.close(write)
    assert_type(childproof.leaky_fds(), list[LeakyFd])
    with childproof.start(["sleep", "600"]) as child:
        killed = childproof.kill_tree(child.pid, grace=1)
        assert_type(killed, TreeKilled)
        assert_type(killed.killed, tuple[ProcessInfo, ...])


def wrapper(words: list[str], timeout: float | None = None) -> str:
    """A function of the user's own that hands options on."""

    def show(stream: str, data: bytes) -> None:
        sys.stderr.write(f"{stream}: {len(data)}\n")

    return childproof.run(words, timeout=timeout, on_output=show, leftovers="kill", secrets=["hush"]).check().out


if TYPE_CHECKING:
    # A checker refuses each of them; if it did not, it would tell that a comment is unnecessary.
    childproof.run(["true"], timout=5)  # type: ignore
    childproof.run(["true"], timeout="5")  # type: ignore
    childproof.run(["true"], leftovers="drop")  # type: ignore
    childproof.run(b"true")  # type: ignore
    childproof.start(["true"], grace=None)  # type: ignore
    childproof.kill_tree("1")  # type: ignore
    childproof.launch(["true"], input="x")  # type: ignore

FUNCTIONS = (run, errors, start, several, looking, lambda: wrapper(["true"]))
