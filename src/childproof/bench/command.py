"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from childproof._text import did_you_mean
from childproof.bench import programs, record, tables, targets, terminal
from childproof.bench.catalogue import SCENARIOS
from childproof.bench.model import BenchError, MissingError, Result, Scenario, Settings, Size

FAILED, MISUSED = 1, 2
DEFAULT = ("spawn",)

DESCRIPTION = """\
Measure what spawning costs on this machine, and what goes wrong, with childproof,
with what Python has, and with every other library that is installed.

All contenders of a scenario are measured in turns, the order drawn anew each round,
each turn preceded by untimed runs of the same contender. Numbers are medians with the
10th and 90th percentile; a ratio is the median of the ratios of each round, with a
bootstrap interval of 95 %. Garbage is collected before ten rounds, not meanwhile.
CPU is the kernel's count for the measuring process and for its children.
"""

EPILOG = """\
--json prints one document instead of the tables:
  format     1
  command    the arguments
  date       when it was written, UTC
  machine    cpu, cpus, hypervisor, memory, kernel, libc, python, load, packages
  scenarios  by name: title, about, reference, parameter, metrics (name: unit),
             missing (contender: why), notes, and series, a list of
               contender, x (value of the parameter or null)
               summary   by metric: median, p10, p90, rounds
               samples   by metric, by round: each single measurement
               ratio     to the reference: median, low, high, rounds; or null
               label, severity   the verdict, in hostile; or null
  targets    a list of text, limit, ratio, met
Times are in seconds, memory in bytes.

exit status: 0; 1 if the benchmark could not go on, or with --check if a ratio is
25 % worse than its target; 2 if the arguments are wrong.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options, for `childproof bench` and ``python -m childproof.bench``."""
    parser.description, parser.epilog = DESCRIPTION, _scenario_list() + EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help="which of those below, or all (default: spawn)")
    add("--rounds", type=int, metavar="N", help="rounds, instead of each scenario's own number")
    add("--only", action="append", default=[], metavar="NAME", help="only this contender and the reference; repeatable")
    add("--seed", type=int, default=1, metavar="N", help="of the shuffling (default: 1)")
    add("--short", action="store_true", help="fewer rounds and contenders, smaller sizes")
    add("--tiny", action="store_true", help="two rounds of next to nothing: does everything run?")
    add("--check", action="store_true", help="fail on a ratio 25 %% worse than its target; by default of all targets")
    add("--json", action="store_true", help="print one JSON document (see below)")
    add("--plot", metavar="DIR", help="draw each scenario into DIR, as SVG and PNG; needs matplotlib")
    add("--from", dest="record", metavar="FILE", help="measure nothing, show what --json has written")


def _scenario_list() -> str:
    width = max(map(len, SCENARIOS))
    lines = (f"  {name:{width}}  {scenario.title}" for name, scenario in SCENARIOS.items())
    return "scenarios:\n" + "\n".join(lines) + "\n\n"


def _chosen(args: argparse.Namespace) -> list[Scenario]:
    names: list[str] = args.scenarios
    if not names and args.check:
        names = list(dict.fromkeys(target.scenario for target in targets.TARGETS))
    unknown = [name for name in names if name not in SCENARIOS and name != "all"]
    if unknown:
        meant = did_you_mean(unknown[0], SCENARIOS)
        raise ValueError(f"no scenario {unknown[0]!r}: there are {', '.join(SCENARIOS)}, and all{meant}")
    if "all" in names:
        return list(SCENARIOS.values())
    return [SCENARIOS[name] for name in names or DEFAULT]


def _settings(args: argparse.Namespace) -> Settings:
    if args.rounds is not None and args.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, not {args.rounds}")
    size: Size = "tiny" if args.tiny else "short" if args.short else "full"
    return Settings(size, args.rounds, tuple(args.only), args.seed)


def _measure(scenario: Scenario, settings: Settings) -> Result:
    with terminal.progress(scenario.name) as progress:
        try:
            return scenario.measure(settings, progress)
        except MissingError as error:
            return Result(notes=[f"not measured: {error}"])


def _show(scenario: Scenario, result: Result) -> None:
    if any(series.severity for series in result.series):
        terminal.show(tables.of_matrix(scenario, result))
    terminal.show(tables.of_result(scenario, result))


def _load(path: str) -> tuple[dict[Scenario, Result], dict[str, Any]]:
    try:
        loaded = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: {error}") from error
    return record.results_of(loaded, SCENARIOS), loaded["machine"]


def _run(args: argparse.Namespace, wanted: list[Scenario], settings: Settings) -> int:
    results: dict[Scenario, Result] = {}
    facts = record.machine()
    if args.record:
        results, facts = _load(args.record)
    else:
        for scenario in wanted:
            results[scenario] = _measure(scenario, settings)
            if not args.json:
                _show(scenario, results[scenario])
    verdicts = [verdict for scenario, result in results.items() for verdict in targets.judge(scenario.name, result)]
    if args.json:
        print(json.dumps(record.document(results, verdicts, facts)))
    else:
        for scenario, result in results.items() if args.record else ():
            _show(scenario, result)
        if verdicts:
            terminal.show(tables.of_verdicts(verdicts))
    if args.plot:
        from childproof.bench.plots import draw

        for path in draw(results, facts, Path(args.plot)):
            print(path, file=sys.stderr)
    return _judge(verdicts) if args.check else 0


def _judge(verdicts: Sequence[targets.Verdict]) -> int:
    missed = [verdict.target.text for verdict in verdicts if not verdict.tolerated]
    if not missed:
        return 0
    print(f"childproof bench: more than 25 % worse than the target: {'; '.join(missed)}", file=sys.stderr)
    return FAILED


def execute(args: argparse.Namespace) -> int:
    """Measure and print.

    Returns:
        The exit code: 0; 1 where it could not go on, or with ``--check`` a target was missed by far; 2
        for wrong arguments.

    """
    try:
        return _run(args, _chosen(args), _settings(args))
    except ValueError as error:
        print(f"childproof bench: {error}", file=sys.stderr)
        return MISUSED
    except BenchError as error:
        print(f"childproof bench: {error}", file=sys.stderr)
        return FAILED
    finally:
        programs.clean()


def main(words: Sequence[str] | None = None) -> int:
    """``python -m childproof.bench``."""
    parser = argparse.ArgumentParser(prog="python -m childproof.bench")
    add_arguments(parser)
    return execute(parser.parse_args(words))
