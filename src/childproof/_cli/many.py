"""``childproof many``: the commands of the standard input, some at once."""

from __future__ import annotations

import argparse
import os
import select
import stat
from collections import deque
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from childproof._cli.base import Parser, Stopper, as_json, line, seconds
from childproof._cli.result import diagnosis, result_fields
from childproof._many.run_many import Collector, make_plan
from childproof._many.scheduler import LATER, Scheduler
from childproof._text import Masker, one_line, show_command

if TYPE_CHECKING:
    from childproof._many.router import Router
    from childproof._many.run_many import Plan, Progress
    from childproof._result import Result

SOME_FAILED = 123
"""As xargs(1) has it."""

MOST_WAITING_BYTES = 1 << 20
"""Output that waits for its reader before no more commands are started."""

DRAW_SECONDS = 0.1
"""How often the progress is drawn."""

ERASE = b"\r\x1b[K"

DESCRIPTION = """\
Run the commands that stand in the standard input, one a line, each with /bin/sh,
some of them at once: an xargs -P that can't hang. Blank lines are passed over.
A command starts as soon as its line has come and there is room.

  find . -name '*.log' -printf 'gzip %p\\n' | childproof many --jobs 8 --timeout 60

The output of each is kept until it ends, and then passed on whole, so that no two
are mixed; a command that fails is named on the standard error. Commands read from
/dev/null. On a terminal the progress is shown.
"""

EPILOG = """\
exit status:
  0    all commands have exited with 0
  2    the arguments are wrong; nothing was started
  123  some command did not: its code was another, it could not be started, a signal
       or the deadline ended it
  125  childproof itself has failed, as when its output can't be written
  128+N  childproof got signal N and has killed what ran
         (INT, TERM, HUP, QUIT; 141 when nobody reads the output any more)
"""


class Lines:
    """The commands of a descriptor, read as they come and no sooner than there is room for them; a source
    for a `Scheduler`.
    """

    def __init__(self, fd: int, end: bytes) -> None:
        """`end`: what ends a command."""
        self._fd = fd
        self._end = end
        self._rest = b""
        self._words: deque[bytes] = deque()
        self._over = False
        self._waits = False
        self._router: Router | None = None

    def attach(self, router: Router) -> None:
        """See `Scheduler`."""
        self._router = router

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> object:
        while self._words:
            word = self._words.popleft()
            if word.strip():
                return os.fsdecode(word)
        if self._over:
            raise StopIteration
        if not self._waits and self._router is not None:
            self._waits = True
            self._router.register(self._fd, select.POLLIN, self)
        return LATER

    def ready(self, fd: int) -> None:
        """See `childproof._many.router.Owner`."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:  # somebody else who has the file was faster
            return
        *words, self._rest = (self._rest + data).split(self._end)
        self._words += words
        if not data:
            self._over = True
            self._words.append(self._rest)
        if (self._words or self._over) and self._router is not None:
            self._waits = False
            self._router.unregister(fd, self)


class Queue:
    """What is to be written to one of our outputs as its reader takes it, in the loop that drives the
    commands, since their deadlines must not wait for a reader.
    """

    def __init__(self, fd: int, router: Router) -> None:
        self._fd = fd
        self._router = router
        self._data = bytearray()
        # More than this at once could block where less has room (pipe(7)); a file takes any amount.
        self._at_once = 1 << 20 if stat.S_ISREG(os.fstat(fd).st_mode) else select.PIPE_BUF

    def __len__(self) -> int:
        return len(self._data)

    def put(self, data: bytes) -> None:
        """Write `data` after what waits already."""
        if data and not self._data:
            self._router.register(self._fd, select.POLLOUT, self)
        self._data += data

    def ready(self, fd: int) -> None:
        """See `childproof._many.router.Owner`."""
        try:
            count = os.write(fd, self._data[: self._at_once])
        except BlockingIOError:
            return
        del self._data[:count]
        if not self._data:
            self._router.unregister(fd, self)


class Bar:
    """The progress, on one line of a terminal."""

    def __init__(self) -> None:
        self._shown = os.isatty(2)
        self._drawn_at = -inf
        self._began = monotonic()
        self._progress: Progress | None = None
        self.wait_seconds = DRAW_SECONDS if self._shown else inf
        self.erase = ERASE if self._shown else b""

    def note(self, progress: Progress) -> None:
        """A command is over."""
        self._progress = progress

    def draw(self, running: int, errors: Queue) -> None:
        """Draw it anew, if it is time."""
        now = monotonic()
        if not self._shown or now < self._drawn_at + DRAW_SECONDS or len(errors):
            return
        self._drawn_at = now
        done, failed = (self._progress.done, self._progress.failed) if self._progress else (0, 0)
        passed = int(now - self._began)
        text = f"{done} done, {failed} failed, {running} running, {passed // 60}:{passed % 60:02d}"
        errors.put(ERASE + text.encode())


# ---- the command line ----


def fill(parser: Parser) -> None:
    """The arguments of ``many``."""
    parser.usage = "childproof many [OPTION...] < COMMANDS"
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--jobs", "-j", type=int, metavar="N", help="how many run at once (default: the number of processors)")
    add("--timeout", type=seconds, metavar="S", help="kill a command's tree S seconds after its start (default: never)")
    add("--grace", type=seconds, default=0.0, metavar="S", help="SIGTERM first, and SIGKILL S seconds later")
    add(
        "--linger",
        type=seconds,
        default=0.5,
        metavar="S",
        help="after a command's end go on reading for S seconds while others hold its output (default: 0.5)",
    )
    add("--kill-leftovers", action="store_true", help="kill what outlives a command")
    add("--keep-order", action="store_true", help="pass outputs on in the order of the commands, not of their ends")
    add("--fail-fast", action="store_true", help="with the first failure kill what runs and end")
    add("--null", "-0", action="store_true", help="a NUL ends a command, not a newline")
    add(
        "--max-output",
        type=int,
        metavar="N",
        help="keep the first and the last N/2 bytes of each stream (default: all)",
    )
    add(
        "--json",
        action="store_true",
        help="one JSON object a line for each command: its output, white space trimmed off the ends, and all else",
    )
    parser.set_defaults(function=_many)


def _many(args: argparse.Namespace, stopper: Stopper) -> int:
    bar = Bar()
    options: dict[str, Any] = {
        "grace": args.grace,
        "linger": args.linger,
        "leftovers": "kill" if args.kill_leftovers else "leave",
        "max_output": args.max_output,
        "text": args.json,
        "strip": args.json,
    }
    try:
        order = "given" if args.keep_order else "done"
        plan = make_plan((), args.jobs, args.timeout, order, args.fail_fast, bar.note, options)
    except (TypeError, ValueError) as error:
        args.parser.error(str(error))
    plan = plan._replace(total=None)
    scheduler = Scheduler(Lines(0, b"\0" if args.null else b"\n"), plan.jobs, plan.common)
    try:
        return _drive(scheduler, plan, bar, _show_json if args.json else _show)
    finally:
        stopper.armed = False  # this kills what runs, which must not be broken off
        scheduler.close()


def _drive(scheduler: Scheduler, plan: Plan, bar: Bar, show: Any) -> int:
    collector = Collector(plan)
    out, errors = Queue(1, scheduler.router), Queue(2, scheduler.router)
    code = 0
    while True:
        if len(out) + len(errors) < MOST_WAITING_BYTES and not collector.over:
            scheduler.collect(collector)
        if collector.over and scheduler.running:
            scheduler.stop()
        gave = False
        for result in collector.give():
            gave = True
            show(result, out, errors, bar.erase)
            code = code if result.ok else SOME_FAILED
        over = scheduler.idle and not (scheduler.finished and not collector.over)
        if over and bar.erase and not len(errors):
            os.write(2, bar.erase)
            bar.erase = b""
        if over and not len(out) and not len(errors):
            return code
        if not over:
            bar.draw(scheduler.running, errors)
        if over or not (gave or scheduler.finished) or collector.over or len(out) + len(errors) >= MOST_WAITING_BYTES:
            scheduler.wait(bar.wait_seconds)


def _show(result: Result[bytes], out: Queue, errors: Queue, erase: bytes) -> None:
    if result.out:
        out.put((erase if os.isatty(1) else b"") + result.out)
    own = b"" if result.spawned is None else result.err  # of a failed start it is our own sentence
    lines = diagnosis(result)
    if not result.ok and result.error is None:
        how = f"exited with {result.code}" if result.code >= 0 else f"died of signal {-result.code}"
        lines.insert(0, f"{one_line(show_command(result.cmd, Masker(())))} {how}")
    text = b"".join(map(line, lines))
    if own and text and not own.endswith(b"\n"):
        own += b"\n"
    if own or text:
        errors.put(erase + own + text)


def _show_json(result: Result[str], out: Queue, errors: Queue, erase: bytes) -> None:
    out.put((erase if os.isatty(1) else b"") + as_json({"position": result.position, **result_fields(result)}))
