"""The log of commands: logger ``childproof``, one DEBUG record for each.

`logging` costs more to import than all of childproof, and a program that has not imported it has
no handler to see a record: so it is used only if somebody else has imported it.
"""

from __future__ import annotations

import sys
from collections import OrderedDict

from childproof._light import TYPE_CHECKING
from childproof._result import Outcome, ProcessInfo, Result
from childproof._text import Masker, one_line, show_command

if TYPE_CHECKING:
    from logging import Logger
    from typing import Any

REPEATED_BYTES = 256
"""An output longer than this that equals the command's last one is not logged again."""

REMEMBERED_COMMANDS = 512
"""For how many commands the last output is remembered, as a hash."""

SHOWN_CHARACTERS = 65536
"""How much of one output, or input, goes into a record."""

_logger: Logger | None = None
_last: OrderedDict[int, tuple[int, int]] = OrderedDict()


def _get_logger() -> Logger | None:
    global _logger
    if _logger is None:
        logging: Any = sys.modules.get("logging")
        if logging is None or not hasattr(logging, "NullHandler"):
            return None
        _logger = logging.getLogger("childproof")
        _logger.addHandler(logging.NullHandler())
    return _logger


def _log(level: int, message: str, *args: Any) -> None:
    logger = _get_logger()
    if logger is not None and logger.isEnabledFor(level):
        logger.log(level, message, *args)


def warn(message: str, *args: Any) -> None:
    """A WARNING; text from outside must be given through `one_line` by the caller."""
    _log(30, message, *args)


def killed(info: ProcessInfo, secrets: tuple[str, ...]) -> None:
    """One process was sent SIGKILL."""
    if _enabled(30):
        command = one_line(Masker(secrets)(info.command))
        warn("killed pid %d (%s), child of %d", info.pid, command, info.ppid)


def launched(pid: int, cmd: Any, seconds: float, secrets: tuple[str, ...]) -> None:
    """A service is started."""
    if _enabled(10):
        _log(10, "launched pid %d in %.3f s: %s", pid, seconds, one_line(show_command(cmd, Masker(secrets))))


def failed(error: Exception) -> None:
    """A service is not: an ERROR, as for a command that could not start."""
    _log(40, "%s", one_line(str(error)))


def _enabled(level: int) -> bool:
    logger = _get_logger()
    return logger is not None and logger.isEnabledFor(level)


def _field(data: str | bytes, mask: Masker) -> str:
    text = data if isinstance(data, str) else data.decode("utf-8", "backslashreplace")
    text = mask(text)
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}... {len(text) - SHOWN_CHARACTERS} more"
    return one_line(text)


def _shown_input(source: Any, mask: Masker) -> str:
    if source is None:
        return ""
    if isinstance(source, str):
        return _field(source, mask)
    if isinstance(source, (bytes, bytearray)):
        return _field(bytes(source), mask)
    return f"<{one_line(type(source).__name__)}>"


def _size(data: str | bytes) -> int:
    return len(data) if isinstance(data, bytes) else len(data.encode("utf-8", "surrogatepass"))


def _is_repeated(data: str | bytes, now: int, before: int | None) -> bool:
    return now == before and _size(data) > REPEATED_BYTES


def _record(result: Result[Any], source: Any, mask: Masker) -> str:
    shown = show_command(result.cmd, mask)
    hashes = hash(result.out), hash(result.err)
    key = hash(shown)
    before = _last.pop(key, (None, None))
    _last[key] = hashes
    while len(_last) > REMEMBERED_COMMANDS:
        _last.popitem(last=False)
    out, err = (
        "<equal last...>" if _is_repeated(data, now, then) else _field(data, mask)
        for data, now, then in zip((result.out, result.err), hashes, before, strict=True)
    )
    return (
        f"<EXE>({result.code},{result.duration:.3f}s):{one_line(shown)}"
        f" <IN>:{_shown_input(source, mask)} <OUT>:{out} <ERR>:{err}"
    )


def finished(result: Result[Any], source: Any, secrets: tuple[str, ...]) -> None:
    """One command is over.

    Args:
        result: what came of it.
        source: its ``input``.
        secrets: what must not be shown.

    """
    logger = _logger or _get_logger()
    if logger is None:
        return
    noteworthy = result.error is not None or result.held or result.survivors
    if not logger.isEnabledFor(30 if noteworthy else 10):
        return
    mask = Masker(secrets)
    if result.outcome is Outcome.NOT_STARTED:
        _log(40, "%s", one_line(mask(str(result.error))))
    elif result.outcome in (Outcome.TIMED_OUT, Outcome.STATUS_LOST):
        warn("%s", one_line(mask(str(result.error))))
    if result.held:
        warn("%s", held_sentence(result, mask))
    for examined in result.autopsy:
        warn("at the deadline: %s", examined._replace(command=mask(examined.command), waits_in=mask(examined.waits_in)))
    for info in result.survivors:
        warn("could not kill pid %d (%s)", info.pid, one_line(mask(info.command)))
    if _enabled(10):
        _log(10, "%s", _record(result, source, mask))


def held_sentence(result: Result[Any], mask: Masker) -> str:
    """Who holds what of `result`, and what to do about it, on one line."""
    # Masked first: a secret of two lines is not found once it is on one.
    holders = "; ".join(str(holder._replace(command=mask(holder.command))) for holder in result.held)
    command = one_line(show_command(result.cmd, mask))
    return f"{holders} of {command}; start it with childproof launch, or redirect its output"
