"""asyncio's subprocesses under `patch`: the process's end ends them, not its pipes'.

asyncio makes its children by `subprocess.Popen`, and watches them and reads their pipes itself. Until
CPython's gh-119710 its `Process.wait` also waits for the end of all pipes, and its `communicate`
always does.
"""

from __future__ import annotations

import sys
import warnings

from childproof._dropin.settings import settings
from childproof._errors import OutputCut
from childproof._light import TYPE_CHECKING
from childproof._spawner import STDERR, STDOUT, Child
from childproof._text import one_line

if TYPE_CHECKING:
    from typing import Any

NAMING_SECONDS = 0.1
"""How long the names of holders are waited for."""

wanted = False
"""Whether `install` is to be called."""

_original: Any = None


def install() -> None:
    """Called when a child is made: nobody can have one of asyncio's before."""
    global _original
    module = sys.modules.get("asyncio.base_subprocess")
    if _original is not None or module is None:
        return
    transport = module.BaseSubprocessTransport
    _original = transport._process_exited
    transport._process_exited = _process_exited


def remove() -> None:
    """Undo it."""
    global _original
    if _original is None:
        return
    transport = sys.modules["asyncio.base_subprocess"].BaseSubprocessTransport
    if transport._process_exited is _process_exited:
        transport._process_exited = _original
    _original = None


def _process_exited(self: Any, returncode: int) -> None:
    """For a `BaseSubprocessTransport`."""
    loop = self._loop
    _original(self, returncode)
    waiters = getattr(self, "_exit_waiters", None)
    if waiters:
        self._exit_waiters = []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(returncode)
    if settings.linger is not None and loop is not None and _open_pipes(self):
        loop.call_later(settings.linger, _cut, self, loop)


def _open_pipes(transport: Any) -> dict[int, Any]:
    """By slot, the pipes that are being read."""
    pipes = {}
    for slot in (STDOUT, STDERR):
        protocol = (transport._pipes or {}).get(slot)
        if protocol is not None and not protocol.disconnected and not protocol.pipe.is_closing():
            pipes[slot] = protocol.pipe
    return pipes


def _cut(transport: Any, loop: Any) -> None:
    """The time to linger is over: see who holds the pipes."""
    pipes = _open_pipes(transport)
    if not pipes:
        return
    from childproof._processes.holders import Search, pipe_links

    names = {STDOUT: "stdout", STDERR: "stderr"}
    files = {names[slot]: pipe.get_extra_info("pipe") for slot, pipe in pipes.items()}
    search = Search(pipe_links({name: file.fileno() for name, file in files.items()}), None)
    loop.call_later(NAMING_SECONDS, _close, transport, search)


def _close(transport: Any, search: Any) -> None:
    """End the streams for who reads them; the background drains the pipes, so that nobody who writes
    there gets SIGPIPE.
    """
    from childproof._janitor import janitor

    pipes = _open_pipes(transport)
    if not pipes:
        return
    fds = {slot: pipe.get_extra_info("pipe").fileno() for slot, pipe in pipes.items()}
    janitor.adopt(Child.remains(transport.get_pid() or 0, fds))
    for pipe in pipes.values():
        pipe.close()
    who = "; ".join(map(str, search.holders()))
    text = f"{who} of pid {transport.get_pid()}, which has ended: what is written there from now on is discarded"
    warnings.warn(OutputCut(one_line(text)), stacklevel=1)
