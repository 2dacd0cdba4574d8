"""The pipes of one command while it runs: what is fed, what is read, what is still open.

Nothing here waits, and nothing here knows of deadlines or of the child's end.
"""

from __future__ import annotations

import os
import select

from childproof._feed import Feeder, make_feeder
from childproof._light import TYPE_CHECKING, Protocol
from childproof._output import Output
from childproof._spawner import DISOWNED, STDERR, STDIN, STDOUT

if TYPE_CHECKING:
    from typing import Any, NoReturn

    from childproof._caught import Caught
    from childproof._command import Command


class Registry(Protocol):
    """What hears of descriptors; `select.poll` and `select.epoll` objects are such."""

    def register(self, fd: int, eventmask: int, /) -> object:
        """Report readiness of `fd` from now on."""

    def unregister(self, fd: int, /) -> object:
        """Do so no more."""


class Owner(Protocol):
    """Who has the descriptors: a `Child`, or whoever else owns the parent's ends of its pipes."""

    @property
    def state(self) -> int:
        """As that of a `Child`."""

    def fd(self, slot: int, /) -> int:
        """The parent's end of the pipe in `slot`, or -1."""

    def close(self, slot: int, /) -> None:
        """Close it, once."""


def forget(registry: Registry, fd: int) -> None:
    """Hear no more of a descriptor that lives on or is closed by others: its number may become that of
    another command's.
    """
    try:
        registry.unregister(fd)
    except KeyError:
        pass  # an interrupt came before it was registered


def refuse_copy() -> NoReturn:
    """For a process that was forked while a command ran, and goes on as if it had started it."""
    raise RuntimeError("this is a forked copy of a process that runs a command: the command is not its own")


class Streams:
    """See the module. Used by one thread.

    Attributes:
        open: the output pipes that have not ended, by descriptor.
        outputs: the captured streams, those that have ended too.
        files: those that are captured in a file, which is yet to be read.

    """

    _feeder: Feeder | None = None

    def __init__(self, command: Command, child: Owner, registry: Registry) -> None:
        self._command = command
        self._child = child
        self._registry = registry
        self._feed_fds: dict[int, int] = {}  # what is registered for the feeder
        self.open: dict[int, Output] = {}
        self.outputs: list[Output] = []
        self.files: list[Output] = []

    def listen(self, fds: list[int]) -> None:
        """Register what is to be heard of, and feed what the pipe takes.

        Args:
            fds: the child's, by slot.

        """
        command = self._command
        for name, slot, kind in self._captured():
            if kind == "pipe":
                self._hear(Output(name, slot, fds[slot], command.max_output))
            elif kind == "tempfile":
                self.files.append(Output(name, slot, -1, command.max_output))
        if command.feed is not None:
            self._feeder = make_feeder(command.feed, fds[STDIN], command.encoding)
            self._feed(-1)

    def go_on(self, fds: list[int], caught: Caught) -> None:
        """Likewise, for a child that has been fed, and of which something may have been read.

        Args:
            fds: the child's, by slot.
            caught: what has been read.

        """
        for (name, slot, kind), data in zip(self._captured(), (caught.out, caught.err), strict=True):
            if kind != "pipe":
                continue
            output = Output(name, slot, fds[slot], self._command.max_output)
            if output.fd in caught.fds:
                self._hear(output)
            else:
                self.outputs.append(output)
                output.ended()
            if data:
                output.add(data)

    def _captured(self) -> tuple[tuple[str, int, str], tuple[str, int, str]]:
        command = self._command
        return ("stdout", STDOUT, command.stdout.kind), ("stderr", STDERR, command.stderr.kind)

    def _hear(self, output: Output) -> None:
        self.outputs.append(output)
        self.open[output.fd] = output
        self._registry.register(output.fd, select.POLLIN)

    @property
    def feeding(self) -> bool:
        """Whether there is input that has not been written yet."""
        return self._feeder is not None

    @property
    def can_restart(self) -> bool:
        """Whether another child could have the same input, and its output go the same way."""
        if self._command.stdout.kind == "link" or self._command.stdin.kind == "linked":
            return False
        return self._feeder is None or self._feeder.can_restart

    def ready(self, fd: int) -> bool:
        """Read or write what can be; whether `fd` is one of the pipes."""
        output = self.open.get(fd)
        if output is not None:
            self._read(output)
        elif fd in self._feed_fds:
            self._feed(fd)
        else:
            return False
        return True

    def read_what_is_there(self) -> None:
        """All that is in the pipes now, and no more: somebody may go on writing for ever."""
        for output in list(self.open.values()):
            remaining = output.waiting_bytes()
            while output.fd >= 0 and remaining > 0:
                got = self._read(output)
                if got == 0:
                    break
                remaining -= got
            if output.fd >= 0 and remaining <= 0:
                self._read(output)  # its end, if it has come

    def read_files(self) -> None:
        """What was captured in files."""
        for output in self.files:
            output.read_file(self._child.fd(output.slot))
            self.outputs.append(output)
        self.files.clear()

    def ends(self) -> dict[str, int]:
        """The open output pipes by name."""
        return {output.name: output.fd for output in self.open.values()}

    def stop_feeding(self) -> None:
        """Whatever has not been written is not wanted any more."""
        if self._feeder is None:
            return
        self._want_for_feed({})
        self._feeder.ended()
        self._feeder = None
        self._child.close(STDIN)

    def close(self) -> None:
        """Close what is open, before another child is fed and read."""
        self.stop_feeding()
        for output in list(self.open.values()):
            self._end(output)

    def hand_over(self) -> bool:
        """Forget the output pipes; whether any is open, which is somebody else's to drain now."""
        handed = any(self._child.fd(output.slot) >= 0 for output in self.open.values())
        while self.open:  # one by one: an interrupt may come between, and then this is called again
            fd, output = next(iter(self.open.items()))
            forget(self._registry, fd)
            output.ended()
            del self.open[fd]
        return handed

    # ---- one step ----

    def _feed(self, fd: int) -> None:
        """Write what can be written now; hear of the descriptors that the next step needs."""
        feeder = self._feeder
        assert feeder is not None
        self._guard(feeder.step, fd)
        self._want_for_feed(feeder.fds)
        if not feeder.fds:
            self.stop_feeding()

    def _want_for_feed(self, wanted: dict[int, int]) -> None:
        for old, events in self._feed_fds.items():
            if wanted.get(old) != events:
                self._registry.unregister(old)
        for new, events in wanted.items():
            if self._feed_fds.get(new) != events:
                self._registry.register(new, events)
        self._feed_fds = dict(wanted)

    def _read(self, output: Output) -> int:
        """One read; the number of bytes, 0 when nothing came or the pipe has ended."""
        try:
            data = os.read(output.fd, output.read_bytes)
        except BlockingIOError:
            return 0
        except OSError:
            if self._child.state == DISOWNED:
                refuse_copy()
            output.lost = True
            self._end(output)
            self._child.close(output.slot)  # or the child would wait for a reader
            return 0
        if not data:
            self._end(output)
            return 0
        output.add(data)
        if self._command.on_output is not None:
            self._guard(self._command.on_output, output.name, data)
        return len(data)

    def _end(self, output: Output) -> None:
        """Its descriptor is closed with all others, at the end, in one call."""
        self._registry.unregister(output.fd)
        del self.open[output.fd]
        output.ended()

    def _guard(self, function: Any, *args: Any) -> None:
        """Call the caller's code; it may fork, and the copy must not go on."""
        function(*args)
        if self._child.state == DISOWNED:
            refuse_copy()
