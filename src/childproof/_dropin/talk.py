"""`communicate` of the drop-in: the pipes of one `Popen`, fed and read until they have ended, or the
child has and nobody else lets go of them.
"""

from __future__ import annotations

import codecs
import io
import os
import select
from math import ceil, inf
from time import monotonic

from childproof._caught import Caught, may_wait_in_c
from childproof._dropin.starting import TEMPLATE
from childproof._follow import follow
from childproof._light import TYPE_CHECKING
from childproof._spawner import STDERR, STDIN, STDOUT, Child
from childproof._stdio import NULL, PIPE, Feed, bytes_view
from childproof._streams import Streams

if TYPE_CHECKING:
    from collections.abc import Iterable
    from subprocess import Popen
    from typing import Any

    from childproof._result import Holder

MOST_SECONDS = 3600.0
"""The longest single wait."""

NAMING_SECONDS = 0.1
"""How long the end waits for the names of holders."""

STATUS_PAUSE = 0.05
"""How often the child's end is looked for without a pidfd, in seconds."""

_FIRST_READ = 65536


_COMMANDS = {
    (out, err): TEMPLATE._replace(stdout=PIPE if out else NULL, stderr=PIPE if err else NULL)
    for out in (False, True)
    for err in (False, True)
}
"""What the streams need to know, by whether stdout and stderr are pipes."""


def text_is_pending(file: Any) -> bool:
    """Whether a text file has decoded what has not been read from it yet: that cannot be had again.

    `io.TextIOWrapper.reconfigure` refuses exactly then.
    """
    if not isinstance(file, io.TextIOWrapper):
        return False
    try:
        file.reconfigure(errors=file.errors)
    except io.UnsupportedOperation:
        return True
    return False


def _read_ahead(file: Any) -> bytes:
    """What a file object of the caller's has read of its pipe and not handed out. The pipe must not
    block.
    """
    buffered = getattr(file, "buffer", file)
    return (buffered.read1(_FIRST_READ) or b"") if isinstance(buffered, io.BufferedReader) else b""


def decode_so_far(data: bytes, file: Any) -> str:
    """The text of output that was cut off at any byte; it never raises."""
    try:
        text: str = codecs.getincrementaldecoder(file.encoding)(file.errors).decode(data)
    except UnicodeError:
        text = data.decode(file.encoding, "backslashreplace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Talk:
    """See the module. Used by one thread at a time.

    Attributes:
        held: who held the pipes when they were cut off.

    """

    def __init__(self, process: Popen[Any], child: Child, encoded: Any, fresh: bool) -> None:
        """Set it up, and write what the pipe takes.

        Args:
            process: whose file objects these are.
            child: its child.
            encoded: what is to be written to the child's stdin, bytes-like; empty: nothing.
            fresh: nobody has read from the file objects.

        """
        self._files = {STDIN: process.stdin, STDOUT: process.stdout, STDERR: process.stderr}
        self._child = child
        self._poller = select.poll()
        self._exited = False
        self._cut_at = inf
        self._pidfd = -1
        self._unblocked: set[int] = set()
        self._paused = False
        self._streams: Streams | None = None
        self._read: dict[int, bytes] = {}
        self.held: tuple[Holder, ...] = ()
        feed = Feed(data=bytes_view(encoded)) if encoded else None
        self._may_follow = fresh and feed is None and child.pidfd >= 0 and may_wait_in_c()
        if not self._may_follow:
            self._listen(feed, fresh)

    def _listen(self, feed: Feed | None, fresh: bool) -> None:
        fds = [-1 if feed is None else self.fd(STDIN), self.fd(STDOUT), self.fd(STDERR)]
        self._unblock(fds[:1] if fresh else fds)
        streams = self._make_streams(fds, feed)
        streams.listen(fds)
        if not fresh:
            for output in streams.outputs:
                if data := _read_ahead(self._files[output.slot]):
                    output.add(data)

    def _make_streams(self, fds: list[int], feed: Feed | None) -> Streams:
        """It refers back to this object: `go_on` parts them, so that what was read goes with the `Popen`."""
        command = _COMMANDS[fds[STDOUT] >= 0, fds[STDERR] >= 0]
        if feed is not None:
            command = command._replace(feed=feed)
        self._streams = Streams(command, self, self._poller)
        return self._streams

    def _follow(self, until: float) -> bool:
        """The short way (`childproof._follow`): whether it is over."""
        self._may_follow = False
        fds = [-1, self.fd(STDOUT), self.fd(STDERR)]
        caught = Caught(fds[STDOUT], fds[STDERR])
        over = follow(self._child, caught, until)
        if over:
            self._read = {STDOUT: caught.out, STDERR: caught.err}
            self.close(STDOUT)
            self.close(STDERR)
        else:
            self._make_streams(fds, None).go_on(fds, caught)
        caught.release()
        return over

    # ---- whom the streams ask, in the place of a child that owns its pipes ----

    @property
    def state(self) -> int:
        """The child's."""
        return self._child.state

    def fd(self, slot: int) -> int:
        """The descriptor of the file object for `slot`, or -1."""
        file = self._files[slot]
        return -1 if file is None or file.closed is True else int(file.fileno())

    def close(self, slot: int) -> None:
        """Close the file object, whose reader may be gone."""
        file = self._files[slot]
        if file is not None:
            try:
                file.close()
            except BrokenPipeError:
                pass  # the child need not read its input

    def _unblock(self, fds: Iterable[int]) -> None:
        """Make pipes non-blocking that are not."""
        for fd in fds:
            if fd >= 0 and os.get_blocking(fd):
                os.set_blocking(fd, False)
                self._unblocked.add(fd)

    # ---- what `_communicate` calls ----

    def go_on(self, until: float, pidfd: int, linger: float | None) -> bool:
        """Feed and read; whether it is over, and not `until` has come.

        Args:
            until: on `time.monotonic`.
            pidfd: the child's, -1 for none.
            linger: seconds to go on after its end, `None` for ever.

        """
        if self._may_follow and self._follow(until):
            return True
        streams = self._streams
        if streams is None:
            return True
        self._watch(pidfd, linger)
        try:
            over = self._loop(streams, until, linger)
        finally:
            self._unwatch()
            for output in streams.outputs:
                if output.fd < 0:
                    self.close(output.slot)
        if over:
            self._read = self._collect(streams)
            self._streams = None
        return over

    def data(self, slot: int) -> bytes | None:
        """What has been read; `None` for what is no pipe."""
        if self._files[slot] is None:
            return None
        read = self._read if self._streams is None else self._collect(self._streams)
        return read.get(slot, b"")

    @staticmethod
    def _collect(streams: Streams) -> dict[int, bytes]:
        read = {}
        for output in streams.outputs:
            head, tail = output.sink.parts() if output.sink is not None else (b"", b"")
            read[output.slot] = head + tail if tail else head
        return read

    def pause(self) -> None:
        """Give the files back as they were: the caller may want to read them himself."""
        for fd in self._open_fds() & self._unblocked:
            os.set_blocking(fd, True)
        self._unblocked.clear()
        self._paused = True

    def resume(self) -> None:
        """The opposite."""
        if self._paused:
            self._paused = False
            self._unblock(self._open_fds())

    def _open_fds(self) -> set[int]:
        return {self.fd(slot) for slot in (STDIN, STDOUT, STDERR)} - {-1}

    # ---- the loop ----

    def _watch(self, pidfd: int, linger: float | None) -> None:
        if self._exited or linger is None:
            return
        self._pidfd = pidfd
        if pidfd >= 0:
            self._poller.register(pidfd, select.POLLIN)
        elif self._child.ended() != 0:
            self._on_exit(linger)

    def _unwatch(self) -> None:
        """Its number may be another's by the next call."""
        if self._pidfd >= 0 and not self._exited:
            self._poller.unregister(self._pidfd)
        self._pidfd = -1

    def _on_pidfd(self, linger: float) -> None:
        """It says that the child has ended; or the host has closed it."""
        lost = self._child.ended() == 0 and self._child.ask_pidfd() < 0
        self._poller.unregister(self._pidfd)
        if lost:
            self._pidfd = -1
        else:
            self._on_exit(linger)

    def _on_exit(self, linger: float) -> None:
        self._exited = True
        self._cut_at = monotonic() + linger

    def _loop(self, streams: Streams, until: float, linger: float | None) -> bool:
        # The child's end is waited for here too, since it mostly comes together with that of its pipes.
        while streams.open or streams.feeding or (self._pidfd >= 0 and not self._exited):
            now = monotonic()
            if now >= self._cut_at:
                self._cut(streams)
                break
            for fd, _ in self._poller.poll(self._wait_ms(now, until, linger)):
                if fd != self._pidfd or self._exited:
                    streams.ready(fd)
                elif linger is not None:
                    self._on_pidfd(linger)
            if self._pidfd < 0 and linger is not None and not self._exited and self._child.ended() != 0:
                self._on_exit(linger)
            if until != inf and monotonic() >= until:
                break
        return not (streams.open or streams.feeding)

    def _wait_ms(self, now: float, until: float, linger: float | None) -> int | None:
        wake_at = until if until < self._cut_at else self._cut_at
        if self._pidfd < 0 and linger is not None and not self._exited:
            wake_at = min(wake_at, now + STATUS_PAUSE)
        if wake_at == inf:
            return None
        return ceil(min(max(wake_at - now, 0), MOST_SECONDS) * 1000)

    # ---- somebody else holds the pipes ----

    def _cut(self, streams: Streams) -> None:
        """The child has ended and the time to linger is over."""
        streams.stop_feeding()
        self._unblock(streams.open)
        streams.read_what_is_there()
        if not streams.open:
            return
        from childproof._processes.holders import Search, pipe_links

        session = self._child.pid if self._child.leads_group else None
        search = Search(pipe_links(streams.ends()), session)
        name_until = monotonic() + NAMING_SECONDS
        while not search.answered() and monotonic() < name_until:
            select.poll().poll(1)
        self.held = search.holders()
        self._hand_over(streams)

    def _hand_over(self, streams: Streams) -> None:
        """Have the background drain the pipes: whoever writes there must not die of SIGPIPE."""
        from childproof._janitor import janitor

        outputs = list(streams.open.values())
        janitor.adopt(Child.remains(self._child.pid, {output.slot: output.fd for output in outputs}))
        for output in outputs:
            self._poller.unregister(output.fd)
            output.ended()
        streams.open.clear()
