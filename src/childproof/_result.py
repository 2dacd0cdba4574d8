"""What a command left behind: the triple, and all that is known about it."""

from __future__ import annotations

import enum
from types import GenericAlias

from childproof._errors import CommandError
from childproof._light import TYPE_CHECKING, NamedTuple
from childproof._text import Masker, one_line, show_command

if TYPE_CHECKING:
    from typing import Any, Generic, TypeVar

    from childproof._errors import SpawnError

TAIL_CHARACTERS = 400
"""How much of the error output a `CommandError` quotes."""

if TYPE_CHECKING:
    # Bound, not constrained as `typing.AnyStr`: type checkers repeat the body of the class for each
    # constraint, and then refuse a tuple as its base.
    Text = TypeVar("Text", bound=str | bytes)

    class _Triple(tuple[int, Text, Text], Generic[Text]):
        pass

else:

    class _Triple(tuple):
        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)


class Outcome(enum.Enum):
    """How a command ended."""

    EXITED = "exited"
    SIGNALED = "signaled"
    TIMED_OUT = "timed out"
    NOT_STARTED = "not started"
    STATUS_LOST = "status lost"
    UNKNOWN = "unknown"


class Usage(NamedTuple):
    """What the child used, from `waitid`; its descendants count if it waited for them.

    Attributes:
        user: seconds of CPU in user mode.
        system: seconds of CPU in the kernel.
        max_rss: peak resident size in bytes. `None` unless it exceeds the host's own peak, which
            Linux carries into the child until its exec.

    """

    user: float
    system: float
    max_rss: int | None


class Spawned(NamedTuple):
    """How a child was made.

    Attributes:
        start: the primitive that was used: ``"clone"``, ``"vfork"`` or ``"fork"``.
        closing: how its descriptors were closed: ``"close_range"``, ``"proc"``, ``"rlimit"``, or
            ``"none"`` where they were not to be.
        closed: how many were, `None` with close_range(2), which does not say.
        exact: nothing else is open in the child. `False` if the loop up to the limit was used where
            descriptors may be above it: /proc is hidden, and the limits may have been lowered.

    """

    start: str
    closing: str
    closed: int | None
    exact: bool


class Contained(NamedTuple):
    """What held the processes of a command together.

    Attributes:
        kind: ``"session"``, ``"cgroup"`` or ``"pidns"``.
        proven: at the end none was left, and that is certain, not only that none was found. `False`
            where some live on, and for a session without ``die_with_parent``, always.

    """

    kind: str
    proven: bool


class ProcessInfo(NamedTuple):
    """A process as it was last seen.

    Attributes:
        pid: its process id.
        ppid: its parent's.
        command: its command line, or its name in brackets where that could not be read in time.
        state: the letter of ``/proc/PID/stat`` (`proc(5)`).

    """

    pid: int
    ppid: int
    command: str
    state: str


class Examined(NamedTuple):
    """A process of the tree when the deadline came, before anybody was signalled.

    Attributes:
        pid: its process id.
        ppid: its parent's.
        command: its command line, or its name in brackets where that could not be read in time.
        state: the letter of ``/proc/PID/stat`` (`proc(5)`).
        threads: how many it has.
        age: seconds since its start.
        cpu: seconds of CPU that it has used, user and system.
        waits_in: the system call that it is blocked in, with its first argument where that is a
            descriptor or a process, as ``read(0 pipe:[123])``; or ``kernel: FUNCTION``; or ``running``.
            Of several threads each that differs. Empty where it could not be read, or not in time.
        held: (stream, descriptor) for each of the command's pipes that it has open.

    """

    pid: int
    ppid: int
    command: str
    state: str
    threads: int
    age: float
    cpu: float
    waits_in: str
    held: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        waiting = f", in {self.waits_in}" if self.waits_in not in ("", "running") else ""
        held = ", ".join(f"{stream} (its fd {fd})" for stream, fd in self.held)
        return one_line(
            f"pid {self.pid} ({self.command}), child of {self.ppid}: state {self.state}{threads}, {self.age:.1f} s old,"
            f" {self.cpu:.2f} s of CPU{waiting}{'; holds ' if held else ''}{held}"
        )


class Holder(NamedTuple):
    """A process that has a pipe, file or socket open.

    Attributes:
        pid: its process id; 0 where there is a holder that ``/proc`` does not show.
        command: its command line, or its name in brackets.
        fds: its descriptors for it.
        streams: what each of them is to the command, in the order of `fds`: ``"stdout"`` or
            ``"stderr"``. From `holders`, where several things were looked for, which of them each is;
            else empty.
        escaped: it has left the child's session.

    """

    pid: int
    command: str
    fds: tuple[int, ...]
    streams: tuple[str, ...]
    escaped: bool

    def __str__(self) -> str:
        if self.pid == 0:
            return f"somebody ({self.command.strip('[]')}) still holds {', '.join(self.streams)}"
        where = ", ".join(f"{stream} (its fd {fd})" for fd, stream in zip(self.fds, self.streams, strict=False))
        return f"pid {self.pid} ({one_line(self.command)}) still holds {where or 'it'}"


class Result(_Triple["Text"]):
    """``code, out, err = result``, and what else is known.

    Attributes:
        cmd: the command as it was given.
        position: which it is among the commands of `run_many`, from 0; `None` for a single one.
        pid: the child's process id, 0 when none was made.
        outcome: an `Outcome`.
        duration: seconds from the call to the result.
        usage: a `Usage`, `None` when the status was lost or nothing ran.
        spawned: how the child was made, a `Spawned`; `None` when nothing ran.
        truncated: output was dropped because of ``max_output``, or could not be read.
        contained: what held its processes together, a `Contained`; `None` when nothing ran.
        held: the `Holder` objects that still had the output pipes open at the end.
        killed: a `ProcessInfo` for each process that was killed.
        survivors: a `ProcessInfo` for each process that should have died and did not.
        autopsy: with ``autopsy=True``, an `Examined` for each process of the tree as it was at the deadline.
        error: a `SpawnError`, `None` when the command ran to its end.

    """

    cmd: Any
    position: int | None = None
    pid: int
    outcome: Outcome
    duration: float
    usage: Usage | None
    spawned: Spawned | None
    contained: Contained | None
    truncated: bool
    held: tuple[Holder, ...]
    killed: tuple[ProcessInfo, ...]
    survivors: tuple[ProcessInfo, ...]
    autopsy: tuple[Examined, ...]
    error: SpawnError | None
    _secrets: tuple[str, ...]

    def __new__(cls, code: int, out: Text, err: Text, facts: dict[str, Any] | None = None) -> Result[Text]:
        """Made by childproof only; `facts` become the attributes."""
        self = tuple.__new__(cls, (code, out, err))
        if facts is not None:  # pickle brings them later
            self.__dict__ = facts
        return self

    def __getnewargs__(self) -> tuple[int, Text, Text]:
        return self[0], self[1], self[2]  # what pickle gives to __new__

    @property
    def code(self) -> int:
        """The exit status; -N for signal N; 124, 125, 126, 127 as env(1) and timeout(1) have them."""
        return self[0]

    @property
    def out(self) -> Text:
        """What the command wrote to its standard output."""
        return self[1]

    @property
    def err(self) -> Text:
        """What the command wrote to its standard error, or why it could not start."""
        return self[2]

    @property
    def ok(self) -> bool:
        """It ran to its end and exited with 0."""
        return self[0] == 0 and self.outcome is Outcome.EXITED

    def check(self) -> Result[Text]:
        """The result itself if the command succeeded.

        Raises:
            CommandError: it did not.

        """
        if self.ok:
            return self
        raise CommandError(self._complaint(), self)

    def _complaint(self) -> str:
        mask = Masker(self._secrets)
        if self.error is not None:
            return one_line(mask(str(self.error)))
        code, _, err = self
        text = err if isinstance(err, str) else err.decode("utf-8", "backslashreplace")
        how = f"died of signal {-code}" if code < 0 else f"exited with {code}"
        tail = one_line(mask(text.strip()))[-TAIL_CHARACTERS:]
        return f"{one_line(show_command(self.cmd, mask))} {how}" + (f": {tail}" if tail else "")

    def __repr__(self) -> str:
        return (
            f"Result(code={self[0]!r}, out={self[1]!r}, err={self[2]!r}, "
            f"outcome={self.outcome.name}, pid={self.pid}, duration={self.duration:.3f})"
        )
