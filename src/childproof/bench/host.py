"""The process in which contenders are measured, in turns: ``python -m childproof.bench.host``.

It is a process of its own so that nothing of the command's (a progress bar's thread, the pictures'
memory) is in what fork copies, and so that one with much memory, many descriptors or a high limit
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
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from childproof.bench.contenders import Contender, Runner
from childproof.bench.meter import Meter
from childproof.bench.model import MissingError, Task

HARMLESS = Task(("/bin/sh", "-c", "exit 0"))


class Ballast:
    """What burdens this process while it spawns."""

    def __init__(self, rss_bytes: int = 0, fds: int = 0, nofile: int = 0, address_bytes: int = 0) -> None:
        if nofile:  # soft and hard: the loop's bound is the higher one
            resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
        if address_bytes:  # a contender that wants far too much fails, and not the machine
            resource.setrlimit(resource.RLIMIT_AS, (address_bytes, address_bytes))
        self._memory = _touched(rss_bytes) if rss_bytes else None
        null = os.open(os.devnull, os.O_RDONLY)
        self._fds = [os.dup(null) for _ in range(fds)]
        for fd in self._fds:
            os.set_inheritable(fd, True)  # such ones the child has to be rid of


def _touched(size: int) -> mmap.mmap:
    """Private memory, every page written once, in small pages: huge ones would make a fork of it cheap."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    for place in range(0, size, mmap.PAGESIZE):
        memory[place] = 1
    return memory


def _memory(field: str) -> int:
    """Bytes, as ``/proc/self/status`` has them: ``VmRSS`` now, ``VmHWM`` at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise MissingError(f"/proc/self/status has no {field}")


class Peak:
    """How far the memory of this process grows inside ``with peak:``."""

    grown_bytes = 0

    def __enter__(self) -> None:
        self._before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: proc(5), Linux 4.0

    def __exit__(self, *_: object) -> None:
        self.grown_bytes = _memory("VmHWM") - self._before


def lookup(family: str, name: str) -> Contender:
    """A contender of a family, which is a module beside this one with a function `everyone`.

    Raises:
        KeyError: there is none of that name.

    """
    people: tuple[Contender, ...] = import_module(f"childproof.bench.{family}").everyone()
    return {contender.name: contender for contender in people}[name]


class Bench:
    """The contenders of one scenario, ready to run."""

    def __init__(self) -> None:
        self._runners: dict[str, tuple[Runner, Task]] = {}
        self._meter = Meter()

    def prepare(self, family: str, contender: str, task: dict[str, Any], warm_ups: int) -> dict[str, Any]:
        """Make a contender and run it a few times.

        Returns:
            ``seconds``, its best so far, or ``missing``, why it can't be measured.

        """
        try:
            job, make = Task.from_dict(task), lookup(family, contender).make
            if not warm_ups and family == "contenders":
                make(HARMLESS)(self._meter)  # what is imported at the first run belongs to no measurement
            self._runners[contender] = make(job), job
            times = [self._once(contender)["seconds"] for _ in range(warm_ups)]
            return {"seconds": min(times, default=0.0)}
        except MissingError as error:
            return {"missing": str(error)}
        except Exception as error:
            # Whatever somebody else's library raises on this machine is a line of the table.
            return {"missing": f"{type(error).__name__}: {error}"}

    def _once(self, name: str) -> dict[str, float]:
        runner, task = self._runners[name]
        code, out, err = runner(self._meter)
        if code != task.code:
            raise RuntimeError(f"{name} gave code {code} where {task.code} was right: {err[:200]!r}")
        if task.output_bytes is not None and len(out) != task.output_bytes:
            raise RuntimeError(f"{name} gave {len(out)} bytes where {task.output_bytes} came out")
        return self._meter.values

    def turns(self, orders: list[list[str]], untimed: int) -> dict[str, Any]:
        """Run contenders in turns.

        Args:
            orders: for every round, who takes part, in what order.
            untimed: so often each runs untimed just before, so that it finds its own code in the
                caches and not its predecessor's.

        Returns:
            ``rounds``: for every round, the measurements of each. Garbage is collected before the
            first, and not meanwhile.

        """
        gc.collect()
        gc.disable()
        try:
            return {"rounds": [self._round(order, untimed) for order in orders]}
        finally:
            gc.enable()

    def _round(self, order: list[str], untimed: int) -> dict[str, dict[str, float]]:
        values = {}
        for name in order:
            for _ in range(untimed):
                self._once(name)
            values[name] = self._once(name)
        return values

    def weigh(self, name: str) -> dict[str, float]:
        """Run one once, and see how this process grows."""
        peak = Peak()
        gc.collect()
        with peak:
            values = self._once(name)
        task = self._runners[name][1]
        return {
            **values,
            "peak_bytes": peak.grown_bytes,
            "peak_share": peak.grown_bytes / (task.output_bytes or 1),
            "peak_each": peak.grown_bytes / task.count,
        }


def _obey(bench: Bench, request: dict[str, Any]) -> dict[str, Any]:
    do = request.pop("do")
    if do == "prepare":
        return bench.prepare(**request)
    if do == "weigh":
        return bench.weigh(**request)
    return bench.turns(**request)


def serve() -> None:
    """Obey requests until there are none. The first is the ballast."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a contender prints is no answer
    warnings.simplefilter("ignore")  # of fork in a process with threads, which is what we measure
    bench, ballast = Bench(), None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if ballast is None:
                ballast = Ballast(**request)
                answer: dict[str, Any] = {}
            else:
                answer = _obey(bench, request)
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
