"""``childproof bench``: see `childproof.bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from childproof.bench.command import add_arguments, execute

if TYPE_CHECKING:
    import argparse

    from childproof._cli.base import Parser, Stopper


def _bench(args: argparse.Namespace, _stopper: Stopper) -> int:
    return execute(args)


def fill(parser: Parser) -> None:
    """Add the arguments."""
    add_arguments(parser)
    parser.set_defaults(function=_bench)
