"""Who has something open: `holders`, and what the command line shows of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import Holder, _spawner
from childproof._processes import holders, procfs, sockets
from conftest import stop, wait_until

identifies_files = pytest.mark.skipif(
    _spawner.PORTABLE, reason="the portable build has no statx(2), and goes by the names of files alone"
)

CLI = [sys.executable, "-m", "childproof", "holders"]
AT_MOST_SECONDS = 60


@pytest.fixture
def sleeper() -> Iterator[Any]:
    """Start ``sleep 600`` with given descriptors, as often as wanted; all are ended afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**options: Any) -> int:
        started.append(subprocess.Popen(["sleep", "600"], **options))
        pid = started[-1].pid
        wait_until(lambda: "nanosleep" in Path(f"/proc/{pid}/wchan").read_text(), 3)  # its libraries are closed
        return pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def cli(*args: str | int | Path, code: int = 0) -> str:
    """What ``childproof holders`` prints: on stdout, or if there is nothing on stderr."""
    done = subprocess.run([*CLI, *map(str, args)], capture_output=True, timeout=AT_MOST_SECONDS)
    assert done.returncode == code, done.stderr
    return (done.stdout or done.stderr).decode()


def others(found: list[Holder]) -> dict[int, tuple[int, ...]]:
    """Descriptors by pid, without this process."""
    return {holder.pid: holder.fds for holder in found if holder.pid != os.getpid()}


# ---- the function ----


def test_a_descriptor_of_ours(sleeper: Any) -> None:
    """An int: the pipe's reader and its writer, this process included."""
    reader, writer = os.pipe()
    try:
        pid = sleeper(stdout=writer)
        found = childproof.holders(reader)
        assert {h.pid: h.fds for h in found} == {os.getpid(): (reader, writer), pid: (1,)}
        assert [h.command for h in found if h.pid == pid] == ["sleep 600"]
        link = os.readlink(f"/proc/self/fd/{reader}")
        assert others(childproof.holders(link)) == {pid: (1,)}
    finally:
        os.close(reader)
        os.close(writer)


@identifies_files
def test_a_file_under_another_name(sleeper: Any, tmp_path: Path) -> None:
    """By a hard link, and after the name by which it was opened has gone."""
    first, second = tmp_path / "first", tmp_path / "second"
    with open(first, "wb") as file:
        os.link(first, second)
        pid = sleeper(stdout=file)
    assert others(childproof.holders(second)) == {pid: (1,)}
    first.unlink()
    assert others(childproof.holders(str(second))) == {pid: (1,)}


def test_a_file_of_the_same_name_is_another(sleeper: Any, tmp_path: Path) -> None:
    """Who has the file that was there before does not hold the one that is there now."""
    path = tmp_path / "file"
    with open(path, "wb") as file:
        sleeper(stdout=file)
    path.unlink()
    path.touch()
    assert childproof.holders(path) == []


def test_a_directory_and_a_fifo(sleeper: Any, tmp_path: Path) -> None:
    """They are files too."""
    os.mkfifo(tmp_path / "fifo")
    for path, flags in ((tmp_path, os.O_RDONLY), (tmp_path / "fifo", os.O_RDWR)):
        fd = os.open(path, flags)
        pid = sleeper(stdin=fd)
        os.close(fd)
        assert others(childproof.holders(path)) == {pid: (0,)}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port(sleeper: Any, family: socket.AddressFamily) -> None:
    """Every process that has the listening socket, and not only one; and a connection with both ends."""
    with socket.socket(family) as server:
        try:
            server.bind(("localhost", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        server.listen()
        port = server.getsockname()[1]
        pids = {sleeper(stdin=server) for _ in range(2)}
        found = childproof.holders(f"tcp:{port}")
        assert others(found) == dict.fromkeys(pids, (0,))
        host = "127.0.0.1" if family == socket.AF_INET else "[::1]"
        assert {holder.streams for holder in found} == {(f"tcp LISTEN {host}:{port}",)}
        assert childproof.holders(f"udp:{port}") == []
        with socket.create_connection(server.getsockname()[:2]) as client:
            here = client.getsockname()[1]
            (holder,) = childproof.holders(f":{here}")
            assert holder.streams == (f"tcp ESTABLISHED {host}:{here} to {host}:{port}",)
            assert holder.fds == (client.fileno(),)


def test_a_udp_port(sleeper: Any) -> None:
    """With and without the kind."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        pid = sleeper(stdin=server)
    for target in (f"udp:{port}", f":{port}"):
        (holder,) = childproof.holders(target)
        assert (holder.pid, holder.fds, holder.streams) == (pid, (0,), (f"udp 127.0.0.1:{port}",))


def test_a_unix_socket(sleeper: Any, tmp_path: Path) -> None:
    """By the path that it was bound to, also through a link to the directory."""
    (tmp_path / "link").symlink_to(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        pid = sleeper(stdin=server)
    assert others(childproof.holders(tmp_path / "socket")) == {pid: (0,)}
    assert others(childproof.holders(tmp_path / "link" / "socket")) == {pid: (0,)}


@identifies_files
def test_a_process(sleeper: Any, tmp_path: Path) -> None:
    """Whoever shares a pipe or file with it; nobody for what all have, as /dev/null."""
    reader, writer = os.pipe()
    with open(tmp_path / "log", "wb") as log:
        first = sleeper(stdin=subprocess.DEVNULL, stdout=writer, stderr=log)
        second = sleeper(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
    os.close(writer)
    link = os.readlink(f"/proc/self/fd/{reader}")
    found = {h.pid: (h.fds, h.streams) for h in childproof.holders(f"pid:{first}")}
    os.close(reader)
    log_name = str(tmp_path / "log")
    assert found[first] == ((1, 2), (link, log_name))
    assert found[second] == ((2,), (log_name,))
    assert found[os.getpid()] == ((reader,), (link,))


@pytest.mark.parametrize(
    ("target", "error"),
    [
        (True, TypeError),
        (1.5, TypeError),
        ("", ValueError),
        ("a\0b", ValueError),
        (":0", ValueError),
        ("tcp:65536", ValueError),
        ("udp:x", ValueError),
        ("pid:", ValueError),
        ("pid:²", ValueError),
        ("pid:4194304", ProcessLookupError),
        ("/nonexistent", FileNotFoundError),
        (1 << 20, FileNotFoundError),
        (b"/etc", TypeError),
    ],
)
def test_wrong_targets(target: Any, error: type[Exception]) -> None:
    """What is no target is refused, and not looked for in vain."""
    with pytest.raises(error):
        childproof.holders(target)


def test_a_file_named_like_a_port(sleeper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ./ it is a file."""
    monkeypatch.chdir(tmp_path)
    with open(":80", "wb") as file:
        pid = sleeper(stdout=file)
    assert others(childproof.holders("./:80")) == {pid: (1,)}


def test_an_address_as_the_kernel_has_it() -> None:
    """Words in the machine's order."""
    if sys.byteorder == "little":
        assert sockets._address("0100007F:1538") == ("127.0.0.1", 5432)
        assert sockets._address("00000000000000000000000001000000:0050") == ("[::1]", 80)
    else:
        assert sockets._address("7F000001:1538") == ("127.0.0.1", 5432)


# ---- the search for the holders of a command's pipes ----


def test_a_search_has_a_bound(sleeper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks a slice at a time, the youngest processes first, and does not claim to have seen all."""
    monkeypatch.setattr(holders, "SLICE_SECONDS", 0)
    reader, writer = os.pipe()
    try:
        pid = sleeper(stdout=writer)
        link = os.readlink(f"/proc/self/fd/{writer}")
        monkeypatch.setattr(procfs, "pids", lambda: [1, os.getpid(), pid])
        search = holders.Search({link: "stdout", "pipe:[0]": "stderr"}, None)
        assert wait_until(lambda: all(errand.done for errand in search._asked))
        found = search.holders()
        assert found[0].command == "sleep 600", "the names do not wait for the whole search"
        assert [(h.pid, h.fds, h.streams) for h in found] == [(pid, (1,), ("stdout",)), (0, (-1,), ("stderr",))]
        assert found[-1].command == "[not looked at in time]"
        assert wait_until(search.answered)
        found = search.holders()
        assert [holder.command for holder in found[::2]] == ["sleep 600", "[not visible]"]
        assert found[1].pid == os.getpid()
    finally:
        os.close(reader)
        os.close(writer)


# ---- the command line ----


def test_cli_of_a_file(sleeper: Any, tmp_path: Path) -> None:
    """One row for each descriptor; JSON has the same."""
    with open(tmp_path / "log", "wb") as log:
        pid = sleeper(stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    head, *rows = cli(tmp_path / "log").splitlines()
    assert head.split() == ["PID", "FD", "MODE", "WHAT", "COMMAND"]
    assert [row.split() for row in rows] == [
        [str(pid), fd, "w", str(tmp_path / "log"), "sleep", "600"] for fd in ("1", "2")
    ]
    answer = json.loads(cli("--json", tmp_path / "log"))
    assert answer["holders"] == [
        {"pid": pid, "command": "sleep 600", "fd": fd, "mode": "w", "what": str(tmp_path / "log")} for fd in (1, 2)
    ]
    assert answer["hidden"] == 0 or os.getuid() != 0


def test_cli_of_a_pid(sleeper: Any) -> None:
    """A number is a pid: each of its descriptors, and who else has it, reader or writer."""
    reader, writer = os.pipe()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        pid = sleeper(stdin=server, stdout=writer, stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        answer = json.loads(cli("--json", pid))
        text = cli(pid)
    finally:
        os.close(reader)
    assert (answer["pid"], answer["command"]) == (pid, "sleep 600")
    stdin, stdout, stderr = answer["fds"]
    assert stdin["what"].endswith(f"tcp LISTEN 127.0.0.1:{port}")
    assert stdin["sharers"] == []
    assert (stdout["fd"], stdout["mode"]) == (1, "w")
    assert [(s["pid"], s["fd"], s["mode"]) for s in stdout["sharers"]] == [(os.getpid(), reader, "r")]
    assert (stderr["what"], stderr["mode"], stderr["sharers"]) == ("/dev/null", "rw", [])
    assert f"pid {os.getpid()} (" in text
    assert f") as {reader} r" in text


def test_cli_of_a_port(sleeper: Any) -> None:
    """The addresses and the state are told."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        pid = sleeper(stdin=server)
    assert f"{pid}  0   rw    tcp LISTEN 127.0.0.1:{port}  sleep 600" in cli(f":{port}")


def test_cli_exit_codes(tmp_path: Path) -> None:
    """1 for nobody, 2 for a wrong target, 125 for none."""
    (tmp_path / "file").touch()
    assert cli(tmp_path / "file", code=1) == ""
    assert json.loads(cli("--json", tmp_path / "file", code=1))["holders"] == []
    assert "is no port" in cli(":x", code=2)
    assert "No such file" in cli(tmp_path / "none", code=125)
    assert "no process has the pid 4194304" in cli(4194304, code=125)


def test_a_command_cannot_forge_a_row(tmp_path: Path) -> None:
    """A line break in a command line, or in a file's name, is escaped."""
    path = tmp_path / "a\nb"
    with open(path, "wb") as file:
        process = subprocess.Popen(["sh", "-c", "sleep 600 #\n1 2 3", "x"], stdout=file)
    try:
        assert wait_until(lambda: "a\\nb" in cli(path))
        assert all(
            line.split()[0] in ("PID", str(process.pid)) or "sleep 600" in line for line in cli(path).splitlines()
        )
    finally:
        for holder in childproof.holders(path):
            stop(holder.pid)
        process.wait()


# ---- a holder that floods ----


def test_a_flooding_holder_costs_the_host_little() -> None:
    """What `yes` writes is taken from it, at a pace that leaves the host its processor."""
    result = childproof.run("exec yes & echo $!", max_output=100, linger=0)
    (pid,) = {int(line) for line in result.out.split() if line.isdigit()} or {result.held[0].pid}

    def written() -> int:
        return int(Path(f"/proc/{pid}/io").read_text().split()[3])

    try:
        before, cpu = written(), time.process_time()
        time.sleep(2)
        used = time.process_time() - cpu
        assert wait_until(lambda: written() > before + 1_000_000), "it is held up for good"
        assert used < 0.7, "seconds, of 2"  # without a rest it was 1.2
    finally:
        stop(pid)
