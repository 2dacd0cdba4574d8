"""Run other programs: it never hangs, never leaks a descriptor and leaves nothing behind.

code, out, err = childproof.run("ls -l | wc -l", timeout=5)
"""

from __future__ import annotations

from childproof._errors import CommandError, OutputCut, SpawnError, StatusLost
from childproof._light import TYPE_CHECKING
from childproof._result import Contained, Examined, Holder, Outcome, ProcessInfo, Result, Spawned, Usage
from childproof._run import run
from childproof._version import __version__

if TYPE_CHECKING:
    from typing import Any

    from childproof._cgroup import Cgroup
    from childproof._dropin.patch import patch, unpatch
    from childproof._handle.child import Child, start
    from childproof._handle.stream import Stream, stream
    from childproof._many.run_many import Progress, run_many
    from childproof._pipeline import PipelineResult, pipeline
    from childproof._processes.holders import holders
    from childproof._processes.kill_tree import TreeKilled, kill_tree
    from childproof._processes.leaks import LeakyFd, leaky_fds
    from childproof._service.launch import launch
    from childproof._tee import Tee, tee

__all__ = [
    "Cgroup",
    "Child",
    "CommandError",
    "Contained",
    "Examined",
    "Holder",
    "LeakyFd",
    "Outcome",
    "OutputCut",
    "PipelineResult",
    "ProcessInfo",
    "Progress",
    "Result",
    "SpawnError",
    "Spawned",
    "StatusLost",
    "Stream",
    "Tee",
    "TreeKilled",
    "Usage",
    "__version__",
    "holders",
    "kill_tree",
    "launch",
    "leaky_fds",
    "patch",
    "pipeline",
    "run",
    "run_many",
    "start",
    "stream",
    "tee",
    "unpatch",
]

_LAZY = {
    "Cgroup": "_cgroup",
    "Child": "_handle.child",
    "LeakyFd": "_processes.leaks",
    "PipelineResult": "_pipeline",
    "Progress": "_many.run_many",
    "Stream": "_handle.stream",
    "Tee": "_tee",
    "TreeKilled": "_processes.kill_tree",
    "holders": "_processes.holders",
    "kill_tree": "_processes.kill_tree",
    "launch": "_service.launch",
    "leaky_fds": "_processes.leaks",
    "patch": "_dropin.patch",
    "pipeline": "_pipeline",
    "run_many": "_many.run_many",
    "start": "_handle.child",
    "stream": "_handle.stream",
    "tee": "_tee",
    "unpatch": "_dropin.patch",
}
"""Where what `run` does not need is imported from when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'childproof' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"childproof.{_LAZY[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
