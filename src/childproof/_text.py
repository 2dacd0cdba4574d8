"""Text for logs and errors: safe, on one line, without secrets; and what was meant by a misspelt name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike, fsdecode

from childproof._light import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


# What reorders text on a terminal could show one command and name another.
_REORDERING = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_escapes: dict[int, str] = {}


def _fill_escapes() -> None:
    """Few programs have text that needs them."""
    _escapes.update({number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))})
    _escapes.update({number: f"\\u{number:04x}" for number in (*_REORDERING, *range(0xD800, 0xE000))})
    _escapes.update({9: "\\t", 10: "\\n", 13: "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"})


def one_line(text: str) -> str:
    """`text` with every control character escaped, so that it can't forge a line of a log."""
    if text.isprintable():
        return text
    if not _escapes:
        _fill_escapes()
    return text.translate(_escapes)


class Masker:
    """Replaces each secret by ``***``, and overlapping ones together, so that no end of one shows.

    A secret is also known without white space around it, which is stripped from output, and as
    `shlex.quote` puts it into a line for the shell.
    """

    __slots__ = ("_secrets",)

    def __init__(self, secrets: Sequence[str]) -> None:
        forms = {form for s in secrets for form in (s, s.strip(), s.replace("'", "'\"'\"'"))}
        self._secrets = forms - {""}

    def __call__(self, text: str) -> str:
        parts, done = [], 0
        for start, end in self._spans(text):
            if end > done:
                if start >= done:
                    parts += [text[done:start], "***"]
                done = end
        return "".join(parts) + text[done:]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where the secrets are, in order."""
        spans = []
        for secret in self._secrets:
            at = text.find(secret)
            while at >= 0:
                spans.append((at, at + len(secret)))
                at = text.find(secret, at + 1)
        return sorted(spans)


def show_command(cmd: Any, mask: Masker) -> str:
    """`cmd` as one would type it; masked before it is quoted, since quoting changes a secret."""
    if isinstance(cmd, str):
        return mask(cmd)
    from shlex import quote  # only for words that are shown

    words = [fsdecode(word) if isinstance(word, (bytes, PathLike)) else str(word) for word in cmd]
    return " ".join(quote(mask(word)) for word in words)


def did_you_mean(word: Any, known: Iterable[Any]) -> str:
    """The end of a sentence that asks whether the nearest of the names in `known` was meant; empty where none
    is near.
    """
    if not isinstance(word, str):
        return ""
    from difflib import get_close_matches  # it costs 5 ms, and this is an error already

    names = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), names, 1)
    return f"; did you mean {names[near[0]]!r}?" if near else ""
