"""`run`: one command, driven with one poll."""

from __future__ import annotations

import select
import sys
from math import ceil
from os import fsdecode
from time import monotonic

from childproof._command import make_command, plain_command
from childproof._exchange import Exchange, State
from childproof._follow import Follower, may_follow
from childproof._light import TYPE_CHECKING, overload
from childproof._report import Facts, make_result

if TYPE_CHECKING:
    from typing import Any, Literal

    from typing_extensions import Unpack

    from childproof._command import Command
    from childproof._options import Cmd, Options
    from childproof._result import Result

MOST_SECONDS = 86400
"""The longest single wait: poll(2) takes an int of milliseconds."""


def _drive(exchange: Exchange, poller: select.poll) -> None:
    """Wait for what `exchange` wants until it is done."""
    done = State.DONE
    while exchange.state is not done:
        now = monotonic()
        left = exchange.wake_at - now
        if left > 0:
            # Rounded up: a wait that ends early by a fraction would spin through the last one.
            events = poller.poll(ceil(left * 1000) if left < MOST_SECONDS else MOST_SECONDS * 1000)
            for fd, _ in events:
                exchange.ready(fd)
            if events:
                continue
            now = monotonic()
        exchange.tick(now)


def announce(command: Command) -> None:
    """Raise the audit event; whoever hooks it may veto."""
    argv = list(map(fsdecode, command.argv))
    cwd = fsdecode(command.cwd) if isinstance(command.cwd, bytes) else command.cwd
    sys.audit("subprocess.Popen", argv[0], argv, cwd, command.env)


def _execute(command: Command, began: float) -> Result[Any]:
    if command.timeout == 0:
        return make_result(Facts(command, None, began, True, "", [], (), (), ()))
    announce(command)
    poller = select.poll()
    follower = Follower(command, began) if may_follow(command) else None
    exchange = None
    try:
        if follower is None:
            exchange = Exchange(command, poller, began)
            exchange.begin()
        elif follower.begin() and follower.wait():
            return follower.result()
        else:
            exchange = follower.hand_over(poller)
        _drive(exchange, poller)
    except BaseException:
        if exchange is not None:
            exchange.abort()
        elif follower is not None:
            follower.abort(poller)
        raise
    assert exchange.result is not None
    return exchange.result


@overload
def run(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: Literal[True] = True,
    **options: Unpack[Options],
) -> Result[str]: ...


@overload
def run(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: Literal[False],
    **options: Unpack[Options],
) -> Result[bytes]: ...


@overload
def run(
    cmd: Cmd,
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    *,
    text: bool,
    **options: Unpack[Options],
) -> Result[Any]: ...


def run(cmd: Any, input: Any = None, timeout: float | None = None, **options: Any) -> Result[Any]:  # noqa: A002
    """Run a command and hand back ``(code, out, err)``. Whatever happens to the command is in the
    Result; it never hangs, and it leaves no descriptor and no zombie behind.

    Args:
        cmd: a str goes to ``/bin/sh -c``; a sequence of str, bytes or path-like is executed as it
            is, searched for in PATH, without a shell.
        input: what the child reads: str, bytes-like, or a file object. A regular file becomes its
            stdin itself; another object with a ``fileno()`` is polled and read without blocking
            (the descriptor, not what Python has buffered of it); any other ``.read`` is called in
            this thread, and while it blocks the deadline waits. A child that does not read it is
            no error. `None`: nothing.
        timeout: seconds, over everything from spawn to reap; `None` or -1: none; 0: nothing is
            started, and the code is 124. At the deadline the whole tree is killed.
        stdin: ``"null"`` (the default), ``"inherit"``, a path, a descriptor, or a file.
        stdout: ``"capture"``, ``"null"``, ``"inherit"``, a path (created or emptied), a descriptor,
            a file, or ``"file"``: captured through an unlinked file, for which nobody can block,
            delay or get SIGPIPE. A file is read when the command is over.
        stderr: likewise.
        grace: seconds between SIGTERM (then SIGCONT) and SIGKILL at the deadline; 0: SIGKILL at
            once. It ends early when nobody of the tree is left.
        linger: seconds to go on reading after the child has exited while somebody else still holds
            its pipes. What was in them at its exit is always read. The deadline cuts it; the
            outcome is then the child's own.
        leftovers: processes that outlive the child: ``"leave"``: they live on, and a daemon thread
            discards what they write as long as this process lives; after it their next write gets
            EPIPE or SIGPIPE, so give a service a file. ``"kill"``: they are killed.
        mark: put the variable ``CHILDPROOF_RUN``, a random token a run, into the child's
            environment, by which processes that escaped are found. Never when `env` is given.
        autopsy: at the deadline, before anybody is signalled, note what each process of the tree is at:
            state, CPU time, the system call that it is blocked in, and which of the pipes it has open.
            In `Result.autopsy` and in the log. It may delay the killing by 0.1 s.
        max_output: bytes kept of each stream, the first half and the last; reading goes on.
        text: decode the output; `False` gives bytes.
        encoding: of output, and of `input` if it is a str.
        errors: how to decode what is no `encoding`. Decoding never raises: where ``"strict"`` would,
            backslashes are put in.
        strip: take white space off both ends of the output.
        merge: stderr goes where stdout goes.
        on_output: called with ``("stdout" or "stderr", bytes)`` as it comes, in this thread; what it
            raises propagates after the tree was killed and reaped.
        check: raise unless the command succeeded.
        secrets: strings that become ``***`` in the log and in the texts of errors.
        **options: these, by name:
        cwd: the child's working directory: a path, or the descriptor of one.
        env: the child's whole environment; `None`: this process's.
        user: name or number of the user that the child becomes. It, `group` and `extra_groups` change
            nothing but what they name, as in `subprocess`: who drops root's rights gives all three.
            With any of them the child is forked, which takes longer the larger this process is.
        group: name or number of the group.
        extra_groups: names or numbers of the supplementary groups; an empty sequence: none.
        umask: the child's file mode creation mask.
        limits: resource limits by the names of setrlimit(2) in lower case, as
            ``{"cpu": 10, "as": 1 << 30, "nofile": (256, 1024)}``: one value for soft and hard limit,
            or both. -1, None or inf: unlimited.
        no_new_privs: let no exec give privileges (set-user-id programs), for ever after.
        pass_fds: descriptors that the child gets besides 0, 1 and 2, under their own numbers.
        nice: what is added to the niceness.
        new_session: make the child leader of a session of its own (setsid(2)), so that its group
            can be killed at once and the terminal's signals do not reach it.
        start: the primitive that makes the child: ``"clone"`` shares this process's memory until the
            exec, ``"vfork"`` does and suspends this thread meanwhile, ``"fork"`` copies it;
            ``"auto"``: clone where that is safe and allowed.
        closing: how the child closes what it must not inherit: ``"close_range"``, ``"proc"`` (what
            /proc/self/fd lists), ``"rlimit"`` (all numbers up to the limit); ``"auto"``: the first
            of them that works. If it fails the command is not started.
        die_with_parent: when this process ends, even by SIGKILL, whatever the command has started ends
            too, within a second. A supervisor, a small process of its own, stands between the two; it is
            the parent of what the command leaves (PR_SET_CHILD_SUBREAPER, prctl(2)), so that none of it
            gets lost, and stays as long as something is left. Without this what a command has started
            outlives a host that is killed. A start takes 1 to 2 ms longer.
        contain: what holds the processes of the command together, so that they can be ended as one:
            ``"session"``: as far as they can be found; ``"cgroup"``: a cgroup of version 2 made below
            this process's own, which nobody leaves who may not write to another; a
            `childproof.Cgroup`: with limits, or elsewhere; ``"auto"``: a cgroup where one can be had,
            else the session; ``"pidns"``: a pid namespace, in which the command sees nobody else, and
            which implies `die_with_parent`. It excludes `user`, `group` and `extra_groups`. What can't
            be had is reported as a start that failed. `Result.contained` says whether it is proven
            that nobody is left.

    Returns:
        A `Result`: a tuple of code, out and err, with more attributes. The code is the exit status;
        -N for signal N; 124 for a deadline; 127 not found; 126 not executable; 125 for another
        failure to start, or when somebody else took the status.

    Raises:
        TypeError, ValueError: the call is wrong; nothing was started.
        CommandError: with `check`, the command did not succeed.
        BaseException: what an audit hook, `on_output`, ``input.read`` or a signal handler raised,
            after the tree has been killed and reaped.

    `sys.audit` event ``subprocess.Popen`` with executable, args, cwd, env.

    """
    began = monotonic()
    command = make_command(cmd, input, timeout, **options) if options else plain_command(cmd, input, timeout)
    result = _execute(command, began)
    return result.check() if command.check else result


run.__wrapped__ = make_command  # type: ignore[attr-defined]  # where inspect.signature finds the parameters
