"""The command `childproof`: the library from a shell.

Unlike the library it owns its process, and so has signal handlers of its own.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from childproof._journal import held_sentence
from childproof._run import MOST_SECONDS, run
from childproof._text import Masker, one_line

if TYPE_CHECKING:
    from childproof._result import Result

MISUSED, FAILED, STOPPED = 2, 125, 128
"""Exit codes: wrong arguments, as argparse has it; childproof itself failed, as in `timeout(1)`;
to which the number of a signal is added."""

PATIENCE_SECONDS = 0.3
"""How long a reader that was slow up to the deadline gets for the rest, and any for a diagnosis that
follows; within the second that is promised after the deadline."""

KEPT_BYTES = 1 << 20
"""What is kept of each stream for a reader that takes nothing, once the deadline has passed."""

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

RUN_DESCRIPTION = """\
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

RUN_EPILOG = """\
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


def _write(fd: int, data: bytes, until: float) -> int:
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
        done = _write(self._fd, self._kept, self.until)
        if done:
            self.mid_line = self._kept[done - 1] != 10
        self._kept = self._kept[done:]


def _line(text: str) -> bytes:
    return f"childproof: {one_line(text)}\n".encode("utf-8", "backslashreplace")


def _complain(text: str) -> None:
    with suppress(OSError):
        _write(2, _line(text), monotonic() + PATIENCE_SECONDS)


# ---- what is said about a result ----


def _diagnosis(result: Result[Any]) -> list[str]:
    """What the code does not tell. Not from `err`, in which the sentence of a failed start is too."""
    lines = [] if result.error is None else [str(result.error)]
    lines += [f"killed pid {info.pid} ({info.command}), child of {info.ppid}" for info in result.killed]
    lines += [f"could not kill pid {info.pid} ({info.command})" for info in result.survivors]
    if result.held:
        lines.append(held_sentence(result, Masker(())))
        lines.append(
            "they live on, but what they write there from now on gets EPIPE or SIGPIPE, since childproof ends:"
            " for a service use childproof launch, or a file"
        )
    return lines


def _finish(result: Result[Any], outlets: dict[str, Outlet]) -> None:
    """Write what slow readers have not taken yet, then the diagnosis. What fails here does not change
    the code any more: the command is over.
    """
    lines = _diagnosis(result)
    for name, outlet in outlets.items():
        outlet.until = max(outlet.until, monotonic() + PATIENCE_SECONDS)
        with suppress(OSError):
            outlet.take(b"")
        if outlet.missed:
            lines.append(f"{outlet.missed} bytes of {name} are lost: nobody has read them in time")
    errors = outlets["stderr"]
    if lines:
        text = b"".join(map(_line, lines))
        with suppress(OSError):
            errors.take(b"\n" + text if errors.mid_line else text)


def _visible(word: str) -> str:
    """`word` of the command line with escapes for undecodable bytes, as output has them."""
    return os.fsencode(word).decode("utf-8", "backslashreplace")


def _as_json(result: Result[Any]) -> bytes:
    import json

    cmd, error, usage = result.cmd, result.error, result.usage
    fields = {
        "cmd": _visible(cmd) if isinstance(cmd, str) else [_visible(word) for word in cmd],
        "code": result.code,
        "out": result.out,
        "err": result.err,
        "pid": result.pid,
        "outcome": result.outcome.value,
        "duration": result.duration,
        "usage": None if usage is None else usage._asdict(),
        "truncated": result.truncated,
        "held": [holder._asdict() for holder in result.held],
        "killed": [info._asdict() for info in result.killed],
        "survivors": [info._asdict() for info in result.survivors],
        "error": None if error is None else {"stage": error.stage, "errno": error.errno, "message": str(error)},
        "ok": result.ok,
    }
    return json.dumps(fields).encode() + b"\n"


# ---- the command line ----


class Parser(argparse.ArgumentParser):
    """Says what is wrong on one line, and writes nothing that fails only when the interpreter ends."""

    def error(self, message: str) -> NoReturn:
        """Wrong arguments."""
        _complain(f"{message} (see {self.prog} --help)")
        raise SystemExit(MISUSED)

    def print_help(self, file: object = None) -> None:
        """Unbuffered, whatever `file` is."""
        _write(1, self.format_help().encode(), inf)


def _seconds(text: str) -> float:
    """Without the -1 of `run`: on a command line it is a budget that has run out."""
    with suppress(ValueError):
        number = float(text)
        if number >= 0:
            return number
    raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more: {text!r}")


def _parser() -> Parser:
    parser = Parser(prog="childproof", description="Run other programs: it never hangs and leaves nothing behind.")
    commands = parser.add_subparsers(required=True, metavar="SUBCOMMAND")
    _add_run(commands)
    return parser


def _add_run(commands: argparse._SubParsersAction[Parser]) -> None:
    parser = commands.add_parser(
        "run",
        help="run a command with a deadline and exit with its code",
        usage="childproof run [OPTION...] [--] COMMAND...",
        description=RUN_DESCRIPTION,
        epilog=RUN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--timeout", type=_seconds, metavar="S", help="kill the tree after S seconds (default: never)")
    add("--grace", type=_seconds, default=0.0, metavar="S", help="SIGTERM first, and SIGKILL S seconds later")
    add(
        "--linger",
        type=_seconds,
        default=0.5,
        metavar="S",
        help="after COMMAND's end go on reading for S seconds while others hold its output (default: 0.5)",
    )
    add("--kill-leftovers", action="store_true", help="kill what outlives COMMAND")
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
    parser.set_defaults(function=_run, parser=parser)


def _command(args: argparse.Namespace) -> str | list[str]:
    words: list[str] = args.command
    if words[:1] == ["--"]:  # argparse leaves it in; a second one is COMMAND's
        words = words[1:]
    if not words:
        args.parser.error("COMMAND is missing")
    return words[0] if len(words) == 1 and not args.no_shell else words


def _run(args: argparse.Namespace, stopper: Stopper) -> int:
    cmd = _command(args)
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
            max_output=args.max_output if args.json else 0,
            on_output=None if args.json else pass_on,
        )
    except (TypeError, ValueError) as error:
        args.parser.error(str(error))
    if args.json:
        _write(1, _as_json(result), inf)
    _finish(result, outlets)
    return result.code if result.code >= 0 else STOPPED - result.code


def _fill_descriptors() -> None:
    """What is opened later must not become descriptor 1 or 2, to which output is passed on."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _obey(stopper: Stopper) -> int:
    try:
        args = _parser().parse_args()
        return int(args.function(args, stopper))
    except BrokenPipeError:
        return STOPPED + signal.SIGPIPE
    except OSError as error:
        _complain(str(error))
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
