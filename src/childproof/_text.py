"""Text that is safe to log: on one line, without secrets."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fsdecode
from typing import Any

_ESCAPES = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}
_ESCAPES.update({9: "\\t", 10: "\\n", 13: "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"})
# What reorders text on a terminal could show one command and name another.
_ESCAPES.update({number: f"\\u{number:04x}" for number in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))})
_ESCAPES.update({number: f"\\u{number:04x}" for number in range(0xD800, 0xE000)})


def one_line(text: str) -> str:
    """`text` with every control character escaped, so that it can't forge a line of a log."""
    if text.isprintable():
        return text
    return text.translate(_ESCAPES)


class Masker:
    """Replaces each secret by ``***``; longer secrets first, so that none shows the end of another."""

    __slots__ = ("_secrets",)

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = sorted(secrets, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def show_command(cmd: Any, mask: Masker) -> str:
    """`cmd` as one would type it; masked before it is quoted, since quoting changes a secret."""
    if isinstance(cmd, str):
        return mask(cmd)
    from shlex import quote  # only for words that are shown

    words = [fsdecode(word) if isinstance(word, (bytes, PathLike)) else str(word) for word in cmd]
    return " ".join(quote(mask(word)) for word in words)
