"""The children of this process, through C: start a child, signal it, reap it, close its descriptors."""

from __future__ import annotations

import os
from _weakref import ref  # weakref would be an import

try:
    from childproof._native import ffi, lib
except ImportError as error:
    raise ImportError(
        f"childproof's spawner could not be loaded: {error}. It needs a compiler when it is installed"
        " from source, and cffi cannot be loaded in a subinterpreter that has a GIL of its own."
    ) from error

from childproof._command import Command
from childproof._light import TYPE_CHECKING, NamedTuple
from childproof._request import hand_to_supervisor, make_request
from childproof._result import Spawned, Usage

if TYPE_CHECKING:
    from typing import Any

    from childproof._caught import Caught

_failed = lib.cp_init()
if _failed:
    raise ImportError(f"childproof could not register its fork handlers: {os.strerror(_failed)}")

STDIN, STDOUT, STDERR, PIDFD = lib.CP_STDIN, lib.CP_STDOUT, lib.CP_STDERR, lib.CP_PIDFD
CONTROL = lib.CP_CONTROL
SPAWNING, STARTED, FAILED = lib.CP_SPAWNING, lib.CP_STARTED, lib.CP_FAILED
DIED, DISOWNED = lib.CP_DIED, lib.CP_DISOWNED

END, QUIET, SIGNALED = lib.CP_NEWS_END, lib.CP_NEWS_TIME, lib.CP_NEWS_SIGNAL

STAGES = {
    lib.CP_STAGE_NONE: "none",
    lib.CP_STAGE_OPEN: "open",
    lib.CP_STAGE_PIPE: "pipe",
    lib.CP_STAGE_FORK: "fork",
    lib.CP_STAGE_SUPERVISOR: "supervisor",
    lib.CP_STAGE_UNSHARE: "unshare",
    lib.CP_STAGE_IDMAP: "idmap",
    lib.CP_STAGE_MOUNT: "mount",
    lib.CP_STAGE_SIGNALS: "signals",
    lib.CP_STAGE_SETSID: "setsid",
    lib.CP_STAGE_CGROUP: "cgroup",
    lib.CP_STAGE_LIMITS: "limits",
    lib.CP_STAGE_IDS: "ids",
    lib.CP_STAGE_UMASK: "umask",
    lib.CP_STAGE_CHDIR: "chdir",
    lib.CP_STAGE_DUP: "dup",
    lib.CP_STAGE_CLOSE_FDS: "close_fds",
    lib.CP_STAGE_EXEC: "exec",
}
STARTS = {
    "auto": lib.CP_START_AUTO,
    "clone": lib.CP_START_CLONE,
    "vfork": lib.CP_START_VFORK,
    "fork": lib.CP_START_FORK,
}
CLOSINGS = {
    "auto": lib.CP_CLOSE_AUTO,
    "close_range": lib.CP_CLOSE_RANGE,
    "proc": lib.CP_CLOSE_PROC,
    "rlimit": lib.CP_CLOSE_RLIMIT,
}
_START_NAMES = {number: name for name, number in STARTS.items()}
_CLOSING_NAMES = {number: name if number else "none" for name, number in CLOSINGS.items()}
FEATURES = {
    "pidfd": lib.CP_DISABLE_PIDFD,
    "pidfd_info": lib.CP_DISABLE_PIDFD_INFO,
    "pidfd_group": lib.CP_DISABLE_PIDFD_GROUP,
}


class Settings(NamedTuple):
    """What is forced upon the spawner, from the environment.

    Attributes:
        start: ``CHILDPROOF_START``, one of `STARTS`.
        closing: ``CHILDPROOF_CLOSE_FDS``, one of `CLOSINGS`.
        disabled: ``CHILDPROOF_DISABLE``, any of `FEATURES`, separated by commas.

    """

    start: int
    closing: int
    disabled: int

    @staticmethod
    def read() -> Settings:
        """From `os.environ`.

        Raises:
            ValueError: a value that does not exist, since a misspelt one would test nothing.

        """

        def choose(name: str, choices: dict[str, int], value: str) -> int:
            if value not in choices:
                raise ValueError(f"{name} has {value!r}; it must be one of {', '.join(choices)}")
            return choices[value]

        disabled = 0
        for feature in os.environ.get("CHILDPROOF_DISABLE", "").split(","):
            if feature:
                disabled |= choose("CHILDPROOF_DISABLE", FEATURES, feature)
        return Settings(
            choose("CHILDPROOF_START", STARTS, os.environ.get("CHILDPROOF_START", "auto")),
            choose("CHILDPROOF_CLOSE_FDS", CLOSINGS, os.environ.get("CHILDPROOF_CLOSE_FDS", "auto")),
            disabled,
        )


settings = Settings.read()


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


# Before Linux 5.16 a core-dumping signal kills every process on the same memory, and without a
# session of its own the child gets the terminal's SIGQUIT.
_SHARED_FATE = _kernel() < (5, 16)


def _choices(command: Command) -> Settings:
    """What is forced, or else what `command` asks for."""
    start, closing, disabled = settings
    if command.start != "auto":
        start = STARTS[command.start]
    if command.closing != "auto":
        closing = CLOSINGS[command.closing]
    if _SHARED_FATE and not command.new_session and start == lib.CP_START_AUTO:
        start = lib.CP_START_FORK
    return Settings(start, closing, disabled)


def spawn_suspends(command: Command) -> bool:
    """Whether `Child.spawn` sleeps until the exec of `command`, where no deadline reaches it."""
    start = STARTS[command.start] or settings.start
    return bool(start == lib.CP_START_VFORK or (start == lib.CP_START_AUTO and lib.cp_auto_suspends()))


PORTABLE = bool(lib.cp_is_portable())
"""This build uses POSIX only: fork, the loop up to the limit, no pidfd."""


def has_pidfd() -> bool:
    """Whether pidfds may be used."""
    return hasattr(os, "pidfd_open") and not PORTABLE and not settings.disabled & lib.CP_DISABLE_PIDFD


_CHILD = ffi.typeof("struct cp_child *")
MOST_SPARE = 16
_spare: list[Any] = []
"""Released structs, to be used again: making one with its finalizer takes longer than filling it."""


class _Hold(ref["Child"]):
    """Keeps a child's struct out of cycles of garbage: there all finalizers run before anything is freed, in any
    order, and the struct's would free it under whoever's comes later, as that of a handle which kills its tree.
    Held from outside it is no part of the cycle, and goes with the child, after them. No Python code is called
    for that, into which an interrupt could come.
    """

    __slots__ = ("struct",)
    __hash__ = object.__hash__  # that of the child could not be had any more after an interrupt
    __eq__ = object.__eq__
    struct: Any


_held: set[_Hold] = set()

# Most are alike.
_SPAWNED: dict[tuple[int, int, int, int], Spawned] = {}


def _make_spawned(start: int, closing: int, closed: int, exact: int) -> Spawned:
    spawned = Spawned(_START_NAMES[start], _CLOSING_NAMES[closing], None if closed < 0 else closed, bool(exact))
    if len(_SPAWNED) < 64:
        _SPAWNED[start, closing, closed, exact] = spawned
    return spawned


class Child:
    """One child process: its pid and pidfd, and the parent's ends of its pipes.

    Everything it owns lies in one C struct, which exists before the first descriptor does and which
    a finalizer written in C releases: no exception, however placed, leaks what a spawn has made.
    Used by one thread at a time.
    """

    __slots__ = ("__weakref__", "_c", "_hold")

    def __init__(self) -> None:
        # list.pop is atomic: a struct is never given to two.
        self._c = _spare.pop() if _spare else ffi.gc(ffi.new(_CHILD), lib.cp_child_release)
        self._hold = _Hold(self, _held.discard)
        self._hold.struct = self._c
        _held.add(self._hold)
        lib.cp_child_init(self._c)

    @classmethod
    def adopted(cls, pid: int, pidfd: int) -> Child:
        """A child that somebody else in this process has started, and has not reaped.

        Args:
            pid: its process id.
            pidfd: it belongs to the `Child` from now on; -1: there is none.

        """
        child = cls()
        child._c.fd[PIDFD] = pidfd
        child._c.pid = pid
        child._c.state = STARTED
        return child

    @classmethod
    def remains(cls, pid: int, fds: dict[int, int]) -> Child:
        """What is left of a child that somebody else reaps: pipes, which others hold.

        Args:
            pid: its process id, for the log.
            fds: by slot, descriptors that are copied.

        """
        child = cls()
        child._c.pid = pid
        child._c.state = STARTED
        child._c.reaped = 1
        for slot, fd in fds.items():
            child._c.fd[slot] = os.dup(fd)
        return child

    def spawn(self, command: Command, token: bytes | None) -> bool:
        """Start `command`; whether there is a child now. Does not wait for the exec.

        Args:
            command: what to start.
            token: the value of the mark, or `None` for none.

        """
        keep: list[Any] = []  # Python objects keep bytes in place until the C call, which copies them, is over
        request = make_request(command, token, _choices(command), keep)
        if command.supervise:
            c = self._c
            if lib.cp_supervise(c, command.new_session or command.attributes.process_group == 0):
                return False
            hand_to_supervisor(request, command, token, c.far[CONTROL], keep)
        return bool(lib.cp_spawn(self._c, request) == 0)

    def kill_suspended(self) -> None:
        """SIGKILL for a child whose exec holds up `spawn` in another thread."""
        lib.cp_kill_suspended(self._c)

    @property
    def let_go(self) -> bool:
        """`release` was called."""
        return self._c is _RELEASED

    @property
    def pid(self) -> int:
        """The process id; 0 where no child was made, or it is not ours (a copy after a fork)."""
        return int(self._c.pid)

    @property
    def state(self) -> int:
        """`SPAWNING`, `STARTED`, `FAILED`, `DIED` or `DISOWNED`."""
        return int(self._c.state)

    @property
    def stage(self) -> str:
        """The step that failed, or in which the child died."""
        return STAGES[self._c.stage]

    @property
    def slot(self) -> int:
        """Which of 0, 1, 2 a failed stage ``open`` was about."""
        return int(self._c.slot)

    @property
    def errno(self) -> int:
        """The errno of the step that failed."""
        return int(self._c.error)

    @property
    def reaped(self) -> bool:
        """Nobody has to wait for it any more, nor for its supervisor."""
        return bool(self._c.reaped)

    @property
    def pidfd(self) -> int:
        """Readable when the child has ended; -1 where the kernel gave none."""
        c = self._c
        return int(c.fd[lib.CP_COMMAND if c.supervised else PIDFD])

    @property
    def watch_fd(self) -> int:
        """What to poll for the next step: the `pidfd`, but of a supervised child the socket of its supervisor,
        which may be readable although `ended` says no, and when the child is reaped the supervisor's pidfd.
        """
        c = self._c
        return int(c.fd[CONTROL if c.supervised and not c.released else PIDFD])

    @property
    def supervised(self) -> bool:
        """A supervisor stands between this process and it."""
        return bool(self._c.supervised)

    @property
    def supervisors(self) -> tuple[int, ...]:
        """Those who are no part of its tree, but the parents of its orphans: its supervisor, and the init
        of its pid namespace.
        """
        c = self._c
        return tuple([pid for pid in (c.supervisor, c.init) if pid > 0]) if c.supervised and not c.reaped else ()

    @property
    def supervisor(self) -> int:
        """The pid that its supervisor has or had, or 0."""
        return int(self._c.supervisor)

    @property
    def lost(self) -> bool:
        """Its supervisor has ended, and it may not have."""
        return bool(self._c.lost)

    @property
    def empty(self) -> bool:
        """Its supervisor has seen that nothing which descends from it is left."""
        return bool(self._c.empty)

    def kill_supervised(self) -> None:
        """Have the supervisor, if there is one, kill the whole tree."""
        if self._c.supervised:
            lib.cp_kill_supervised(self._c)

    @property
    def leads_group(self) -> bool:
        """It was given a session and a process group of its own."""
        return bool(self._c.group)

    @property
    def service(self) -> int:
        """The pid of a program that was detached, 0 if none was. Until this child, which is nothing but
        the program's parent, has ended, nobody else gets that number, nor a session that is called by it.
        """
        return int(self._c.service)

    def fds(self) -> list[int]:
        """All descriptors, by slot, -1 where there is none."""
        fds: list[int] = ffi.unpack(self._c.fd, lib.CP_SLOTS)
        return fds

    def fd(self, slot: int) -> int:
        """The parent's end of the pipe in `slot`, or -1."""
        return int(self._c.fd[slot])

    def close(self, slot: int) -> None:
        """Close the parent's end of the pipe in `slot`, once."""
        lib.cp_close(self._c, slot)

    def settle(self, dead: bool = False) -> int:
        """The state, looked at anew while it is `SPAWNING`. `dead`: the child is known to be gone."""
        return int(lib.cp_settle(self._c, dead))

    def await_exec(self, milliseconds: int) -> int:
        """The state, once it is not `SPAWNING` any more or `milliseconds` (-1: any number) are over,
        or a signal has come.
        """
        return int(lib.cp_await_exec(self._c, milliseconds))

    def how(self) -> Spawned:
        """How it was made."""
        c = self._c
        key = c.start, c.closing, c.closed, c.exact
        return _SPAWNED.get(key) or _make_spawned(*key)

    def stuck_stage(self) -> str:
        """The step that a child which has not exec'ed yet is in."""
        return STAGES.get(lib.cp_stage_now(self._c), "exec")

    def follow(self, caught: Caught, deadline: float) -> int:
        """Read its output until it has ended, or something must be decided. It must have a pidfd.

        Args:
            caught: gets what is read.
            deadline: on `time.monotonic`.

        Returns:
            Why it came back: `END`, `SIGNALED` (handlers are to run), or another number.

        """
        return int(lib.cp_follow(self._c, caught.c, deadline))

    def ended(self) -> int:
        """1: it has ended and waits to be reaped; 0: it runs; -1: it is no child of ours now."""
        return int(lib.cp_ended(self._c))

    def ask_pidfd(self) -> int:
        """What the pidfd tells, where `ended` says 0. 1: it has ended, though a tracer keeps it from being reaped;
        0: it runs; -1: the host has closed the descriptor, and there is none now.
        """
        return int(lib.cp_ask_pidfd(self._c))

    def reap(self) -> bool:
        """Take its status if it has ended; whether it needs no more waiting."""
        return bool(lib.cp_reap(self._c))

    def status(self) -> int | None:
        """Exit status, or -N for signal N; `None` when nobody can know it."""
        c = self._c
        if not c.status_known:
            return None
        return int(c.status if c.exited else -c.status)

    def usage(self) -> Usage | None:
        """What it used; `None` when nobody can know it."""
        c = self._c
        if not c.has_usage:
            return None
        return Usage(c.user_s, c.system_s, c.max_rss_kib * 1024 if c.max_rss_kib > c.host_rss_kib else None)

    def signal(self, number: int) -> int:
        """Signal the child, unless it was reaped. 0, or an errno."""
        return int(lib.cp_signal(self._c, number))

    def signal_group(self, number: int) -> int:
        """Signal its process group, if it leads one that no stranger can have. 0, or an errno."""
        return int(lib.cp_signal_group(self._c, number))

    def release(self) -> None:
        """Close what is open and forget the child. It may be called twice."""
        # In this order: interrupted anywhere, the struct is this child's, or the finalizer's, or spare.
        c, self._c, self._hold.struct = self._c, _RELEASED, None
        if c is not _RELEASED:
            lib.cp_child_release(c)
            if len(_spare) < MOST_SPARE:
                _spare.append(c)


_RELEASED = ffi.new(_CHILD)
"""What a released `Child` looks at: it has no pid and no descriptors."""
lib.cp_child_init(_RELEASED)
lib.cp_child_release(_RELEASED)


def write(fd: int, data: Any) -> int:
    """`os.write` that never raises SIGPIPE: the count, or -errno."""
    view = ffi.from_buffer(data)
    return int(lib.cp_write(fd, view, len(view)))
