"""A start script that leaves a server in the background, run by `subprocess` and by `childproof run`.

The server is redis-server, or Python's own HTTP server where there is none. tools/demo runs this.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from shlex import join

HANG_SECONDS = 5
UP_SECONDS = 10


def redis() -> tuple[str, str]:
    """The command that starts redis-server, and the address of its socket."""
    return "redis-server --port 0 --unixsocket redis.sock --save '' --loglevel warning", "redis.sock"


def http() -> tuple[str, str]:
    """The command that starts an HTTP server, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = join([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", port])
    return command + " 2>http.log", f"http://127.0.0.1:{port}/"


def ask(address: str) -> str:
    """One query and its answer; `OSError` while the server does not answer."""
    if address.startswith("http:"):
        with urllib.request.urlopen(address, timeout=UP_SECONDS) as answer:
            return f"GET / -> {answer.status} {answer.reason}"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(UP_SECONDS)
        connection.connect(address)
        connection.sendall(b"PING\r\n")
        return f"PING -> {connection.recv(64).decode().strip()}"


def ask_until_it_is_up(address: str) -> str:
    """Like `ask`; a server needs a moment after its start."""
    until = time.monotonic() + UP_SECONDS
    while True:
        try:
            return ask(address)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def stop() -> str:
    """End the server, whose pid the script has written down."""
    pid = int(Path("server.pid").read_text())
    Path("server.pid").unlink()
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not select.select([pidfd], [], [], UP_SECONDS)[0]:
            raise TimeoutError(f"pid {pid} does not end")
    finally:
        os.close(pidfd)
    return f"stopped pid {pid}"


def show(text: str) -> None:
    """Print at once, since the commands that run here print too."""
    print(text, flush=True)


def with_subprocess() -> None:
    """The standard library waits for the end of the pipe, so for the server."""
    show(f'\n== subprocess.run(["sh", "start.sh"], capture_output=True, timeout={HANG_SECONDS})')
    began = time.monotonic()
    try:
        subprocess.run(["sh", "start.sh"], capture_output=True, timeout=HANG_SECONDS)
    except subprocess.TimeoutExpired as error:
        show(f"TimeoutExpired after {time.monotonic() - began:.1f} s; without timeout it would hang on.")
        show(f"The script had said {(error.stdout or b'').decode().splitlines()[:1]} and ended long before.")
    else:
        raise SystemExit("it did not hang")
    show(f"Left behind: the server, whose output nobody reads any more ({stop()}).")


def with_childproof(address: str) -> None:
    """Childproof waits for the script, then tells who holds the pipes."""
    show("\n== childproof run -- sh start.sh")
    began = time.monotonic()
    done = subprocess.run([Path(sys.executable).with_name("childproof"), "run", "--", "sh", "start.sh"])
    took = time.monotonic() - began
    show(f"Exit status {done.returncode} after {took:.1f} s.")
    show(f"The server works: {ask_until_it_is_up(address)} ({stop()}).")
    if done.returncode or took > HANG_SECONDS:
        raise SystemExit("that was not as it should be")


def main() -> None:
    """Both, in a directory of their own."""
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        command, address = redis() if shutil.which("redis-server") else http()
        Path("start.sh").write_text(f'{command} &\necho $! >server.pid\necho "start ok"\n')
        show(f"== start.sh\n{Path('start.sh').read_text().rstrip()}")
        try:
            with_subprocess()
            with_childproof(address)
        finally:
            if Path("server.pid").exists():
                stop()
            os.chdir("/")


if __name__ == "__main__":
    main()
