"""The process in which contenders are measured, in turns: ``python -m childproof.bench.host``.

It is a process of its own so that nothing of the command's (a progress bar's thread, the pictures'
memory) is in what fork copies, and so that one with much memory, many descriptors or many threads
can be measured in turns with one that has none.

It reads requests as lines of JSON on stdin, and answers each with one line.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import resource
import sys
import threading
import warnings
from typing import Any

from childproof.bench import contenders
from childproof.bench.contenders import Runner
from childproof.bench.meter import Meter
from childproof.bench.model import MissingError, Task

WARM_UPS = 3


class Ballast:
    """What burdens this process while it spawns."""

    def __init__(self, rss_bytes: int = 0, fds: int = 0, nofile: int = 0, threads: int = 1) -> None:
        if nofile:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, max(hard, nofile)))
        self._memory = _touched(rss_bytes) if rss_bytes else None
        # Inheritable, since that is what the child has to be rid of.
        null = os.open(os.devnull, os.O_RDONLY)
        self._fds = [os.dup(null) for _ in range(fds)]
        for fd in self._fds:
            os.set_inheritable(fd, True)
        self._stop = threading.Event()
        for _ in range(threads - 1):
            threading.Thread(target=self._stop.wait, daemon=True).start()


def _touched(size: int) -> mmap.mmap:
    """Private memory, every page written once, in small pages: huge ones would make a fork of it cheap."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    for place in range(0, size, mmap.PAGESIZE):
        memory[place] = 1
    return memory


class Bench:
    """The contenders of one scenario, ready to run."""

    def __init__(self) -> None:
        self._runners: dict[str, tuple[Runner, int]] = {}
        self._meter = Meter()

    def prepare(self, name: str, task: Task, code: int) -> dict[str, Any]:
        """Make a contender and warm it up.

        Returns:
            ``seconds``, its best so far, or ``missing``, why it can't be measured.

        """
        try:
            runner = contenders.by_name(name).make(task)
            self._runners[name] = runner, code
            return {"seconds": min(self._once(name)["seconds"] for _ in range(WARM_UPS))}
        except MissingError as error:
            return {"missing": str(error)}
        except Exception as error:
            # Whatever somebody else's library raises on this machine is a line of the table.
            return {"missing": f"{type(error).__name__}: {error}"}

    def _once(self, name: str) -> dict[str, float]:
        runner, code = self._runners[name]
        answer = runner(self._meter)
        if answer[0] != code:
            raise RuntimeError(f"{name} gave code {answer[0]} where {code} was right")
        return self._meter.values

    def turn(self, order: list[str]) -> dict[str, dict[str, float]]:
        """Run the named contenders once each, in this order. What is collected is collected before,
        and nothing meanwhile.
        """
        gc.collect()
        gc.disable()
        try:
            return {name: self._once(name) for name in order}
        finally:
            gc.enable()


def serve() -> None:
    """Obey requests until there are none."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a contender prints is no answer
    warnings.simplefilter("ignore")  # of fork in a process with threads, which is what we measure
    bench, ballast = Bench(), None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "burden":
            ballast = Ballast(**request["ballast"])
            answer: dict[str, Any] = {"burdened": ballast is not None}
        elif request["do"] == "prepare":
            answer = bench.prepare(request["contender"], Task.from_dict(request["task"]), request["code"])
        else:
            answer = bench.turn(request["order"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
