"""What a careless spawn would hand down."""

from __future__ import annotations

import os
from typing import NamedTuple


class LeakyFd(NamedTuple):
    """A descriptor that survives an exec.

    Attributes:
        fd: its number.
        what: what it is, as ``/proc/self/fd`` shows it (proc(5)); ``""`` where that is not to be had.

    """

    fd: int
    what: str


def _candidates() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return sorted(int(name) for name in os.listdir(folder) if name.isdigit())
        except OSError:
            continue
    return list(range(min(os.sysconf("SC_OPEN_MAX"), 1 << 20)))


def leaky_fds() -> list[LeakyFd]:
    """The descriptors of this process above 2 that are not close-on-exec: whoever forks and execs
    without closing them hands them down. `run` never does; this finds the libraries that rely on it.

    Returns:
        The descriptors, in order.

    """
    found = []
    for fd in _candidates():
        try:
            if fd <= 2 or not os.get_inheritable(fd):
                continue
        except OSError:  # it is closed: the one that listed the directory was
            continue
        try:
            what = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            what = ""
        found.append(LeakyFd(fd, what))
    return found
