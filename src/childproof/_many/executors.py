"""`run_many` through a `concurrent.futures.Executor`: threads, processes, or a cluster."""

from __future__ import annotations

import os
import pickle
import select
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from errno import ECHILD
from queue import SimpleQueue
from typing import Any, NamedTuple

from childproof import _journal
from childproof._command import Command
from childproof._errors import SpawnError
from childproof._many.run_many import Collector, Plan, usable_cpus
from childproof._many.scheduler import Scheduler, command_of, options_of
from childproof._report import UNEVENTFUL
from childproof._result import Outcome, Result
from childproof._spawner import PORTABLE
from childproof._text import Masker, one_line, show_command

TASK_SECONDS = 0.05
"""What a task is to last where its size is ours to choose: some hundred times what sending it costs."""

MOST_BATCH = 256
"""Commands of one such task."""

SPARE_TASKS = 2
"""Tasks beside those that can run at once, so that no worker waits for the next."""

LOST = 125


class Item(NamedTuple):
    """One command on its way to a worker.

    Attributes:
        position: which it is among the commands.
        options: the parameters of `run`, ``cmd`` among them.
        command: what they mean here.

    """

    position: int
    options: dict[str, Any]
    command: Command


# ---- in the worker ----


def _run_pickled(data: bytes) -> list[Result[Any] | BaseException]:
    """One task, in another process. `data` also says whose it is, so that no scheduler takes two tasks
    with the same commands for one.
    """
    _, tasks = pickle.loads(data)  # noqa: S301  # from our own caller, who has sent the function too
    return [_run_one(options) for options in tasks]


def _run_one(options: dict[str, Any]) -> Any:
    """A Result or an exception. Nobody but the worker can kill the command, so it ends with it, if it can."""
    from childproof._run import run

    try:
        return run(**{"die_with_parent": not PORTABLE, **options})
    except Exception as error:  # as one of on_output: it is raised to whoever wanted the command run
        return error


def _run_here(commands: list[Command], stop: int) -> list[Result[Any] | BaseException]:
    """One task, in a thread of this process; killed when `stop` becomes readable."""
    results: list[Result[Any] | BaseException] = []
    for command in commands:
        scheduler = Scheduler(iter((command,)), 1, {})
        stopper = _Stopper(scheduler, stop)
        try:
            scheduler.fill()
            while not scheduler.finished and not stopper.stopped:
                scheduler.wait()
            if stopper.stopped:
                break
            results.append(scheduler.finished.popleft()[1])
        except Exception as error:
            results.append(error)
        finally:
            scheduler.close()
    return results


class _Stopper:
    """Hears of the end of it all."""

    def __init__(self, scheduler: Scheduler, fd: int) -> None:
        self.stopped = False
        scheduler.router.register(fd, select.POLLIN, self)

    def ready(self, fd: int) -> None:
        """See `childproof._many.router.Owner`."""
        self.stopped = True


# ---- the batches ----


class Batcher:
    """How many commands make one task."""

    def __init__(self, executor: Executor, batch: int | None) -> None:
        self._fixed = batch
        if batch is None and not isinstance(executor, (ThreadPoolExecutor, ProcessPoolExecutor)):
            self._fixed = 1
        self._seconds: float | None = None

    @property
    def size(self) -> int:
        """For the next one."""
        if self._fixed is not None:
            return self._fixed
        if self._seconds is None:
            return 1
        return max(1, min(MOST_BATCH, int(TASK_SECONDS / max(self._seconds, 1e-6))))

    def learn(self, results: list[Any]) -> None:
        """These have come back."""
        for result in results:
            if isinstance(result, Result):
                last = self._seconds
                # The longest counts for a while: a batch of slow ones would keep its first result back.
                self._seconds = result.duration if last is None else max(result.duration, 0.9 * last)


def _check_batch(batch: Any) -> int | None:
    if batch is None:
        return None
    if isinstance(batch, bool) or not isinstance(batch, int):
        raise TypeError(f"batch must be an int or None, not {batch!r}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1: {batch}")
    return batch


def _workers(executor: Executor) -> int:
    for name in ("_max_workers", "max_workers"):
        count = getattr(executor, name, None)
        if isinstance(count, int) and count > 0:
            return count
    client = getattr(executor, "_client", None)  # of distributed's ClientExecutor
    if client is not None:
        return sum(int(count) for count in client.nthreads().values()) or 1
    return usable_cpus()


# ---- what is sent ----


def _sendable(item: Item) -> dict[str, Any]:
    """The options of `item` for another process.

    Raises:
        ValueError: it needs a file of this process.

    """
    command = item.command
    stdios = (command.stdin, command.stdout, command.stderr)
    if any(stdio.kind == "fd" for stdio in stdios) or command.attributes.pass_fds or isinstance(command.cwd, int):
        raise ValueError(f"cmds[{item.position}]: a file or a descriptor of this process can't be sent to another")
    if command.feed is not None and command.feed.data is None:
        raise ValueError(f"cmds[{item.position}]: an input that is read while the command runs can't be sent")
    options = dict(item.options)
    options.pop("check", None)  # here, where the Result is given
    return options


def _pickled(token: bytes, items: list[Item]) -> bytes:
    tasks = [_sendable(item) for item in items]
    try:
        return pickle.dumps(((token, items[0].position), tasks))
    except Exception as error:
        first, last = items[0].position, items[-1].position
        raise TypeError(f"cmds[{first}] to cmds[{last}] can't be sent to another process: {error}") from error


def _lost(item: Item, why: BaseException) -> Result[Any]:
    """The Result of a command that the executor has given up."""
    command = item.command
    mask = Masker(command.secrets)
    shown = show_command(command.cmd, mask)
    reason = f"{type(why).__name__}: {why}" if str(why) else type(why).__name__
    sentence = one_line(mask(f"the executor has lost {shown}, which may have run or not: {reason}"))
    name = os.fsdecode(command.argv[0])
    nothing: Any = "" if command.text else b""
    result: Result[Any] = Result(
        LOST,
        nothing,
        nothing,
        {
            **UNEVENTFUL,
            "cmd": command.cmd,
            "pid": 0,
            "outcome": Outcome.UNKNOWN,
            "duration": 0.0,
            "usage": None,
            "spawned": None,
            "contained": None,
            "error": SpawnError(ECHILD, os.strerror(ECHILD), name, "executor", sentence),
            "_secrets": command.secrets,
        },
    )
    _journal.warn("%s", sentence)
    return result


# ---- driving ----


class Sender:
    """Sends tasks to an executor, and takes what comes back."""

    def __init__(self, elements: Iterator[Any], plan: Plan, executor: Executor, batch: int | None) -> None:
        self._elements = elements
        self._plan = plan
        self._executor = executor
        self._batcher = Batcher(executor, batch)
        self._here = isinstance(executor, ThreadPoolExecutor)
        self._token = os.urandom(8)
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()
        self._tasks: dict[Future[Any], list[Item]] = {}
        self._lost: deque[tuple[list[Item], BaseException]] = deque()
        self._stop: tuple[int, int] | None = None
        self._more = True
        self.started = 0

    @property
    def running(self) -> int:
        """How many commands are on their way."""
        return sum(map(len, self._tasks.values()))

    @property
    def idle(self) -> bool:
        """Nothing is on its way, and nothing is to come."""
        return not (self._tasks or self._lost or self._more)

    def fill(self) -> None:
        """Send what there is room for."""
        while self._more and not self._lost and len(self._tasks) < self._plan.jobs + SPARE_TASKS:
            items = self._next_items()
            if items:
                self._send(items)

    def _next_items(self) -> list[Item]:
        items: list[Item] = []
        for _ in range(self._batcher.size):
            try:
                element = next(self._elements)
            except StopIteration:
                self._more = False
                break
            try:
                item = Item(
                    self.started, options_of(element, self._plan.common), command_of(element, self._plan.common)
                )
            except (TypeError, ValueError) as error:
                raise type(error)(f"cmds[{self.started}]: {error}") from error
            self.started += 1
            items.append(item)
        return items

    def _send(self, items: list[Item]) -> None:
        data = b"" if self._here else _pickled(self._token, items)
        try:
            if self._here:
                if self._stop is None:
                    self._stop = os.pipe2(os.O_CLOEXEC)
                future = self._executor.submit(_run_here, [item.command for item in items], self._stop[0])
            else:
                future = self._executor.submit(_run_pickled, data)
        except Exception as error:  # it is broken, or has been shut down
            self._lost.append((items, error))
            return
        self._tasks[future] = items
        future.add_done_callback(self._done.put)

    def take(self) -> list[tuple[Item, Any]]:
        """Wait for a task to be over: its commands, each with its Result or an exception of the caller's."""
        if self._lost:
            items, why = self._lost.popleft()
            return [(item, _lost(item, why)) for item in items]
        future = self._done.get()
        items = self._tasks.pop(future)
        try:
            results = future.result()
        except BaseException as error:
            if not future.done():  # an interrupt of ours, not the task's end
                raise
            return [(item, _lost(item, error)) for item in items]
        self._batcher.learn(results)
        return list(zip(items, results, strict=True))

    def close(self) -> None:
        """Withdraw what waits, kill what runs in threads of this process, and wait for those."""
        if self._stop is not None:
            os.close(self._stop[1])
        for future in list(self._tasks):
            future.cancel()
        if self._here:
            while any(not future.done() for future in self._tasks):
                self._done.get()
        self._tasks.clear()
        if self._stop is not None:
            os.close(self._stop[0])
            self._stop = None


def _give(cmds: Iterable[Any], plan: Plan, executor: Executor, batch: int | None) -> Generator[Result[Any], None, None]:
    sender = Sender(iter(cmds), plan, executor, batch)
    collector = Collector(plan)
    try:
        while True:
            if not collector.full:
                sender.fill()
            if sender.idle:
                return
            for item, result in sender.take():
                if isinstance(result, BaseException):
                    raise result
                result.position = item.position
                if not collector.over:
                    collector.take(result, item.command.check, sender.started, sender.running)
            if collector.over:
                sender.close()
            yield from collector.give()
            if collector.over:
                return
    finally:
        sender.close()


def drive(
    cmds: Iterable[Any], plan: Plan, executor: Any, jobs: int | None, batch: Any
) -> Generator[Result[Any], None, None]:
    """`run_many` with an executor; parameters as there, `jobs` as it was given.

    Raises:
        TypeError, ValueError: one of them is wrong.

    """
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor must be a concurrent.futures.Executor, not {executor!r}")
    batch = _check_batch(batch)
    if jobs is None:
        plan = plan._replace(jobs=_workers(executor))
    return _give(cmds, plan, executor, batch)
