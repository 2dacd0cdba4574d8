"""Starting the child of a `Popen`: from the stdlib's arguments to a command for the spawner."""

from __future__ import annotations

import os
import sys
from errno import ECHILD
from math import ceil, inf
from time import monotonic

from childproof._attributes import MOST_ID, NO_ATTRIBUTES, Attributes
from childproof._command import Command, Environment, candidates_of, inherited_environment, make_command
from childproof._dropin.settings import fork_exec_is_replaced, is_green, stdlib
from childproof._light import TYPE_CHECKING, NamedTuple
from childproof._spawner import FAILED, SPAWNING, Child, spawn_suspends
from childproof._stdio import INHERIT, Stdio

if TYPE_CHECKING:
    from typing import Any

DISCARD_SECONDS = 0.6
"""How long a child that was given up is waited for; then the background reaps it."""


class Asked(NamedTuple):
    """The arguments of the stdlib's `Popen._execute_child`, in its order (3.10 lacks the last one)."""

    args: Any
    executable: Any
    preexec_fn: Any
    close_fds: Any
    pass_fds: Any
    cwd: Any
    env: Any
    startupinfo: Any
    creationflags: Any
    shell: Any
    p2cread: int
    p2cwrite: int
    c2pread: int
    c2pwrite: int
    errread: int
    errwrite: int
    restore_signals: Any
    gid: int | None
    gids: list[int] | None
    uid: int | None
    umask: int
    start_new_session: Any
    process_group: int = -1


def read_arguments(given: tuple[Any, ...]) -> Asked | None:
    """`given`, by name; `None`: the stdlib's own spawn must do it."""
    try:
        asked = Asked(*given)
    except TypeError:  # a Python that hands over more than is known here
        return None
    if asked.preexec_fn is not None or fork_exec_is_replaced() or is_green():
        return None
    if asked[_IDS] != _NO_IDS and _is_odd(asked):
        return None
    return asked


_IDS = slice(Asked._fields.index("gid"), Asked._fields.index("umask") + 1)
_NO_IDS = (None, None, None, -1)


def _is_odd(asked: Asked) -> bool:
    """There are numbers that no system call takes: it is for the stdlib to say so in its words."""
    largest = max((asked.uid or 0, asked.gid or 0, *(asked.gids or ())))
    return largest > MOST_ID or not -1 <= asked.umask <= 0o7777


def words_of(asked: Asked) -> tuple[list[Any], Any]:
    """The argument list and the program, as the stdlib decides them.

    Raises:
        TypeError: a path with ``shell=True``.

    """
    args = asked.args
    if isinstance(args, (str, bytes)):
        words: list[Any] = [args]
    elif isinstance(args, os.PathLike):
        if asked.shell:
            raise TypeError("path-like args is not allowed when shell is true")
        words = [args]
    else:
        words = list(args)
    if asked.shell:
        words = ["/bin/sh", "-c", *words]
        if asked.executable:
            words[0] = asked.executable
    return words, words[0] if asked.executable is None else asked.executable


_ENCODING = sys.getfilesystemencoding()


def _word(value: Any) -> bytes:
    """As `os.fsencode`, without its calls for what is mostly given."""
    return value.encode(_ENCODING, "surrogateescape") if type(value) is str else os.fsencode(value)


def _encode(value: Any) -> bytes:
    data = os.fsencode(value)
    if b"\0" in data:
        raise ValueError("embedded null byte")
    return data


def _given_environment(env: Any) -> Environment:
    items = []
    for name, value in env.items():
        key = os.fsencode(name)
        if b"=" in key:
            raise ValueError("illegal environment variable name")
        items.append(_encode(key + b"=" + os.fsencode(value)) + b"\0")
    return Environment(b"".join(items), len(items), None, None)


def _candidates(executable: bytes, env: Any, environment: Environment) -> tuple[bytes, ...]:
    if env is None or b"/" in executable:
        return candidates_of(executable, environment.path)
    return tuple([os.path.join(os.fsencode(folder), executable) for folder in os.get_exec_path(env)])


def _pass_fds(fds: Any) -> tuple[int, ...]:
    numbers = sorted(set(map(int, fds)))
    if numbers and not 0 <= numbers[0] <= numbers[-1] < 1 << 31:
        raise ValueError("bad value(s) in fds_to_keep")
    return tuple([fd for fd in numbers if fd > 2])  # those below are there anyway


def _attributes(asked: Asked) -> Attributes:
    if (
        asked.close_fds
        and not asked.pass_fds
        and asked.restore_signals
        and asked.process_group < 0
        and asked[_IDS] == _NO_IDS
    ):
        return NO_ATTRIBUTES
    return Attributes(
        uid=asked.uid,
        gid=asked.gid,
        groups=None if asked.gids is None else tuple(asked.gids),
        umask=None if asked.umask < 0 else asked.umask,
        pass_fds=_pass_fds(asked.pass_fds),
        process_group=None if asked.process_group < 0 else asked.process_group,
        keep_fds=not asked.close_fds,
        keep_signals=not asked.restore_signals,
    )


_STDIOS = [Stdio("fd", fd) for fd in range(64)]


def _stdio(fd: int) -> Stdio:
    if fd < 0:
        return INHERIT
    return _STDIOS[fd] if fd < len(_STDIOS) else Stdio("fd", fd)


def _may_share_memory() -> bool:
    """``subprocess._USE_VFORK``, by which the stdlib's users forbid vfork."""
    try:
        return bool(getattr(stdlib, "_USE_VFORK", True))
    except Exception:  # no truth value: the stdlib's C code takes that for a yes
        return True


TEMPLATE = make_command(["true"], mark=False, new_session=False)
"""What a `Popen` does not ask of a command."""

_REST = TEMPLATE[Command._fields.index("stderr") + 1 :]


def make_start(asked: Asked, words: list[Any], executable: Any) -> tuple[Command, bytes | None]:
    """What to give to the spawner: a command, and the mark of an outer run, which stays as it is.

    Raises:
        TypeError, ValueError: as the stdlib raises them.

    """
    argv = tuple([_word(word) for word in words])
    environment = inherited_environment() if asked.env is None else _given_environment(asked.env)
    program = argv[0] if argv and executable is words[0] else _word(executable)
    candidates = _candidates(program, asked.env, environment)
    strings = b"\0".join((*argv, *candidates, b""))
    if strings.count(b"\0") != len(argv) + len(candidates):
        raise ValueError("embedded null byte")
    cwd = None if asked.cwd is None else _encode(asked.cwd)
    head = (asked.args, None, inf, argv, candidates, strings, environment, _stdio(asked.p2cread), None)
    streams = (asked.env, cwd, _stdio(asked.c2pwrite), _stdio(asked.errwrite))
    command: Command = tuple.__new__(Command, head + streams + _REST)
    attributes = _attributes(asked)
    start = "auto" if _may_share_memory() else "fork"
    if attributes is not NO_ATTRIBUTES or asked.start_new_session or start != "auto":
        command = command._replace(new_session=bool(asked.start_new_session), attributes=attributes, start=start)
    return command, environment.mark


def for_deadline(command: Command) -> Command:
    """`command`, started so that a deadline holds: none reaches a thread that is suspended."""
    return command._replace(start="fork") if spawn_suspends(command) else command


# ---- the descriptors ----

_PIPE, _STDOUT = stdlib.PIPE, stdlib.STDOUT


def only_pipes(stdin: Any, stdout: Any, stderr: Any) -> bool:
    """Whether nothing but pipes is asked for, or what is inherited."""
    return (
        (stdin is None or stdin == _PIPE)
        and (stdout is None or stdout == _PIPE)
        and (stderr is None or stderr == _PIPE or (stderr == _STDOUT and stdout is not None))
    )


def open_pipes(stdin: Any, stdout: Any, stderr: Any) -> tuple[int, int, int, int, int, int]:
    """What the stdlib's `_get_handles` gives: p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite."""
    fds: list[int] = []
    try:
        for wanted in (stdin, stdout, stderr):
            fds += os.pipe() if wanted == _PIPE else (-1, -1)
    except BaseException:
        for fd in fds:
            if fd >= 0:
                os.close(fd)
        raise
    if stderr == _STDOUT:
        fds[5] = fds[3]
    return fds[0], fds[1], fds[2], fds[3], fds[4], fds[5]


def close_far_ends(fds: tuple[int, ...], devnull: int | None) -> None:
    """Close the child's ends of its pipes, of the six, and /dev/null; all, whatever one says."""
    p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = fds
    error: OSError | None = None
    for far, near in ((p2cread, p2cwrite), (c2pwrite, c2pread), (errwrite, errread), (devnull, 0)):
        if far is None or far == -1 or near == -1 or (far == devnull and near != 0):
            continue
        try:
            os.close(far)
        except OSError as failed:
            error = failed
    if error is not None:
        raise error


# ---- the way to the exec ----


def await_exec(child: Child, until: float) -> int:
    """Wait until it is known whether `child` has exec'ed; its state, `SPAWNING` when `until` came
    first. Signal handlers run meanwhile.
    """
    # A second at most, since a signal that comes just before the wait does not end it.
    while (state := child.await_exec(_MOST_MS if until == inf else _ms_until(until))) == SPAWNING:
        if until != inf and monotonic() >= until:
            break
    return state


_MOST_MS = 1000


def _ms_until(until: float) -> int:
    return min(max(ceil((until - monotonic()) * 1000), 0), _MOST_MS)


def reap_soon(child: Child, seconds: float) -> bool:
    """Wait for the end of a child that is about to end; whether it has been reaped."""
    import select

    until = monotonic() + seconds
    poller = select.poll()
    if child.pidfd >= 0:
        poller.register(child.pidfd, select.POLLIN)
    while not child.reap():
        remaining = until - monotonic()
        if remaining <= 0:
            return False
        poller.poll(ceil(min(remaining, 1.0 if child.pidfd >= 0 else 0.002) * 1000))
    return True


def kill(child: Child) -> bool:
    """Kill a child that nobody will have; whether it has been reaped."""
    from signal import SIGKILL

    if child.pid <= 0:
        return True
    child.signal(SIGKILL)
    return reap_soon(child, DISCARD_SECONDS)


def leave_to_background(child: Child) -> None:
    """Have a child reaped whose end takes longer."""
    from childproof._janitor import janitor

    janitor.adopt(child)


def start_error(asked: Asked, executable: Any, child: Child) -> OSError:
    """What the stdlib raises for a child that did not exec."""
    number = child.errno or ECHILD
    if child.state == FAILED and child.stage == "exec":
        return OSError(number, os.strerror(number), executable)
    if child.state == FAILED and child.stage == "chdir":
        return OSError(number, os.strerror(number), asked.cwd)
    return OSError(number, os.strerror(number))


def audit(executable: Any, words: list[Any], asked: Asked) -> None:
    """The stdlib's event."""
    sys.audit("subprocess.Popen", executable, words, asked.cwd, asked.env)
