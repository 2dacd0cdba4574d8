"""``childproof python``: run a Python program with the stdlib's `subprocess` patched."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from childproof._cli_base import Parser, Stopper

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
    if not args.program:
        args.parser.error("SCRIPT or -m MODULE is missing")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "childproof._patched", *args.program])  # noqa: S606


def fill(parser: Parser) -> None:
    """Add the arguments of the subcommand."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="SCRIPT | -m MODULE", help="and its arguments")
    parser.set_defaults(function=_execute)
