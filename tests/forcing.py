"""Every way to start and every way to close, forced one at a time."""

from __future__ import annotations

import pytest

from childproof import _spawner

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
if _spawner.PORTABLE:  # there is nothing else to force
    WAYS = {name: WAYS[name] for name in ("fork", "rlimit")}


def force(monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
    """As the environment variables would."""
    monkeypatch.setattr(_spawner, "settings", _spawner.settings._replace(**values))


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def every_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The test runs under each start primitive and each closing rung."""
    force(monkeypatch, **request.param)
    ways: dict[str, int] = request.param
    return ways
