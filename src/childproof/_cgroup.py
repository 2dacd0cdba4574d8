"""A cgroup of its own for one command (cgroups(7), version 2).

It is made below the cgroup that this process is in, joined by the child before its exec, ended by
``cgroup.kill`` and removed when it is empty. Nobody leaves it by forking, setsid or closing pipes, so
that ``cgroup.events`` proves that nobody is left; who may write to another cgroup can move there.
"""

from __future__ import annotations

import os
from errno import ENOENT, ENOTSUP
from signal import SIGKILL
from time import monotonic, sleep, time

from childproof._light import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import BinaryIO

PREFIX = "childproof-"
"""With which the names of these cgroups begin; the host's pid follows."""

EMPTY_SECONDS = 0.05
"""How long those who were killed may take to leave it."""

STALE_SECONDS = 60.0
"""How old an empty cgroup of a host that is gone must be to be removed."""


class Cgroup(NamedTuple):
    """What ``contain=`` takes for a cgroup that is not the usual one.

    Attributes:
        memory_bytes: ``memory.max`` of all its processes together; beyond it the kernel kills in it.
        pids: ``pids.max``, the most processes and threads that it may have; beyond it fork fails.
        parent: the directory that it is made in, instead of this process's own cgroup.

    A limit needs the controller to be delegated: it must be in the parent's ``cgroup.subtree_control``,
    or be allowed into it, which the kernel refuses while a process is in the parent itself.

    """

    memory_bytes: int | None = None
    pids: int | None = None
    parent: str | None = None


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())


def _unescape(field: str) -> str:
    r"""A path of mountinfo: white space and backslashes are ``\040`` and the like (proc(5))."""
    head, *rest = field.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def own_directory(proc: str = "/proc/self") -> str:
    """The directory of the cgroup that this process is in.

    The unified hierarchy may be mounted anywhere, and only a part of it; a "hybrid" machine has it
    beside those of version 1.

    Raises:
        OSError: there is none, or it is not visible here.

    """
    path = next((line[3:] for line in _read(f"{proc}/cgroup").splitlines() if line.startswith("0::")), None)
    if path is None:
        raise OSError(ENOTSUP, "this process is in no cgroup of version 2", f"{proc}/cgroup")
    for line in _read(f"{proc}/mountinfo").splitlines():
        fields, _, more = line.partition(" - ")
        if more.split(" ", 1)[0] != "cgroup2":
            continue
        root, mountpoint = map(_unescape, fields.split(" ")[3:5])
        if path == root or root == "/" or path.startswith(root + "/"):
            return os.path.normpath(mountpoint + "/" + os.path.relpath(path, root))
    raise OSError(ENOENT, f"no mounted cgroup2 shows {path}", f"{proc}/mountinfo")


def is_writable(directory: str) -> bool:
    """Whether a cgroup can be made in `directory`, and a process be moved there from it."""
    return os.access(directory, os.W_OK | os.X_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK)


def is_possible() -> bool:
    """Whether a command of this process can have a cgroup."""
    try:
        return is_writable(own_directory())
    except OSError:
        return False


_counter = 0
_swept = False


class Group:
    """The cgroup of one command; used by one thread.

    Attributes:
        path: its directory.

    """

    def __init__(self, wanted: Cgroup) -> None:
        """Nothing is created yet.

        Raises:
            OSError: there is no place to create it.

        """
        global _counter
        self._wanted = wanted
        self._parent = os.fspath(wanted.parent) if wanted.parent is not None else own_directory()
        self._made = False
        _counter += 1
        self.path = f"{self._parent}/{PREFIX}{os.getpid()}-{_counter}-{os.urandom(4).hex()}"

    def create(self) -> None:
        """Make it, with its limits.

        Raises:
            OSError: why not, with the file that refused.

        """
        _sweep_once(self._parent)
        self._made = True  # before it is: an interrupt may come between
        os.mkdir(self.path)
        for controller, file, limit in (
            ("memory", "memory.max", self._wanted.memory_bytes),
            ("pids", "pids.max", self._wanted.pids),
        ):
            if limit is not None:
                self._delegate(controller, file)
                _write(f"{self.path}/{file}", str(limit))

    def _delegate(self, controller: str, file: str) -> None:
        if not os.path.exists(f"{self.path}/{file}"):
            _write(f"{self._parent}/cgroup.subtree_control", f"+{controller}")

    def open_procs(self) -> BinaryIO:
        """What the child joins by. The caller closes it."""
        return open(f"{self.path}/cgroup.procs", "wb", buffering=0)

    def pids(self) -> set[int]:
        """Who is in it, or in a cgroup that they have made in it."""
        found: set[int] = set()
        for directory in _with_those_below(self.path):
            try:
                found.update(map(int, _read(f"{directory}/cgroup.procs").split()))
            except OSError:  # gone, or threaded
                continue
        return found

    def kill(self) -> None:
        """SIGKILL for all who are in it, those who are just being forked too (Linux 5.14). Before, it
        is frozen first, so that nobody is.
        """
        try:
            _write(f"{self.path}/cgroup.kill", "1")
        except FileNotFoundError:
            self._kill_frozen()
        except OSError:
            pass  # what is in it is found as without it

    def _kill_frozen(self) -> None:
        from childproof._processes.procfs import read_process
        from childproof._processes.tree import send

        try:
            _write(f"{self.path}/cgroup.freeze", "1")  # Linux 5.2
        except OSError:
            pass  # then as often as it takes
        for pid in self.pids():
            process = read_process(pid)
            if process is not None and pid in self.pids():
                send(process, SIGKILL)
        try:
            _write(f"{self.path}/cgroup.freeze", "0")
        except OSError:
            pass  # those who are killed end frozen too

    def is_empty(self) -> bool:
        """Whether nobody is left, as the kernel has it; a zombie does not count."""
        try:
            return "populated 0" in _read(f"{self.path}/cgroup.events")
        except FileNotFoundError:
            return not os.path.exists(self.path)
        except OSError:
            return False

    def becomes_empty(self) -> bool:
        """Likewise, but those who were killed are given a moment."""
        until = monotonic() + EMPTY_SECONDS
        while not self.is_empty():
            if monotonic() > until:
                return False
            sleep(0.001)
        return True

    def remove(self) -> bool:
        """Remove it, and what was made in it; whether it is gone."""
        if not self._made:
            return True
        for directory in reversed(_with_those_below(self.path)):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        self._made = False
        return True


def _with_those_below(path: str) -> list[str]:
    """`path` and all cgroups in it, parents first."""
    found = [path]
    for directory in found:
        try:
            with os.scandir(directory) as entries:
                found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
    return found


def _sweep_once(parent: str) -> None:
    """Remove what hosts that were killed have left: empty ones, whose host is gone."""
    global _swept
    if _swept:
        return
    _swept = True
    try:
        names = [name for name in os.listdir(parent) if name.startswith(PREFIX)]
    except OSError:
        return
    for name in names:
        pid = name[len(PREFIX) :].partition("-")[0]
        path = f"{parent}/{name}"
        try:
            stale = time() - os.stat(path).st_mtime >= STALE_SECONDS
            if stale and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                os.rmdir(path)
        except OSError:
            continue  # somebody lives in it, or others have removed it
