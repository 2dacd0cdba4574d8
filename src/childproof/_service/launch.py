"""`launch`: start a service that is nobody's child, and see that it is started."""

from __future__ import annotations

import os
from errno import ECHILD, ETIMEDOUT
from signal import SIGKILL
from time import monotonic
from typing import TYPE_CHECKING, Any

from childproof import _journal
from childproof._command import make_command
from childproof._errors import SpawnError
from childproof._handle.child import Child, open_child
from childproof._result import Outcome
from childproof._service import pidfile as pidfiles
from childproof._service.ready import Log, Ready, make_ready
from childproof._text import Masker, one_line, show_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from childproof._command import Command
    from childproof._options import Cmd, Word
    from childproof._result import Result

TAIL_CHARACTERS = 400
"""How much of its log the error about a service quotes."""

NOBODY_BETWEEN = {"contain": "session", "die_with_parent": False}
"""No supervisor: a service does not die with this process."""

FIRST_PAUSE, LAST_PAUSE = 0.002, 0.05
"""Seconds between two looks for the sign."""


def _log_paths(command: Command) -> list[str]:
    paths = [s.path for s in (command.stdout, command.stderr) if s.kind == "path" and s.path is not None]
    return [os.fsdecode(path) for path in dict.fromkeys(paths)]


def _make_command(cmd: Any, stdout: Any, stderr: Any, timeout: Any, options: dict[str, Any]) -> Command:
    for name, value in (("stdout", stdout), ("stderr", stderr)):
        if isinstance(value, str) and value in ("capture", "inherit", "file"):
            raise ValueError(f'{name} of a service must be "null", a path, a descriptor or a file, not "{value}"')
    merge = stderr is None
    command = make_command(
        cmd,
        timeout=timeout,
        stdout=stdout,
        stderr="capture" if merge else stderr,
        merge=merge,
        start="fork",
        **NOBODY_BETWEEN,
        **options,
    )
    return command._replace(attributes=command.attributes._replace(detach=True))


def _appended(command: Command) -> Command:
    """With paths that do not depend on where we are later, and are written at their ends."""
    out, err = (
        stdio._replace(kind="append", path=os.path.abspath(stdio.path))
        if stdio.kind == "path" and stdio.path is not None
        else stdio
        for stdio in (command.stdout, command.stderr)
    )
    return command._replace(stdout=out, stderr=err)


def launch(
    cmd: Cmd,
    *,
    stdout: Any = "null",
    stderr: Any = None,
    pidfile: Word | None = None,
    ready: Any = None,
    timeout: float | None = 60.0,
    grace: float = 0.0,
    cwd: Word | int | None = None,
    env: Mapping[Any, Any] | None = None,
    user: str | int | None = None,
    group: str | int | None = None,
    extra_groups: Sequence[str | int] | None = None,
    umask: int | None = None,
    limits: Mapping[str, Any] | None = None,
    no_new_privs: bool = False,
    nice: int | None = None,
    mark: bool = True,
    secrets: Sequence[str] = (),
    closing: Literal["auto", "close_range", "proc", "rlimit"] = "auto",
) -> int:
    """Start a service that lives on when this process has ended, and hand back its pid.

        childproof.launch(["redis-server", "--port", "6379"], stdout="redis.log", ready=6379)

    The service leads a session of its own, without a terminal. It is not this process's child: init
    reaps it. It has descriptors 0, 1, 2 and no others, and stdin is null. It must stay in the foreground
    itself: of one that forks and exits it is said that it has ended. Of a command line for the shell the
    pid is the shell's; begin it with ``exec``.

    Args:
        cmd: as in `run`.
        stdout: ``"null"``, the path of a log, which is created or appended to, a descriptor or a file.
        stderr: likewise; `None`: where stdout goes.
        pidfile: a path that gets the pid when the service is ready: a new file that takes its place at
            once, synced. It is not written over one that names a process which runs, and had started
            when the file was written: then nothing is started. Two launches at the same moment are not
            kept apart by it. Nobody removes it.
        ready: what tells that the service is started; without it, its exec does. A compiled pattern
            (`re.compile`) that is found in the log; a path that appears or is made anew, and if it is
            a socket also answers; a TCP port of this machine, or ``(address, port)``, that answers. An
            answer from there before the start is an error.
        timeout: seconds until the service must be ready; `None`: any number.
        grace: seconds between SIGTERM and SIGKILL if it is not.
        cwd: as in `run`, and so are all that follow.
        env: the whole environment.
        user: who it becomes.
        group: likewise.
        extra_groups: likewise.
        umask: its file mode creation mask.
        limits: its resource limits.
        no_new_privs: no exec gives it privileges.
        nice: what is added to its niceness.
        mark: by which its tree is found if it must be killed. It holds the marks of outer runs too: a
            service that is launched by something that a `run` has started is killed with that, at its
            deadline.
        secrets: what is masked in errors and in the log.
        closing: how it closes what it must not inherit.

    Returns:
        The service's pid.

    Raises:
        TypeError, ValueError: the call is wrong; nothing was started.
        SpawnError: it could not be started (`stage` as in a `Result`'s error), has ended before it was
            ready or by the time of the return, or was not ready in time (stage ``ready``; its last
            output is in the text), or the
            pidfile is in the way or can't be written (``pidfile``). But for the log nothing is left.

    """
    began = monotonic()
    options = {
        "grace": grace,
        "cwd": cwd,
        "env": env,
        "user": user,
        "group": group,
        "extra_groups": extra_groups,
        "umask": umask,
        "limits": limits,
        "no_new_privs": no_new_privs,
        "nice": nice,
        "mark": mark,
        "secrets": secrets,
        "closing": closing,
    }
    command = _make_command(cmd, stdout, stderr, timeout, options)
    logs = [Log(os.path.abspath(path)) for path in _log_paths(command)]
    sign = None if ready is None else make_ready(ready, logs)
    path = None if pidfile is None else os.path.abspath(os.fsdecode(pidfile))
    if path is not None:
        pidfiles.refuse_running(path)
    if sign is not None:
        sign.expect()
    with open_child(_appended(command), began) as stand_in:
        if sign is not None:
            _await(stand_in, sign, command, logs)
        service = _let_go(stand_in, path, command, logs)
    _journal.launched(service, command.cmd, monotonic() - began, command.secrets)
    return service


def _await(stand_in: Child[Any], sign: Ready, command: Command, logs: list[Log]) -> None:
    """Wait until the service is ready. `stand_in` is its parent, and ends with it; at the deadline the
    trees of both are killed.
    """
    pause = FIRST_PAUSE
    while not sign.is_met():
        if stand_in.wait(pause) is not None:
            raise _not_ready(stand_in.result(), f" before it was ready ({sign})", command, logs)
        pause = min(1.5 * pause, LAST_PAUSE)


def _let_go(stand_in: Child[Any], pidfile: str | None, command: Command, logs: list[Log]) -> int:
    """Write the pidfile, and make the service init's."""
    service = stand_in.service
    if service <= 0:  # it is over; a number that is no pid must not get out, since kill(2) takes it for many
        raise _not_ready(stand_in.kill_tree(), " at once", command, logs)
    try:
        if pidfile is not None:
            pidfiles.write(pidfile, service)
        stand_in.signal(SIGKILL)
        result = stand_in.result()
        if (result.outcome, result.code) != (Outcome.SIGNALED, -SIGKILL):
            raise _not_ready(result, " at once", command, logs)
    except BaseException:
        if pidfile is not None:
            pidfiles.remove(pidfile)
        raise
    return service


def _not_ready(result: Result[Any], when: str, command: Command, logs: list[Log]) -> SpawnError:
    mask = Masker(command.secrets)
    name = os.fsdecode(command.argv[0])
    if result.outcome is Outcome.TIMED_OUT:
        number, how = ETIMEDOUT, f"was not ready after {command.timeout:g} s{when.removeprefix(' before it was ready')}"
    else:
        signal = f" (as shells have it for signal {result.code - 128})" if result.code > 128 else ""
        number, how = ECHILD, f"ended with code {result.code}{signal}{when}"
    for log in logs:
        log.read()
    said = " / ".join(log.tail.decode("utf-8", "backslashreplace").strip() for log in logs if log.tail.strip())
    tail = one_line(mask(said))[-TAIL_CHARACTERS:]
    sentence = f"{show_command(command.cmd, mask)} {how}" + (f": {tail}" if tail else "")
    error = SpawnError(number, os.strerror(number), name, "ready", one_line(sentence))
    error.result = result
    _journal.failed(error)
    return error
