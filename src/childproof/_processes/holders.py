"""Who has a pipe, a file or a socket open: what ``/proc/PID/fd`` tells."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from errno import EACCES, ESRCH
from math import inf
from time import monotonic
from typing import NamedTuple

from childproof._janitor import janitor
from childproof._processes import procfs
from childproof._processes.errands import Errand, Errands
from childproof._processes.inspector import Finder, Open, Wanted, identify_open
from childproof._processes.survey import Survey
from childproof._result import Holder

NAMES_SECONDS = 0.25
"""How long command lines are waited for; a holder without one is named in brackets."""

SLICE_SECONDS = 0.01
"""How long a `Search` looks at processes at a stretch."""

SEARCH_SECONDS = 0.1
"""How long a `Search` and the reading of the names that it has found are waited for."""


def pipe_links(fds: dict[str, int]) -> dict[str, str]:
    """Link text as ``pipe:[123]`` to name, for descriptors of ours by name."""
    links = {}
    for name, fd in fds.items():
        try:
            links[f"pipe:[{os.fstat(fd).st_ino}]"] = name
        except OSError:  # the host has closed it: then nobody is found by it
            continue
    return links


def read_names(pids: Iterable[int]) -> dict[int, str]:
    """Command lines by pid; the names in brackets of those that can't be read in time."""
    wanted = tuple(pids)
    job = janitor.submit(lambda: procfs.command_lines(wanted))
    job.done.wait(NAMES_SECONDS)
    commands = janitor.answer(job) or {}
    return {pid: commands.get(pid) or _bracketed(procfs.read_process(pid)) for pid in wanted}


def _bracketed(process: procfs.Process | None) -> str:
    return f"[{process.name}]" if process else "[gone]"


class Search:
    """Who holds the write ends of some pipes of ours. The names come from the background.

    A search without waits: it looks a while when it is made, and goes on with each call of `answered`.
    The youngest processes come first. Searches that share a survey look at all processes together, once
    for all that were made before.

    Attributes:
        until: when to wait for it no longer, on `time.monotonic`.

    """

    def __init__(self, pipes: dict[str, str], session: int | None, survey: Survey | None = None) -> None:
        """`session`: the child's session, `None` if it had none of its own."""
        self._links = list(pipes)
        self._names = list(pipes.values())
        self._session = session
        self._finder = Finder([Wanted(link) for link in pipes])
        self._survey = survey
        self._errands = Errands() if survey is None else survey.errands
        self._found: dict[int, list[Open]] = {}
        self._asked: list[Errand] = []
        self._made_at = monotonic()
        self._left: list[int] | None = None  # not known yet
        self._noted = False
        self.until = inf
        if survey is None:
            self.until = self._made_at + SEARCH_SECONDS
            self._left = procfs.oldest_first(procfs.pids())
            self._go_on(self._left)
        else:
            survey.want(self._links)

    def _go_on(self, left: list[int]) -> None:
        """Look for a while, and ask for the names of those who were found in it."""
        until = monotonic() + SLICE_SECONDS
        found = {}
        while left:
            pid = left.pop()
            held = [item for item in self._finder.of(pid) or () if item.writes]
            if held:
                found[pid] = held
            if monotonic() >= until:
                break
        if found:
            self._found.update(found)
            wanted = tuple(found)
            self._asked.append(self._errands.ask(lambda: procfs.command_lines(wanted)))

    def answered(self) -> bool:
        """Whether all have been looked at, and the names have been read."""
        if self._left is None:
            self._look_together()
        elif self._left:
            self._go_on(self._left)
        return self._left == [] and all(self._errands.answered(errand) for errand in self._asked)

    def _look_together(self) -> None:
        assert self._survey is not None
        if not self._noted:  # asked for the first time: more searches may be made before the next
            self._noted = True
            return
        if self.until == inf:
            self.until = monotonic() + SEARCH_SECONDS
        holdings, over = self._survey.holdings(self._made_at)
        left = [pid for pid in holdings.of(self._links) if pid not in self._found] if holdings is not None else []
        self._go_on(left)
        if over:
            self._left = left
            self.until = monotonic() + SEARCH_SECONDS

    def holders(self) -> tuple[Holder, ...]:
        """What was found. A pipe that nobody seems to hold has a holder that /proc hides, or whom there
        was no time to find.
        """
        commands: dict[int, str] = {}
        for errand in self._asked:
            commands.update(self._errands.take(errand) or {})
        found = [self._holder(pid, held, commands.get(pid)) for pid, held in self._found.items()]
        seen = {stream for holder in found for stream in holder.streams}
        hidden = tuple(name for name in self._names if name not in seen)
        if hidden:
            what = "[not visible]" if self._left == [] else "[not looked at in time]"
            found.append(Holder(0, what, tuple(-1 for _ in hidden), hidden, True))
        return tuple(found)

    def _holder(self, pid: int, held: list[Open], command: str | None) -> Holder:
        process = procfs.read_process(pid)
        escaped = process is not None and self._session is not None and process.session != self._session
        streams = tuple(self._names[item.which] for item in held)
        return Holder(pid, command or _bracketed(process), tuple(item.fd for item in held), streams, escaped)


# ---- who has any of some things open ----


class Held(NamedTuple):
    """One descriptor of one process.

    Attributes:
        pid: the process.
        fd: its descriptor.
        mode: ``"r"``, ``"w"``, ``"rw"`` or ``""``: what it was opened for.
        which: the index of what it is.

    """

    pid: int
    fd: int
    mode: str
    which: int


class Findings(NamedTuple):
    """What a look at all processes gave.

    Attributes:
        held: a `Held` for each descriptor, by pid and descriptor.
        hidden: how many processes this user may not look at.

    """

    held: list[Held]
    hidden: int


def look(wanted: list[Wanted]) -> Findings:
    """Who has any of `wanted` open."""
    finder = Finder(wanted)
    held, hidden = [], 0
    for pid in sorted(procfs.pids()):
        found = finder.of(pid)
        if found is None:
            hidden += procfs.read_process(pid) is not None  # else it has ended
        else:
            held += [Held(pid, item.fd, item.mode, item.which) for item in found]
    return Findings(held, hidden)


class Descriptor(NamedTuple):
    """One descriptor of a process.

    Attributes:
        fd: its number.
        mode: as in `Held`.
        what: its link in ``/proc/PID/fd``.
        wanted: by what others are found who have it too; `None` for what is nobody's in particular, as
            ``/dev/null`` or an epoll.

    """

    fd: int
    mode: str
    what: str
    wanted: Wanted | None


def descriptors(pid: int) -> list[Descriptor]:
    """What `pid` has open, by descriptor.

    Raises:
        ProcessLookupError: there is no such process.
        PermissionError: it is another user's.

    """
    folder = f"/proc/{pid}/fd"
    found = []
    try:
        entries = sorted(map(int, os.listdir(folder)))
    except FileNotFoundError:
        raise ProcessLookupError(ESRCH, f"{os.strerror(ESRCH)}: no process has the pid {pid}") from None
    except PermissionError:
        raise PermissionError(EACCES, f"{os.strerror(EACCES)}: what pid {pid} has open") from None
    for fd in entries:
        try:
            link, bits = os.readlink(f"{folder}/{fd}"), os.lstat(f"{folder}/{fd}").st_mode
        except OSError:
            continue  # closed meanwhile
        mode = "r" * bool(bits & stat.S_IRUSR) + "w" * bool(bits & stat.S_IWUSR)
        found.append(Descriptor(fd, mode, link, _shared(pid, fd, link)))
    return found


def _shared(pid: int, fd: int, link: str) -> Wanted | None:
    if link.startswith(("pipe:[", "socket:[")):
        return Wanted(link)
    if link.startswith("/") and (identity := identify_open(pid, fd)) is not None:
        return Wanted(link, *identity)
    return None


# ---- holders() ----


def _number(text: str, what: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= most):
        raise ValueError(f"{text!r} is no {what}; a file of that name is ./NAME")
    return int(text)


def _of_port(kinds: tuple[str, ...], port: int) -> tuple[list[Wanted], list[str]]:
    from childproof._processes.sockets import on_port

    sockets = on_port(port, kinds)
    return [Wanted(f"socket:[{socket.inode}]") for socket in sockets], [str(socket) for socket in sockets]


def _of_path(path: str) -> tuple[list[Wanted], list[str]]:
    status = os.stat(path)  # a misspelt path has no holders, and nobody would notice
    if stat.S_ISSOCK(status.st_mode):
        from childproof._processes.sockets import at_path

        sockets = at_path(path)
        return [Wanted(f"socket:[{socket.inode}]") for socket in sockets], [""] * len(sockets)
    return [Wanted(os.path.realpath(path), status.st_dev, status.st_ino)], [""]


def _of_fd(fd: int) -> tuple[list[Wanted], list[str]]:
    link = os.readlink(f"/proc/self/fd/{fd}")
    return [_shared(os.getpid(), fd, link) or Wanted(link)], [""]


def wanted_by(target: int | str | os.PathLike[str]) -> tuple[list[Wanted], list[str]]:
    """What `target` of `holders` stands for, and what each of it is called."""
    if isinstance(target, bool) or not isinstance(target, (int, str, os.PathLike)):
        raise TypeError(f"target must be a descriptor, a path, pid:N, tcp:N, udp:N, :N or pipe:[N], not {target!r}")
    if isinstance(target, int):
        return _of_fd(target)
    text = os.fspath(target)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"target is no path: {target!r}")
    kind, colon, rest = text.partition(":")
    if colon and kind in ("pipe", "socket", "anon_inode") and rest.startswith("[") and rest.endswith("]"):
        return [Wanted(text)], [""]
    if colon and kind in ("", "tcp", "udp"):
        return _of_port((kind,) if kind else ("tcp", "udp"), _number(rest, "port", 65535))
    if colon and kind == "pid":
        shared = [item for item in descriptors(_number(rest, "pid", 1 << 22)) if item.wanted is not None]
        return [item.wanted for item in shared if item.wanted is not None], [item.what for item in shared]
    return _of_path(text)


def holders(target: int | str | os.PathLike[str]) -> list[Holder]:
    """Who has a pipe, a file or a socket open.

    Args:
        target: one of

            - an int: what this process has open as this descriptor;
            - ``"pid:N"``: all pipes, sockets and files that process N has open, so that whoever shares
              one with it is found; not character devices;
            - ``"tcp:N"``, ``"udp:N"``, or ``":N"`` for both: the sockets of this network namespace
              whose local port is N;
            - ``"pipe:[INODE]"`` or ``"socket:[INODE]"`` as ``/proc/PID/fd`` shows them (proc(5));
            - any other str, or a `PathLike`: a file, under whichever name a process has opened it, or
              a Unix socket by its path. A file that is named like one of the above is ``./NAME``.

    Returns:
        A `Holder` for each process that has it open and that this user may look at, this process
        included. Its `streams` tell which of several each descriptor is: the addresses and state of a
        port's socket, or the link of a process's descriptor. Who has a file mapped, or as its working
        directory, but not open is not among them.

    Raises:
        OSError: there is no such descriptor, path or process, or it may not be looked at.
        TypeError, ValueError: `target` is none of the above.

    """
    wanted, labels = wanted_by(target)
    by_pid: dict[int, list[Held]] = {}
    for item in look(wanted).held:
        by_pid.setdefault(item.pid, []).append(item)
    names = read_names(by_pid)
    return [
        Holder(
            pid,
            names[pid],
            tuple(item.fd for item in held),
            tuple(labels[item.which] for item in held if labels[item.which]),
            False,
        )
        for pid, held in by_pid.items()
    ]
