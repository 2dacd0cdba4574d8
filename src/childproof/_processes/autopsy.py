"""The autopsy: what the processes of a tree were at when the deadline came.

What strace, /proc and gdb had to be used for. It is taken before anybody is signalled. State, times and
descriptors are read at once; command lines and system calls, which may block, in the background.
"""

from __future__ import annotations

from time import CLOCK_BOOTTIME, clock_gettime, monotonic

from childproof._janitor import janitor
from childproof._light import TYPE_CHECKING
from childproof._processes import procfs
from childproof._processes.inspector import Finder, Wanted
from childproof._processes.procfs import TICKS_PER_SECOND, Process
from childproof._processes.waits import waits
from childproof._result import Examined

if TYPE_CHECKING:
    from collections.abc import Iterable

    from childproof._processes.tree import Tree

AUTOPSY_SECONDS = 0.1
"""How long an autopsy may delay the killing."""

Known = tuple[dict[int, str], dict[int, str]]
"""By pid: command lines, and what is waited in."""


def age_of(process: Process) -> float:
    """Seconds since `process` started."""
    return max(clock_gettime(CLOCK_BOOTTIME) - process.start / TICKS_PER_SECOND, 0.0)


def cpu_of(process: Process) -> float:
    """Seconds of CPU that `process` has used."""
    return (process.user_ticks + process.system_ticks) / TICKS_PER_SECOND


def look(processes: list[Process], until: float, waiting: dict[int, str]) -> dict[int, str]:
    """In the background: what each waits in, into `waiting`, as it becomes known; and command lines."""
    for process in processes:
        if monotonic() > until:
            break
        waiting[process.pid] = waits(process, until)
    return procfs.command_lines(process.pid for process in processes)


class Autopsy:
    """Of one tree, without waits: made, it has looked; `step` says when it is over."""

    def __init__(self, tree: Tree, now: float) -> None:
        """`now`: on `time.monotonic`."""
        self._tree = tree
        self._until = now + AUTOPSY_SECONDS
        self._members = tree.members()
        self._waiting: dict[int, str] = {}
        members, until, waiting = self._members, now + AUTOPSY_SECONDS / 2, self._waiting
        self._job = janitor.submit(lambda: look(members, until, waiting))

    def step(self, now: float) -> float | None:
        """The time of the next step, `None` when it is over."""
        if self._job.done.is_set() or now >= self._until:
            return None
        return min(now + 0.001, self._until)

    def result(self) -> tuple[Examined, ...]:
        """What was found; an unread name is in brackets."""
        commands: dict[int, str] = janitor.answer(self._job) or {}
        waiting = dict(self._waiting)
        finder = Finder([Wanted(link) for link in self._tree.pipes])
        names = list(self._tree.pipes.values())
        found = []
        for process in self._members:
            if process.pid in commands:
                self._tree.commands[process.key] = commands[process.pid]  # and need not be asked for again
            held = [(names[item.which], item.fd) for item in finder.of(process.pid) or ()]
            found.append(examine(process, self._tree.info(process).command, waiting.get(process.pid, ""), held))
        return tuple(found)


def examine(process: Process, command: str, waiting: str, held: Iterable[tuple[str, int]]) -> Examined:
    """`process` as it is shown."""
    return Examined(
        process.pid,
        process.ppid,
        command,
        process.state,
        process.threads,
        age_of(process),
        cpu_of(process),
        waiting,
        tuple(held),
    )
