"""The stdlib's `subprocess` on childproof's spawner: ``from childproof import subprocess``.

Every name, exception and default is the stdlib's; what differs is listed in docs/migrate.md. All that
is not defined here, names with an underscore too, is read from the stdlib's module, and set there.

``childproof.subprocess.linger`` is for how many seconds `communicate`, `run` and the like go on reading
after the child's end while somebody else holds its pipes; `None`: as long as they do.
"""

from __future__ import annotations

import sys
from types import ModuleType

from childproof._dropin import checked_linger, settings, stdlib
from childproof._light import TYPE_CHECKING
from childproof._popen import Popen
from childproof._popen_run import make_call, make_run, rebound

if TYPE_CHECKING:
    from typing import Any

__all__ = list(stdlib.__all__)  # noqa: PLE0605

_OURS = ("Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput")


class _Module(ModuleType):
    """This module: what it does not have itself is the stdlib's."""

    @property
    def linger(self) -> float | None:
        """See the module."""
        return settings.linger

    @linger.setter
    def linger(self, value: float | None) -> None:
        settings.linger = checked_linger(value)

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(stdlib, name)
        except AttributeError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "linger" or name in self.__dict__ or not hasattr(stdlib, name):
            super().__setattr__(name, value)
        else:
            setattr(stdlib, name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__:
            super().__delattr__(name)
        else:
            delattr(stdlib, name)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *dir(stdlib), "linger"})


def _fill(module: ModuleType, names: dict[str, Any]) -> None:
    names.update({name: getattr(stdlib, name) for name in (*stdlib.__all__, "list2cmdline") if name not in _OURS})
    Popen.__module__ = module.__name__
    names["run"], names["call"] = make_run(module), make_call(module)
    for name in _OURS[3:]:
        names[name] = rebound(getattr(stdlib, name), names)
    module.__class__ = _Module


_fill(sys.modules[__name__], globals())
