"""What the parts of the drop-in share: the stdlib's `subprocess`, its settings, when it stands aside."""

from __future__ import annotations

import subprocess
import sys
import threading
from math import inf, isnan
from typing import Any

stdlib = subprocess
"""The stdlib's module, whatever name it is imported by later."""

LINGER_SECONDS = 0.5
"""How long `communicate` goes on reading after the child's end, unless it is told otherwise."""

Linger = float | None


def checked_linger(value: Any) -> Linger:
    """`value` as seconds to linger.

    Raises:
        TypeError, ValueError: it is none.

    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"linger must be a number of seconds or None, not {value!r}")
    if isnan(value) or value < 0:
        raise ValueError(f"linger must not be negative or NaN: {value!r}")
    return float(value)


class Settings:
    """What holds for all calls.

    Attributes:
        linger: seconds; `None`: as long as anybody holds a pipe, as the stdlib does.

    """

    linger: Linger = LINGER_SECONDS


settings = Settings()


class Limit(threading.local):
    """What `run` hands to the constructor, which has no parameter for it."""

    _value: tuple[float, float | None, bool] = inf, None, False

    def set(self, until: float, timeout: float | None) -> None:
        """For the next constructor in this thread.

        Args:
            until: its deadline, on `time.monotonic`.
            timeout: seconds, as it was given.

        """
        self._value = until, timeout, True

    def take(self) -> tuple[float, float | None, bool]:
        """What was set, and whether anything was; once, since what a hook starts meanwhile has
        nothing to do with it.
        """
        value = self._value
        self._value = inf, None, False
        return value


limit = Limit()


# ---- when the stdlib's own spawn is wanted ----

try:
    import _posixsubprocess
except ImportError:  # not a POSIX system
    _posixsubprocess = None  # type: ignore[assignment]

_fork_exec = getattr(_posixsubprocess, "fork_exec", None)


def fork_exec_is_replaced() -> bool:
    """A debugger follows children by a function of its own in the place of the stdlib's."""
    # 3.10 has no name of its own for it. gevent leaves None, by which nothing can be started.
    inner, named = getattr(_posixsubprocess, "fork_exec", None), getattr(stdlib, "_fork_exec", None)
    return (inner is not _fork_exec and inner is not None) or (named is not _fork_exec and named is not None)


def is_green() -> bool:
    """Whether a child must be waited for by the stdlib's code, which gevent or eventlet have given
    their own functions: in ours all green threads would stand still.

    Ours waits by `select.poll`: gevent's does for its greenlets, eventlet has none.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("os") and not monkey.is_module_patched("select"):
        return not monkey.is_module_patched("subprocess")
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and any(map(patcher.is_monkey_patched, ("os", "select")))


def original_popen() -> type[subprocess.Popen[Any]]:
    """The stdlib's class, also where gevent has replaced it already."""
    found = stdlib.Popen
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        found = monkey.get_original("subprocess", "Popen")
    return found
