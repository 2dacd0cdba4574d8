"""What a person sees: tables and progress, with rich if it is installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from childproof.bench.model import Progress
from childproof.bench.tables import Table, plain


def _rich(stream: Any) -> Any:
    """A console of rich's for a terminal; `None`: there is no terminal, or no rich."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream)


def _style(cell: str) -> str:
    """Verdicts have the colours of the pictures, and words that say the same."""
    if cell.startswith(("hangs", "says", "raises", "dies", "output lost", "missed")):
        return "red"
    return "yellow" if cell.startswith(("leaves", "late", "leaks", "zombies", "too slow")) else ""


def show(table: Table) -> None:
    """On stdout: decorated on a terminal, else plain."""
    console = _rich(sys.stdout)
    if console is None:
        print(plain(table))
        return
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=escape(table.title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for number, heading in enumerate(table.headings):
        drawn.add_column(escape(heading), justify="right" if number else "left", no_wrap=number == 0)
    for row in table.rows:
        cells = [Text(cell, _style(cell)) for cell in row]
        drawn.add_row(*cells, style="bold" if row[0].startswith("childproof") else None)
    console.print(drawn)
    for sentence in table.below:
        console.print(escape(sentence), style="dim")


def _nothing(_done: int, _of: int) -> None:
    pass


@contextlib.contextmanager
def progress(name: str) -> Iterator[Progress]:
    """A bar on stderr while a scenario is measured; nothing if that is no terminal.

    The bar is drawn by our own thread between measurements, which run in other processes.
    """
    console = _rich(sys.stderr)
    if console is None:
        yield _text_progress(name) if sys.stderr.isatty() else _nothing
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Bar(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task(name, total=None)

        def tell(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of, refresh=True)

        yield tell


def _text_progress(name: str) -> Progress:
    def tell(done: int, of: int) -> None:
        sys.stderr.write(f"\r{name}: {done} of {of}")
        sys.stderr.flush()

    return tell
