"""Which sockets there are: ``/proc/PID/net`` (proc(5)), of the network namespace of a process.

psutil tells only one holder of a socket, and a server that has forked has many: so only the numbers of
the sockets are read here, and `_holders` looks who has them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

TCP_STATES = (
    "?",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
)
"""By their numbers in the kernel's include/net/tcp_states.h."""


class Socket(NamedTuple):
    """One socket.

    Attributes:
        inode: as in ``socket:[INODE]``.
        kind: ``"tcp"``, ``"udp"`` or ``"unix"``.
        port: the local port, 0 where there is none.
        what: the rest, for people: addresses and state, or the path.

    """

    inode: int
    kind: str
    port: int
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.what}".rstrip()


def _lines(pid: int, name: str) -> list[list[str]]:
    try:
        with open(f"/proc/{pid}/net/{name}", encoding="utf-8", errors="backslashreplace") as file:
            return [line.split() for line in file][1:]
    except OSError:  # no IPv6, another user's, or gone
        return []


def _address(text: str) -> tuple[str, int]:
    """``0100007F:1538`` is 127.0.0.1 and 5432: words in the machine's order, in hexadecimal."""
    from socket import AF_INET, AF_INET6, inet_ntop

    words, _, port = text.partition(":")
    data = bytes.fromhex(words)
    if sys.byteorder == "little":
        data = b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))
    host = inet_ntop(AF_INET if len(data) == 4 else AF_INET6, data)
    return (f"[{host}]" if ":" in host else host), int(port, 16)


def _internet(pid: int, kind: str) -> Iterator[Socket]:
    for fields in _lines(pid, kind) + _lines(pid, f"{kind}6"):
        host, port = _address(fields[1])
        peer, peer_port = _address(fields[2])
        number = int(fields[3], 16)
        what = f"{host}:{port}" + (f" to {peer}:{peer_port}" if peer_port else "")
        if kind == "tcp":
            what = f"{TCP_STATES[number] if number < len(TCP_STATES) else '?'} {what}"
        yield Socket(int(fields[9]), kind, port, what)


def _unix(pid: int) -> Iterator[Socket]:
    for fields in _lines(pid, "unix"):
        yield Socket(int(fields[6]), "unix", 0, " ".join(fields[7:]))


def sockets(pid: int) -> list[Socket]:
    """All sockets in the network namespace of `pid` that somebody may have open."""
    found = [*_internet(pid, "tcp"), *_internet(pid, "udp"), *_unix(pid)]
    return [socket for socket in found if socket.inode]


def on_port(port: int, kinds: tuple[str, ...]) -> list[Socket]:
    """The sockets of our network namespace whose local port it is."""
    found = [socket for kind in kinds for socket in _internet(os.getpid(), kind)]
    return [socket for socket in found if socket.port == port and socket.inode]


def at_path(path: str) -> list[Socket]:
    """The Unix sockets of our network namespace that were bound to `path`."""
    real = os.path.realpath(path)
    return [s for s in _unix(os.getpid()) if s.what and (s.what == path or os.path.realpath(s.what) == real)]
