"""How it is told that a service is ready: by a line of its log, a path, or a socket that answers."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Sequence
from errno import EADDRINUSE
from ipaddress import ip_address
from typing import Any, Protocol

from childproof._errors import SpawnError

ANSWER_SECONDS = 0.5
"""How long one try to connect may take."""

SEARCHED_BYTES = 65536
"""How much of a log's end is searched: a match may begin in an earlier look."""

MOST_READ = 1 << 20


class Ready(Protocol):
    """A sign of a service."""

    def expect(self) -> None:
        """Before the start: remember what is there already, which is no sign.

        Raises:
            SpawnError: somebody gives the sign already.

        """

    def is_met(self) -> bool:
        """Whether the sign is there. Takes `ANSWER_SECONDS` at most."""


class Log:
    """What a service writes to a file from now on: what is in it is of an earlier one.

    Attributes:
        path: of the file.
        follows: it is a regular file, or will be: of anything else nothing is read.
        tail: the end of what has been read.

    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._at = 0
        self.follows = True
        self.tail = b""
        try:
            status = os.stat(path)
        except OSError:
            return  # there is none yet; if none can be made, the service's start says so
        self.follows = stat.S_ISREG(status.st_mode)
        self._at = status.st_size

    def read(self) -> None:
        """Take in what has come."""
        if not self.follows:
            return
        try:
            with open(self.path, "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size < self._at:
                    self._at = 0  # it was cut or replaced
                file.seek(self._at)
                data = file.read(MOST_READ) or b""
        except OSError:
            return
        self._at += len(data)
        self.tail = (self.tail + data)[-max(SEARCHED_BYTES, len(data)) :]


class Output:
    """A pattern appears in one of the logs."""

    def __init__(self, pattern: re.Pattern[Any], logs: Sequence[Log]) -> None:
        self._pattern = pattern
        self._logs = logs

    def expect(self) -> None:
        """See `Ready`."""

    def is_met(self) -> bool:
        """See `Ready`."""
        for log in self._logs:
            log.read()
            text: Any = log.tail
            if isinstance(self._pattern.pattern, str):
                text = log.tail.decode("utf-8", "backslashreplace")
            if self._pattern.search(text):
                return True
        return False

    def __str__(self) -> str:
        return f"{self._pattern.pattern!r} in its output"


class Path:
    """A path appears, or another file there; a socket there must also answer."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._before: tuple[int, int, int] | None = None

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns

    def _is_socket(self) -> bool:
        try:
            return stat.S_ISSOCK(os.stat(self._path).st_mode)
        except OSError:
            return False

    def expect(self) -> None:
        """See `Ready`."""
        self._before = self._look()
        if self._is_socket() and _answers(socket.AF_UNIX, self._path):
            raise _taken(self._path)

    def is_met(self) -> bool:
        """See `Ready`."""
        if self._is_socket():
            return _answers(socket.AF_UNIX, self._path)
        now = self._look()
        return now is not None and now != self._before

    def __str__(self) -> str:
        return self._path


class Port:
    """A TCP port answers."""

    def __init__(self, hosts: Sequence[str], port: int) -> None:
        self._addresses = [(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)) for host in hosts]

    def expect(self) -> None:
        """See `Ready`."""
        if self.is_met():
            raise _taken(str(self))

    def is_met(self) -> bool:
        """See `Ready`."""
        return any(_answers(family, address) for family, address in self._addresses)

    def __str__(self) -> str:
        return " or ".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for _, (host, port) in self._addresses
        )


def _answers(family: int, address: Any) -> bool:
    try:
        with socket.socket(family) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(address)
            # Where nobody listens, a port that the kernel has given this very socket answers itself.
            return family == socket.AF_UNIX or connection.getsockname() != connection.getpeername()
    except (OSError, ValueError):
        return False


def _taken(name: str) -> SpawnError:
    sentence = f"somebody answers at {name} already, before the service was started"
    return SpawnError(EADDRINUSE, os.strerror(EADDRINUSE), name, "ready", sentence)


LOCAL = ("127.0.0.1", "::1")


def _address(host: Any) -> Sequence[str]:
    if host == "localhost":
        return LOCAL
    if not isinstance(host, str):
        raise TypeError(f"ready: the host must be a str, not {host!r}")
    try:
        return (str(ip_address(host)),)
    except ValueError:
        # Looking a name up may take longer than any deadline.
        raise ValueError(f"ready: the host must be an address or localhost, not {host!r}") from None


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"ready: a port must be an int, not {value!r}")
    if not 1 <= value <= 65535:
        raise ValueError(f"ready: there is no port {value}")
    return value


def make_ready(value: Any, logs: Sequence[Log]) -> Ready:
    """What ``ready=`` means.

    Raises:
        TypeError, ValueError: nothing.

    """
    if isinstance(value, re.Pattern):
        if not logs:
            raise ValueError("ready: a pattern needs a log to be looked for in: give stdout or stderr a path")
        if others := [log.path for log in logs if not log.follows]:
            raise ValueError(f"ready: only a regular file can be followed as a log, not {others[0]!r}")
        return Output(value, logs)
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ValueError(f"ready: a tuple must be (host, port), not {value!r}")
        return Port(_address(value[0]), _port(value[1]))
    if isinstance(value, int):
        return Port(LOCAL, _port(value))
    if isinstance(value, (str, bytes, os.PathLike)):
        path = os.fsdecode(value)
        if not path or "\0" in path:
            raise ValueError(f"ready: no path: {value!r}")
        return Path(os.path.abspath(path))
    raise TypeError(f"ready must be a compiled pattern, a path, a port or (host, port), not {value!r}")
