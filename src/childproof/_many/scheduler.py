"""Many commands driven by one thread: when each may start, and when it is its turn.

Nothing here waits but `Scheduler.wait`; another driver may wait in its own way and call `wait` with 0.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from errno import EAGAIN, EMFILE, ENFILE, ENOMEM
from heapq import heapify, heappop, heappush
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from childproof._command import Command, make_command, plain_command
from childproof._exchange import CLEARING_SECONDS, Exchange, State
from childproof._follow import may_follow
from childproof._many.budget import FEEDING_FDS, RUNNING_FDS, SPAWNING_FDS, SUPERVISING_FDS, Budget
from childproof._many.followed import Followed
from childproof._many.router import Router
from childproof._processes.survey import Survey
from childproof._report import Facts, make_result
from childproof._run import announce
from childproof._spawner import FAILED
from childproof._supervise import NOBODY

if TYPE_CHECKING:
    from childproof._many.run_many import Collector
    from childproof._result import Result

MOST_SPAWNING = 64
"""Commands on their way to the exec at once."""

STOPPING_SECONDS = 0.005
"""What the end of one among many may take more."""

STALE_TIMES = 64
"""Times that count no more and may be kept, beside two for each command that runs."""

LATER = object()
"""What a source gives when it has no command now but may have one later."""

_STARVED = {
    "fork": (EAGAIN, ENOMEM, EMFILE, ENFILE),
    "pipe": (EMFILE, ENFILE),
    "open": (EMFILE, ENFILE),
    "dup": (EMFILE, ENFILE),
}
"""What a spawn fails with where the host is short of something that others will give back, by stage."""


class _Starvable(Exchange):
    """An exchange whose start may be put off.

    Attributes:
        may_wait: whether there are others that will give back what it wants.
        starved: why it was put off, and has no Result; empty if it was not.
        must_decide: as of a `Followed`.

    """

    may_wait = False
    starved = ""
    must_decide = False

    def _conclude(self) -> None:
        child = self._child
        if (
            self.may_wait
            and child.state == FAILED
            and child.errno in _STARVED.get(child.stage, ())
            and not self._command.attributes.limits  # its own limit, which may be the cause, will not change
        ):
            self.starved = f"{child.stage}: {os.strerror(child.errno)}"
            self._release()
            self.state = State.DONE
        else:
            super()._conclude()


class Job:
    """One command of many, from its start to its Result. For its exchange it is the registry.

    Attributes:
        position: which it is among the commands.
        exchange: its state machine, or its short way; `None` before the start and after the end.
        wake_at: the earliest time that the scheduler has noted for it.
        spawning: its exec has not been seen.
        fds: how many descriptors it is reckoned with.

    """

    __slots__ = ("_scheduler", "command", "exchange", "fds", "position", "spawning", "wake_at")

    def __init__(self, position: int, command: Command, scheduler: Scheduler) -> None:
        self.position = position
        self.command = command
        self.exchange: _Starvable | Followed | None = None
        self.wake_at = inf
        self.spawning = False
        self.fds = 0
        self._scheduler = scheduler

    def register(self, fd: int, mask: int, /) -> None:
        """See `childproof._streams.Registry`."""
        self._scheduler.router.register(fd, mask, self)

    def unregister(self, fd: int, /) -> None:
        """See `childproof._streams.Registry`."""
        self._scheduler.router.unregister(fd, self)

    def ready(self, fd: int) -> None:
        """See `childproof._many.router.Owner`."""
        if self.exchange is not None:
            self.exchange.ready(fd)
            self._scheduler.look_at(self)


class Scheduler:
    """See the module. Used by one thread.

    Attributes:
        finished: what is over: pairs of `Job` and `Result`, in the order of their ends.

    """

    def __init__(
        self, elements: Iterator[Any], most_jobs: int, common: Mapping[str, Any], in_loop: bool = False
    ) -> None:
        """Nothing is started yet.

        Args:
            elements: gives commands, or `LATER`; if it has ``attach``, that is given the router, by
                which it can make itself heard of when there is one.
            most_jobs: how many may run at once.
            common: the options of all.
            in_loop: it is driven by an event loop, which waits for one descriptor.

        """
        self._elements = elements
        self._common = common
        self._most_jobs = most_jobs
        self._more = True
        self._put_off: deque[Job] = deque()
        self._running: set[Job] = set()
        self._spawning = 0
        self._heap: list[tuple[float, int, Job]] = []
        self._heap_count = 0
        self._budget: Budget | None = None
        self._survey = Survey(self._own_sessions)
        self.router = Router(inf if in_loop else most_jobs)
        if hasattr(elements, "attach"):
            elements.attach(self.router)
        self.started = 0
        self.finished: deque[tuple[Job, Result[Any]]] = deque()

    @property
    def idle(self) -> bool:
        """Nothing runs, and nothing is to come."""
        return not (self._running or self._more or self._put_off)

    @property
    def jobs(self) -> list[Job]:
        """What runs now."""
        return list(self._running)

    @property
    def running(self) -> int:
        """How many run now."""
        return len(self._running)

    # ---- starting ----

    def fill(self) -> None:
        """Start what may be started now."""
        running = self._running
        while (
            len(running) < self._most_jobs
            and self._spawning < MOST_SPAWNING
            and (self._more or self._put_off)
            and self._may_open()
        ):
            job = self._next()
            if job is None or not self._start(job):
                return

    def _may_open(self) -> bool:
        if self._budget is None:
            self._budget = Budget()
        return self._budget.allows(len(self._running))

    def _next(self) -> Job | None:
        if self._put_off:
            return self._put_off.popleft()
        try:
            element = next(self._elements)
        except StopIteration:
            self._more = False
            return None
        if element is LATER:
            return None
        job = Job(self.started, self._command(element), self)
        self.started += 1
        return job

    def _command(self, element: Any) -> Command:
        try:
            return command_of(element, self._common)
        except (TypeError, ValueError) as error:
            raise type(error)(f"cmds[{self.started}]: {error}") from error

    def _start(self, job: Job) -> bool:
        """Start it; `False` if it was put off."""
        command = job.command
        began = monotonic()
        if command.timeout == 0:
            self._finish(job, make_result(Facts(command, None, began, True, "", [], (), (), ())))
            return True
        announce(command)
        exchange: _Starvable | Followed
        if may_follow(command):
            exchange = Followed(command, job, began)
        else:
            exchange = self._among_others(job, _Starvable(command, job, began))
        job.exchange = exchange
        self._running.add(job)
        self._reckon(job, SPAWNING_FDS + SUPERVISING_FDS * (job.command.supervise != NOBODY))
        self._spawning += 1
        job.spawning = True
        exchange.begin()
        self.look_at(job)
        return job not in self._put_off

    def _among_others(self, job: Job, exchange: _Starvable) -> _Starvable:
        exchange.may_wait = len(self._running) > (job in self._running)
        exchange.survey = self._survey
        return exchange

    def _take_over(self, job: Job, followed: Followed) -> _Starvable:
        """Something must be decided about a command on the short way."""
        exchange = job.exchange = self._among_others(job, followed.make_exchange(_Starvable))
        exchange.take_over(followed.caught)
        return exchange

    def _reckon(self, job: Job, fds: int) -> None:
        assert self._budget is not None
        self._budget.used += fds - job.fds
        job.fds = fds

    def _own_sessions(self) -> set[int]:
        children = [job.exchange.child for job in self._running if job.exchange is not None]
        return {child.pid for child in children if child.leads_group}

    # ---- driving ----

    def wait(self, most_seconds: float = inf) -> None:
        """Wait until something happens, `most_seconds` at most, and do what is due."""
        now = monotonic()
        seconds = self.wake_at - now
        self._survey.renew()
        self.router.wait(min(seconds, most_seconds) if seconds > 0 else 0)
        self.tick()

    @property
    def wake_at(self) -> float:
        """When something is due although no descriptor tells, on `time.monotonic`."""
        return self._heap[0][0] if self._heap else inf

    def tick(self) -> None:
        """Do what is due by now."""
        now = monotonic()
        self._survey.renew()
        while self._heap and self._heap[0][0] <= now:
            due, _, job = heappop(self._heap)
            if due != job.wake_at or job.exchange is None:
                continue  # noted for an earlier time since, or over
            job.wake_at = inf
            if job.exchange.wake_at <= now:
                job.exchange.tick(now)
            self.look_at(job)

    def look_at(self, job: Job) -> None:
        """Something has happened to it: note what follows for the others and for the time."""
        exchange = job.exchange
        if exchange is None:
            return
        if exchange.must_decide:
            assert isinstance(exchange, Followed)
            exchange = self._take_over(job, exchange)
        state = exchange.state
        if job.spawning and state is not State.STARTING:
            job.spawning = False
            self._spawning -= 1
            fed, supervised = job.command.feed is not None, job.command.supervise != NOBODY
            self._reckon(job, RUNNING_FDS + FEEDING_FDS * fed + SUPERVISING_FDS * supervised)
        if state is State.DONE:
            self._end(job, exchange)
        elif exchange.wake_at < job.wake_at:
            job.wake_at = exchange.wake_at
            self._heap_count += 1
            heappush(self._heap, (job.wake_at, self._heap_count, job))
            if len(self._heap) > 2 * len(self._running) + STALE_TIMES:
                self._sweep()

    def _sweep(self) -> None:
        """Take out what was noted for an earlier time since, and for commands that are over: their deadlines
        may be far away.
        """
        self._heap = [entry for entry in self._heap if entry[2].exchange is not None and entry[0] == entry[2].wake_at]
        heapify(self._heap)

    def _end(self, job: Job, exchange: _Starvable | Followed) -> None:
        job.exchange = None
        self._running.discard(job)
        self._reckon(job, 0)
        if isinstance(exchange, _Starvable) and exchange.starved:
            job.wake_at = inf
            self._put_off.append(job)
            assert self._budget is not None
            self._budget.starve(len(self._running), exchange.starved)
        else:
            assert exchange.result is not None
            self._finish(job, exchange.result)

    def _finish(self, job: Job, result: Result[Any]) -> None:
        result.position = job.position
        self.finished.append((job, result))

    def collect(self, collector: Collector) -> None:
        """Start what may be started, and give `collector` what is over."""
        self._hand_over(collector)
        if not (collector.over or collector.full):
            self.fill()
            self._hand_over(collector)

    def _hand_over(self, collector: Collector) -> None:
        while self.finished and not collector.over:
            job, result = self.finished.popleft()
            collector.take(result, job.command.check, self.started, self.running)

    # ---- ending early ----

    def stop(self) -> float:
        """Start no more, and begin to kill what runs; by when it will have ended, on `time.monotonic`, if
        it is driven on.
        """
        self._more = False
        self._put_off.clear()
        now = monotonic()
        self._survey.renew()
        for job in list(self._running):
            exchange = job.exchange
            if exchange is not None:
                if isinstance(exchange, Followed):
                    exchange = self._take_over(job, exchange)
                exchange.stop(0, now)
                self.look_at(job)
        return monotonic() + CLEARING_SECONDS + 0.2 + STOPPING_SECONDS * len(self._running)

    def close(self) -> None:
        """Kill and reap what runs, and let go of everything."""
        interrupted: BaseException | None = None
        try:
            until = self.stop() if self._running and not self.router.is_copy else 0
            while self._running and (left := until - monotonic()) > 0:
                self.wait(left)
        except BaseException as error:  # all die first all the same
            interrupted = error
        while self._running:
            exchange = self._running.pop().exchange
            try:
                if exchange is not None:
                    exchange.abort()
            except BaseException as error:
                interrupted = error
        self.router.close()
        if interrupted is not None:
            raise interrupted


def command_of(element: Any, common: Mapping[str, Any]) -> Command:
    """The command that one element of `cmds` stands for."""
    if isinstance(element, Command):
        return element
    if not isinstance(element, Mapping):
        return make_command(element, **common) if common else plain_command(element, None, None)
    return make_command(**options_of(element, common))


def options_of(element: Any, common: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of `run` that one element of `cmds` stands for; its own come before the common."""
    if not isinstance(element, Mapping):
        return {**common, "cmd": element}
    if "cmd" not in element:
        raise TypeError(f"a mapping must have a 'cmd': {element!r}")
    return {**common, **element}
