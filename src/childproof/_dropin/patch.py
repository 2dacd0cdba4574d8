"""`patch`: the stdlib's `subprocess` uses the drop-in, and with it every library that looks there."""

from __future__ import annotations

import sys
import warnings

from childproof._dropin.settings import Linger, checked_linger, settings, stdlib
from childproof._light import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

PATCHED_LINGER_SECONDS = 5.0
"""Longer than for who asks for the drop-in by name: a program that knows nothing of it may rely on all
that ``exec > >(tee log)`` still writes."""


class _Patch:
    """What was replaced.

    Attributes:
        ours: by name, what is in the stdlib's module now.
        theirs: by name, what was there.
        linger: what `settings.linger` was.

    """

    def __init__(self, ours: dict[str, Any], linger: Linger) -> None:
        self.ours = ours
        self.theirs = {name: getattr(stdlib, name) for name in ours}
        self.linger = linger


_patch: _Patch | None = None


def patch(linger: float | None = PATCHED_LINGER_SECONDS) -> None:
    """Make the stdlib's `subprocess` use childproof's drop-in.

    `Popen`, `run` and `call` of the module are replaced, through which all its other functions,
    asyncio and every library that looks them up there go. Who did ``from subprocess import Popen``
    before has the stdlib's class, and keeps it; so patch first. asyncio's `Process.wait` comes back at
    the end of the process, not of its pipes, and its `communicate` lingers likewise.

    Done once more it only sets `linger`. It is undone by `unpatch`.

    Args:
        linger: seconds that `communicate` and the like go on reading after the child's end while
            somebody else holds its pipes; `None`: as long as they do.

    Raises:
        RuntimeError: gevent has replaced the functions of `subprocess`: they must stay, or all
            greenlets stand still while one waits.
        TypeError, ValueError: `linger` is no number of seconds.

    """
    global _patch
    seconds = checked_linger(linger)
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("subprocess"):
        raise RuntimeError("gevent has patched subprocess: patch childproof first, or not at all")
    if _patch is None:
        from childproof._dropin import transports
        from childproof._dropin.popen import Popen
        from childproof._dropin.run import make_call, make_run

        _patch = _Patch({"Popen": Popen, "run": make_run(stdlib), "call": make_call(stdlib)}, settings.linger)
        for name, value in _patch.ours.items():
            setattr(stdlib, name, value)
        transports.wanted = True
    settings.linger = seconds


def unpatch() -> None:
    """Undo `patch`: the stdlib's module is as it was. Children that run are not touched.

    What somebody else has put in the place of our functions meanwhile stays, with a RuntimeWarning.
    """
    global _patch
    if _patch is None:
        return
    from childproof._dropin import transports

    done, _patch = _patch, None
    others = []
    for name, value in done.theirs.items():
        if getattr(stdlib, name) is done.ours[name]:
            setattr(stdlib, name, value)
        else:
            others.append(f"subprocess.{name}")
    transports.wanted = False
    transports.remove()
    settings.linger = done.linger
    if others:
        warnings.warn(
            f"{', '.join(others)} has been replaced by somebody else since patch(), and stays",
            RuntimeWarning,
            stacklevel=2,
        )
