"""What subcommands of `childproof` say about a result."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from childproof._journal import held_sentence
from childproof._text import Masker

if TYPE_CHECKING:
    from childproof._result import Result


def diagnosis(result: Result[Any]) -> list[str]:
    """What the code does not tell. Not from `err`, in which the sentence of a failed start is too."""
    lines = [] if result.error is None else [str(result.error)]
    lines += [f"at the deadline: {examined}" for examined in result.autopsy]
    lines += [f"killed pid {info.pid} ({info.command}), child of {info.ppid}" for info in result.killed]
    lines += [f"could not kill pid {info.pid} ({info.command})" for info in result.survivors]
    if result.held:
        lines.append(held_sentence(result, Masker(())))
        lines.append(
            "they live on, but what they write there from now on gets EPIPE or SIGPIPE, since childproof ends:"
            " for a service use childproof launch, or a file"
        )
    return lines


def _visible(word: str) -> str:
    """`word` of the command line with escapes for undecodable bytes, as output has them."""
    return os.fsencode(word).decode("utf-8", "backslashreplace")


def result_fields(result: Result[Any]) -> dict[str, Any]:
    """A Result for JSON."""
    cmd, error, usage = result.cmd, result.error, result.usage
    return {
        "cmd": _visible(cmd) if isinstance(cmd, str) else [_visible(word) for word in cmd],
        "code": result.code,
        "out": result.out,
        "err": result.err,
        "pid": result.pid,
        "outcome": result.outcome.value,
        "duration": result.duration,
        "usage": None if usage is None else usage._asdict(),
        "truncated": result.truncated,
        "held": [holder._asdict() for holder in result.held],
        "killed": [info._asdict() for info in result.killed],
        "autopsy": [examined._asdict() for examined in result.autopsy],
        "survivors": [info._asdict() for info in result.survivors],
        "error": None if error is None else {"stage": error.stage, "errno": error.errno, "message": str(error)},
        "ok": result.ok,
    }
