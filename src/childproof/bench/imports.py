"""The family and scenario of the import: what a program pays before it has run anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from childproof.bench import programs
from childproof.bench.contenders import Answer, Contender, Runner
from childproof.bench.meter import Meter
from childproof.bench.model import Metric, MissingError, Progress, Result, Scenario, Settings, Task
from childproof.bench.spawning import chosen
from childproof.bench.turns import Level, Plan, take_turns

ASK = """\
import sys
from time import perf_counter
if {module!r} in sys.modules:
    sys.exit("it is imported when Python starts")
began = perf_counter()
{statement}
print(perf_counter() - began)
"""


def _statement(module: str, statement: str) -> Callable[[Task], Runner]:
    program = ASK.format(module=module, statement=statement)

    def make(_task: Task) -> Runner:
        # Compiled files of our own: where Python may not write any, each import would compile anew.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": programs.directory().name}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def run(meter: Meter) -> Answer:
            done = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
            )
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise MissingError(f"not installed ({reason})" if "ModuleNotFoundError" in reason else reason)
            meter.values = {"seconds": float(done.stdout)}
            return 0, b"", b""

        return run

    return make


SUBPROCESS, OURS = "import subprocess", "import childproof"
RUN = "import {0}; {0}.run(['/bin/true'], stdout={1})"


def everyone() -> tuple[Contender, ...]:
    """All contenders of this family."""
    modules = ["subprocess", "childproof", "asyncio", "psutil", "sh", "plumbum", "invoke", "trio", "anyio"]
    modules += ["bounded_subprocess", "command_runner"]
    plain = [Contender(f"import {name}", "", _statement(name, f"import {name}")) for name in modules]
    first = [
        Contender("subprocess, first run", "", _statement("subprocess", RUN.format("subprocess", -1))),
        Contender("childproof, first run", "", _statement("childproof", RUN.format("childproof", "'capture'"))),
    ]
    return (*plain[:2], *first, *plain[2:])


def _measure(settings: Settings, progress: Progress) -> Result:
    people = list(everyone())
    if settings.size == "short":
        people = people[:2]
    plan = Plan(
        "imports",
        chosen(settings, people, SUBPROCESS),
        [Level(None, Task(("-",)), {})],
        settings.rounds_of(60, 40, 1),
        warm_ups=1,
        untimed=0,
    )
    return take_turns(plan, settings, progress)


SCENARIOS = (
    Scenario(
        "import",
        "What the import costs",
        "The statement's own time in a fresh interpreter that has imported nothing of it yet, files in the cache.",
        SUBPROCESS,
        _measure,
        (Metric("seconds", "time"),),
    ),
)
