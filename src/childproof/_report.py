"""From the facts of one command to its `Result`: codes, outcomes and sentences."""

from __future__ import annotations

import os
from errno import (
    EACCES,
    EAGAIN,
    EBADF,
    ECHILD,
    EMFILE,
    ENFILE,
    ENOENT,
    ENOMEM,
    ENOTDIR,
    ETIMEDOUT,
)
from signal import SIGKILL
from time import monotonic

from childproof import _journal
from childproof._errors import SpawnError
from childproof._light import TYPE_CHECKING, NamedTuple
from childproof._result import Contained, Examined, Holder, Outcome, ProcessInfo, Result
from childproof._spawner import DIED, FAILED, STARTED
from childproof._text import Masker, one_line, show_command

if TYPE_CHECKING:
    from typing import Any

    from childproof._command import Command
    from childproof._output import Output
    from childproof._spawner import Child

IN_SESSION = Contained("session", False)
"""What holds most commands together."""

TIMED_OUT, OTHER, NOT_EXECUTABLE, NOT_FOUND = 124, 125, 126, 127


class Facts(NamedTuple):
    """What an exchange knows when it is over.

    Attributes:
        command: what was to run.
        child: reaped, if it could be; `None` if none was ever made.
        began: when the call began, on `time.monotonic`.
        timed_out: the deadline came before the child's end.
        stuck_at: the step before the exec in which the deadline found it, or ``""``.
        outputs: the captured streams.
        held, killed, survivors, autopsy, contained: as in `Result`.
        refused: why it has no cgroup, without which it was not to be started.

    """

    command: Command
    child: Child | None
    began: float
    timed_out: bool
    stuck_at: str
    outputs: list[Output]
    held: tuple[Holder, ...]
    killed: tuple[ProcessInfo, ...]
    survivors: tuple[ProcessInfo, ...]
    autopsy: tuple[Examined, ...] = ()
    contained: Contained | None = None
    refused: OSError | None = None


def _spawn_error(command: Command, number: int, name: str, stage: str, sentence: str) -> SpawnError:
    return SpawnError(number, os.strerror(number), name, stage, one_line(Masker(command.secrets)(sentence)))


def _path_at(command: Command, child: Child) -> str:
    """The thing that the failed stage was about."""
    if child.stage == "chdir" and command.cwd is not None:
        return f"descriptor {command.cwd}" if isinstance(command.cwd, int) else os.fsdecode(command.cwd)
    if child.stage == "open":
        return os.fsdecode((command.stdin, command.stdout, command.stderr)[child.slot].path or b"/dev/null")
    return os.fsdecode(command.argv[0])


def _not_open(command: Command) -> str:
    """Which of the descriptors that were given is none, as the end of a sentence."""
    for name in ("stdin", "stdout", "stderr"):
        stdio = getattr(command, name)
        try:
            if stdio.kind == "fd":
                os.fstat(stdio.fd)
        except OSError:
            return f": {name}={stdio.fd}"
    return ""


def _found(command: Command) -> os.stat_result | None:
    """The first of the candidates that exists."""
    cwd = command.cwd if command.cwd is not None else b""
    for candidate in command.candidates:
        try:
            if isinstance(cwd, int):
                return os.stat(candidate, dir_fd=cwd)
            return os.stat(os.path.join(cwd, candidate))
        except (OSError, ValueError):
            continue
    return None


def _unsaid(command: Command, number: int) -> str:
    """What execve(2) means by an errno that says less, as a remark; empty where there is nothing to add."""
    if number not in (ENOENT, EACCES):
        return ""
    found = _found(command)
    if found is None:
        line = len(command.argv) == 1 and b" " in command.argv[0]
        return " (a sequence is one word a program and argument; a command line is a str)" if line else ""
    if number == ENOENT:
        return " (the file exists; its interpreter or loader does not)"
    import stat

    if stat.S_ISDIR(found.st_mode):
        return " (it is a directory)"
    return "" if found.st_mode & 0o111 else " (nobody may execute it: chmod +x)"


def _failure(command: Command, child: Child) -> tuple[int, SpawnError]:
    """Code and error of a child that did not exec."""
    stage, number = child.stage, child.errno
    name = _path_at(command, child)
    why = os.strerror(number)
    code = OTHER
    if stage == "exec" and number in (ENOENT, ENOTDIR):
        code = NOT_FOUND
        if number == ENOENT and _found(command) is not None:
            code = NOT_EXECUTABLE
    elif stage == "exec" and number not in (EAGAIN, ENOMEM, EMFILE, ENFILE):
        code = NOT_EXECUTABLE
    if stage == "exec":
        why += _unsaid(command, number)
    shown = show_command((os.fsdecode(command.argv[0]),), Masker(command.secrets))
    what = f"cannot start {shown}: {stage}: {why}"
    if name != os.fsdecode(command.argv[0]):
        what += f": {Masker(command.secrets)(name)!r}"  # repr() could change a secret
    elif stage == "dup" and number == EBADF:
        what += _not_open(command)
    return code, _spawn_error(command, number, name, stage, what)


def _death(command: Command, child: Child) -> SpawnError:
    """A child that was killed on its way to the exec."""
    status = child.status()
    how = f"died of signal {-status}" if status is not None and status < 0 else "ended"
    name = os.fsdecode(command.argv[0])
    shown = show_command((name,), Masker(command.secrets))
    sentence = f"cannot start {shown}: pid {child.pid} {how} at {child.stage}, before its exec"
    return _spawn_error(command, ECHILD, name, child.stage, sentence)


def _deadline(command: Command, stuck_at: str, survivors: tuple[ProcessInfo, ...]) -> SpawnError:
    stage = stuck_at or "run"
    where = f", still at {stuck_at}" if stuck_at else ""
    shown = show_command(command.cmd, Masker(command.secrets))
    sentence = f"timed out after {command.timeout:g} s{where}: {shown}"
    if survivors:
        sentence += "; could not be killed: " + ", ".join(f"pid {info.pid}" for info in survivors)
    return _spawn_error(command, ETIMEDOUT, os.fsdecode(command.argv[0]), stage, sentence)


def _no_cgroup(command: Command, why: OSError) -> SpawnError:
    name, number = os.fsdecode(command.argv[0]), why.errno or 0
    file = os.fsdecode(why.filename) if isinstance(why.filename, (str, bytes)) else name
    shown = show_command((name,), Masker(command.secrets))
    return _spawn_error(command, number, file, "cgroup", f"cannot start {shown}: cgroup: {why.strerror}: {file!r}")


def _loss(child: Child) -> str:
    if child.lost:
        return f"was to come from its supervisor, pid {child.supervisor}, which died"
    return "was taken by somebody else's wait"


def _verdict(facts: Facts) -> tuple[int, Outcome, SpawnError | None]:
    command, child = facts.command, facts.child
    if facts.refused is not None:
        return OTHER, Outcome.NOT_STARTED, _no_cgroup(command, facts.refused)
    if child is None or facts.timed_out:
        error = _deadline(command, facts.stuck_at, facts.survivors)
        if facts.stuck_at == "close_fds":  # a loop too long to finish is no fault of the program
            return OTHER, Outcome.NOT_STARTED, error
        return TIMED_OUT, Outcome.TIMED_OUT, error
    if child.state == FAILED:
        code, error = _failure(command, child)
        return code, Outcome.NOT_STARTED, error
    if child.state == DIED:
        return OTHER, Outcome.NOT_STARTED, _death(command, child)
    name = os.fsdecode(command.argv[0])
    if not child.reaped and not child.lost:  # it was to be killed, but not by the deadline
        sentence = f"pid {child.pid} ({name}) could not be killed: how it will end is not known"
        return OTHER, Outcome.UNKNOWN, _spawn_error(command, ETIMEDOUT, name, "run", sentence)
    sentence = f"the status of pid {child.pid} ({name}) {_loss(child)}, and is lost"
    return OTHER, Outcome.STATUS_LOST, _spawn_error(command, ECHILD, name, "wait", sentence)


def _decode(command: Command, data: bytes) -> str:
    try:
        return data.decode(command.encoding, command.errors)
    except Exception:  # a strict handler, or the caller's own: what was read is returned
        return data.decode("utf-8", "backslashreplace")


def _text_of(command: Command, output: Output) -> Any:
    """What one stream gives to the Result."""
    if output.sink is None:
        return "" if command.text else b""
    return _shown(command, *output.sink.parts())


def _shown(command: Command, head: bytes, tail: bytes = b"") -> Any:
    """What the caller gets of the two ends of what was captured."""
    if not command.text:
        data = head + tail if tail else head
        return data.strip() if command.strip else data
    # Apart, since half a character at the end of the one and half of another would make a third.
    text = _decode(command, head)
    if tail:
        text += _decode(command, tail)
    return text.strip() if command.strip else text


def make_result(facts: Facts) -> Result[Any]:
    """Put it together, and log it."""
    command, child, outputs = facts.command, facts.child, facts.outputs
    usage = spawned = status = None
    if child is not None and child.state == STARTED:
        usage, spawned = child.usage(), child.how()
        status = None if facts.timed_out else child.status()
    if status is not None:
        code, outcome, error = status, Outcome.SIGNALED if status < 0 else Outcome.EXITED, None
    else:
        code, outcome, error = _verdict(facts)
    nothing: Any = "" if command.text else b""
    texts = {"stdout": nothing, "stderr": nothing}
    truncated = False
    for output in outputs:
        texts[output.name] = _text_of(command, output)
        truncated |= output.lost or (output.sink is not None and output.sink.truncated)
    if outcome is Outcome.NOT_STARTED and not texts["stderr"]:
        texts["stderr"] = str(error) if command.text else str(error).encode("utf-8", "surrogateescape")
    result: Result[Any] = Result(
        code,
        texts["stdout"],
        texts["stderr"],
        {
            "cmd": command.cmd,
            "pid": child.pid if child is not None else 0,
            "outcome": outcome,
            "duration": monotonic() - facts.began,
            "usage": usage,
            "spawned": spawned,
            "contained": facts.contained,
            "truncated": truncated,
            "held": facts.held,
            "killed": facts.killed,
            "survivors": facts.survivors,
            "autopsy": facts.autopsy,
            "error": error,
            "_secrets": command.secrets,
        },
    )
    if not (command.attributes.detach and code == -SIGKILL):  # then a service was let go: see _launch
        _journal.finished(result, command.input, command.secrets)
    return result


UNEVENTFUL: dict[str, Any] = {
    "truncated": False,
    "held": (),
    "killed": (),
    "survivors": (),
    "autopsy": (),
    "error": None,
}
"""What a Result says of a command to which nothing has happened."""


def make_plain_result(command: Command, child: Child, began: float, out: bytes, err: bytes) -> Result[Any] | None:
    """`make_result` for a command that has run to its end, and to which nothing else has happened; `None` if it
    has not. It is short, since it runs between the child's end and the caller.

    Args:
        command: what was to run.
        child: reaped.
        began: as in `Facts`.
        out: what was captured of stdout.
        err: likewise.

    """
    status = child.status() if child.state == STARTED else None
    if status is None:
        return None
    facts = UNEVENTFUL.copy()
    facts["cmd"] = command.cmd
    facts["pid"] = child.pid
    facts["outcome"] = Outcome.SIGNALED if status < 0 else Outcome.EXITED
    facts["usage"] = child.usage()
    facts["spawned"] = child.how()
    facts["contained"] = IN_SESSION
    facts["_secrets"] = command.secrets
    nothing: Any = "" if command.text else b""
    result: Result[Any] = Result(
        status, _shown(command, out) if out else nothing, _shown(command, err) if err else nothing, facts
    )
    facts["duration"] = monotonic() - began
    _journal.finished(result, command.input, command.secrets)
    return result


def with_child(survivors: tuple[ProcessInfo, ...], pid: int) -> tuple[ProcessInfo, ...]:
    """`survivors`, among them the child that could not be reaped."""
    if any(info.pid == pid for info in survivors):
        return survivors
    from childproof._processes.procfs import read_process

    process = read_process(pid)
    info = process.info() if process else ProcessInfo(pid, os.getpid(), "[unknown]", "?")
    return (info, *survivors)
