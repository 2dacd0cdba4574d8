"""The short way: a command to which nothing happens is followed in C, from its start to its end.

Most commands write little, end soon, and leave nobody behind who has their pipes: for those an `Exchange`,
which can do everything, would be made in vain. Whatever must be decided, as at the deadline, is the
exchange's, which goes on with the child and with what has been read.
"""

from __future__ import annotations

from childproof._caught import Caught, may_wait_in_c
from childproof._exchange import Exchange, new_token, preload
from childproof._light import TYPE_CHECKING
from childproof._output import Output
from childproof._report import IN_SESSION, Facts, make_plain_result, make_result
from childproof._spawner import (
    DIED,
    END,
    FAILED,
    QUIET,
    SIGNALED,
    STDERR,
    STDIN,
    STDOUT,
    Child,
    has_pidfd,
    spawn_suspends,
    write,
)
from childproof._supervise import NOBODY

if TYPE_CHECKING:
    from typing import Any, TypeVar

    from childproof._command import Command
    from childproof._result import Result
    from childproof._streams import Registry

    _Exchange = TypeVar("_Exchange", bound=Exchange)

SMALL_INPUT = 4096
"""What an empty pipe takes at once, in bytes (PIPE_BUF, pipe(7))."""

_OTHERS = ("tempfile", "link")


def may_follow(command: Command) -> bool:
    """Whether nothing is asked for that must be decided while it runs, or at its end."""
    feed = command.feed
    return (
        command.on_output is None
        and command.max_output is None
        and not command.kill_leftovers
        and not command.autopsy
        and (feed is None or (feed.data is not None and len(feed.data) <= SMALL_INPUT))
        and command.stdout.kind not in _OTHERS
        and command.stderr.kind not in _OTHERS
        and command.stdin.kind != "linked"
        and command.supervise == NOBODY
        and command.cgroup is None
        and not command.attributes.detach
        and not spawn_suspends(command)
        and has_pidfd()
        and may_wait_in_c()
    )


def follow(child: Child, caught: Caught, deadline: float) -> bool:
    """Whether the child and its pipes have ended; if not, something must be decided. Signal handlers run
    meanwhile.
    """
    while (news := child.follow(caught, deadline)) == SIGNALED:
        pass
    return news == END and caught.ended


class Follower:
    """See the module. Used by one thread.

    Attributes:
        child: the child.
        caught: what has been read; `None` if there is no child.

    """

    __slots__ = ("_began", "_command", "_token", "caught", "child")

    def __init__(self, command: Command, began: float) -> None:
        """`began`: when the call began, on `time.monotonic`; the deadline counts from there."""
        self._command = command
        self._began = began
        self._token: bytes | None = None
        self.caught: Caught | None = None
        self.child = Child()

    def begin(self) -> bool:
        """Spawn, and feed; whether there is a child."""
        command, child = self._command, self.child
        if command.mark:
            self._token = new_token(command.environment.mark)
        if not child.spawn(command, self._token):
            return False
        self.caught = Caught(child.fd(STDOUT), child.fd(STDERR))
        if command.feed is not None:
            write(child.fd(STDIN), command.feed.data)  # all of it, or nobody reads it
            child.close(STDIN)
        preload()
        return True

    def wait(self) -> bool:
        """Whether it is over, and reaped; if not, an exchange must go on. Signal handlers run meanwhile."""
        child, caught = self.child, self.caught
        assert caught is not None
        return follow(child, caught, self._began + self._command.timeout) and self._is_over()

    def _is_over(self) -> bool:
        # One that died before its exec may get another try.
        return self.child.settle(dead=True) != DIED and self.child.reap()

    def look(self) -> bool | None:
        """Likewise, without waiting; `None`: nothing has to be decided yet."""
        assert self.caught is not None
        news = self.child.follow(self.caught, 0.0)
        if news in (QUIET, SIGNALED):
            return None
        return news == END and self.caught.ended and self._is_over()

    def fds(self) -> tuple[int, ...]:
        """What tells that something has happened: the pipes that are open, and the pidfd."""
        assert self.caught is not None
        return (*self.caught.fds, self.child.pidfd)

    def result(self) -> Result[Any]:
        """What came of it, once it is over. The child is reaped."""
        child, caught = self.child, self.caught
        assert caught is not None
        out, err = caught.out, caught.err
        result = make_plain_result(self._command, child, self._began, out, err)
        if result is None:
            result = make_result(self._facts(out, err))
        child.release()
        caught.release()
        return result

    def _facts(self, out: bytes, err: bytes) -> Facts:
        """Of a command that did not come to its exec, or whose status is lost."""
        outputs = []
        for name, slot, data in (("stdout", STDOUT, out), ("stderr", STDERR, err)):
            if data:
                output = Output(name, slot, -1, None)
                output.add(data)
                outputs.append(output)
        contained = None if self.child.state == FAILED else IN_SESSION
        return Facts(self._command, self.child, self._began, False, "", outputs, (), (), (), (), contained)

    def hand_over(self, registry: Registry) -> Exchange:
        """The exchange that goes on."""
        exchange = self.make_exchange(registry, Exchange)
        exchange.take_over(self.caught)
        return exchange

    def make_exchange(self, registry: Registry, kind: type[_Exchange]) -> _Exchange:
        """An exchange with the child, which is to take over, or to abort."""
        return kind(self._command, registry, self._began, self.child, self._token)

    def abort(self, registry: Registry) -> None:
        """Kill the tree and reap the child; for exceptions. See `Exchange.abort`."""
        self.make_exchange(registry, Exchange).abort()
