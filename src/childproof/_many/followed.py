"""The beginning of one command among many, which for most is all of it: see `childproof._follow`."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any, TypeVar

from childproof._exchange import Exchange, State
from childproof._follow import Follower
from childproof._spawner import FAILED, SPAWNING

if TYPE_CHECKING:
    from childproof._caught import Caught
    from childproof._command import Command
    from childproof._result import Result
    from childproof._spawner import Child
    from childproof._streams import Registry

_Exchange = TypeVar("_Exchange", bound=Exchange)

FOLLOW_SECONDS = 0.02
"""For how long; what takes longer has time for an exchange, which keeps the deadlines."""


class Followed:
    """A command on the short way, with what a `Scheduler` asks of an exchange. Used by one thread.

    Attributes:
        state: `State.STARTING`, `State.RUNNING` or `State.DONE`.
        wake_at: when an exchange must go on, on `time.monotonic`.
        must_decide: an exchange must go on now.
        result: the Result, once it is done.

    """

    __slots__ = ("_fds", "_follower", "_registry", "must_decide", "result", "state", "wake_at")

    def __init__(self, command: Command, registry: Registry, began: float) -> None:
        self.state = State.STARTING
        self.wake_at = began + min(FOLLOW_SECONDS, command.timeout)
        self.must_decide = False
        self.result: Result[Any] | None = None
        self._follower = Follower(command, began)
        self._registry = registry
        self._fds: tuple[int, ...] = ()

    @property
    def child(self) -> Child:
        """The child."""
        return self._follower.child

    def begin(self) -> None:
        """Spawn, and register what is to be heard of."""
        if not self._follower.begin() or self.child.pidfd < 0:  # a filter may refuse the one or the other
            self.must_decide = True
            return
        self._fds = self._follower.fds()
        for fd in self._fds:
            self._registry.register(fd, select.POLLIN)

    def ready(self, fd: int) -> None:
        """`fd` has something, or another of its descriptors."""
        if fd not in self._fds or self.must_decide:
            return
        over = self._follower.look()
        if over is None:
            self._go_on()
        elif over and self.child.state != FAILED:  # for want of what others will give back, perhaps
            self._forget()
            self.result = self._follower.result()
            self.state = State.DONE
        else:
            self.must_decide = True

    def _go_on(self) -> None:
        open_fds = self._follower.fds()
        for fd in self._fds:
            if fd not in open_fds:
                self._registry.unregister(fd)
        self._fds = open_fds
        if self.child.state != SPAWNING:
            self.state = State.RUNNING

    def tick(self, now: float) -> None:
        """The time is over, if it is."""
        self.must_decide = self.must_decide or now >= self.wake_at

    def _forget(self) -> None:
        fds, self._fds = self._fds, ()
        for fd in fds:
            self._registry.unregister(fd)

    def make_exchange(self, kind: type[_Exchange]) -> _Exchange:
        """What is to go on: its `take_over` wants `caught`."""
        self._forget()
        return self._follower.make_exchange(self._registry, kind)

    @property
    def caught(self) -> Caught | None:
        """What has been read; `None` if there is no child."""
        return self._follower.caught

    def abort(self) -> None:
        """See `Exchange.abort`."""
        self._forget()
        self._follower.abort(self._registry)
