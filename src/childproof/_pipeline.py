"""`pipeline`: several commands, each reading what the one before it writes."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from math import ceil, inf
from signal import SIGPIPE
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from childproof._command import make_command
from childproof._exchange import Exchange, State
from childproof._processes.survey import Survey
from childproof._report import Facts, make_result
from childproof._result import Outcome, Result
from childproof._run import MOST_SECONDS, announce
from childproof._spawner import STDOUT
from childproof._stdio import LINK_OUT, NULL, link_in

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from childproof._command import Command
    from childproof._options import Cmd, Options

Text = TypeVar("Text", bound=str | bytes)

OF_THE_FIRST = ("input", "stdin")
OF_THE_LAST = ("stdout",)


class PipelineResult(tuple[int, Text, Text], Generic[Text]):
    """``code, out, err = result``, and a `Result` for each stage.

    The code is that of the last stage that did not succeed, 0 if all did (what the shells call
    pipefail); out is the last stage's; err is that of all stages, one behind the other.

    A stage before the last that died of SIGPIPE, because a later one wanted no more, counts as
    successful, and so does a command line whose shell says so by exiting with 141: `stages` shows it.

    Attributes:
        stages: the `Result` of each, in order. `out` of all but the last is empty: it went to the next.
        duration: seconds from the call to the result.

    """

    stages: tuple[Result[Text], ...]
    duration: float

    def __new__(cls, stages: tuple[Result[Text], ...], duration: float) -> PipelineResult[Text]:
        """Made by childproof only."""
        failed = [stage for stage in stages[:-1] if not _is_fine(stage)] + [s for s in stages[-1:] if not s.ok]
        errors = [stage.err for stage in stages]
        last: Text = stages[-1].out
        newline: Any = "\n" if isinstance(last, str) else b"\n"
        err = newline.join(error.removesuffix(newline) for error in errors if error)
        self = tuple.__new__(cls, (failed[-1].code if failed else 0, last, err))
        self.stages = stages
        self.duration = duration
        return self

    def __getnewargs__(self) -> tuple[tuple[Result[Text], ...], float]:
        return self.stages, self.duration

    @property
    def code(self) -> int:
        """See the class."""
        return self[0]

    @property
    def out(self) -> Text:
        """What the last stage wrote to its standard output."""
        return self[1]

    @property
    def err(self) -> Text:
        """What all stages wrote to their standard error."""
        return self[2]

    @property
    def ok(self) -> bool:
        """The last stage succeeded, and each before it succeeded or died of SIGPIPE."""
        return self.stages[-1].ok and all(map(_is_fine, self.stages[:-1]))

    def check(self) -> PipelineResult[Text]:
        """The result itself if the pipeline succeeded.

        Raises:
            CommandError: it did not. It is about the last stage that failed.

        """
        for stage in reversed(self.stages):
            if not (stage.ok or (stage is not self.stages[-1] and _is_fine(stage))):
                stage.check()
        return self

    def __repr__(self) -> str:
        return f"PipelineResult({', '.join(map(repr, self.stages))})"


def _is_fine(stage: Result[Any]) -> bool:
    """For any but the last."""
    if stage.outcome is Outcome.SIGNALED:
        return stage.code == -SIGPIPE
    return stage.ok or (stage.outcome is Outcome.EXITED and stage.code == 128 + SIGPIPE and isinstance(stage.cmd, str))


class _Pipeline:
    """The exchanges of all stages, on one poll."""

    def __init__(self, commands: list[Command], began: float) -> None:
        self._commands = commands
        self._began = began
        self._deadline = began + commands[0].timeout
        self._poller = select.poll()
        self._stages: list[Exchange] = []
        self._survey = Survey(self._own_sessions)

    def _own_sessions(self) -> set[int]:
        children = [stage.child for stage in self._stages]
        return {child.pid for child in children if child.leads_group}

    def run(self) -> list[Result[Any]]:
        """Start all and drive them to their ends; whatever is raised meanwhile, none is left."""
        try:
            self._begin()
            while live := [stage for stage in self._stages if stage.state is not State.DONE]:
                self._step(live)
        except BaseException:
            self._abort(self._stages)
            raise
        return [stage.result for stage in self._stages if stage.result is not None]

    def _begin(self) -> None:
        """From the first to the last, so that each finds its input. The pipe between two is the output
        pipe of the first: it is the spawner's, which no other child inherits, from its first moment.
        """
        before: Exchange | None = None
        for command in self._commands:
            stage = Exchange(self._linked(command, before), self._poller, self._began)
            stage.survey = self._survey  # /proc is read once for all of them
            self._stages.append(stage)
            stage.begin()
            if before is not None:
                before.child.close(STDOUT)  # the stages have it now: its end is theirs
            before = stage

    @staticmethod
    def _linked(command: Command, before: Exchange | None) -> Command:
        if before is None:
            return command
        fd = before.child.fd(STDOUT)
        if fd < 0:  # no child could be made that would write
            return command._replace(stdin=NULL)
        os.set_blocking(fd, True)
        return command._replace(stdin=link_in(fd))

    def _step(self, live: list[Exchange]) -> None:
        self._survey.renew()
        now = monotonic()
        left = min(stage.wake_at for stage in live) - now
        if left > 0:
            events = self._poller.poll(None if left == inf else ceil(min(left, MOST_SECONDS) * 1000))
            for fd, _ in events:
                for stage in live:
                    if stage.state is not State.DONE:
                        stage.ready(fd)
            now = monotonic()
            self._survey.renew()
        if now >= self._deadline:
            for stage in live:  # before the first is killed, of which others may end by themselves
                stage.expire()
        for stage in live:
            if stage.state is not State.DONE and stage.wake_at <= now:
                stage.tick(now)

    def _abort(self, stages: list[Exchange]) -> None:
        """Each of them, though an exception breaks one off."""
        if stages:
            try:
                stages[0].abort()
            finally:
                self._abort(stages[1:])


def _commands(cmds: tuple[Any, ...], source: Any, timeout: Any, options: dict[str, Any]) -> list[Command]:
    if not cmds:
        raise ValueError("a pipeline needs a command at least")
    made = []
    last = len(cmds) - 1
    for position, cmd in enumerate(cmds):
        own = dict(options)
        if isinstance(cmd, Mapping):
            own.update(cmd)
            cmd = own.pop("cmd", None)
        given = {name for name in (*OF_THE_FIRST, *OF_THE_LAST, "timeout", "check") if name in own}
        first = {"input": source} if position == 0 else {}
        allowed = {"check"} | ({"stdin"} if position == 0 else set()) | ({"stdout"} if position == last else set())
        _refuse(given - allowed - options.keys(), position)
        own = {name: value for name, value in own.items() if name in allowed or name not in given}
        command = make_command(cmd, timeout=timeout, **first, **own)
        made.append(command if position == last else command._replace(stdout=LINK_OUT))
    return made


def _refuse(names: set[str], position: int) -> None:
    if names:
        raise TypeError(f"command {position} of the pipeline has {', '.join(sorted(names))}, which it can't have")


@overload
def pipeline(
    *cmds: Cmd | Mapping[str, Any],
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    text: Literal[True] = True,
    **options: Unpack[Options],
) -> PipelineResult[str]: ...


@overload
def pipeline(
    *cmds: Cmd | Mapping[str, Any],
    input: Any = None,  # the contract's name, which is subprocess's
    timeout: float | None = None,
    text: Literal[False],
    **options: Unpack[Options],
) -> PipelineResult[bytes]: ...


def pipeline(*cmds: Any, input: Any = None, timeout: float | None = None, **options: Any) -> PipelineResult[Any]:  # noqa: A002
    """Run several commands, each of which reads what the one before it writes.

        code, out, err = childproof.pipeline(["zcat", path], ["grep", word], timeout=30)

    All of them run at once, under one deadline. When it comes the trees of all that run are killed.
    The pipes between them are not this process's: it keeps no end of them. As in a shell, a command that
    can't be started is an empty input for the next.

    Args:
        *cmds: as in `run`; or a mapping with ``cmd`` and options of its own.
        input: what the first reads, as in `run`.
        timeout: seconds, over everything.
        **options: of `run`, for all of the commands; but ``stdin`` is the first's, ``stdout`` the last's,
            and with ``check`` the pipeline as a whole must succeed. With ``merge`` the errors of each go
            into the pipe.

    Returns:
        A `PipelineResult`: the triple, and `stages`, a `Result` of each.

    Raises:
        TypeError, ValueError: the call is wrong; nothing was started.
        CommandError: with `check`, the pipeline did not succeed.
        BaseException: as in `run`; all the trees have been killed and reaped.

    """
    began = monotonic()
    commands = _commands(cmds, input, timeout, options)
    for command in commands:
        announce(command)
    if commands[0].timeout == 0:
        results = [make_result(Facts(command, None, began, True, "", [], (), (), ())) for command in commands]
    else:
        results = _Pipeline(commands, began).run()
    result: PipelineResult[Any] = PipelineResult(tuple(results), monotonic() - began)
    return result.check() if options.get("check") else result
