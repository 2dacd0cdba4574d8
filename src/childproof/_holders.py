"""Who has a pipe, a file or a socket open: what ``/proc/PID/fd`` tells."""

from __future__ import annotations

import os
from collections.abc import Iterable

from childproof import _procfs
from childproof._janitor import Job, janitor
from childproof._result import Holder

NAMES_SECONDS = 0.25
"""How long command lines are waited for; a holder without one is named in brackets."""


def pipe_links(fds: dict[str, int]) -> dict[str, str]:
    """Link text as ``pipe:[123]`` to name, for descriptors of ours by name."""
    return {f"pipe:[{os.fstat(fd).st_ino}]": name for name, fd in fds.items()}


def _scan(wanted: dict[str, str], writers_only: bool) -> dict[int, list[tuple[int, str]]]:
    """By pid, the descriptors whose link is in `wanted`, each with its name from there."""
    found = {}
    for pid in _procfs.pids():
        links = [(fd, name) for fd, name, writes in _procfs.open_links(pid, wanted) if writes or not writers_only]
        if links:
            found[pid] = links
    return found


def _ask_names(pids: Iterable[int]) -> Job:
    return janitor.submit(lambda: {pid: _procfs.command_line(pid) for pid in pids})


def _holder(pid: int, links: list[tuple[int, str]], commands: dict[int, str | None], session: int | None) -> Holder:
    process = _procfs.read_process(pid)
    name = f"[{process.name}]" if process else "[gone]"
    escaped = process is not None and session is not None and process.session != session
    streams = tuple(stream for _, stream in links if stream)
    return Holder(pid, commands.get(pid) or name, tuple(fd for fd, _ in links), streams, escaped)


class Search:
    """Who holds the write ends of some pipes of ours. The names come from the background.

    A search without waits: made, it has looked once; `answered` says whether names are there.
    """

    def __init__(self, pipes: dict[str, str], session: int | None) -> None:
        """`session`: the child's session, `None` if it had none of its own."""
        self._pipes = pipes
        self._session = session
        self._found = _scan(pipes, writers_only=True)
        self._job = _ask_names(self._found)

    def answered(self) -> bool:
        """Whether the names have been read."""
        return self._job.done.is_set()

    def holders(self) -> tuple[Holder, ...]:
        """What was found; a pipe that nobody seems to hold has a holder that /proc hides."""
        commands = janitor.answer(self._job) or {}
        found = [_holder(pid, links, commands, self._session) for pid, links in self._found.items()]
        seen = {stream for holder in found for stream in holder.streams}
        hidden = tuple(name for name in self._pipes.values() if name not in seen)
        if hidden:
            found.append(Holder(0, "[not visible]", tuple(-1 for _ in hidden), hidden, True))
        return tuple(found)


def _links_of(target: int | str) -> set[str]:
    """The link texts that stand for `target` in ``/proc/PID/fd``."""
    if isinstance(target, bool) or not isinstance(target, (int, str, os.PathLike)):
        raise TypeError(f"target must be a descriptor, a path or pipe:[inode], not {target!r}")
    if isinstance(target, int):
        return {os.readlink(f"/proc/self/fd/{target}")}
    text = os.fspath(target)
    if "\0" in text or not text:
        raise ValueError(f"target is no path: {target!r}")
    if text.endswith("]") and text.partition(":[")[0] in ("pipe", "socket", "anon_inode"):
        return {text}
    os.stat(text)  # a misspelt path has no holders, and nobody would notice
    return {os.path.realpath(text)}


def holders(target: int | str) -> list[Holder]:
    """Who has a pipe, a file or a socket open.

    Args:
        target: a descriptor of this process, or a path, or ``pipe:[INODE]`` or
            ``socket:[INODE]`` as ``/proc/PID/fd`` shows them (proc(5)).

    Returns:
        A `Holder` for each process that has it open and that this user may look at, this process
        included. A file is found by its name, so not under another hard link.

    Raises:
        OSError: there is no such descriptor or path.
        TypeError, ValueError: `target` is neither.

    """
    wanted = dict.fromkeys(_links_of(target), "")
    found = _scan(wanted, writers_only=False)
    job = _ask_names(found)
    job.done.wait(NAMES_SECONDS)
    commands = janitor.answer(job) or {}
    return [_holder(pid, links, commands, None) for pid, links in found.items()]
