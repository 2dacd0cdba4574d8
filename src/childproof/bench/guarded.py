"""The same contenders, each called as its users call it to be safe: with a timeout.

Every adapter says what its library said: came to an end with a code, or was stopped by the timeout,
and what it read. An exception that is not the library's way to say "timeout" is left to the caller.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from childproof.bench.model import MissingError, Task
from childproof.bench.third_party import UNLIMITED_BYTES, package


class Said(NamedTuple):
    """What a library says about a command.

    Attributes:
        timed_out: it was stopped by the timeout.
        code: the exit code, -N for signal N; `None`: it gives none.
        out: what came on stdout.

    """

    timed_out: bool
    code: int | None
    out: bytes


Call = Callable[[Task, float], Said]


def _encode(text: Any) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text or b"")


def _command(task: Task) -> Any:
    return task.argv[0] if task.shell else list(task.argv)


def _subprocess(task: Task, timeout: float) -> Said:
    feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if task.input is None else {"input": task.input}
    try:
        done = subprocess.run(
            _command(task),
            capture_output=True,
            shell=task.shell,
            start_new_session=True,
            timeout=timeout,
            check=False,
            **feed,
        )
    except subprocess.TimeoutExpired as error:
        return Said(True, None, _encode(error.stdout))
    return Said(False, done.returncode, done.stdout)


def _asyncio(task: Task, timeout: float) -> Said:
    """As its documentation says: `wait_for`, then kill and wait."""
    import asyncio

    pipe = subprocess.PIPE

    async def work() -> Said:
        process = await asyncio.create_subprocess_exec(
            *task.words,
            stdin=subprocess.DEVNULL if task.input is None else pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(task.input), timeout)
        except asyncio.TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            return Said(True, None, b"")
        return Said(False, process.returncode, out)

    return asyncio.run(work())


def _childproof(task: Task, timeout: float) -> Said:
    import childproof

    result = childproof.run(_command(task), task.input, timeout, text=False, strip=False)
    if result.outcome is childproof.Outcome.TIMED_OUT:
        return Said(True, None, result.out)
    lost = result.outcome is childproof.Outcome.STATUS_LOST
    return Said(False, None if lost else result.code, result.out)


def _sh(task: Task, timeout: float) -> Said:
    sh = package("sh")
    try:
        done = sh.Command(task.words[0])(
            *task.words[1:],
            _return_cmd=True,
            _ok_code=range(256),
            _tty_out=False,
            _in="" if task.input is None else task.input,
            _timeout=timeout,
        )
    except sh.TimeoutException:
        return Said(True, None, b"")
    return Said(False, done.exit_code, _encode(done.stdout))


def _plumbum(task: Task, timeout: float) -> Said:
    plumbum = package("plumbum")
    command = plumbum.local[task.words[0]][task.words[1:]]
    arguments: dict[str, Any] = {"retcode": None, "timeout": timeout}
    if task.input is None:
        arguments["stdin"] = subprocess.DEVNULL
    else:
        command = command << task.input
    try:
        code, out, _ = command.run(**arguments)
    except plumbum.ProcessTimedOut:
        return Said(True, None, b"")
    return Said(False, code, _encode(out))


def _invoke(task: Task, timeout: float) -> Said:
    import io

    from childproof.bench.contenders import line_of

    invoke = package("invoke")
    stream = io.StringIO("" if task.input is None else task.input.decode())
    try:
        done = invoke.Context().run(line_of(task), hide=True, warn=True, in_stream=stream, timeout=timeout)
    except invoke.exceptions.CommandTimedOut as error:
        return Said(True, None, _encode(error.result.stdout))
    return Said(False, done.exited, _encode(done.stdout))


def _trio(task: Task, timeout: float) -> Said:
    trio = package("trio")

    async def work() -> Said:
        with trio.move_on_after(timeout):
            done = await trio.run_process(
                list(task.words),
                stdin=subprocess.DEVNULL if task.input is None else task.input,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                start_new_session=True,
            )
            return Said(False, done.returncode, done.stdout)
        return Said(True, None, b"")

    said: Said = trio.run(work)
    return said


def _anyio(task: Task, timeout: float) -> Said:
    anyio = package("anyio")
    feed: dict[str, Any] = {"stdin": subprocess.DEVNULL} if task.input is None else {"input": task.input}

    async def work() -> Said:
        with anyio.move_on_after(timeout):
            done = await anyio.run_process(list(task.words), check=False, start_new_session=True, **feed)
            return Said(False, done.returncode, done.stdout)
        return Said(True, None, b"")

    said: Said = anyio.run(work)
    return said


def _communicate(popen: Any, task: Task, timeout: float) -> Said:
    """As the documentation of `subprocess` says: communicate, kill, communicate again."""
    stdin = subprocess.DEVNULL if task.input is None else subprocess.PIPE
    pipe = subprocess.PIPE
    process = popen(list(task.words), stdin=stdin, stdout=pipe, stderr=pipe, start_new_session=True)
    try:
        out, _ = process.communicate(task.input, timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        return Said(True, None, out)
    return Said(False, process.returncode, out)


def _popen(task: Task, timeout: float) -> Said:
    return _communicate(subprocess.Popen, task, timeout)


def _psutil(task: Task, timeout: float) -> Said:
    return _communicate(package("psutil").Popen, task, timeout)


def _bounded_subprocess(task: Task, timeout: float) -> Said:
    run = package("bounded_subprocess").run
    feed = None if task.input is None else task.input.decode()
    done = run(list(task.words), timeout_seconds=timeout, max_output_size=UNLIMITED_BYTES, stdin_data=feed)
    return Said(done.timeout, None if done.timeout else done.exit_code, _encode(done.stdout))


def _command_runner(task: Task, timeout: float) -> Said:
    if task.input is not None:
        raise MissingError("it takes no input")
    run = package("command_runner").command_runner
    code, out, _ = run(
        list(task.words),
        timeout=timeout,
        split_streams=True,
        valid_exit_codes=True,
        stdin=subprocess.DEVNULL,
        silent=True,
    )
    return Said(code == -254, None if code == -254 else code, _encode(out))  # -254: its word for a timeout


OURS = "childproof.run"
CALLS: dict[str, Call] = {
    OURS: _childproof,
    "subprocess.run": _subprocess,
    "Popen.communicate": _popen,
    "asyncio": _asyncio,
    "psutil.Popen": _psutil,
    "plumbum": _plumbum,
    "sh": _sh,
    "invoke": _invoke,
    "trio": _trio,
    "anyio": _anyio,
    "bounded-subprocess": _bounded_subprocess,
    "command_runner": _command_runner,
}
