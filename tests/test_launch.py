"""`launch` and ``childproof launch``: a service that is nobody's child, and "started" means started."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import SpawnError
from childproof._processes import procfs
from childproof._processes.procfs import read_process
from childproof.pytest_plugin import children
from conftest import SLACK_SECONDS, is_alive, program, stop, wait_until
from forcing import every_way  # noqa: F401  # a fixture

SERVER = """
import socket, sys, time
time.sleep(float(sys.argv[3]))
server = socket.socket(getattr(socket, sys.argv[1]))
server.bind(("127.0.0.1", int(sys.argv[2])) if sys.argv[1] == "AF_INET" else sys.argv[2])
server.listen()
print("listening", flush=True)
time.sleep(600)
"""


def server(family: str, address: object, delay: float = 0.3) -> list[str]:
    """A command that listens after `delay` seconds."""
    return [sys.executable, "-S", "-E", "-c", SERVER, family, str(address), str(delay)]


@pytest.fixture
def port() -> int:
    """A TCP port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where services write."""
    return tmp_path / "log"


@pytest.fixture
def services() -> Iterator[list[int]]:
    """Pids that are stopped at the end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        stop(pid)


def links(pid: int) -> dict[int, str]:
    """What `pid` has open."""
    folder = f"/proc/{pid}/fd"
    found = {}
    for fd in os.listdir(folder):
        with suppress(FileNotFoundError):  # it has been closed meanwhile
            found[int(fd)] = os.readlink(f"{folder}/{fd}")
    return found


# ---- what a service is ----


@pytest.mark.usefixtures("every_way")
def test_a_service_is_detached(log: Path, services: list[int]) -> None:
    """Its own session, no terminal, not our child; descriptors 0, 1, 2 and no more."""
    leaky = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(leaky, True)
    before = children()
    pid = childproof.launch(["sleep", "600"], stdout=log)
    services.append(pid)
    os.close(leaky)
    assert children() == before
    process = read_process(pid)
    assert process is not None
    assert process.name == "sleep"
    assert process.session == process.pgrp == pid
    assert process.ppid != os.getpid()
    # At its beginning a program has files of its own open, for a moment.
    assert wait_until(lambda: links(pid) == {0: "/dev/null", 1: str(log), 2: str(log)}), links(pid)
    assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4] == "0", "it has a terminal"


def test_its_signals_are_the_default() -> None:
    """Nothing is blocked, handled or, but for what this process ignores, ignored."""
    pid = childproof.launch(["sleep", "600"])
    fields = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    stop(pid)
    assert int(fields["SigBlk"], 16) == int(fields["SigCgt"], 16) == 0
    assert not int(fields["SigIgn"], 16) & 1 << signal.SIGPIPE - 1


def test_a_dead_service_is_no_zombie_of_ours(services: list[int]) -> None:
    """Init reaps it."""
    before = children()
    pid = childproof.launch(["sleep", "0.3"])
    assert wait_until(lambda: not is_alive(pid))
    assert children() == before


def test_output_is_appended(log: Path) -> None:
    """To what an earlier service has written; errors go there too, or to a file of their own."""
    log.write_text("earlier\n")
    errors = log.with_name("errors")
    for kwargs in ({}, {"stderr": errors}):
        pid = childproof.launch("echo out; echo err >&2; exec sleep 0.3", stdout=log, **kwargs)  # type: ignore[arg-type]
        assert wait_until(lambda: not is_alive(pid))  # noqa: B023  # it is called at once
    assert log.read_text() == "earlier\nout\nerr\nout\n"
    assert errors.read_text() == "err\n"


def test_options(tmp_path: Path, log: Path) -> None:
    """Those of the child itself."""
    command = "pwd; umask; ulimit -n; echo $A; exec sleep 0.3"
    pid = childproof.launch(
        command, stdout=log, cwd=tmp_path, umask=0o27, limits={"nofile": 50}, env={"A": "b", "PATH": os.environ["PATH"]}
    )
    assert wait_until(lambda: not is_alive(pid))
    assert log.read_text().split() == [str(tmp_path), "0027", "50", "b"]


def test_it_survives_the_host(log: Path, services: list[int]) -> None:
    """Also one that is killed."""
    code = "import childproof, os, sys; print(childproof.launch(['sleep', '600']), flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == -9
    pid = int(done.stdout)
    services.append(pid)
    assert is_alive(pid)


# ---- starts that fail ----


@pytest.mark.usefixtures("every_way")
@pytest.mark.parametrize(
    ("command", "options", "stage", "code"),
    [
        (["/nonexistent/program"], {}, "exec", 127),
        (["/etc"], {}, "exec", 126),
        (["true"], {"cwd": "/nonexistent"}, "chdir", 125),
        (["true"], {"stdout": "/nonexistent/log"}, "open", 125),
    ],
)
def test_exec_errors_are_told(command: list[str], options: dict[str, Any], stage: str, code: int) -> None:
    """Though it is no child of ours: stage, errno, and the code that `run` would give."""
    with pytest.raises(SpawnError) as caught:
        childproof.launch(command, **options)
    assert caught.value.stage == stage
    assert caught.value.errno in (2, 13)
    assert caught.value.result is not None
    assert caught.value.result.code == code


def test_a_program_whose_exec_hangs(tmp_path: Path) -> None:
    """The deadline is for the exec too; neither the service nor its parent is left."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = children()
    began = time.monotonic()
    with pytest.raises(SpawnError, match=r"timed out after 0\.5 s, still at open"):
        childproof.launch(["true"], stdout=fifo, timeout=0.5)
    assert time.monotonic() - began < 1.5 + SLACK_SECONDS
    assert children() == before


@pytest.mark.parametrize(
    "options",
    [
        {"stdout": "capture"},
        {"stderr": "inherit"},
        {"stdout": "file"},
        {"ready": re.compile("x")},
        {"ready": 0},
        {"ready": ("localhost", 70000)},
        {"ready": ("example.org", 80)},
        {"ready": ("localhost",)},
        {"ready": ""},
        {"ready": 1.5},
        {"ready": re.compile("x"), "stdout": "/dev/null"},
        {"input": "x"},
        {"pass_fds": [0]},
        {"timeout": -5},
    ],
)
def test_wrong_calls(options: dict[str, Any]) -> None:
    """Nothing is started."""
    with pytest.raises((TypeError, ValueError)):
        childproof.launch(["true"], **options)


def test_a_service_that_ends_at_once(log: Path) -> None:
    """Before the call is back: that is no start, and whoever reads the pid would find nobody."""
    with pytest.raises(SpawnError, match="ended with code 3 before it was ready"):
        childproof.launch("exit 3", stdout=log, ready=re.compile("never"))


# ---- ready ----


@pytest.mark.parametrize("pattern", [re.compile(r"^list\w+", re.MULTILINE), re.compile(rb"listening\n")])
def test_ready_by_output(pattern: Any, log: Path, port: int, services: list[int]) -> None:
    """What an earlier service has written does not count."""
    log.write_text("listening\n")
    services.append(childproof.launch(server("AF_INET", port), stdout=log, ready=pattern))
    assert log.read_text() == "listening\nlistening\n"


def test_ready_by_errors(log: Path, services: list[int]) -> None:
    """Both logs are looked at."""
    errors = log.with_name("errors")
    services.append(
        childproof.launch("sleep 0.2; echo up >&2; exec sleep 600", stdout=log, stderr=errors, ready=re.compile("up"))
    )
    assert errors.read_text() == "up\n"


@pytest.mark.parametrize("form", ["port", "localhost", "address"])
def test_ready_by_port(form: str, port: int, services: list[int]) -> None:
    """It answers on return."""
    ready: Any = {"port": port, "localhost": ("localhost", port), "address": ("127.0.0.1", port)}[form]
    services.append(childproof.launch(server("AF_INET", port), ready=ready))
    socket.create_connection(("127.0.0.1", port), 5).close()


def test_ready_by_unix_socket(tmp_path: Path, services: list[int]) -> None:
    """A path that is a socket must answer; one that was left by an earlier service does not."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    command = ["sh", "-c", f'sleep 0.3; rm {path}; exec "$@"', "sh", *server("AF_UNIX", path)]
    services.append(childproof.launch(command, ready=path))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))


def test_ready_by_path(tmp_path: Path, services: list[int]) -> None:
    """A file that appears, or is made anew."""
    path = tmp_path / "up"
    for _ in range(2):
        services.append(childproof.launch(f"sleep 0.2; echo $$ >{path}; exec sleep 600", ready=path))
        assert int(path.read_text()) == services[-1]


def test_it_was_there_before(port: int, tmp_path: Path) -> None:
    """Who answers already is not the service: nothing is started."""
    made = tmp_path / "made"
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(SpawnError, match="somebody answers") as caught:
            childproof.launch(["touch", made], ready=port)
    assert caught.value.stage == "ready"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "socket"))
        other.listen()
        with pytest.raises(SpawnError, match="somebody answers"):
            childproof.launch(["touch", made], ready=tmp_path / "socket")
    assert not made.exists()


@pytest.mark.parametrize(("end", "code"), [("exit 3", "3"), ("kill -9 $$", "137")])
def test_it_ends_before_it_is_ready(end: str, code: str, log: Path) -> None:
    """At once, with its code and its last words, without the secrets among them."""
    log.write_text("old words\n")
    began = time.monotonic()
    with pytest.raises(SpawnError) as caught:
        childproof.launch(f"echo no such table xyzzy; {end}", stdout=log, ready=log.with_name("up"), secrets=["xyzzy"])
    assert time.monotonic() - began < SLACK_SECONDS
    text = str(caught.value)
    assert f"ended with code {code}" in text
    assert "before it was ready" in text
    assert text.endswith("no such table ***")
    assert caught.value.stage == "ready"


def test_it_is_not_ready_in_time(log: Path) -> None:
    """Its whole tree is killed, also who has left its session; the log stays."""
    command = "setsid sleep 600 & echo $$ $!; echo waiting for a lock >&2; wait"
    began = time.monotonic()
    with pytest.raises(SpawnError, match=r"not ready after 1 s.*waiting for a lock") as caught:
        childproof.launch(command, stdout=log, ready=log.with_name("up"), timeout=1)
    assert time.monotonic() - began < 2 + SLACK_SECONDS
    pids = [int(word) for word in log.read_text().splitlines()[0].split()]
    assert not any(map(is_alive, pids))
    assert caught.value.result is not None
    assert {info.pid for info in caught.value.result.killed} >= set(pids)


def test_who_lost_its_parent_within_the_session_dies_too(log: Path) -> None:
    """The service's session is evidence, though it is not its parent's."""
    command = "sh -c 'env -i sleep 600 & echo $!' ; exec env -i sleep 600"
    with pytest.raises(SpawnError, match="not ready"):
        childproof.launch(command, stdout=log, ready=log.with_name("up"), timeout=0.5, env={"PATH": os.environ["PATH"]})
    assert not is_alive(int(log.read_text()))


def test_grace(log: Path) -> None:
    """A service that is given up may clean up."""
    command = "trap 'echo bye; exit' TERM; echo up; while :; do sleep 0.02; done"
    with pytest.raises(SpawnError, match="bye"):
        childproof.launch(command, stdout=log, ready=log.with_name("up"), timeout=0.5, grace=600)


def test_a_service_that_goes_into_the_background(log: Path) -> None:
    """It has ended, as far as can be seen; what it left behind is not hidden."""
    command = " ".join(program("daemon", 600))
    with pytest.raises(SpawnError, match="ended with code 0 before it was ready"):
        childproof.launch(command, stdout=log, ready=log.with_name("up"))
    assert wait_until(lambda: log.read_text().endswith("\n"))
    stop(int(log.read_text()))


def test_an_interrupt(log: Path) -> None:
    """It propagates when nothing is left."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            childproof.launch("echo $$; sleep 600", stdout=log, ready=log.with_name("up"))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not is_alive(int(log.read_text()))


def test_the_log(caplog: pytest.LogCaptureFixture, tmp_path: Path, services: list[int]) -> None:
    """One line for a service that is started, and an ERROR for one that is not."""
    caplog.set_level("DEBUG", "childproof")
    services.append(childproof.launch(["sleep", "600"], secrets=["600"]))
    (record,) = caplog.records
    assert re.fullmatch(rf"launched pid {services[0]} in 0\.\d+ s: sleep '\*\*\*'", record.getMessage())
    caplog.clear()
    with pytest.raises(SpawnError):
        childproof.launch("exit 3", ready=tmp_path / "up")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        f"exit 3 ended with code 3 before it was ready ({tmp_path}/up)"
    ]


# ---- the pidfile ----


def test_the_pidfile(tmp_path: Path, services: list[int]) -> None:
    """It is there on return, and nothing else; over that of a process which has ended."""
    path = tmp_path / "pid"
    dead = subprocess.Popen(["true"])
    dead.wait()
    path.write_text(f"{dead.pid}\n")
    pid = childproof.launch(["sleep", "600"], pidfile=path)
    services.append(pid)
    assert path.read_text() == f"{pid}\n"
    assert os.listdir(tmp_path) == ["pid"]


def test_the_pidfile_of_a_service_that_runs(tmp_path: Path, services: list[int]) -> None:
    """Nothing is started, and it stays as it is."""
    path = tmp_path / "pid"
    services.append(childproof.launch(["sleep", "600"], pidfile=path))
    with pytest.raises(SpawnError, match=rf"pid {services[0]} \(sleep\) runs") as caught:
        childproof.launch(["touch", tmp_path / "made"], pidfile=path)
    assert caught.value.stage == "pidfile"
    assert path.read_text() == f"{services[0]}\n"
    assert not (tmp_path / "made").exists()


def test_the_pidfile_of_one_whose_number_is_anothers_now(tmp_path: Path, services: list[int]) -> None:
    """Whoever started long after it was written is not meant."""
    path = tmp_path / "pid"
    path.write_text(f"{os.getpid()}\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    services.append(childproof.launch(["sleep", "600"], pidfile=path))
    assert path.read_text() == f"{services[0]}\n"


def test_a_file_that_is_no_pidfile(tmp_path: Path) -> None:
    """It is not lost to a mistake."""
    path = tmp_path / "notes"
    path.write_text("important\n")
    with pytest.raises(SpawnError, match="no pidfile"):
        childproof.launch(["true"], pidfile=path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SpawnError, match="no pidfile"):
        childproof.launch(["true"], pidfile=tmp_path / "fifo")
    assert path.read_text() == "important\n"


def test_a_pidfile_that_can_not_be_written(tmp_path: Path, log: Path) -> None:
    """The service is killed: nobody would find it."""
    with pytest.raises(SpawnError, match="nonexistent") as caught:
        childproof.launch(
            "echo $$; exec sleep 600", stdout=log, pidfile=tmp_path / "nonexistent" / "pid", ready=re.compile(r"\d")
        )
    assert caught.value.stage == "pidfile"
    assert not is_alive(int(log.read_text()))


def test_no_pidfile_of_a_service_that_failed(tmp_path: Path) -> None:
    """It is written when the service is ready."""
    with pytest.raises(SpawnError):
        childproof.launch("sleep 600", pidfile=tmp_path / "pid", ready=tmp_path / "up", timeout=0.3)
    assert os.listdir(tmp_path) == []


# ---- the command line ----


def cli(*args: object) -> subprocess.CompletedProcess[str]:
    """``childproof launch`` with `args`."""
    command = [sys.executable, "-m", "childproof", "launch", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command(log: Path, port: int, services: list[int]) -> None:
    """It prints the pid when the service is ready, and its own output pipes are not held."""
    pidfile = log.with_name("pid")
    done = cli("--log", log, "--pidfile", pidfile, "--ready-port", port, "--", *server("AF_INET", port))
    assert (done.returncode, done.stderr) == (0, "")
    pid = int(done.stdout)
    services.append(pid)
    assert done.stdout == pidfile.read_text() == f"{pid}\n"
    socket.create_connection(("127.0.0.1", port), 5).close()
    assert log.read_text() == "listening\n"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["/nonexistent", "x"], 127, "No such file"),
        (["/etc", "x"], 126, "Permission denied"),
        (["--timeout", "0.3", "--ready-path", "/nonexistent", "sleep 600"], 124, "not ready after 0.3 s"),
        (["--ready-path", "/nonexistent", "exit 3"], 125, "ended with code 3"),
        (["--ready-port", "x", "true"], 2, "number of a port"),
        (["--ready-output", "(", "true"], 2, "regular expression"),
        (["--ready-output", "x", "true"], 2, "log"),
        (["--user", "no such user", "true"], 2, "no user"),
        ([], 2, "COMMAND is missing"),
    ],
)
def test_codes_of_the_command(args: list[str], code: int, message: str) -> None:
    """And one line that says why."""
    done = cli(*args)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_a_log_that_is_called_like_a_keyword(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a file all the same."""
    monkeypatch.chdir(tmp_path)
    done = cli("--log", "capture", "echo x; exec sleep 0.3")
    assert wait_until(lambda: not is_alive(int(done.stdout)))
    assert (tmp_path / "capture").read_text() == "x\n"


def test_a_signal_ends_the_start(tmp_path: Path) -> None:
    """Nothing is left of a service that is waited for."""
    log = tmp_path / "log"
    options = ["--log", str(log), "--ready-path", str(tmp_path / "up")]
    command = [sys.executable, "-m", "childproof", "launch", *options, "echo $$; sleep 600"]
    with subprocess.Popen(command) as process:
        assert wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not is_alive(int(log.read_text()))


def test_the_advice_of_the_held_pipe_warning() -> None:
    """Who does as it says has a start script that holds nothing."""
    launch = f"{sys.executable} -m childproof launch sleep 600"
    result = childproof.run(f"{launch}; echo start ok", timeout=60)
    pid, said = result.out.splitlines()
    assert said == "start ok"
    assert result.held == ()
    assert result.killed == ()
    assert is_alive(int(pid))
    assert procfs.read_process(result.pid) is None
    stop(int(pid))
