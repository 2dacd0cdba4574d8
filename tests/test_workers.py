"""Commands run in the workers of gunicorn and Celery, the real ones, as docs/recipes.md says.

They come with the extra ``workers-tests``. Without one of them its test is skipped, and fails with
``CHILDPROOF_REQUIRE_PACKAGES=1``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

import childproof
from conftest import is_alive, wait_until

pytestmark = pytest.mark.needs_proc

PATIENCE_SECONDS = 60.0


def need(package: str) -> None:
    """Skip the test without it, or fail."""
    if find_spec(package) is None:
        if os.environ.get("CHILDPROOF_REQUIRE_PACKAGES") == "1":
            pytest.fail(f"{package} is not installed")
        pytest.skip(f"needs {package}, of the extra workers-tests")


@contextmanager
def server(words: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A pool of workers, ended as an operator would; its log is shown if the test fails."""
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(folder), "C_FORCE_ROOT": "1"},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            childproof.kill_tree(process.pid)
            process.wait()
        print((folder / "log").read_text(errors="replace"))


def gone(pid_file: Path) -> bool:
    """Whether the process that has written its number there has ended."""

    def ended() -> bool:
        text = pid_file.read_text().strip() if pid_file.exists() else ""
        return bool(text) and not is_alive(int(text))

    return wait_until(ended, PATIENCE_SECONDS)


# ---- gunicorn ----

APPLICATION = """
import json
import childproof

COMMANDS = {
    "/plain": ("echo out; echo err >&2; exit 3", {"timeout": 60}),
    "/held": ("setsid sleep 600 & echo $!", {"timeout": 60, "leftovers": "kill"}),
    "/late": ("echo $$ >pid; echo partly; setsid sleep 600 & sleep 600", {"timeout": 1}),
    "/stuck": ("echo $$ >pid; sleep 600", {"die_with_parent": True}),
}

def application(environ, start_response):
    cmd, options = COMMANDS[environ["PATH_INFO"]]
    result = childproof.run(cmd, **options)
    start_response("200 OK", [("Content-Type", "application/json"), ("Connection", "close")])
    return [json.dumps([result.code, result.out, result.err, result.outcome.name]).encode()]
"""


def get(path: Path, url: str) -> bytes:
    """The body that the server at the socket `path` answers with; empty if it hangs up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(str(path))
        connection.sendall(f"GET {url} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while True:
            try:
                piece = connection.recv(65536)
            except ConnectionResetError:
                break
            if not piece:
                break
            answer += piece
    return answer.partition(b"\r\n\r\n")[2]


@contextmanager
def gunicorn(folder: Path, *options: str) -> Iterator[Path]:
    """The application, served; the socket's path."""
    need("gunicorn")
    (folder / "served.py").write_text(APPLICATION)
    path = folder / "s"
    with server(["gunicorn", "--bind", f"unix:{path}", "--workers", "1", *options, "served:application"], folder):
        assert wait_until(path.exists, PATIENCE_SECONDS)
        yield path


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a socket's path is short enough."""
    return tmp_path_factory.mktemp("w")


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_gunicorn(short_path: Path, kind: str) -> None:
    """Whatever the worker is made of, and however its master waits for its children."""
    if kind == "gevent":
        need("gevent")
    with gunicorn(short_path, "--worker-class", kind, "--threads", "4" if kind == "gthread" else "1") as path:
        for _ in range(3):
            assert json.loads(get(path, "/plain")) == [3, "out", "err", "EXITED"]
        code, out, *_ = json.loads(get(path, "/held"))
        assert code == 0
        assert not is_alive(int(out))
        assert json.loads(get(path, "/late"))[:2] == [124, "partly"]
        assert gone(short_path / "pid")


def test_gunicorn_s_own_timeout(short_path: Path) -> None:
    """It kills the worker; the worker's command ends with it, and the next request is served."""
    with gunicorn(short_path, "--timeout", "2") as path:
        answer = get(path, "/stuck")
        assert not answer or b"Internal Server Error" in answer
        assert gone(short_path / "pid")
        assert json.loads(get(path, "/plain"))[0] == 3


# ---- Celery ----

TASKS = """
import celery
from celery.exceptions import SoftTimeLimitExceeded
import childproof

app = celery.Celery("tasks", broker="filesystem://", backend="file://{folder}/results")
app.conf.broker_transport_options = {{"data_folder_in": "{folder}/queue", "data_folder_out": "{folder}/queue"}}
app.conf.worker_prefetch_multiplier = 1

@app.task
def plain():
    result = childproof.run("echo out; exit 3", timeout=60)
    return [result.code, result.out, result.outcome.name]

@app.task(soft_time_limit=1)
def soft():
    try:
        childproof.run("echo $$ >soft; sleep 600", timeout=3600)
    except SoftTimeLimitExceeded:
        return "told"

@app.task(time_limit=1)
def hard():
    childproof.run("echo $$ >hard; sleep 600", die_with_parent=True)
"""

CLIENT = """
import json, tasks
from celery.exceptions import TimeLimitExceeded
plain, soft = tasks.plain.delay().get(timeout=60), tasks.soft.delay().get(timeout=60)
try:
    hard = tasks.hard.delay().get(timeout=60)
except TimeLimitExceeded:
    hard = "killed"
print(json.dumps([plain, soft, hard]))
"""


def test_celery(tmp_path: Path) -> None:
    """In a worker that is forked and has limits: a soft one is an exception behind a dead tree, a hard one
    kills the worker, whose command ends with it.
    """
    need("celery")
    (tmp_path / "tasks.py").write_text(TASKS.format(folder=tmp_path))
    for name in ("queue", "results"):
        (tmp_path / name).mkdir()
    with server(["celery", "-A", "tasks", "worker", "--pool", "prefork", "--concurrency", "1"], tmp_path):
        result = childproof.run([sys.executable, "-c", CLIENT], cwd=tmp_path, timeout=240)
    assert result.code == 0, result.err
    assert json.loads(result.out) == [[3, "out", "EXITED"], "told", "killed"]
    assert gone(tmp_path / "soft")
    assert gone(tmp_path / "hard")
