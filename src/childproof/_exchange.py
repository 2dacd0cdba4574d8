"""The life of one command, without waiting.

An `Exchange` registers the descriptors it wants to hear of, says when it must be woken, and takes
readiness and time in. Whoever drives it does the waiting: `run` with one poll, others with one loop
for many.

    STARTING -> RUNNING -> LINGERING -> CLEARING -> NAMING -> DONE
                   |                       ^
                   +-- deadline -> GRACE --+
                      (AUTOPSY)

STARTING   the child exists, its exec has not been seen. Input and output flow already.
RUNNING    until the child has ended, not until its pipes have: either may come first.
AUTOPSY    the deadline has passed; what the tree is at is being read in the background, if asked for.
GRACE      the deadline has passed and the tree has been sent SIGTERM.
LINGERING  the child has ended (it stays a zombie, which pins its pid and its group's) and somebody
           else holds its pipes.
CLEARING   SIGKILL for the tree, in passes.
NAMING     the holders' names are being read in the background.
"""

from __future__ import annotations

import os
import select
from enum import Enum
from math import inf
from signal import SIGCONT, SIGKILL, SIGTERM
from time import monotonic

from childproof import _report
from childproof._command import Command
from childproof._light import TYPE_CHECKING
from childproof._report import Facts
from childproof._result import Contained
from childproof._spawner import (
    CONTROL,
    DIED,
    DISOWNED,
    FAILED,
    PIDFD,
    SPAWNING,
    STARTED,
    STDERR,
    STDIN,
    STDOUT,
    Child,
    spawn_suspends,
)
from childproof._streams import Registry, Streams, forget, refuse_copy

if TYPE_CHECKING:
    from typing import Any

    from childproof._caught import Caught
    from childproof._cgroup import Cgroup, Group
    from childproof._processes.autopsy import Autopsy
    from childproof._processes.holders import Search
    from childproof._processes.survey import Survey
    from childproof._processes.tree import Killing, Tree
    from childproof._result import Examined, Holder, ProcessInfo, Result

CLEARING_SECONDS = 0.6
"""How long killing may take before survivors are reported; within the second that is promised."""

ABORT_TRIES = 8
"""How often killing is taken up again when an exception breaks it off."""

LOOK_SECONDS = 2.0
"""How often a child is looked at whose end a descriptor is to tell: the host may have closed it."""


class State(Enum):
    """See the module."""

    STARTING = 0
    RUNNING = 1
    GRACE = 2
    LINGERING = 3
    CLEARING = 4
    NAMING = 5
    DONE = 6
    AUTOPSY = 7


class Exchange:
    """See the module. Used by one thread.

    Attributes:
        wake_at: when `tick` must be called at the latest, on `time.monotonic`.
        state: a `State`.
        result: the Result, once `state` is `State.DONE`.
        survey: what its tree is looked for in, where a driver of many shares that among them.

    """

    # What a command begins with; an attribute is set when it changes, which for most it never does.
    state = State.STARTING
    result: Result[Any] | None = None
    survey: Survey | None = None
    _token: bytes | None = None
    _pidfd = -1
    _check_pause = 0.02
    _check_at = inf
    _respawned = False
    _timed_out = False
    _grace_until = inf
    _exited = False
    _reaped = False
    _let_go = False
    _tree: Tree | None = None
    _killing: Killing | None = None
    _autopsy: Autopsy | None = None
    _examined: tuple[Examined, ...] = ()
    _search: Search | None = None
    _held: tuple[Holder, ...] = ()
    _stuck_at = ""
    _group: Group | None = None
    _refused: OSError | None = None

    def __init__(
        self,
        command: Command,
        registry: Registry,
        began: float,
        child: Child | None = None,
        token: bytes | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            command: what to run.
            registry: what tells of descriptors.
            began: when the call began, on `time.monotonic`; the deadline counts from there.
            child: one that has been spawned for it already, which `take_over` or `abort` is for.
            token: that child's mark.

        """
        self._command = command
        self._registry = registry
        self._began = began
        self._deadline = began + command.timeout
        self._child = Child() if child is None else child
        if token is not None:
            self._token = token
        self._streams = Streams(command, self._child, registry)
        self._limit = self.wake_at = self._deadline  # of the present state

    # ---- what a driver calls ----

    def begin(self) -> None:
        """Spawn, and register what is to be heard of."""
        command = self._command
        if command.mark:
            self._token = new_token(command.environment.mark)
        if self._spawn() if command.cgroup is None else self._spawn_in_cgroup(command.cgroup):
            self._listen()
            preload()
            if command.autopsy:
                _preload_autopsy()
        else:
            self._conclude()

    def take_over(self, caught: Caught | None) -> None:
        """Go on in the place of a `childproof._follow.Follower`.

        Args:
            caught: what has been read; `None`: the child could not be made.

        """
        if self._child.state == DISOWNED:
            refuse_copy()
        if caught is None:
            self._conclude()
        else:
            self._listen(caught)

    def ready(self, fd: int) -> None:
        """`fd` has something: data, room, an end or an error."""
        if self._streams.ready(fd):
            if not self._streams.open:
                self._on_end_of_output()
        elif fd == self._pidfd and not self._exited:
            if self._has_ended():
                self._on_exit(monotonic())
        elif self._child.state == DISOWNED:
            refuse_copy()

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        if now >= self._check_at and not self._exited:
            self._check(now)
        if now < self._limit:
            self._schedule()
            return
        if self.state in (State.STARTING, State.RUNNING):
            self._expire(now)
        elif self.state is State.GRACE:
            self._clear(now)
        elif self.state is State.LINGERING:
            self._after_linger(now)
        elif self.state is State.CLEARING:
            self._step_killing(now)
        elif self.state is State.NAMING:
            self._step_naming(now)
        elif self.state is State.AUTOPSY:
            self._step_autopsy(now)
        self._schedule()

    @property
    def child(self) -> Child:
        """The child, for its pid and to signal it; another one where it had to be started again."""
        return self._child

    def so_far(self) -> list[tuple[str, bytes]]:
        """What has been read of each captured stream, as far as it is kept."""
        return [(output.name, b"".join(output.sink.parts())) for output in self._streams.outputs if output.sink]

    def expire(self) -> None:
        """The deadline has come: unless the child has ended by now, it does not count any more that it may
        have when `tick` comes to it.
        """
        self._timed_out = self._timed_out or (
            self.state in (State.STARTING, State.RUNNING) and self._child.ended() == 0
        )

    def stop(self, grace: float, now: float) -> None:
        """Kill the tree, as at the deadline; the outcome is the child's own all the same. At the latest
        it ends when the deadline and its grace are over.
        """
        if self.state in (State.CLEARING, State.DONE):
            return
        latest = max(self._deadline + self._command.grace, now)
        self._search = None
        self._end_tree(now, grace, min(now + grace, latest))
        self._schedule()

    def hurry(self, now: float) -> None:
        """Nobody is interested in what those who outlive the child write: the linger is over."""
        if self.state is State.LINGERING:
            self._limit = now
            self._schedule()

    def abort(self) -> None:
        """Kill the tree and reap the child, whatever state this is in; for exceptions. Waits
        `CLEARING_SECONDS` at most.
        """
        if self._child.state == DISOWNED or self.state is State.DONE:
            self._release()
            return
        interrupted: BaseException | None = None
        try:
            until = monotonic() + CLEARING_SECONDS
            for _ in range(ABORT_TRIES):
                try:
                    self._kill_and_wait(until)
                    break
                except BaseException as error:  # a second Ctrl-C: the tree dies first all the same
                    interrupted = error
            else:
                self._child.signal_group(SIGKILL)
                self._child.signal(SIGKILL)
            if self._killing is not None and not self._killing.survivors:
                for slot in (STDOUT, STDERR):
                    self._child.close(slot)  # nobody is left who could get SIGPIPE
        finally:
            self._release()
        if interrupted is not None:
            raise interrupted

    def _kill_and_wait(self, until: float) -> None:
        if self._child.pid <= 0:
            return
        killing = self._make_killing(until)
        poller = select.poll()
        while (again := killing.step(monotonic())) is not None:
            poller.poll(max(again - monotonic(), 0) * 1000 + 1)
        self._wait_for_end(monotonic() + 0.1)

    # ---- start ----

    def _spawn(self) -> bool:
        if self._deadline == inf or not spawn_suspends(self._command):
            return self._child.spawn(self._command, self._token)
        # This thread sleeps until the exec: another must kill a child whose exec is stuck.
        from threading import TIMEOUT_MAX, Timer

        def expire() -> None:
            self._timed_out = True
            self._child.kill_suspended()

        timer = Timer(min(max(self._deadline - monotonic(), 0), TIMEOUT_MAX), expire)
        timer.daemon = True
        try:
            timer.start()
            return self._child.spawn(self._command, self._token)
        finally:
            timer.cancel()
            if timer.ident is not None:
                timer.join()
            if self._timed_out:
                self._stuck_at = self._child.stuck_stage()

    def _spawn_in_cgroup(self, wanted: Cgroup) -> bool:
        """Where it only may have one it does without, and where it must it is not started."""
        from childproof._cgroup import Group, is_possible

        attributes = self._command.attributes
        if self._command.contain == "auto" and not is_possible():
            return self._spawn()
        try:
            if self._group is None:
                self._group = Group(wanted)
                self._group.create()
            procs = self._group.open_procs()
        except OSError as error:
            self._refused = error
            return False
        with procs:
            self._command = self._command._replace(attributes=attributes._replace(cgroup_fd=procs.fileno()))
            return self._spawn()

    def _listen(self, caught: Caught | None = None) -> None:
        fds = self._child.fds()
        if caught is None:
            self._streams.listen(fds)
        else:
            self._streams.go_on(fds, caught)
        self._pidfd = fds[CONTROL if self._command.supervise else PIDFD]
        if self._pidfd >= 0:
            self._registry.register(self._pidfd, select.POLLIN)
        else:
            self._check_pause = 0.001
        self._check_at = monotonic() + self._check_pause
        self._schedule()

    def _schedule(self) -> None:
        check = inf if self._exited else self._check_at
        self.wake_at = check if check < self._limit else self._limit

    def _check(self, now: float) -> None:
        """What no descriptor tells: that the exec has happened; without a pidfd, the end."""
        child = self._child
        if child.state == SPAWNING:
            started = child.settle() == STARTED  # one that died before its exec may be started again
            self.state = State.RUNNING if self.state is State.STARTING and started else self.state
        if self._has_ended():
            self._on_exit(now)
        elif self._pidfd < 0 or child.state == SPAWNING:
            self._check_pause = min(2 * self._check_pause, 0.05)
            self._check_at = now + self._check_pause
        else:
            self._check_at = now + LOOK_SECONDS

    def _has_ended(self) -> bool:
        """Asked by its pid: whatever its pidfd was, it may have been closed by the host."""
        child = self._child
        if child.ended() != 0:
            return True
        if self._pidfd < 0 or self._command.supervise:
            return False
        told = child.ask_pidfd()
        if told < 0:
            forget(self._registry, self._pidfd)
            self._pidfd = -1
            self._check_pause = 0.001
            self._check_at = monotonic()
            self._schedule()
        return told > 0

    def _on_end_of_output(self) -> None:
        """The last output pipe has ended, or there was none."""
        if self.state is State.LINGERING:
            self._after_linger(monotonic())
            self._schedule()
        elif self._pidfd < 0:
            self._check_pause = 0.0005  # the child is about to end
            self._check_at = monotonic()
            self._schedule()

    # ---- the child's end ----

    def _on_exit(self, now: float) -> None:
        streams = self._streams
        state = self._take_exit()
        if state == DIED and self._may_respawn():
            self._respawn()
            return
        streams.stop_feeding()
        if self.state in (State.GRACE, State.CLEARING, State.AUTOPSY):
            return
        if self._command.supervise and self._child.lost and state != FAILED:  # who knows what its command does now
            self._clear(now)
            self._schedule()
            return
        if state in (FAILED, DIED):
            self._conclude()
            return
        if streams.open:
            streams.read_what_is_there()
        if not streams.open:  # nobody to linger for
            self._after_linger(now)
            return
        self.state = State.LINGERING
        self._limit = min(now + self._command.linger, max(self._deadline, now))
        self._schedule()

    def _take_exit(self) -> int:
        """Note that the child has ended; the state in which it did."""
        self._exited = True
        if self._pidfd >= 0:
            self._registry.unregister(self._pidfd)
        return self._child.settle(dead=True)

    def _may_respawn(self) -> bool:
        """It was killed before its exec, as by the end of the thread that spawned it."""
        if self._respawned or not self._streams.can_restart or self.state is not State.STARTING:
            return False
        return self._child.reap() and self._child.status() == -SIGKILL

    def _respawn(self) -> None:
        self._respawned = True
        self._streams.close()
        if self._is_over():
            self._child.release()
        else:
            from childproof._janitor import janitor

            janitor.adopt(self._child)
        self._child = Child()
        self._streams = Streams(self._command, self._child, self._registry)
        self._exited = False
        self.begin()

    def _after_linger(self, now: float) -> None:
        if self._command.kill_leftovers:
            self._clear(now)
            self._schedule()
        elif self._streams.open:
            self._finish(now)
        else:
            self._conclude()

    # ---- the deadline ----

    def _expire(self, now: float) -> None:
        child = self._child
        if child.ended() != 0 and not self._timed_out:  # it made it
            self._on_exit(now)
            return
        self._timed_out = True
        if child.settle() == SPAWNING and not self._stuck_at:
            self._stuck_at = child.stuck_stage()
        if self._command.autopsy:
            from childproof._processes.autopsy import Autopsy

            self._autopsy = Autopsy(self._make_tree(), now)
            self.state = State.AUTOPSY
            self._step_autopsy(now)
        else:
            self._end_tree(now, self._command.grace, self._deadline + self._command.grace)

    def _step_autopsy(self, now: float) -> None:
        assert self._autopsy is not None
        again = self._autopsy.step(now)
        if again is not None:
            self._limit = again
            return
        self._examined = self._autopsy.result()
        self._end_tree(now, self._command.grace, self._deadline + self._command.grace)

    def _end_tree(self, now: float, grace: float, grace_until: float) -> None:
        tree = self._make_tree()  # while the input pipe, which is evidence, is open
        self._streams.stop_feeding()
        self._grace_until = grace_until
        if grace == 0:
            self._clear(now)
            return
        self.state = State.GRACE
        members = tree.members()
        tree.signal(members, SIGTERM)
        tree.signal(members, SIGCONT)
        self._watch_grace(now)

    def _watch_grace(self, now: float) -> None:
        """The grace is over early when nobody of the tree is left: a shell dies at once, the server
        that it started may want the time.
        """
        self._limit = min(self._grace_until, now + 0.02)

    # ---- killing ----

    def _make_tree(self) -> Tree:
        from childproof._processes.tree import Evidence, Tree

        if self._tree is None:
            from childproof._processes.holders import pipe_links

            token = self._token.rpartition(b":")[2] if self._token is not None else None
            self._tree = Tree(
                self._child,
                Evidence(self._began, token, pipe_links(self._ends()), self._command.secrets, self._child.service),
                survey=self.survey,
                keeper=self._group,
            )
        return self._tree

    def _ends(self) -> dict[str, int]:
        """Our ends of its pipes: who has another end of one belongs to the tree."""
        command = self._command
        pipes = [
            ("stdin", STDIN, command.stdin),
            ("stdout", STDOUT, command.stdout),
            ("stderr", STDERR, command.stderr),
        ]
        fds = [(name, self._child.fd(slot)) for name, slot, stdio in pipes if stdio.kind == "pipe"]
        return {name: fd for name, fd in fds if fd >= 0}

    def _make_killing(self, give_up_at: float) -> Killing:
        from childproof._processes.tree import Killing

        if self._killing is None:
            self._killing = Killing(self._make_tree(), give_up_at)
        return self._killing

    def _clear(self, now: float) -> None:
        """GRACE ends here too: either nobody is left, or its time is over."""
        if self.state is State.GRACE and now < self._grace_until and self._make_tree().lives():
            self._watch_grace(now)
            return
        self.state = State.CLEARING
        self._make_killing(now + CLEARING_SECONDS)
        self._step_killing(now)

    def _step_killing(self, now: float) -> None:
        assert self._killing is not None
        again = self._killing.step(now)
        if again is not None:
            self._limit = again
            return
        if not self._exited and self._child.ended() == 0 and not self._killing.survivors:
            self._limit = now + 0.002  # its end is under way
            return
        self._finish(now)

    # ---- the end ----

    def _finish(self, now: float) -> None:
        """The child has ended, or has been given up: see who holds the pipes."""
        if not self._exited and self._child.ended() != 0:
            self._take_exit()
        self._streams.read_what_is_there()
        if not self._streams.open:
            self._conclude()
            return
        from childproof._processes.holders import Search, pipe_links

        session = self._child.pid if self._child.leads_group else None
        self._search = Search(pipe_links(self._streams.ends()), session, self.survey)
        self.state = State.NAMING
        self._step_naming(now)

    def _step_naming(self, now: float) -> None:
        assert self._search is not None
        if not self._search.answered() and now < self._search.until:
            self._limit = now + 0.001
            return
        self._held = self._search.holders()
        self._conclude()

    def _wait_for_end(self, until: float) -> None:
        """For `abort` alone, which has nobody to drive it."""
        while self._child.ended() == 0 and monotonic() < until:
            select.poll().poll(1)

    def _conclude(self) -> None:
        """Reap, hand over what must go on, and put the Result together."""
        child, command, killing = self._child, self._command, self._killing
        if self._streams.files:
            self._streams.read_files()
        survivors: tuple[ProcessInfo, ...] = killing.survivors if killing else ()
        self._reaped = child.reap()
        if not self._reaped:
            survivors = _report.with_child(survivors, child.pid)
        self.result = _report.make_result(
            Facts(
                command,
                child,
                self._began,
                self._timed_out,
                self._stuck_at,
                self._streams.outputs,
                self._held,
                killing.killed if killing else (),
                survivors,
                self._examined,
                self._contained(),
                self._refused,
            )
        )
        self._release()
        self.state = State.DONE

    def _contained(self) -> Contained | None:
        child = self._child
        if child.state in (FAILED, DIED) or self._refused is not None:
            return None
        if self._group is not None:
            killed = self._killing is not None and not self._killing.survivors
            return Contained("cgroup", self._group.becomes_empty() if killed else self._group.is_empty())
        if not child.supervised:
            return _report.IN_SESSION
        return Contained("pidns" if self._command.contain == "pidns" else "session", child.empty)

    def _release(self) -> None:
        """Let go of every descriptor; what must be drained or reaped yet goes to the background."""
        if self._let_go:
            return
        child, streams = self._child, self._streams
        streams.stop_feeding()
        held = bool(streams.open) and streams.hand_over()
        if self._pidfd >= 0 and not self._exited:
            forget(self._registry, self._pidfd)
        owned = child.state != DISOWNED
        if owned and (held or not self._is_over()):
            from childproof._janitor import janitor

            janitor.adopt(child)
        else:
            child.release()
        if self._group is not None and owned and not self._group.remove():
            from childproof._janitor import janitor

            janitor.retry(self._group.remove)
        self._let_go = True

    def _is_over(self) -> bool:
        """Whether nobody has to wait for the child any more, nor for its supervisor."""
        reaped = self._reaped or self._child.reap()
        return reaped and (not self._child.supervised or self._child.reaped)


_preloaded = False


def preload() -> None:
    """Import what a deadline will need, while the child is on its way to its exec: later there may be
    no descriptor left to import with.
    """
    global _preloaded
    if _preloaded:
        return
    try:
        import fcntl
        import termios

        from childproof._processes import holders, tree
    except (ImportError, OSError):
        return
    _preloaded = True
    del fcntl, termios, holders, tree


def _preload_autopsy() -> None:
    """As `_preload`."""
    from childproof._processes import autopsy

    del autopsy


def new_token(outer: bytes | None) -> bytes:
    """The value of the mark for one more command; `outer`: that of the runs that this process is part of."""
    token = os.urandom(8).hex().encode()
    return token if outer is None else outer + b":" + token
