"""Every way to start, to close and to contain, forced one at a time."""

from __future__ import annotations

import os
from typing import Any

import pytest

from childproof import _cgroup, _command, _spawner

WAYS = {
    "clone": {"start": _spawner.STARTS["clone"]},
    "vfork": {"start": _spawner.STARTS["vfork"]},
    "fork": {"start": _spawner.STARTS["fork"]},
    "close_range": {"closing": _spawner.CLOSINGS["close_range"]},
    "proc": {"closing": _spawner.CLOSINGS["proc"]},
    "rlimit": {"closing": _spawner.CLOSINGS["rlimit"]},
    "fork, rlimit, no pidfd": {
        "start": _spawner.STARTS["fork"],
        "closing": _spawner.CLOSINGS["rlimit"],
        "disabled": _spawner.FEATURES["pidfd"],
    },
    "no pidfd": {"disabled": _spawner.FEATURES["pidfd"]},
}
if not os.path.exists("/proc/self/fd"):  # then it fails, as it should: see test_refusals.py
    del WAYS["proc"]
if _spawner.PORTABLE:  # there is nothing else to force
    WAYS = {name: WAYS[name] for name in ("fork", "rlimit")}

linux_build = pytest.mark.skipif(_spawner.PORTABLE, reason="the portable build has fork and the loop only")
"""For tests of the ways that it lacks."""


def of_linux(*ways: str) -> list[Any]:
    """Parameters of a test that the portable build lacks."""
    return [pytest.param(way, marks=linux_build) for way in ways]


OPTIONS: dict[str, dict[str, Any]] = {
    "die_with_parent": {"die_with_parent": True},
}
if _spawner.PORTABLE:
    OPTIONS = {}
elif _cgroup.is_possible():
    OPTIONS["cgroup"] = {"contain": "cgroup"}
"""What changes who is between this process and the command. Not a pid namespace, in which the numbers that
commands print are others than here: it has its own tests.
"""


def force(monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
    """As the environment variables would."""
    monkeypatch.setattr(_spawner, "settings", _spawner.settings._replace(**values))


def force_options(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Give these options to each run that does not have them."""
    defaults = _command.make_command.__kwdefaults__ or {}
    monkeypatch.setattr(_command.make_command, "__kwdefaults__", {**defaults, **options})
    first = _command.Command._fields.index("env")
    monkeypatch.setattr(_command, "_DEFAULTS", _command.make_command(["true"])[first:])


@pytest.fixture(params=[*WAYS, *OPTIONS])
def every_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs under each start primitive, each closing rung and each containment."""
    way: str = request.param
    if way in WAYS:
        force(monkeypatch, **WAYS[way])
    else:
        force_options(monkeypatch, **OPTIONS[way])
    return way
