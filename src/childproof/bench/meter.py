"""The stopwatch: wall time, and the CPU of this process and of the children it has waited for."""

from __future__ import annotations

from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from time import perf_counter_ns


class Meter:
    """Measures what runs inside ``with meter:``.

    The clock is read last on the way in and first on the way out. CPU times are the kernel's, in
    microseconds; how it divides them into user and system is by its ticks, so one run says little
    about that and only the sum is exact.

    Attributes:
        values: by metric, of the last block.
        ended_ns: when it ended, on ``CLOCK_MONOTONIC``, which is Linux's `time.perf_counter`.

    """

    __slots__ = ("_began", "_children", "_self", "ended_ns", "values")

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self._began = self.ended_ns = 0

    def __enter__(self) -> None:
        self._self, self._children = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
        self._began = perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        ended = perf_counter_ns()
        own, children = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
        values = {
            "seconds": (ended - self._began) / 1e9,
            "parent_user": own.ru_utime - self._self.ru_utime,
            "parent_system": own.ru_stime - self._self.ru_stime,
            "child_user": children.ru_utime - self._children.ru_utime,
            "child_system": children.ru_stime - self._children.ru_stime,
        }
        values["parent_cpu"] = values["parent_user"] + values["parent_system"]
        values["child_cpu"] = values["child_user"] + values["child_system"]
        self.values, self.ended_ns = values, ended
