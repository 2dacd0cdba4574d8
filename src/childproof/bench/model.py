"""What is measured and what comes out: plain data, which every other module here passes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Size = Literal["full", "short", "tiny"]
X = float | str | None
Progress = Callable[[int, int], None]
"""Called with how many steps are done, and of how many."""


class BenchError(Exception):
    """The benchmark can't go on; the text is for whoever started it."""


class MissingError(Exception):
    """A contender or a scenario that this machine can't run; the text says why."""


@dataclass(frozen=True)
class Task:
    """What every contender of a scenario has to do: unless its family says otherwise, run a program
    with both outputs captured and stdin at its end.

    Attributes:
        argv: the program, an absolute path, and its arguments; or one line, if `shell`.
        shell: `argv` is one line for ``/bin/sh -c``.
        raw: the contender shall hand the output back as bytes if it can.
        input_bytes: so many bytes are fed to stdin; `None`: stdin is ``/dev/null``.
        output_bytes: how many come out; `None`: it does not matter.
        code: the exit code that is right.
        count: how many commands, where a family runs many.
        jobs: how many at a time.

    """

    argv: tuple[str, ...]
    shell: bool = False
    raw: bool = False
    input_bytes: int | None = None
    output_bytes: int | None = None
    code: int = 0
    count: int = 1
    jobs: int = 1

    @property
    def words(self) -> tuple[str, ...]:
        """What is executed in the end."""
        return ("/bin/sh", "-c", self.argv[0]) if self.shell else self.argv

    @cached_property
    def input(self) -> bytes | None:
        """What is fed."""
        return None if self.input_bytes is None else b"x" * self.input_bytes

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Task:
        """From what `dataclasses.asdict` and a journey through JSON made of it."""
        return cls(**{**fields, "argv": tuple(fields["argv"])})


@dataclass(frozen=True)
class Settings:
    """What the command line chose.

    Attributes:
        size: how big the scenarios are: ``"full"``, ``"short"`` for a check of the targets within a
            minute, ``"tiny"`` to see that everything runs.
        rounds: instead of each scenario's own.
        only: contenders to measure, beside each scenario's reference; empty: all.
        seed: of the shuffling.

    """

    size: Size = "full"
    rounds: int | None = None
    only: tuple[str, ...] = ()
    seed: int = 1

    def pick(self, full: Any, short: Any, tiny: Any) -> Any:
        """The argument for this size."""
        return {"full": full, "short": short, "tiny": tiny}[self.size]

    def rounds_of(self, full: int, short: int, tiny: int = 2) -> int:
        """How many rounds, unless the command line said it."""
        return self.rounds or int(self.pick(full, short, tiny))


@dataclass
class Series:
    """One contender at one value of the scenario's parameter.

    Attributes:
        contender: its name.
        x: the parameter, or `None` where the scenario has none.
        samples: by metric, by round. Seconds, bytes or counts, as the metric's name says.
        label: a verdict, where the scenario gives one.
        severity: how bad that is: ``"ok"``, ``"flaw"``, ``"failure"`` or ``"untested"``.

    """

    contender: str
    x: X = None
    samples: dict[str, dict[int, float]] = field(default_factory=dict)
    label: str | None = None
    severity: str | None = None

    def add(self, turn: int, values: dict[str, float]) -> None:
        """The measurements of one round."""
        for metric, value in values.items():
            self.samples.setdefault(metric, {})[turn] = float(f"{value:.6g}")  # more digits are noise


@dataclass(frozen=True)
class Metric:
    """A column: its name in `Series.samples`, its heading, what its numbers are, and which one is shown."""

    name: str
    heading: str
    unit: Literal["seconds", "bytes", "count"] = "seconds"
    statistic: Literal["median", "mean"] = "median"


@dataclass(frozen=True)
class Scenario:
    """One scenario: what it is and how it is measured.

    Attributes:
        name: on the command line.
        title: one line.
        about: what exactly is measured, for a reader who wants to argue.
        reference: the contender that ratios are against; empty: none.
        measure: gives the result.
        metrics: the columns; the first is what ratios and pictures are about.
        x_label: what the parameter is, with its unit; empty: there is none.

    """

    name: str
    title: str
    about: str
    reference: str
    measure: Callable[[Settings, Progress], Result]
    metrics: tuple[Metric, ...]
    x_label: str = ""


@dataclass
class Result:
    """What one scenario gave.

    Attributes:
        series: in the order of the contenders.
        missing: contender: why it was not measured.
        notes: what a reader of the numbers has to know.

    """

    series: list[Series] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def find(self, contender: str, x: X = None) -> Series | None:
        """The series of a contender at a value of the parameter."""
        for series in self.series:
            if series.contender == contender and series.x == x:
                return series
        return None
