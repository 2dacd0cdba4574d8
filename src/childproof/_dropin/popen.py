"""`Popen` of the drop-in: the stdlib's, with another way to start, to wait, to talk and to signal.

What others hook stays as the stdlib has it: `_execute_child`, `_communicate`, `_wait`, `_internal_poll`
and `_get_handles` are called by the stdlib's own code and with its arguments. Where the stdlib's spawn
must be used under gevent or eventlet there is no `_child`, and everything is the stdlib's.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import warnings
from math import ceil, inf
from time import monotonic

from childproof._dropin import starting as start
from childproof._dropin import transports
from childproof._dropin.settings import checked_linger, is_green, limit, original_popen, settings, stdlib
from childproof._dropin.talk import MOST_SECONDS, Talk, decode_so_far, text_is_pending
from childproof._errors import OutputCut, StatusLost
from childproof._light import TYPE_CHECKING
from childproof._result import Holder
from childproof._spawner import FAILED, SPAWNING, STDERR, STDOUT, Child, has_pidfd
from childproof._text import one_line

if TYPE_CHECKING:
    from typing import Any

_Base: Any = original_popen()  # typeshed does not know the methods that are overridden here

TimeoutExpired = stdlib.TimeoutExpired

STATUS_LOST = 125
"""The returncode of a child whose status nobody can know."""

CLEARING_SECONDS = 0.6
"""How long the killing of a tree may take."""

REAPING_SECONDS = 0.1
"""How long a child that was killed is waited for."""

SMALL_INPUT = 16384
"""What certainly fits into an empty pipe, in bytes or characters: writing it does not block."""

_PACKAGE = os.path.dirname(os.path.dirname(__file__))
_UNSET: Any = object()


def _warn(warning: Warning) -> None:
    """Blame whoever called from outside of this package and of the stdlib's module."""
    import sys

    level, frame = 1, sys._getframe()
    while frame is not None and (
        frame.f_code.co_filename.startswith(_PACKAGE) or frame.f_code.co_filename == stdlib.__file__
    ):
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    warnings.warn(warning, stacklevel=level)


class Popen(_Base):  # type: ignore[misc]  # as above
    """`subprocess.Popen`, on the spawner and the pipes of childproof.

    Takes what the stdlib's takes, and:

    Args:
        linger: seconds for which `communicate` goes on reading after the child's end while somebody
            else holds its pipes; `None`: as long as they do. Without it `childproof.subprocess.linger`
            is asked.

    Attributes:
        held: a `Holder` for each process that held the pipes when `communicate` cut them off.

    """

    __module__ = "childproof.subprocess"

    _child: Child | None = None
    _talk: Talk | None = None
    _linger: Any = _UNSET
    _began = 0.0
    _until = inf
    _users = 0
    _fresh = False  # nobody can have read from the pipes: it is the child of a `run`
    _abandoned = False
    held: tuple[Holder, ...] = ()

    def __init__(self, *args: Any, linger: Any = _UNSET, **kwargs: Any) -> None:
        if linger is not _UNSET:
            self._linger = checked_linger(linger)
        super().__init__(*args, **kwargs)

    # ---- start ----

    def _get_handles(self, stdin: Any, stdout: Any, stderr: Any) -> Any:
        """As the stdlib's, whose context manager costs more than the pipes do where nothing else is
        asked for.
        """
        if self.pipesize > 0 or not start.only_pipes(stdin, stdout, stderr):
            return super()._get_handles(stdin, stdout, stderr)
        return start.open_pipes(stdin, stdout, stderr)

    def _close_pipe_fds(self, *fds: int) -> None:
        """Likewise."""
        self._closed_child_pipe_fds = True
        start.close_far_ends(fds, getattr(self, "_devnull", None))

    def _execute_child(self, *given: Any) -> None:
        # For a signal handler that sends the child a signal while this thread has the lock.
        self._waitpid_lock = threading.RLock()
        self._began = monotonic()
        self._until, timeout, of_run = limit.take()
        self._fresh = of_run and type(self) is Popen
        if transports.wanted:
            transports.install()
        asked = start.read_arguments(given)
        if asked is None:
            super()._execute_child(*given)
            self._adopt()
            return
        words, executable = start.words_of(asked)
        start.audit(executable, words, asked)
        command, mark = start.make_start(asked, words, executable)
        if self._until != inf:
            command = start.for_deadline(command)
        child = self._child = Child()
        try:
            if child.spawn(command, mark):
                self.pid = child.pid
                self._child_created = True
            self._close_pipe_fds(*given[10:16])
            if (state := start.await_exec(child, self._until)) == SPAWNING:
                raise TimeoutExpired(asked.args, timeout or 0.0)
        except BaseException:
            self._forget(child, start.kill(child))
            raise
        if state == FAILED:
            error = start.start_error(asked, executable, child)
            self._forget(child, child.pid <= 0 or start.reap_soon(child, start.DISCARD_SECONDS))
            raise error

    def _forget(self, child: Child, reaped: bool) -> None:
        """The constructor raises: nobody will ever wait for the child, and the traceback may keep this
        object for long.
        """
        self._child_created = False
        self._child = None
        if reaped:
            self.returncode = child.status()
            child.release()
        else:
            start.leave_to_background(child)

    def _adopt(self) -> None:
        """A child that the stdlib has started is waited for by a pidfd all the same."""
        if is_green() or not self._child_created or not isinstance(self.pid, int) or self.pid <= 0:
            return
        try:
            pidfd = os.pidfd_open(self.pid) if has_pidfd() else -1
        except OSError:
            return
        self._child = Child.adopted(self.pid, pidfd)

    # ---- the end of the child ----

    def _reap(self, lost: int | None = None) -> None:
        """Take the status if there is one. The lock is held.

        Args:
            lost: the returncode where nobody knows the status; `None`: 125, and a warning.

        """
        child = self._child
        if self.returncode is not None or child is None or not child.reap():
            return
        status = child.status()
        unknown = STATUS_LOST if lost is None else lost
        self.returncode = unknown if status is None else status
        self._release()
        if status is None and lost is None:  # at last: a filter may make an error of it
            _warn(StatusLost(f"the status of pid {self.pid} was taken by somebody else's wait, and is lost"))

    def _release(self) -> None:
        """Close the pidfd, unless somebody polls it. The lock is held."""
        if self.returncode is not None and self._users == 0 and self._child is not None:
            self._child.release()

    def _internal_poll(self, _deadstate: int | None = None, *rest: Any, **others: Any) -> Any:
        if self._child is None:
            return super()._internal_poll(_deadstate, *rest, **others)
        if self.returncode is None:
            if not self._waitpid_lock.acquire(False):
                return None  # another thread is about to know
            try:
                self._reap(_deadstate)
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def _wait(self, timeout: float | None) -> Any:
        if self._child is None:
            return super()._wait(timeout)
        until = inf if timeout is None else monotonic() + timeout
        remaining = inf if timeout is None else timeout
        while self.returncode is None and not self._abandoned:
            told = remaining > 0 and self._sleep_until_end(remaining)
            with self._waitpid_lock:
                self._reap()
                if told and self.returncode is None and self._child.ended() == 0:
                    self._child.ask_pidfd()  # the host may have closed it
            if self.returncode is None and remaining <= 0:
                raise TimeoutExpired(self.args, timeout if timeout is not None else 0.0)
            remaining = until - monotonic()
        return self.returncode

    def _sleep_until_end(self, seconds: float) -> bool:
        """Wait for the child's end, `seconds` at most; for a moment where no pidfd tells, which is longer
        the longer the child has run. Whether a pidfd told.
        """
        pidfd = self._enter()
        try:
            poller = select.poll()
            if pidfd >= 0:
                poller.register(pidfd, select.POLLIN)
            else:
                seconds = min(seconds, max((monotonic() - self._began) / 20, 0.001), 0.05)
            return bool(poller.poll(None if seconds == inf else ceil(min(seconds, MOST_SECONDS) * 1000)))
        finally:
            self._leave()

    def _enter(self) -> int:
        """The pidfd, which stays open until `_leave`; -1 for none."""
        with self._waitpid_lock:
            self._users += 1
            return self._child.pidfd if self._child is not None else -1

    def _leave(self) -> None:
        with self._waitpid_lock:
            self._users -= 1
            self._release()

    # ---- signals ----

    def send_signal(self, sig: int) -> None:
        """Send a signal to the process, unless it has ended."""
        if self._child is None:
            super().send_signal(sig)
            return
        self.poll()
        if self.returncode is not None:
            return
        with self._waitpid_lock:
            error = self._child.signal(sig)
        if error and error != 3:  # ESRCH: it has ended meanwhile
            raise OSError(error, os.strerror(error))

    # ---- communicate ----

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:  # noqa: A002
        """As the stdlib's, but what the child has left in the background does not hold it up: see
        `linger`.
        """
        if timeout is None and self._may_block(input):
            timeout = inf  # then the stdlib's code comes to `_communicate`, instead of reading here
        done: tuple[Any, Any] = super().communicate(input, timeout)
        return done

    def _lingers(self) -> float | None:
        linger: float | None = settings.linger if self._linger is _UNSET else self._linger
        return linger

    def _may_block(self, data: Any) -> bool:
        """Whether the stdlib would use the one pipe there is with nothing but a plain read or write,
        which ends when everybody has let go of it.
        """
        files = [self.stdin, self.stdout, self.stderr]
        if self._child is None or self._communication_started or files.count(None) != 2 or self._lingers() is None:
            return False
        if self.stdin is not None:
            return bool(data) and len(data) > SMALL_INPUT
        return not text_is_pending(self.stdout or self.stderr)

    def _communicate(self, input: Any, endtime: float | None, orig_timeout: float | None) -> tuple[Any, Any]:  # noqa: A002
        if self._child is None:
            done: tuple[Any, Any] = super()._communicate(input, endtime, orig_timeout)
            return done
        until = min(inf if endtime is None else endtime, self._until)
        talk = self._start_to_talk(input)
        pidfd = self._enter()
        try:
            over = talk.go_on(until, pidfd, self._lingers())
        finally:
            self._leave()
        if not over:
            talk.pause()
            raise self._expired(orig_timeout, talk)
        try:
            self.wait(timeout=None if until == inf else self._remaining_time(until))
        except TimeoutExpired:
            raise self._expired(orig_timeout, talk) from None
        self.held = talk.held
        if self.held:
            _warn(OutputCut(self._cut_sentence()))
        return self._finished(talk.data(STDOUT), self.stdout), self._finished(talk.data(STDERR), self.stderr)

    def _start_to_talk(self, data: Any) -> Talk:
        if self._talk is not None:
            self._talk.resume()
            return self._talk
        if self.stdin is not None and not self._communication_started:
            self._flush_stdin(close=not data)
            if data and self.text_mode:
                data = data.encode(self.stdin.encoding, self.stdin.errors)
        assert self._child is not None
        self._talk = Talk(self, self._child, data if self.stdin is not None else None, self._fresh)
        return self._talk

    def _flush_stdin(self, close: bool) -> None:
        try:
            self.stdin.flush()
        except BrokenPipeError:
            pass  # the child need not read its input
        if close:
            try:
                self.stdin.close()
            except BrokenPipeError:
                pass  # as above

    def _finished(self, data: bytes | None, file: Any) -> Any:
        if data is None or not self.text_mode:
            return data
        return self._translate_newlines(data, file.encoding, file.errors)

    def _expired(self, timeout: float | None, talk: Talk) -> Exception:
        """With what has been read, in the type that the caller has asked for."""
        out, err = (
            decode_so_far(data, file) if data is not None and self.text_mode else data
            for data, file in ((talk.data(STDOUT), self.stdout), (talk.data(STDERR), self.stderr))
        )
        return TimeoutExpired(self.args, timeout or 0.0, output=out or None, stderr=err or None)

    def _cut_sentence(self) -> str:
        who = "; ".join(map(str, self.held))
        return one_line(
            f"{who} of {self.args!r}, which has ended: what is written there from now on is discarded."
            " Redirect its output, or wait for it with linger=None"
        )

    # ---- the tree ----

    def kill_tree(self) -> None:
        """Kill the child, its descendants, and whoever holds its pipes; reap the child. It takes 0.6 s
        at most: a child that can't be killed (D state) is reaped when it ends.
        """
        if self._child is None or self.returncode is not None:
            self.kill()
            return
        with self._waitpid_lock:
            if self.returncode is None:
                self._kill_tree(self._child)

    def _kill_tree(self, child: Child) -> None:
        from childproof._processes.holders import pipe_links
        from childproof._processes.tree import Evidence, Killing, Tree

        files = {"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr}
        ends = {name: file.fileno() for name, file in files.items() if file is not None and not file.closed}
        killing = Killing(
            Tree(child, Evidence(self._began, None, pipe_links(ends), ())), monotonic() + CLEARING_SECONDS
        )
        poller = select.poll()
        while (again := killing.step(monotonic())) is not None:
            poller.poll(ceil(max(again - monotonic(), 0) * 1000))
        child.signal(signal.SIGKILL)  # where nobody could be seen
        if not start.reap_soon(child, REAPING_SECONDS):
            self._abandoned = True
        self._reap()

    def _reap_killed(self) -> None:
        """Reap a child that has been killed, if it ends at once: what is raised must not wait."""
        if self._child is not None and self.returncode is None:
            with self._waitpid_lock:
                start.reap_soon(self._child, REAPING_SECONDS)
                self._reap()


Popen.__init__.__wrapped__ = _Base.__init__  # type: ignore[attr-defined]  # where `inspect.signature` finds the parameters
