"""The marks in the environments of processes that nothing else tells of, read in the background."""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from threading import Lock

from childproof._processes import procfs
from childproof._processes.errands import Errand, Errands

Key = tuple[int, int]


class Marks:
    """Each is read once, for all trees that share it: a process can lose its mark by an exec, but not get one.

    Attributes:
        commands: the command lines of those that have a mark.

    """

    def __init__(self, errands: Errands) -> None:
        """`errands`: by which they are read."""
        self._errands = errands
        self._errand: Errand | None = None
        self._asked: set[Key] = set()
        self._unread: deque[Key] = deque()
        self._by_token: dict[bytes, set[Key]] = {}
        self._lock = Lock()
        self.commands: dict[Key, str] = {}

    @property
    def unread(self) -> bool:
        """Whether some have not been come to."""
        return bool(self._unread) and not self._errands.refused

    @property
    def pending(self) -> bool:
        """Whether an answer will come."""
        return self._errand is not None and not self._errand.done

    def ask(self, strangers: Set[Key]) -> None:
        """Have those read that have not been."""
        with self._lock:
            new = strangers - self._asked
            self._asked |= new
            self._unread.extend(new)
        if self._unread and not self.pending:
            self._errand = self._errands.ask(self._read)

    def answered(self) -> bool:
        """Whether all have been read that were asked for, or can't be."""
        return self._errand is None or self._errands.answered(self._errand)

    def give_up(self) -> None:
        """Do not wait for the one that is being read, whose file may never come; the others are read when more
        are asked for.
        """
        if self._errand is not None:
            self._errands.take(self._errand)
            self._errand = None

    def of(self, token: bytes) -> set[Key]:
        """Who has this mark, as far as it is known."""
        with self._lock:
            return set(self._by_token.get(token, ()))

    def keep(self, keys: Set[Key]) -> None:
        """Forget all but those of `keys`: the others have ended."""
        with self._lock:
            self._asked &= keys | set(self._unread)
            self.commands = {key: line for key, line in self.commands.items() if key in keys}
            self._by_token = {token: left for token, found in self._by_token.items() if (left := found & keys)}

    def _read(self) -> None:
        """In the background."""
        while (key := self._next()) is not None:
            tokens = procfs.seen_tokens(key[0])
            commands = procfs.command_lines((key[0],)) if tokens else {}
            with self._lock:
                if tokens is None:
                    self._asked.discard(key)  # amid an exec
                self.commands.update((key, line) for line in commands.values())
                for token in tokens or ():
                    self._by_token.setdefault(token, set()).add(key)

    def _next(self) -> Key | None:
        with self._lock:
            return self._unread.popleft() if self._unread else None
