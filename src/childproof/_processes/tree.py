"""Finding and killing the tree of a command.

Who belongs to it: the child; who is in its session; who descends from a member, or did when it was
first seen; who has the mark in its environment; who holds the child's end of one of its pipes.
Nobody who started before the child, which no descendant of it can have done.

Nobody is signalled by a bare pid where pidfds exist: the pidfd is opened first, then it is checked
that the pid still is who was meant, then the signal is sent through the pidfd.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Set
from time import CLOCK_BOOTTIME, clock_gettime, monotonic
from typing import NamedTuple, Protocol

from childproof import _journal
from childproof._processes import procfs
from childproof._processes.census import Census
from childproof._processes.errands import Errand, Errands
from childproof._processes.inspector import Finder, Roll, Wanted, signal_process
from childproof._processes.marks import Marks
from childproof._processes.procfs import Process
from childproof._processes.survey import Survey
from childproof._result import ProcessInfo

NAMES_SECONDS = 0.1
"""How long killing waits for command lines and marks, which may block."""

FREEZING_ROUNDS = 10
"""How often it is tried to stop all members before they are killed."""

ENDING_SECONDS = 0.1
"""How much longer it waits for those whose end is under way."""

STRUCK_SECONDS = 0.5
"""How long before, at least, they must have been sent SIGKILL."""

Key = tuple[int, int]


class Evidence(NamedTuple):
    """What tells a member of the tree.

    Attributes:
        spawned_at: `time.monotonic` before the spawn.
        token: the mark, `None` where there is none.
        pipes: links like ``pipe:[123]`` of the output pipes and the input pipe, to their names.
        secrets: what must not be logged of those that are killed.
        service: the session of a program that was detached from the root, 0 if none was. It counts as
            long as the root runs: see `childproof._spawner.Child.service`.

    """

    spawned_at: float
    token: bytes | None
    pipes: dict[str, str]
    secrets: tuple[str, ...]
    service: int = 0


class Keeper(Protocol):
    """What the kernel keeps the tree in; a `childproof._cgroup.Group` is such."""

    def pids(self) -> set[int]:
        """Who is in it."""

    def kill(self) -> None:
        """SIGKILL for all of them at once."""


class Root(Protocol):
    """What a tree grows from: a `childproof._spawner.Child`, or any other process."""

    @property
    def pid(self) -> int:
        """The process id."""

    @property
    def leads_group(self) -> bool:
        """Its session and its process group are its own, and belong to the tree."""

    @property
    def supervisors(self) -> tuple[int, ...]:
        """Whose children are of the tree, though they are not."""

    def kill_supervised(self) -> None:
        """Have them kill the whole tree."""

    def ended(self) -> int:
        """1: it has ended, and keeps its number; 0: it runs; -1: its number may be another's."""

    def signal(self, number: int) -> int:
        """Signal it, and nobody who has its number now. 0, or an errno."""

    def signal_group(self, number: int) -> int:
        """Signal its process group, if it leads one. 0, or an errno."""


def send(process: Process, number: int) -> int:
    """Signal `process` if it still is that process. 0, or an errno."""
    return signal_process(process.identity, number)


class Tree:
    """The processes that belong to one root, as far as they can be found."""

    def __init__(
        self,
        root: Root,
        evidence: Evidence,
        start: int | None = None,
        survey: Survey | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        """Nothing is looked for yet.

        Args:
            root: what it grows from.
            evidence: what else tells a member.
            start: the root's, in ticks; without it the root is our child, and it is found out.
            survey: what it looks at together with other trees; without it, it looks alone.
            keeper: what the kernel keeps it in, if anything.

        """
        self._keeper = keeper
        self._survey = survey
        self._errands = Errands() if survey is None else survey.errands
        self._marks = Marks(self._errands) if survey is None else survey.marks
        self._root = root
        self._evidence = evidence
        self._floor = self._started() if start is None else start
        self._known: dict[Key, Process] = {}
        self._errand: Errand | None = None
        self._named: dict[int, Key] = {}
        self._marked: set[Key] = set()
        self._unmarked: Set[Key] = frozenset()
        self._slow = False
        self._roll = Roll([])
        self._finder = Finder([Wanted(link) for link in evidence.pipes])
        self._service = 0
        self._struck: dict[Key, int] = {}
        self._struck_at: float | None = None
        self._is_input = [name == "stdin" for name in evidence.pipes.values()]
        self.commands: dict[Key, str] = {}
        self.secrets = evidence.secrets

    def _started(self) -> int:
        """The child's start in ticks; reckoned, where it has been reaped by somebody else."""
        process = self._seen() or procfs.read_process(self._root.pid)
        if process is not None and self._root.ended() >= 0:
            return process.start
        ago = monotonic() - self._evidence.spawned_at
        return int((clock_gettime(CLOCK_BOOTTIME) - ago) * procfs.TICKS_PER_SECOND) - 1

    def _seen(self) -> Process | None:
        """The child as the survey shows it; `None` where that may show who had its number before."""
        census = self._survey.census() if self._survey is not None else None
        if census is None or census.began < self._evidence.spawned_at:
            return None
        process = census.processes.get(self._root.pid)
        return process if process is not None and process.ppid == os.getpid() else None

    @property
    def loses_orphans(self) -> bool:
        """Whether a process that loses its parent before it was ever seen is not found: neither session
        nor mark would tell, nor would it become a supervisor's.
        """
        told = self._evidence.token is not None or self._root.leads_group
        return not (told or self._root.supervisors or self._keeper is not None)

    @property
    def pipes(self) -> dict[str, str]:
        """As in `Evidence`."""
        return self._evidence.pipes

    def members(self) -> list[Process]:
        """Who of the tree is alive, parents before their children. Never this process, nor one that
        it descends from.
        """
        alive = self._look(self._census())
        self._roll = Roll([process.identity for process in alive])
        return [] if self.is_settled(alive) and self._roll.all_over() else alive

    def is_settled(self, members: list[Process]) -> bool:
        """Whether the `members` that were found last need only be waited for. Who has SIGKILL makes no more
        children, so all that were made were there to be found; who has left the group since may not have it.
        """
        return self._survey is not None and all(self._struck.get(p.key) == p.pgrp for p in members)

    def _census(self) -> Census:
        """What it is looked for in: begun after the last strike, so that who was made before that is in it."""
        if self._survey is None:
            return Census()
        census = self._survey.census(self._struck_at)
        return self._survey.census(monotonic()) if self._is_outdated(census) else census

    def _is_outdated(self, census: Census) -> bool:
        """Whether the root was made or has ended since: then what it has made may not be there."""
        if self._struck:
            return False
        root = census.processes.get(self._root.pid)
        ended_since = root is not None and root.alive and not self.root_runs()
        return ended_since or census.began < self._evidence.spawned_at

    def _look(self, census: Census) -> list[Process]:
        """As `members`, in `census`."""
        family = census.family
        self._service = self._evidence.service if self._evidence.service and self.root_runs() else 0
        inside: dict[int, Process] = {}
        pinned = self._is_pinned()
        family.grow(inside, self._told(census, pinned), self._floor)
        others = [process for process in self._others(census, pinned) if process.pid not in inside]
        if self._evidence.pipes:
            family.grow(inside, [process for process in others if self._holds_pipe(process, census)], self._floor)
        self._known.update((process.key, process) for process in inside.values())
        if self._survey is None or not pinned:
            self._unmarked = {process.key for process in others if process.pid not in inside}
        else:
            self._unmarked = census.stranger_keys
        return [process for process in family.in_order(inside) if process.alive]

    def _others(self, census: Census, pinned: bool) -> list[Process]:
        """Who may have one of the pipes open."""
        spared, floor = self._root.supervisors, self._floor
        if self._survey is not None and pinned:
            found = census.holders_of(self._evidence.pipes)
        else:
            found = census.strangers
            if not pinned:  # then its session is no session that tells
                found = [*found, *(process for process in census.led_by(self._root.pid) if process.alive)]
        return [process for process in found if process.start >= floor and process.pid not in spared]

    def _is_pinned(self) -> bool:
        """Whether the root's number is nobody else's: it has not been reaped, or somebody whom we know
        is in its session, and as long as one is the kernel gives its number to nobody.
        """
        if self._root.pid <= 0:
            return False
        if self._root.ended() >= 0:
            return True
        return self._root.leads_group and any(
            process.session == self._root.pid
            and (now := procfs.read_process(process.pid)) is not None
            and (now.start, now.session) == (process.start, process.session)
            for process in self._known.values()
        )

    def _told(self, census: Census, pinned: bool) -> list[Process]:
        """Who belongs to it by what is known of each alone, without its parent and what it has open."""
        keys = (*self._known, *self._marked)
        told = [process for key in keys if (process := census.find(key)) is not None]
        if self._service:
            told += [process for process in census.led_by(self._service) if process.session == self._service]
        pid = self._root.pid
        if pinned:
            if pid in census.processes:
                told.append(census.processes[pid])
            if self._root.leads_group:
                told += census.led_by(pid)
        supervisors = self._root.supervisors
        for supervisor in supervisors:
            told += census.family.children(supervisor)
        if self._keeper is not None:
            told += [census.processes[pid] for pid in self._keeper.pids() if pid in census.processes]
        return [process for process in told if process.pid not in supervisors]

    def _holds_pipe(self, process: Process, census: Census) -> bool:
        if not process.alive:
            return False
        # This process's other children may have copies for the moment between their fork and exec.
        if process.ppid == os.getpid() and process.pid != self._root.pid and os.getpid() != 1:
            return False
        if self._survey is not None:
            pipes = census.pipes_of(process.pid)
            return any((stream != "stdin") in pipes.get(link, ()) for link, stream in self._evidence.pipes.items())
        return any(held.writes != self._is_input[held.which] for held in self._finder.of(process.pid) or ())

    def all_over(self) -> bool:
        """Whether all have ended that were last found; cheap."""
        return self._roll.all_over()

    def lives(self) -> bool:
        """Whether anybody is alive; cheap while one of those is that were last found."""
        return not self.all_over() or bool(self.members())

    # ---- what may block is asked of the background thread ----

    def ask(self, members: list[Process]) -> bool:
        """Ask for names and marks of who is new; whether there was anything to ask."""
        # Once something took too long names are not asked for any more: they would hold up the marks.
        named = [] if self._slow else [p for p in members if p.key not in self.commands]
        if named:
            pids = [process.pid for process in named]
            self._named = {process.pid: process.key for process in named}
            self._errand = self._errands.ask(lambda: procfs.command_lines(pids))
        if self._evidence.token is not None:
            self._marks.ask(self._unmarked)
        return bool(named) or self._marks.pending

    def answered(self) -> bool:
        """Whether the answer has come."""
        named = self._errand is None or self._errands.answered(self._errand)
        return self._marks.answered() and named

    def take_answer(self) -> bool:
        """Take it; what has not come is not waited for any longer. Whether it tells of a member who was
        not known.
        """
        hung = self._errand is not None and (self._errand.lost or not self._errand.done)
        self._slow = self._slow or hung
        if self._errand is not None:
            commands: dict[int, str] = self._errands.take(self._errand) or {}
            self.commands.update((self._named[pid], line) for pid, line in commands.items())
            self._errand = None
        if self._survey is None and self._marks.pending and not hung:  # it was not held up by the names
            self._marks.give_up()
        return self._take_marks()

    def _take_marks(self) -> bool:
        marks, token = self._marks, self._evidence.token
        new = marks.of(token).difference(self._known, self._marked) if token is not None else set()
        self._marked |= new
        self.commands.update((key, marks.commands[key]) for key in new if key in marks.commands)
        return bool(new)

    @property
    def unread(self) -> bool:
        """Whether there are marks that have not been come to."""
        return self._marks.unread

    def root_runs(self) -> bool:
        """Whether the root has not ended, or at least can't be reaped. Needs no /proc."""
        return self._root.ended() == 0

    def is_running_root(self, process: Process) -> bool:
        """Whether `process` is the root, and has not ended."""
        return process.pid == self._root.pid and self.root_runs()

    def strike_blindly(self) -> bool:
        """SIGKILL for the root and its group, found without /proc; whether the root still runs."""
        self._root.signal_group(signal.SIGKILL)
        self._root.signal(signal.SIGKILL)
        self.strike_from_within()
        return self.root_runs()

    def strike_from_within(self) -> None:
        """SIGKILL for all by those who see who belongs even without /proc: a supervisor, the kernel."""
        self._root.kill_supervised()
        if self._keeper is not None:
            self._keeper.kill()

    def root_info(self) -> ProcessInfo:
        """The root, as far as it can be seen."""
        process = procfs.read_process(self._root.pid)
        return self.info(process) if process else ProcessInfo(self._root.pid, os.getpid(), "[not visible]", "?")

    def info(self, process: Process) -> ProcessInfo:
        """`process` for a `Result`."""
        return process.info(self.commands.get(process.key))

    def signal(self, members: list[Process], number: int) -> list[Process]:
        """Signal the group at once, then whoever is outside it; returns who was signalled.

        The group goes first and as one, since a shell whose command is killed before it goes on to
        its next.
        """
        grouped = self._root.signal_group(number) == 0
        done = []
        for process in members:
            if self.is_running_root(process):
                error = self._root.signal(number)
            elif grouped and process.pgrp == self._root.pid:
                error = 0
            else:
                error = send(process, number)
            if error == 0:
                done.append(process)
        if number == signal.SIGKILL:
            self._struck.update((process.key, process.pgrp) for process in done)
            self._struck_at = monotonic()
        return done


class Killing:
    """SIGKILL for a tree, in passes, until one finds nobody.

    A machine without waits: `step` does what can be done now and says when it wants to be called
    again. Between two passes, which read all of /proc, it is cheaply looked whether those last found
    have ended.
    """

    def __init__(self, tree: Tree, give_up_at: float, asked: Iterable[Process] = ()) -> None:
        """Nothing is done yet.

        Args:
            tree: whom to kill.
            give_up_at: on `time.monotonic`; who is alive then is a survivor. Those whose end is under
                way are waited for `ENDING_SECONDS` more.
            asked: who was sent SIGTERM before; who of them has ended counts as killed.

        """
        self._asked = {process.key: process for process in asked}
        self._tree = tree
        self._give_up_at = give_up_at
        self._end_by: float | None = None
        self._struck_at: float | None = None
        self._ask_until = 0.0
        self._look_at = 0.0
        self._gap = 0.001
        self._pause = 0.0005
        self._cost = 0.0
        self._rounds = 0
        self._members: list[Process] = []
        self._asking = False
        self._killed: dict[Key, Process] = {}
        self._alive: set[Key] = set()
        self._struck_blindly: tuple[ProcessInfo, ...] = ()
        self.survivors: tuple[ProcessInfo, ...] = ()

    @property
    def killed(self) -> tuple[ProcessInfo, ...]:
        """Who was signalled and is not among the survivors."""
        ended = self._asked | self._killed
        if not ended:
            return () if self.survivors else self._struck_blindly
        return tuple(self._tree.info(process) for key, process in ended.items() if key not in self._alive)

    def step(self, now: float) -> float | None:
        """Go on; the time of the next step, `None` when it is over."""
        if self._asking:
            if not self._tree.answered() and now < self._ask_until:
                return now + 0.001
            self._asking = False
            if self._tree.take_answer():
                self._look()
        else:
            if now < self._look_at and not self._tree.all_over():
                self._pause = min(2 * self._pause, 0.004)
                return min(now + self._pause, self._look_at)
            self._look()
            if self._tree.ask(self._members):
                self._asking = True
                # Whoever is known is not kept waiting for his end; marks alone are waited for while there
                # is time, since on a busy machine they come late.
                until = monotonic() + NAMES_SECONDS if self._members else self._give_up_at
                self._ask_until = min(until, self._give_up_at)
                return min(now + 0.0005, self._ask_until)
        return self._strike(now) if self._members else self._without_members(now)

    def _look(self) -> None:
        began = monotonic()
        self._members = self._tree.members()
        self._cost = monotonic() - began

    def _freeze(self) -> bool:
        """Stop whoever is not yet; whether it must be looked again. Killed at once, a process could have
        made a child between the look and its end, which nothing ties to the tree any more; the child of
        a stopped one is found.
        """
        if not self._tree.loses_orphans or self._killed or self._rounds >= FREEZING_ROUNDS:
            return False
        self._rounds += 1
        running = [process for process in self._members if not process.is_held]
        self._tree.signal(running, signal.SIGSTOP)
        return bool(running)

    def _strike(self, now: float) -> float | None:
        """SIGKILL for all that were found, whether or not they had it before."""
        if now < self._give_up_at and self._freeze():
            return now + 0.0005 * self._rounds
        settled = self._tree.is_settled(self._members)
        new = not settled and self._signal()
        self._tree.strike_from_within()
        if now >= self._give_up_at:
            return self._give_up(now)
        self._gap = 0.002 if new else min(2 * self._gap, 0.02)
        self._look_at = self._give_up_at if settled else now + max(self._gap, 2 * self._cost)
        self._pause = 0.0005
        return now + self._pause

    def _signal(self) -> bool:
        """SIGKILL for all members; whether one of them did not have it."""
        new = [p for p in self._tree.signal(self._members, signal.SIGKILL) if p.key not in self._killed]
        for process in new:
            self._killed[process.key] = process
            _journal.killed(self._tree.info(process), self._tree.secrets)
        if self._struck_at is None:
            self._struck_at = monotonic()
        return bool(new)

    def _give_up(self, now: float) -> float | None:
        looked_at = [(process, procfs.read_process(process.pid)) for process in self._members]
        alive = [last for before, last in looked_at if last is not None and last.key == before.key and last.alive]
        ending = {process.key for process in alive if self._is_ending(process)}
        if self._end_by is None:
            # From now: on a machine that stands still the bound is passed first. One of thousands may have been
            # struck only then.
            self._end_by = max(now, (self._struck_at or now) + STRUCK_SECONDS) + ENDING_SECONDS
        if now < self._end_by and any(process.key in ending or process.exiting for process in alive):
            return now + 0.005
        # As long as the root can't be reaped it is there.
        left = [process for process in alive if process.key not in ending or self._tree.is_running_root(process)]
        self._alive = {process.key for process in left}
        self.survivors = tuple(self._tree.info(process) for process in left)
        return None

    def _is_ending(self, process: Process) -> bool:
        """None of its own code runs any more, and nothing is seen that holds up its end, as D state or
        a tracer would.
        """
        return process.key in self._killed and all(task.is_ending for task in procfs.tasks(process))

    def _without_members(self, now: float) -> float | None:
        """Nobody is seen: either nobody is left, or /proc does not show even the child."""
        if not self._killed and self._tree.root_runs():
            self._struck_blindly = (self._tree.root_info(),)
        if not self._tree.strike_blindly():
            return now + 0.001 if self._tree.unread and now < self._give_up_at else None
        if now >= self._give_up_at:
            self.survivors = (self._tree.root_info(),)
            return None
        return now + 0.002
