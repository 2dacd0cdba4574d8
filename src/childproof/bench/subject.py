"""One contender in one case of the conformance table, in a process that may be lost:
``python -m childproof.bench.subject``. The first line on stdin says which; see `childproof.bench.arena`.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import warnings
from importlib import import_module
from typing import Any

from childproof.bench.host import Peak
from childproof.bench.meter import Meter
from childproof.bench.model import MissingError, Task


def descriptors() -> set[str]:
    """What is open, each by its number and what it is."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(name + os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue  # the listing's own
    return found


def _tell(**fields: Any) -> None:
    os.write(_answers, json.dumps(fields).encode() + b"\n")


def _await_line() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        os._exit(0)
    request: dict[str, Any] = json.loads(line)
    return request


def _try(call: Any, task: Task, timeout: float) -> dict[str, Any]:
    meter, peak = Meter(), Peak()
    seen: dict[str, Any] = {}
    try:
        with peak, meter:
            said = call(task, timeout)
        seen = {"timed_out": said.timed_out, "code": said.code, "out_bytes": len(said.out)}
        seen["out"] = said.out[:100].decode("utf-8", "replace")
        del said
    except MissingError as error:
        return {"missing": str(error)}
    except BaseException as error:
        seen = {"error": type(error).__name__}
    gc.collect()
    return {**seen, "seconds": meter.values["seconds"], "peak_bytes": peak.grown_bytes}


def main() -> None:
    """Warm up, say so, be told to go, report, and count descriptors once more when told to."""
    warnings.simplefilter("ignore")
    request = _await_line()
    try:
        call = import_module(request["module"]).CALLS[request["contender"]]
        call(Task(("/bin/sh", "-c", "exit 0")), 10.0)
        call(Task(("/bin/sh", "-c", "exec sleep 600")), 0.3)  # what is made once, for all timeouts, is no leak
    except MissingError as error:
        _tell(missing=str(error))
        return
    except Exception as error:
        _tell(missing=f"fails at a command that does nothing: {type(error).__name__}: {error}")
        return
    if request["ignore_sigchld"]:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    task = Task.from_dict(request["task"])
    _ = task.input  # made before, since its memory is not the contender's
    gc.collect()
    before = descriptors()
    _tell(ready=True)
    _await_line()
    seen = _try(call, task, request["timeout"])
    _tell(**seen, held_fds=len(descriptors() - before))
    _await_line()
    gc.collect()
    _tell(leaked_fds=len(descriptors() - before))


if __name__ == "__main__":
    _answers = os.dup(1)
    os.dup2(2, 1)  # what a contender prints is no answer
    main()
    os._exit(0)  # what it has left (threads, loops) must not keep this process
