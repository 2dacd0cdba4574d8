"""What somebody meant who has misspelt a name: for the texts of errors only."""

from __future__ import annotations

from childproof._light import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


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
