"""One poller for the descriptors of many commands."""

from __future__ import annotations

import fcntl
import os
import select
import weakref
from errno import EBADF, EINVAL, EPERM
from math import ceil, inf
from time import sleep
from typing import Any, Protocol

from childproof._run import MOST_SECONDS
from childproof._streams import refuse_copy

POLL_COMMANDS = 32
"""Up to so many commands at once poll(2) is used, which looks at every descriptor each time but
needs no system call for each that comes and goes; beyond it epoll(7), where there is one."""


REFUSED_SECONDS = 0.005
"""How often descriptors are looked at that can't be waited for."""


class Owner(Protocol):
    """Who hears of a descriptor."""

    def ready(self, fd: int) -> None:
        """`fd` has something."""


class Router:
    """Tells the owner of a descriptor when it is ready. Used by one thread."""

    def __init__(self, commands: float) -> None:
        """`commands`: how many there may be at once."""
        self._pid = os.getpid()
        self._owners: dict[int, Owner] = {}
        self._masks: dict[int, int] = {}
        self._shared: dict[int, dict[Owner, int]] = {}
        self._always: set[int] = set()
        self._epoll: Any = None
        self._poller: Any = None
        if commands > POLL_COMMANDS:
            self._open_epoll()
        if self._poller is None:
            self._poller = select.poll()

    def _open_epoll(self) -> None:
        """Where it can't be had, for want of a descriptor or of the system's support, poll(2) serves."""
        try:
            epoll = select.epoll()
            if epoll.fileno() <= 2:  # a hole of the host's among 0, 1, 2 must stay one
                high = select.epoll.fromfd(fcntl.fcntl(epoll.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
                epoll.close()
                epoll = high
        except (OSError, AttributeError):
            return
        self._epoll = self._poller = epoll
        _routers.add(self)

    @property
    def is_copy(self) -> bool:
        """Whether this process was forked from the one that the commands belong to."""
        return self._pid != os.getpid()

    def fileno(self) -> int:
        """A descriptor that is readable when any of those is ready; -1 where there is none."""
        return self._epoll.fileno() if self._epoll is not None else -1

    # ---- who hears of what ----

    def register(self, fd: int, mask: int, owner: Owner) -> None:
        """Tell `owner` of `fd`. Several may hear of one: it may be the input of several commands."""
        if fd in self._owners and self._owners[fd] is not owner:
            self._share(fd, mask, owner)
            return
        self._owners[fd] = owner
        self._masks[fd] = mask
        self._watch(fd, mask)

    def unregister(self, fd: int, owner: Owner) -> None:
        """Do so no more."""
        if fd in self._shared:
            self._unshare(fd, owner)
        elif self._owners.get(fd) is owner:
            del self._owners[fd]
            del self._masks[fd]
            self._unwatch(fd)

    def _share(self, fd: int, mask: int, owner: Owner) -> None:
        owners = self._shared.setdefault(fd, {self._owners[fd]: self._masks[fd]})
        owners[owner] = mask
        self._modify(fd)

    def _unshare(self, fd: int, owner: Owner) -> None:
        owners = self._shared[fd]
        owners.pop(owner, None)
        if len(owners) == 1:
            self._owners[fd], self._masks[fd] = next(iter(owners.items()))
            del self._shared[fd]
        self._modify(fd)

    def _modify(self, fd: int) -> None:
        mask = 0
        for wanted in self._shared.get(fd, {}).values() or (self._masks[fd],):
            mask |= wanted
        self._masks[fd] = mask
        self._unwatch(fd)
        self._watch(fd, mask)

    # ---- what the poller knows ----

    def _watch(self, fd: int, mask: int) -> None:
        self._refuse_in_copy()
        try:
            self._poller.register(fd, mask)
        except OSError as error:
            if error.errno not in (EPERM, EBADF):
                raise
            self._always.add(fd)  # epoll_ctl(2): a file that is always ready; or one that somebody has closed

    def _unwatch(self, fd: int) -> None:
        if self.is_copy:
            return  # it has the same epoll as the process that it was forked from
        if fd in self._always:
            self._always.discard(fd)
            return
        try:
            self._poller.unregister(fd)
        except (OSError, KeyError):
            pass  # closed already, by somebody else

    def _refuse_in_copy(self) -> None:
        if self.is_copy:
            refuse_copy()

    def masks(self) -> dict[int, int]:
        """What is waited for: the events of poll(2) by descriptor."""
        return self._masks

    @property
    def always_ready(self) -> bool:
        """Whether one of them is ready at any time."""
        return bool(self._always)

    def wait(self, seconds: float) -> None:
        """Wait up to `seconds` for readiness, and tell whoever owns it."""
        events = self.poll(0 if self._always else seconds)
        heard = False
        for fd, _ in events:
            owner = self._owners.get(fd)
            if owner is None:
                continue  # its command has ended since
            heard = True
            if fd in self._shared:
                for each in list(self._shared[fd]):
                    each.ready(fd)
            else:
                owner.ready(fd)
        for fd in list(self._always):
            if (owner := self._owners.get(fd)) is not None:
                owner.ready(fd)
        if events and not heard:
            self._renew()

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        """The descriptors that are ready, waiting up to `seconds`."""
        self._refuse_in_copy()
        if self._epoll is not None:
            # Python rounds up to the next millisecond, as is done below.
            timeout = None if seconds == inf else min(seconds, MOST_SECONDS)
            return self._epoll.poll(timeout, 512)  # type: ignore[no-any-return]
        milliseconds = None if seconds == inf else ceil(min(seconds, MOST_SECONDS) * 1000)
        try:
            return self._poller.poll(milliseconds)  # type: ignore[no-any-return]
        except OSError as error:
            if error.errno != EINVAL:
                raise
            return self._poll_one_by_one(seconds)

    def _poll_one_by_one(self, seconds: float) -> list[tuple[int, int]]:
        """Where the soft limit has been lowered below the number of descriptors, which poll(2) refuses."""
        events = []
        for fd, mask in self._masks.items():
            poller = select.poll()
            poller.register(fd, mask)
            events += poller.poll(0)
        if not events:
            sleep(min(seconds, REFUSED_SECONDS))
        return events

    def _renew(self) -> None:
        """Take a new epoll. A descriptor that was closed while a child on its way to the exec had a copy
        of it stays in the old one until that closes it, and can't be taken out.
        """
        old = self._epoll
        if old is None:
            return
        self._open_epoll()
        if self._epoll is old:
            return  # none to be had now; it is tried again at the next such event
        for fd, mask in self._masks.items():
            if fd not in self._always:
                self._poller.register(fd, mask)
        old.close()

    def close(self) -> None:
        """Let go of everything."""
        self._owners.clear()
        self._shared.clear()
        if self._epoll is not None:
            self._epoll.close()


_routers: weakref.WeakSet[Router] = weakref.WeakSet()


def _close_copies() -> None:
    """In a forked copy: the parent's epolls are not its own."""
    for router in list(_routers):
        router.close()


os.register_at_fork(after_in_child=_close_copies)
