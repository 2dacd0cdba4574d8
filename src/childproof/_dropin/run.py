"""`run` and `call` of the drop-in, for the module in which they are to look up `Popen`."""

from __future__ import annotations

from functools import wraps
from math import inf
from time import monotonic
from types import FunctionType

from childproof._dropin.settings import limit, stdlib
from childproof._light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

PIPE = stdlib.PIPE
TimeoutExpired = stdlib.TimeoutExpired
CalledProcessError = stdlib.CalledProcessError
CompletedProcess = stdlib.CompletedProcess

ORIGINAL_RUN, ORIGINAL_CALL = stdlib.run, stdlib.call


def _begin(module: ModuleType, args: tuple[Any, ...], options: dict[str, Any], timeout: float | None) -> Any:
    """A `Popen`, whose exec is within `timeout` too."""
    limit.set(inf if timeout is None else monotonic() + timeout, timeout)
    try:
        return module.Popen(*args, **options)
    finally:
        limit.take()


def _kill(process: Any) -> None:
    """Something was raised meanwhile, as by Ctrl-C: the child dies, and is no zombie afterwards."""
    process.kill()
    reap = getattr(process, "_reap_killed", None)  # a fake, or another's class, has none
    if reap is not None:
        reap()


def _end(process: Any) -> None:
    """The deadline has passed: whatever the child has started must not go on, nor hold us up."""
    kill_tree = getattr(process, "kill_tree", None)  # as above
    if kill_tree is not None:
        kill_tree()
    process.kill()
    process.wait()


def make_run(module: ModuleType) -> Callable[..., Any]:
    """`run`, for `module`."""

    @wraps(ORIGINAL_RUN)
    def run(
        *popenargs: Any,
        input: Any = None,  # noqa: A002  # the stdlib's name
        capture_output: bool = False,
        timeout: float | None = None,
        check: bool = False,
        **kwargs: Any,
    ) -> Any:
        if input is not None:
            if kwargs.get("stdin") is not None:
                raise ValueError("stdin and input arguments may not both be used.")
            kwargs["stdin"] = PIPE
        if capture_output:
            if kwargs.get("stdout") is not None or kwargs.get("stderr") is not None:
                raise ValueError("stdout and stderr arguments may not be used with capture_output.")
            kwargs["stdout"] = kwargs["stderr"] = PIPE
        with _begin(module, popenargs, kwargs, timeout) as process:
            try:
                stdout, stderr = process.communicate(input, timeout=timeout)
            except TimeoutExpired:
                _end(process)
                raise
            except:
                _kill(process)
                raise
            returncode = process.poll()
            if check and returncode:
                raise CalledProcessError(returncode, process.args, output=stdout, stderr=stderr)
        completed: Any = CompletedProcess(process.args, returncode, stdout, stderr)
        completed.held = getattr(process, "held", ())
        return completed

    return run


def make_call(module: ModuleType) -> Callable[..., Any]:
    """`call`, for `module`."""

    @wraps(ORIGINAL_CALL)
    def call(*popenargs: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        with _begin(module, popenargs, kwargs, timeout) as process:
            try:
                return process.wait(timeout=timeout)
            except TimeoutExpired:
                _end(process)
                raise
            except:
                _kill(process)
                raise

    return call


def rebound(function: FunctionType, names: dict[str, Any]) -> FunctionType:
    """A function of the stdlib's whose global names are looked up in `names`."""
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__doc__ = function.__doc__
    return copy
