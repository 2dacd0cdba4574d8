"""``childproof run``: run a command with a deadline and exit with its code."""

from __future__ import annotations

import argparse
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from childproof._cli.base import (
    PATIENCE_SECONDS,
    STOPPED,
    Outlet,
    Parser,
    Stopper,
    as_json,
    chosen_command,
    line,
    seconds,
    write,
)
from childproof._cli.result import diagnosis, result_fields
from childproof._run import run

if TYPE_CHECKING:
    from childproof._result import Result

DESCRIPTION = """\
Run COMMAND, pass its output on as it comes, and exit with its code. It comes back
in any case: at the deadline the whole process tree is killed, and what the command
leaves in the background does not hold it up.

One word is a command line for /bin/sh, several words are executed as they are,
without a shell, so that no quoting is lost:

  childproof run --timeout 5 'ls -l | wc -l'
  childproof run --timeout 5 -- grep -r 'two words' .

All that follows the first word of COMMAND belongs to it, with and without the --.
The standard input is the command's.
"""

EPILOG = """\
exit status:
  COMMAND's own, or
  2    the arguments are wrong; nothing was started
  124  the deadline came
  125  COMMAND could not be started, its status was lost, or its output could not be written
  126  it was found and is not executable
  127  it was not found
  128+N  it died of signal N, or childproof got signal N and has killed it
         (INT, TERM, HUP, QUIT; 141 when nobody reads the output any more)
"""


def _finish(result: Result[Any], outlets: dict[str, Outlet]) -> None:
    """Write what slow readers have not taken yet, then the diagnosis. What fails here does not change
    the code any more: the command is over.
    """
    lines = diagnosis(result)
    for name, outlet in outlets.items():
        outlet.until = max(outlet.until, monotonic() + PATIENCE_SECONDS)
        with suppress(OSError):
            outlet.take(b"")
        if outlet.missed:
            lines.append(f"{outlet.missed} bytes of {name} are lost: nobody has read them in time")
    errors = outlets["stderr"]
    if lines:
        text = b"".join(map(line, lines))
        with suppress(OSError):
            errors.take(b"\n" + text if errors.mid_line else text)


# ---- the command line ----


def fill(parser: Parser) -> None:
    """The arguments of ``run``."""
    parser.usage = "childproof run [OPTION...] [--] COMMAND..."
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--timeout", type=seconds, metavar="S", help="kill the tree after S seconds (default: never)")
    add("--grace", type=seconds, default=0.0, metavar="S", help="SIGTERM first, and SIGKILL S seconds later")
    add(
        "--linger",
        type=seconds,
        default=0.5,
        metavar="S",
        help="after COMMAND's end go on reading for S seconds while others hold its output (default: 0.5)",
    )
    add("--kill-leftovers", action="store_true", help="kill what outlives COMMAND")
    add("--autopsy", action="store_true", help="at the deadline show what each process was blocked in")
    add("--no-shell", action="store_true", help="execute COMMAND as it is even if it is one word")
    add(
        "--json",
        action="store_true",
        help="do not pass the output on: print one JSON object with output and all else, white space trimmed"
        " off the ends of the output and undecodable bytes escaped with backslashes",
    )
    add(
        "--max-output",
        type=int,
        metavar="N",
        help="with --json: keep the first and the last N/2 bytes of each stream (default: all)",
    )
    add(
        "command",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="the command line, or the program and its arguments",
    )
    parser.set_defaults(function=_run)


def _run(args: argparse.Namespace, stopper: Stopper) -> int:
    cmd = chosen_command(args)
    if args.max_output is not None and not args.json:
        args.parser.error("--max-output is for --json: without it nothing is kept")
    deadline = inf if args.timeout is None else monotonic() + args.timeout
    outlets = {"stdout": Outlet(1, deadline), "stderr": Outlet(2, deadline)}

    def pass_on(stream: str, data: bytes) -> None:
        try:
            outlets[stream].take(data)
        except OSError as error:
            stopper.armed = False  # this kills the tree, which must not be broken off
            error.filename = stream
            raise

    try:
        result = run(
            cmd,
            timeout=args.timeout,
            stdin="inherit",
            grace=args.grace,
            linger=args.linger,
            leftovers="kill" if args.kill_leftovers else "leave",
            autopsy=args.autopsy,
            max_output=args.max_output if args.json else 0,
            on_output=None if args.json else pass_on,
        )
    except (TypeError, ValueError) as error:
        args.parser.error(str(error))
    if args.json:
        write(1, as_json(result_fields(result)), inf)
    _finish(result, outlets)
    return result.code if result.code >= 0 else STOPPED - result.code
