"""Other people's ways to run a program, each measured only where it is installed.

Every adapter asks for what the others give: both outputs apart, stdin at its end, any exit code
without an exception. Each import is the package's own affair, outside the meter.
"""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Callable
from typing import Any

from childproof.bench.contenders import TIMEOUT_SECONDS, Answer, Contender, Runner, line_of
from childproof.bench.meter import Meter
from childproof.bench.model import MissingError, Task

UNLIMITED_BYTES = 1 << 62


def package(name: str) -> Any:
    """The imported module.

    Raises:
        MissingError: it is not installed, or does not import.

    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(f"not installed ({error})") from error


def _encode(text: str | bytes | None) -> bytes:
    return text.encode() if isinstance(text, str) else text or b""


def _timed(work: Callable[[], Any], answer: Callable[[Any], Answer]) -> Runner:
    """Only `work` is measured, not the translation of what it gives back."""

    def run(meter: Meter) -> Answer:
        with meter:
            given = work()
        return answer(given)

    return run


def _sh(task: Task) -> Runner:
    sh = package("sh")
    program = sh.Command(task.words[0])
    arguments = {
        "_return_cmd": True,
        "_ok_code": range(256),
        "_tty_out": False,  # a pty is sh's default
        "_in": "" if task.input is None else task.input,
        "_new_session": True,
    }
    return _timed(
        lambda: program(*task.words[1:], **arguments),
        lambda done: (done.exit_code, _encode(done.stdout), _encode(done.stderr)),
    )


def _plumbum(task: Task) -> Runner:
    package("plumbum")
    local = importlib.import_module("plumbum").local
    command = local[task.words[0]][task.words[1:]]
    arguments: dict[str, Any] = {"retcode": None, "start_new_session": True}
    if task.input is None:
        arguments["stdin"] = subprocess.DEVNULL
    else:
        command = command << task.input
    return _timed(
        lambda: command.run(**arguments),
        lambda done: (done[0], _encode(done[1]), _encode(done[2])),
    )


def _invoke(task: Task) -> Runner:
    if task.input is not None:
        raise MissingError("it takes no bytes as input")
    context = package("invoke").Context()
    line = "exec </dev/null\n" + line_of(task)  # in_stream=False leaves stdin an open pipe
    return _timed(
        lambda: context.run(line, hide=True, warn=True, in_stream=False, shell="/bin/sh"),  # noqa: S604 - it has no other way
        lambda done: (done.exited, _encode(done.stdout), _encode(done.stderr)),
    )


def _trio(task: Task) -> Runner:
    trio = package("trio")
    stdin = subprocess.DEVNULL if task.input is None else task.input

    async def work(meter: Meter) -> Any:
        with meter:
            return await trio.run_process(
                list(task.words),
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                start_new_session=True,
            )

    def run(meter: Meter) -> Answer:
        done = trio.run(work, meter)
        return done.returncode, done.stdout, done.stderr

    return run


def _anyio(task: Task) -> Runner:
    anyio = package("anyio")
    feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if task.input is None else {"input": task.input}

    async def work(meter: Meter) -> Any:
        with meter:
            return await anyio.run_process(list(task.words), check=False, start_new_session=True, **feed)

    def run(meter: Meter) -> Answer:
        done = anyio.run(work, meter)
        return done.returncode, done.stdout, done.stderr

    return run


def _psutil(task: Task) -> Runner:
    psutil = package("psutil")
    feed = task.input
    stdin = subprocess.DEVNULL if feed is None else subprocess.PIPE

    def work() -> Answer:
        process = psutil.Popen(
            list(task.words), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        out, err = process.communicate(feed)
        return process.returncode, out, err

    return _timed(work, lambda answer: answer)


def _bounded_subprocess(task: Task) -> Runner:
    if task.input is not None:
        raise MissingError("its input is text and may take 15 s")
    run = package("bounded_subprocess").run
    return _timed(
        lambda: run(list(task.words), timeout_seconds=TIMEOUT_SECONDS, max_output_size=UNLIMITED_BYTES),
        lambda done: (done.exit_code, _encode(done.stdout), _encode(done.stderr)),
    )


def _command_runner(task: Task) -> Runner:
    if task.input is not None:
        raise MissingError("it takes no bytes as input")
    run = package("command_runner").command_runner
    return _timed(
        lambda: run(
            list(task.words),
            timeout=TIMEOUT_SECONDS,
            split_streams=True,
            valid_exit_codes=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        ),
        lambda done: (done[0], _encode(done[1]), _encode(done[2])),
    )


THIRD_PARTY = (
    Contender("sh", "sh.Command(path)(*args, _tty_out=False)", _sh, True),
    Contender("plumbum", "local[path][args].run(retcode=None, stdin=DEVNULL)", _plumbum, True),
    Contender("invoke", "Context().run(line, hide=True, in_stream=False): always by a shell", _invoke, True),
    Contender("trio", "run_process, timed inside a running loop", _trio, True),
    Contender("anyio", "run_process on asyncio, timed inside a running loop", _anyio, True),
    Contender("psutil.Popen", "psutil.Popen(argv, …).communicate()", _psutil, True),
    Contender("bounded-subprocess", "bounded_subprocess.run(argv, timeout_seconds=10)", _bounded_subprocess, True),
    Contender("command_runner", "command_runner(argv, timeout=10, split_streams=True)", _command_runner, True),
)
