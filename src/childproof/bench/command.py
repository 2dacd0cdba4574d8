"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from childproof.bench import programs, tables, targets
from childproof.bench.catalogue import SCENARIOS
from childproof.bench.model import BenchError, Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options, for `childproof bench` and ``python -m childproof.bench``."""
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help=f"which: {', '.join(SCENARIOS)} (default: spawn)")
    add("--rounds", type=int, metavar="N", help="rounds, instead of each scenario's own number")
    add("--short", action="store_true", help="fewer rounds and smaller sizes")
    add("--check", action="store_true", help="exit with 1 if a ratio is 25 %% worse than its target")


def execute(args: argparse.Namespace) -> int:
    """Measure and print.

    Returns:
        The exit code: 0, 1 with ``--check`` and a target missed by far, 2 for wrong arguments.

    """
    unknown = [name for name in args.scenarios if name not in SCENARIOS]
    if unknown:
        print(f"no scenario {', '.join(unknown)}: there are {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    settings = Settings("short" if args.short else "full", args.rounds)
    verdicts = []
    try:
        for name in args.scenarios or ["spawn"]:
            result = SCENARIOS[name].measure(settings, lambda done, total: None)
            print(tables.plain(tables.of_result(SCENARIOS[name], result)))
            verdicts += targets.judge(name, result)
    except BenchError as error:
        print(f"childproof bench: {error}", file=sys.stderr)
        return 1
    finally:
        programs.clean()
    if verdicts:
        print(tables.plain(tables.of_verdicts(verdicts)))
    return int(args.check and not all(verdict.tolerated for verdict in verdicts))


def main(words: Sequence[str] | None = None) -> int:
    """``python -m childproof.bench``."""
    parser = argparse.ArgumentParser(prog="python -m childproof.bench", description=__doc__)
    add_arguments(parser)
    return execute(parser.parse_args(words))
