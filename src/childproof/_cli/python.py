"""``childproof python``: run a Python program with the stdlib's `subprocess` patched."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from childproof._cli.base import Parser, Stopper

DESCRIPTION = """\
Run a Python program as python does, in which from its first line on subprocess, and
with it asyncio and every library, starts and awaits its children by childproof:

  childproof python script.py ARGUMENT ...
  childproof python -m module ARGUMENT ...

What differs for the program is listed in docs/migrate.md. The Python programs that it
starts are not patched.
"""

EPILOG = "The exit status is the program's."


def _execute(args: argparse.Namespace, stopper: Stopper) -> int:
    """A fresh interpreter takes our place: the program gets the signals, modules and descriptors that
    it would have without us.
    """
    del stopper  # its handlers end with this program image
    words = args.program if args.module is None else ["-m", *args.module]
    if not words or words == ["-m"]:
        args.parser.error("SCRIPT or -m MODULE is missing")
    os.execv(sys.executable, [sys.executable, "-m", "childproof._dropin.patched", *words])


def fill(parser: Parser) -> None:
    """Add the arguments of the subcommand."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    rest = argparse.REMAINDER
    parser.add_argument(
        "-m", dest="module", nargs=rest, metavar=("MODULE", "ARGUMENT"), help="a module, as of python -m"
    )
    parser.add_argument("program", nargs=rest, metavar="SCRIPT", help="a script and its arguments")
    parser.set_defaults(function=_execute)
