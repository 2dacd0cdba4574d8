"""What makes a module of `childproof.subprocess`: the stdlib's names, with ours in the place of some."""

from __future__ import annotations

import sys
from types import ModuleType

from childproof._dropin.popen import Popen
from childproof._dropin.run import make_call, make_run, rebound
from childproof._dropin.settings import checked_linger, settings, stdlib
from childproof._light import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

REBOUND = ("check_call", "check_output", "getoutput", "getstatusoutput")
"""Functions of the stdlib's that are nothing but calls of others of the module."""

_THEIRS = frozenset(vars(stdlib))


class DropIn(ModuleType):
    """A module that reads from the stdlib's what it does not have itself, and sets it there: who
    replaces ``_fork_exec`` or ``_USE_VFORK`` here means the stdlib's.
    """

    @property
    def linger(self) -> float | None:
        """Seconds that `communicate` goes on reading after the child's end."""
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
        if name in _THEIRS and name not in self.__dict__:
            setattr(stdlib, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in _THEIRS and name not in self.__dict__:
            vars(stdlib).pop(name, None)  # `unittest.mock` deletes what a test has deleted before
        else:
            super().__delattr__(name)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *_THEIRS, "linger"})


def fill(name: str) -> None:
    """Make the module `name` the drop-in."""
    module = sys.modules[name]
    names = module.__dict__
    names["__all__"] = list(stdlib.__all__)
    names.update({public: getattr(stdlib, public) for public in (*stdlib.__all__, "list2cmdline")})
    names.update(Popen=Popen, run=make_run(module), call=make_call(module))
    for other in REBOUND:
        names[other] = rebound(getattr(stdlib, other), names)
    module.__class__ = DropIn
