"""Every driver of the one state machine, as a function like `childproof.run`: the hostile commands are
given to each of them by the same tests.

A driver is added to `RUNNERS`, once, by the module that it is made in or here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest

import childproof
from childproof import Result, SpawnError, aio
from forcing import OPTIONS, WAYS, force

Runner = Callable[..., Result[Any]]
"""Called with the parameters of `run`; hands back what `run` would."""


def _started(cmd: Any, input: Any = None, timeout: float | None = None, **options: Any) -> Result[Any]:  # noqa: A002
    try:
        with childproof.start(cmd, input, timeout, **options) as child:
            return child.result()
    except SpawnError as error:
        return _not_none(error.result)


def _not_none(result: Result[Any] | None) -> Result[Any]:
    assert result is not None
    return result


def _piped(cmd: Any, input: Any = None, timeout: float | None = None, **options: Any) -> Result[Any]:  # noqa: A002
    (result,) = childproof.pipeline(cmd, input=input, timeout=timeout, **options).stages
    return result


def _one_of_many(cmd: Any, input: Any = None, timeout: float | None = None, **options: Any) -> Result[Any]:  # noqa: A002
    """Among others that run and end at the same time."""
    own = {"cmd": cmd, "input": input, "timeout": timeout, **options}
    results = {result.position: result for result in childproof.run_many(["true", own, "sleep 0.05"], jobs=3)}
    assert [results[0].code, results[2].code] == [0, 0]
    return results[1]


def _through_epoll(cmd: Any, input: Any = None, timeout: float | None = None, **options: Any) -> Result[Any]:  # noqa: A002
    """`run_many` as it is with many jobs."""
    (result,) = childproof.run_many([{"cmd": cmd, "input": input, "timeout": timeout, **options}], jobs=1000)
    return result


def _in_loop(backend: str) -> Runner:
    def run(*args: Any, **options: Any) -> Result[Any]:
        return anyio.run(partial(aio.run, *args, **options), backend=backend)

    return run


RUNNERS: dict[str, Runner] = {
    "run": childproof.run,
    "start": _started,
    "pipeline": _piped,
    "run_many": _one_of_many,
    "run_many, epoll": _through_epoll,
    "aio, asyncio": _in_loop("asyncio"),
    "aio, trio": _in_loop("trio"),
}


@pytest.fixture(params=list(RUNNERS.values()), ids=list(RUNNERS))
def runner(request: pytest.FixtureRequest) -> Runner:
    """The test runs with each driver."""
    driver: Runner = request.param
    return driver


_EVERYWHERE: dict[str, tuple[Runner, dict[str, int]]] = {
    f"run, {name}": (childproof.run, way) for name, way in WAYS.items()
}
_EVERYWHERE.update({name: (driver, {}) for name, driver in RUNNERS.items() if name != "run"})
_EVERYWHERE.update({f"run, {name}": (partial(childproof.run, **options), {}) for name, options in OPTIONS.items()})


@pytest.fixture(params=list(_EVERYWHERE.values()), ids=list(_EVERYWHERE))
def runner_every_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """The test runs with `run` under each start primitive, closing rung and containment, and with each other
    driver under the default ones: how a child is made does not depend on who drives.
    """
    driver: Runner
    driver, way = request.param
    force(monkeypatch, **way)
    return driver
