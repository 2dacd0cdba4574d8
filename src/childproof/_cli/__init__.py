"""The command `childproof`: the library from a shell.

Unlike the library it owns its process, and so has signal handlers of its own.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module

from childproof._cli.base import FAILED, STOPPED, Parser, ShowVersion, Stopped, Stopper, complain
from childproof._text import did_you_mean

SUBCOMMANDS = {
    "run": "run a command with a deadline and exit with its code",
    "launch": "start a service that is nobody's child, and print its pid",
    "many": "run the commands of the standard input, some at once",
    "holders": "show who has a pipe, a file or a socket open",
    "tree": "show a process, all that belong to it, and what they wait in",
    "python": "run a Python program whose subprocess is childproof's",
    "bench": "measure what spawning costs on this machine",
}
"""What each does. The module ``_cli/NAME.py`` has ``fill(parser)``, which adds the arguments and sets the
default ``function(args, stopper)``, which gives the exit code. It is imported for its subcommand only.
"""


def _parser(chosen: str) -> Parser:
    about = "Run other programs: it never hangs and leaves nothing behind."
    parser = Parser(prog="childproof", description=about, allow_abbrev=False)
    parser.add_argument("--version", action=ShowVersion, help="print the version and exit")
    if chosen.startswith("-") and chosen not in ("-h", "--help", "--version"):
        parser.error(f"there is no option {chosen} before the subcommand{parser.meant(chosen)}")
    if chosen and chosen not in SUBCOMMANDS and not chosen.startswith("-"):
        meant = did_you_mean(chosen, SUBCOMMANDS)
        parser.error(f"there is no subcommand {chosen!r}: there are {', '.join(SUBCOMMANDS)}{meant}")
    commands = parser.add_subparsers(required=True, metavar="SUBCOMMAND")
    for name, summary in SUBCOMMANDS.items():
        subparser = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        subparser.set_defaults(parser=subparser)
        if name == chosen:
            import_module(f"childproof._cli.{name}").fill(subparser)
    return parser


def _fill_descriptors() -> None:
    """What is opened later must not become descriptor 1 or 2, to which output is passed on."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _obey(stopper: Stopper) -> int:
    try:
        args = _parser(sys.argv[1] if len(sys.argv) > 1 else "").parse_args()
        return int(args.function(args, stopper))
    except BrokenPipeError:
        return STOPPED + signal.SIGPIPE
    except OSError as error:
        complain(str(error))
        return FAILED


def main() -> int:
    """The command `childproof`, with the arguments of this process.

    Returns:
        The exit code.

    Raises:
        SystemExit: the arguments are wrong, or ask for help.

    """
    _fill_descriptors()
    stopper = Stopper()
    try:
        stopper.install()
        return _obey(stopper)
    except Stopped as stopped:
        return STOPPED + stopped.number
    finally:
        stopper.armed = False  # the code is settled: at the interpreter's end an exception would only make noise
