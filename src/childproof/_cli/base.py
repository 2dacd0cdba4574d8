"""What every subcommand of `childproof` needs: signals, output that does not block, arguments."""

from __future__ import annotations

import argparse
import os
import select
import signal
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from childproof._run import MOST_SECONDS
from childproof._text import did_you_mean, one_line
from childproof._version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

MISUSED, FAILED, STOPPED = 2, 125, 128
"""Exit codes: wrong arguments, as argparse has it; childproof itself failed, as in `timeout(1)`;
to which the number of a signal is added."""

PATIENCE_SECONDS = 0.3
"""How long a reader that was slow up to the deadline gets for the rest, and any for a diagnosis that
follows; within the second that is promised after the deadline."""

KEPT_BYTES = 1 << 20
"""What is kept of each stream for a reader that takes nothing, once the deadline has passed."""

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Stopped(BaseException):
    """A signal asks this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stopper:
    """The handler of the signals that ask this process to end: the first one is raised as `Stopped`.

    Attributes:
        armed: the next one is raised. Not any more while a tree is killed for the last one, which an
            exception would break off half-way.

    """

    def __init__(self) -> None:
        self.armed = True

    def __call__(self, number: int, _frame: object) -> None:
        if self.armed:
            self.armed = False
            raise Stopped(number)

    def install(self) -> None:
        """Handle what is not ignored: whoever started us with nohup wants us to go on."""
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self)
        # Where it was ignored, the kernel would reap the command and drop its status.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


# ---- writing ----


def write(fd: int, data: bytes, until: float) -> int:
    """Write `data`, waiting for room until `until` on `time.monotonic`; how much was written.

    Nothing is made non-blocking, since the flag belongs to everybody who has the file: instead no
    more is written at once than a ready pipe has room for, unless there is no hurry.
    """
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    most = len(data) if until == inf else select.PIPE_BUF
    view, done = memoryview(data), 0
    while done < len(data):
        left = until - monotonic()
        if poller.poll(min(max(left, 0), MOST_SECONDS) * 1000):
            with suppress(BlockingIOError):  # somebody else has set the flag, and was faster
                done += os.write(fd, view[done : done + most])
        elif left <= 0:
            break
    return done


class Outlet:
    """One of our own outputs, to which a stream is passed on whole and in order.

    Without a deadline it waits for its reader, as any program does. With one the reader must not
    hold up the killing: what it has not taken by then is kept, and given to it at the end.

    Attributes:
        until: the deadline, on `time.monotonic`.
        mid_line: the last byte written was not a newline.

    """

    def __init__(self, fd: int, until: float) -> None:
        self._fd = fd
        self._kept = b""
        self._dropped = 0
        self.until = until
        self.mid_line = False

    @property
    def missed(self) -> int:
        """How many bytes the reader has not taken."""
        return self._dropped + len(self._kept)

    def take(self, data: bytes) -> None:
        """Write what was kept and `data`."""
        if self._dropped or len(self._kept) > KEPT_BYTES:
            self._dropped += len(data)  # all from here on: output with a hole would be a lie
        else:
            self._kept += data
        done = write(self._fd, self._kept, self.until)
        if done:
            self.mid_line = self._kept[done - 1] != 10
        self._kept = self._kept[done:]


def line(text: str) -> bytes:
    return f"childproof: {one_line(text)}\n".encode("utf-8", "backslashreplace")


def complain(text: str) -> None:
    with suppress(OSError):
        write(2, line(text), monotonic() + PATIENCE_SECONDS)


def short(text: str, most: int = 60) -> str:
    """`text` on one line, and cut to `most` characters."""
    text = one_line(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """`rows` under `head`, in columns, the last of them ragged; empty without rows."""
    if not rows:
        return ""
    lines = [list(head), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in cells)


def as_json(value: object) -> bytes:
    """`value` on one line."""
    import json

    return json.dumps(value).encode() + b"\n"


# ---- arguments ----


class ShowVersion(argparse.Action):
    """Of an option: print the name and version, and end."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """See `argparse`."""
        write(1, f"childproof {__version__}\n".encode(), inf)
        parser.exit()


class Parser(argparse.ArgumentParser):
    """Says what is wrong on one line, and writes nothing that fails only when the interpreter ends."""

    def error(self, message: str) -> NoReturn:
        """Wrong arguments."""
        complain(f"{message} (see {self.prog} --help)")
        raise SystemExit(MISUSED)

    def parse_known_args(  # type: ignore[override]  # of a Namespace, which is all that is used here
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Each parser answers for its own options, so that the sentence names the subcommand that has them."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            if not word.startswith("-"):
                self.error(f"too many arguments: {unknown[0]!r}")
            self.error(f"there is no option {word}{self.meant(word)}")
        return found, unknown

    def meant(self, option: str) -> str:
        """As of `did_you_mean`; compared without the dashes, in which all options are alike."""
        names = [name[2:] for name in self._option_string_actions if name.startswith("--")]
        return did_you_mean(option.lstrip("-"), names).replace("'", "'--", 1)

    def print_help(self, file: object = None) -> None:
        """Unbuffered, whatever `file` is."""
        write(1, self.format_help().encode(), inf)


def seconds(text: str) -> float:
    """Without the -1 of `run`: on a command line it is a budget that has run out."""
    with suppress(ValueError):
        number = float(text)
        if number >= 0:
            return number
    raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more: {text!r}")


def chosen_command(args: argparse.Namespace) -> str | list[str]:
    """COMMAND: one word for the shell, or words."""
    words: list[str] = args.command
    if words[:1] == ["--"]:  # argparse leaves it in; a second one is COMMAND's
        words = words[1:]
    if not words:
        args.parser.error("COMMAND is missing")
    return words[0] if len(words) == 1 and not args.no_shell else words
