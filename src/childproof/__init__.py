"""Run other programs: it never hangs, never leaks a descriptor and leaves nothing behind.

code, out, err = childproof.run("ls -l | wc -l", timeout=5)
"""

from __future__ import annotations

from childproof._errors import CommandError, SpawnError
from childproof._light import TYPE_CHECKING
from childproof._result import Holder, Outcome, ProcessInfo, Result, Spawned, Usage
from childproof._run import run
from childproof._version import __version__

if TYPE_CHECKING:
    from typing import Any

    from childproof._holders import holders

__all__ = [
    "CommandError",
    "Holder",
    "Outcome",
    "ProcessInfo",
    "Result",
    "SpawnError",
    "Spawned",
    "Usage",
    "__version__",
    "holders",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "holders":  # brings the background thread's module with it
        from childproof._holders import holders

        return holders
    raise AttributeError(f"module 'childproof' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
