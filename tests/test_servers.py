"""Real servers that a start script leaves in the background, as in the report this library comes from.

The script ends in ``SERVER … &`` and ``echo "start ok"``; the server keeps the script's output pipes.
`run` must come back all the same, and the server must go on working.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import join, split
from typing import NamedTuple

import pytest

import childproof
from childproof import Holder, Outcome, Result
from childproof._processes import procfs
from conftest import SLACK_SECONDS, is_alive, stop, wait_until

LINGER_SECONDS = 0.5
UP_SECONDS = 60.0
DRAIN_SECONDS = 10.0
DRAIN_BYTES = 1 << 20
STEP_BYTES = 1 << 12  # poll(2) promises room for so much


class Server(NamedTuple):
    """One server in a directory of its own.

    Attributes:
        start: the line of the script that starts it.
        holder: what is in the command line of the process that keeps the pipes.
        directory: in which it lives; it is named in the command line of all its processes.
        answers: whether it answers a query now.

    """

    start: str
    holder: str
    directory: Path
    answers: Callable[[], bool]

    def processes(self) -> list[int]:
        """Its processes that run, the oldest first: who would restart another comes before it."""
        found = []
        for pid in procfs.pids():
            if str(self.directory) in (procfs.command_line(pid) or "") and is_alive(pid):
                process = procfs.read_process(pid)
                if process is not None:
                    found.append((process.start, pid))
        return [pid for _, pid in sorted(found)]

    def stop(self) -> None:
        """Kill them by pid."""
        while pids := self.processes():
            stop(pids[0])


def _require(*programs: str) -> list[str]:
    """The paths of `programs`; without them the test is skipped, or fails where that is asked for."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    found = [shutil.which(program, path=path) for program in programs]
    missing = [program for program, place in zip(programs, found, strict=True) if place is None]
    if missing:
        reason = f"not installed: {', '.join(missing)}"
        if os.environ.get("CHILDPROOF_REQUIRE_SERVERS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return [place for place in found if place is not None]


def _redis(directory: Path) -> Server:
    (server,) = _require("redis-server")
    path = directory / "redis.sock"

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(str(path))
                connection.sendall(b"PING\r\n")
                return connection.recv(64) == b"+PONG\r\n"
            except OSError:
                return False

    options = ["--port", "0", "--unixsocket", str(path), "--dir", str(directory), "--save", ""]
    return Server(join([server, *options]), "redis-server", directory, answers)


# As root it must be told so. A small log makes the directory quick to copy.
MARIADB_OPTIONS = [*(["--user=root"] if os.geteuid() == 0 else []), "--innodb-log-file-size=8M"]


@pytest.fixture(scope="session")
def mariadb_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that has just been made."""
    _require("mariadbd", "mariadb")
    (install,) = _require("mariadb-install-db")
    directory = tmp_path_factory.mktemp("mariadb") / "data"
    made = childproof.run(
        [
            install,
            "--no-defaults",
            "--force",  # though the machine's name can't be looked up
            f"--datadir={directory}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *MARIADB_OPTIONS,
        ],
        timeout=300,
        mark=False,
    )
    assert made.ok, made
    return directory


def _mariadb(directory: Path, template: Path, prefix: list[str]) -> Server:
    shutil.copytree(template, directory / "data")
    path = directory / "mariadb.sock"

    def answers() -> bool:
        query = ["mariadb", "--no-defaults", "--user=root", f"--socket={path}", "-N", "-e", "SELECT 6 * 7"]
        return childproof.run(query, timeout=10)[:2] == (0, "42")

    options = [
        "--no-defaults",
        f"--datadir={directory / 'data'}",
        f"--socket={path}",
        f"--pid-file={directory / 'mariadb.pid'}",
        "--skip-networking",
        *MARIADB_OPTIONS,
    ]
    return Server(join([*prefix, *options]), prefix[-1], directory, answers)


@pytest.fixture(params=["redis-server", "mariadbd", "sh -x mysqld_safe"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Each of the servers that keep the pipes; stopped at the end."""
    if request.param == "redis-server":
        made = _redis(tmp_path)
    else:
        template = request.getfixturevalue("mariadb_template")
        *shell, program = request.param.split()
        made = _mariadb(tmp_path, template, [*shell, *_require(program)])
    yield made
    made.stop()


def _run_script(server: Server, leftovers: str = "leave") -> Result[str]:
    """Run the script that starts `server`; checks what holds for every server."""
    script = server.directory / "start.sh"
    script.write_text(f'{server.start} &\necho "start ok"\n')
    began = time.monotonic()
    result = childproof.run("sh start.sh", cwd=server.directory, leftovers=leftovers)  # type: ignore[call-overload]
    took = time.monotonic() - began
    assert took < LINGER_SECONDS + 1 + SLACK_SECONDS
    assert result.code == 0
    assert result.outcome is Outcome.EXITED
    assert "start ok" in result.out.splitlines()
    assert isinstance(result, Result)
    return result


def _main_holder(server: Server, result: Result[str]) -> Holder:
    """The holder that is the server itself, not a subshell of it."""
    found = {holder.pid: holder for holder in result.held if server.holder in holder.command}
    for pid in server.processes():
        if pid in found:
            return found[pid]
    raise AssertionError(f"{server.holder} is not among {result.held}")


def _write_to(holder: Holder, fd: int) -> None:
    """Write to the pipe that `holder` has as `fd`, more than a pipe takes."""
    until = time.monotonic() + DRAIN_SECONDS
    pipe = os.open(f"/proc/{holder.pid}/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        poller = select.poll()
        poller.register(pipe, select.POLLOUT)
        left = DRAIN_BYTES
        while left > 0:
            wait = until - time.monotonic()
            assert wait > 0, f"nobody reads from fd {fd} of {holder}: {left} bytes left"
            assert poller.poll(wait * 1000), f"nobody reads from fd {fd} of {holder}: {left} bytes left"
            left -= os.write(pipe, b"x" * min(left, STEP_BYTES))
    finally:
        os.close(pipe)


def test_run_returns_and_names_the_server(server: Server) -> None:
    """`run` returns though the server has both pipes, and says so."""
    result = _run_script(server)
    holder = _main_holder(server, result)
    assert dict(zip(holder.fds, holder.streams, strict=True)) == {1: "stdout", 2: "stderr"}
    assert not holder.escaped


def test_the_server_works_afterwards(server: Server) -> None:
    """It answers after the call, and after it has written more than its pipes hold."""
    result = _run_script(server)
    assert wait_until(server.answers, UP_SECONDS)
    holder = _main_holder(server, result)
    for fd in holder.fds:
        _write_to(holder, fd)
    assert is_alive(holder.pid)
    assert server.answers()


def test_leftovers_kill(server: Server) -> None:
    """With leftovers="kill" nothing of the server is left, and the Result says who was killed."""
    result = _run_script(server, leftovers="kill")
    assert server.processes() == []
    assert any(server.holder in info.command for info in result.killed)
    assert result.survivors == ()
    assert not server.answers()


def test_what_mysqld_safe_prints_until_the_end_of_the_linger_is_returned(
    mariadb_template: Path, tmp_path: Path
) -> None:
    """`sh -x` traces to stderr."""
    server = _mariadb(tmp_path, mariadb_template, ["sh", "-x", *_require("mysqld_safe")])
    try:
        assert _run_script(server).err.startswith("+ ")
    finally:
        server.stop()


def test_mysqld_safe_that_closes_its_output(mariadb_template: Path, tmp_path: Path) -> None:
    """Without a trace today's mysqld_safe closes its output: that is seen, and the server works."""
    server = _mariadb(tmp_path, mariadb_template, _require("mysqld_safe"))
    try:
        _run_script(server)
        assert wait_until(server.answers, UP_SECONDS)
    finally:
        server.stop()


def test_stopping_a_server_properly(server: Server) -> None:
    """SIGTERM to the server ends all of it, and then nothing is left to drain (conftest.py)."""
    result = _run_script(server)
    assert wait_until(server.answers, UP_SECONDS)
    if server.start.startswith("sh -x"):
        pid = int((server.directory / "mariadb.pid").read_text())
    else:
        pid = _main_holder(server, result).pid
    os.kill(pid, signal.SIGTERM)
    assert wait_until(lambda: server.processes() == [], UP_SECONDS)


# ---- the cure: a service is launched ----

LAUNCH_AND_EXIT = """
import sys
import childproof
print(childproof.launch(sys.argv[3:], stdout=sys.argv[1], ready=sys.argv[2]))
"""


@pytest.fixture(params=["redis-server", "mariadbd"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Each of the servers that stay in the foreground; stopped at the end."""
    if request.param == "redis-server":
        made = _redis(tmp_path)
    else:
        made = _mariadb(tmp_path, request.getfixturevalue("mariadb_template"), _require(request.param))
    yield made
    made.stop()


def _socket_path(service: Server) -> Path:
    name = "redis.sock" if service.holder == "redis-server" else "mariadb.sock"
    return service.directory / name


def test_a_launched_service_answers_on_return(service: Server) -> None:
    """And holds nothing of the host's."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    log = service.directory / "log"
    pid = childproof.launch(split(service.start), stdout=log, ready=_socket_path(service), timeout=UP_SECONDS)
    os.close(write)
    try:
        assert service.answers()
        assert os.read(read, 1) == b"", "it holds a pipe of ours"
        assert {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {
            0: "/dev/null",
            1: str(log),
            2: str(log),
        }
    finally:
        os.close(read)


def test_a_launched_service_is_ready_when_its_log_says_so(service: Server) -> None:
    """The words by which both tell that they listen."""
    pattern = re.compile("eady (to accept|for) connections")
    log = service.directory / "log"
    childproof.launch(split(service.start), stdout=log, ready=pattern, timeout=UP_SECONDS)
    assert service.answers()


def test_a_launched_service_survives_the_host(service: Server) -> None:
    """A program that launches it and ends leaves a service that answers, and is told at once."""
    paths = [str(service.directory / "log"), str(_socket_path(service))]
    command = [sys.executable, "-c", LAUNCH_AND_EXIT, *paths, *split(service.start)]
    result = childproof.run(command, timeout=UP_SECONDS)
    assert result.ok, result
    assert result.held == ()
    assert service.answers()
    assert int(result.out) in service.processes()
