"""The ways to run a program that come with Python, the C floor, and ours.

Each adapter does the same: both outputs captured, stdin at its end from the start, no descriptor of
the host's in the child, a session of its own where the interface can give one. What can't be had is
in `Contender.about`. Each gives back ``(code, out, err)``, so that a test can see that it has worked.
"""

from __future__ import annotations

import os
import select
import shlex
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

import childproof
from childproof.bench import floor
from childproof.bench.meter import Meter
from childproof.bench.model import MissingError, Task

Answer = tuple[int, bytes, bytes]
Runner = Callable[[Meter], Answer]

TIMEOUT_SECONDS = 10.0


class Contender(NamedTuple):
    """One way to run a program.

    Attributes:
        name: in tables.
        about: the call, and what it does not do.
        make: from a task to what runs it once; only the work itself is inside the meter.
        alone: it has a measuring process for itself. What it leaves there (an event loop, threads,
            a hundred modules) changes what the next one costs: with asyncio in the same process
            subprocess.run becomes 8 % faster, and with a timeout three times as fast.

    """

    name: str
    about: str
    make: Callable[[Task], Runner]
    alone: bool = False


def _bytes(output: str | bytes | None) -> bytes:
    return output.encode() if isinstance(output, str) else output or b""


# ---- C ----


def _floor(task: Task) -> Runner:
    if floor.FAILED is not None:
        raise MissingError(f"its C was not built: {floor.FAILED}")
    if task.input is not None:
        raise MissingError("it feeds nothing")
    machine = floor.Floor(task.words)

    def run(meter: Meter) -> Answer:
        with meter:
            machine.run()
        return machine.code, machine.output, b""

    return run


# ---- os ----


def _drain(out: int, err: int) -> tuple[bytes, bytes]:
    parts: dict[int, list[bytes]] = {out: [], err: []}
    poller = select.poll()
    for fd in parts:
        poller.register(fd, select.POLLIN)
    left = 2
    while left:
        for fd, _ in poller.poll():
            data = os.read(fd, 1 << 16)
            if data:
                parts[fd].append(data)
            else:
                poller.unregister(fd)
                os.close(fd)
                left -= 1
    return b"".join(parts[out]), b"".join(parts[err])


def _posix_spawn(task: Task) -> Runner:
    words = task.words

    def work() -> Answer:
        out, out_w = os.pipe()
        err, err_w = os.pipe()
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out_w, 1),
            (os.POSIX_SPAWN_DUP2, err_w, 2),
        ]
        pid = os.posix_spawn(words[0], words, os.environ, file_actions=actions, setsid=True)
        os.close(out_w)
        os.close(err_w)
        texts = _drain(out, err)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), *texts

    return _timed(work)


def _fork(task: Task) -> Runner:
    words = task.words

    def work() -> Answer:
        out, out_w = os.pipe()
        err, err_w = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(out_w, 1)
                os.dup2(err_w, 2)
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                os.execv(words[0], words)
            finally:
                os._exit(127)
        os.close(out_w)
        os.close(err_w)
        texts = _drain(out, err)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), *texts

    return _timed(work)


def _timed(work: Callable[[], Answer]) -> Runner:
    def run(meter: Meter) -> Answer:
        with meter:
            return work()

    return run


# ---- subprocess ----


def popen_arguments(task: Task) -> dict[str, Any]:
    """What `subprocess.run` gets beside the command and the timeout."""
    stdin = {"stdin": subprocess.DEVNULL} if task.input is None else {"input": task.input}
    return {"capture_output": True, "start_new_session": True, "shell": task.shell, **stdin}


def _subprocess(timeout: float | None) -> Callable[[Task], Runner]:
    def make(task: Task) -> Runner:
        command = task.argv[0] if task.shell else list(task.argv)
        arguments = popen_arguments(task)

        def work() -> Answer:
            done = subprocess.run(command, timeout=timeout, check=False, **arguments)
            return done.returncode, done.stdout, done.stderr

        return _timed(work)

    return make


# ---- asyncio ----


def _asyncio(timeout: float | None) -> Callable[[Task], Runner]:
    def make(task: Task) -> Runner:
        import asyncio

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        feed = task.input
        stdin = subprocess.DEVNULL if feed is None else subprocess.PIPE

        async def work(meter: Meter) -> Answer:
            with meter:
                process = await asyncio.create_subprocess_exec(
                    *task.words,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
                out, err = await asyncio.wait_for(process.communicate(feed), timeout)
            assert process.returncode is not None
            return process.returncode, out, err

        return lambda meter: loop.run_until_complete(work(meter))

    return make


# ---- ours ----


def _childproof(**options: Any) -> Callable[[Task], Runner]:
    def make(task: Task) -> Runner:
        command: Any = task.argv[0] if task.shell else list(task.argv)
        arguments: dict[str, Any] = {**options, "text": False} if task.raw else options
        feed = task.input

        def run(meter: Meter) -> Answer:
            with meter:
                result = childproof.run(command, feed, **arguments)
            return result.code, _bytes(result.out), _bytes(result.err)

        return run

    return make


FLOOR = "C floor"
SUBPROCESS = "subprocess.run"
SUBPROCESS_TIMEOUT = "subprocess.run, timeout"
OURS = "childproof.run"
OURS_TIMEOUT = "childproof.run, timeout"

STARTS = tuple(
    Contender(f"childproof.run, {start}", f"childproof.run(argv, start={start!r})", _childproof(start=start))
    for start in ("clone", "vfork", "fork")
)
CLOSINGS = tuple(
    Contender(
        f"childproof.run, {closing}",
        f"childproof.run(argv, closing={closing!r})",
        _childproof(closing=closing),
    )
    for closing in ("close_range", "proc", "rlimit")
)
STANDARD = (
    Contender(FLOOR, "C: clone(CLONE_VM|CLONE_VFORK), two pipes, poll, waitid; close_range, setsid", _floor),
    Contender("os.posix_spawn", "file actions and setsid, poll, waitpid; closes nothing", _posix_spawn),
    Contender("os.fork, os.execv", "fork, setsid, dup2, closerange, execv; poll, waitpid", _fork),
    Contender(
        SUBPROCESS,
        "subprocess.run(argv, capture_output=True, stdin=DEVNULL, start_new_session=True)",
        _subprocess(None),
    ),
    Contender(SUBPROCESS_TIMEOUT, "the same with timeout=10", _subprocess(TIMEOUT_SECONDS)),
    Contender("asyncio", "create_subprocess_exec and communicate in a loop that runs on", _asyncio(None), True),
    Contender("asyncio, timeout", "the same inside wait_for(…, 10)", _asyncio(TIMEOUT_SECONDS), True),
    Contender(OURS, "childproof.run(argv)", _childproof()),
    Contender(OURS_TIMEOUT, "childproof.run(argv, timeout=10)", _childproof(timeout=TIMEOUT_SECONDS)),
)


def everyone() -> tuple[Contender, ...]:
    """All that there are, installed or not."""
    from childproof.bench.third_party import THIRD_PARTY

    return (*STANDARD, *STARTS, *CLOSINGS, *THIRD_PARTY)


def by_name(name: str) -> Contender:
    """The contender of that name.

    Raises:
        KeyError: there is none.

    """
    return {contender.name: contender for contender in everyone()}[name]


def line_of(task: Task) -> str:
    """The task as a shell's line, for interfaces that take nothing else."""
    return task.argv[0] if task.shell else shlex.join(task.argv)
