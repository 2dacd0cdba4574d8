"""Where output goes and what it becomes: decoded, trimmed, bounded, merged, or straight to a file."""

from __future__ import annotations

import codecs
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import Outcome, _output
from childproof._sinks import Ends
from conftest import SLACK_SECONDS, is_alive, stop, wait_until


def echo(data: bytes, **options: Any) -> Any:
    """The result of a command that writes `data` to stdout."""
    return childproof.run("cat", input=data, **options)


# ---- text ----

EURO = "€".encode()


@pytest.mark.parametrize(
    ("data", "options", "out"),
    [
        (b"caf\xc3\xa9", {}, "café"),
        (b"caf\xe9", {}, "caf\\xe9"),
        (b"a\xff\xfe\x00b", {}, "a\\xff\\xfe\0b"),
        (EURO[:2], {}, "\\xe2\\x82"),
        (EURO * 3, {"max_output": 4}, "\\xe2\\x82\\x82\\xac"),
        (b"a\xff", {"errors": "strict"}, "a\\xff"),
        (b"caf\xe9", {"errors": "replace"}, "caf\ufffd"),
        (b"caf\xe9", {"errors": "ignore"}, "caf"),
        (b"caf\xe9", {"errors": "surrogateescape"}, "caf\udce9"),
        (b"caf\xe9", {"encoding": "latin-1"}, "café"),
        (b"caf\xe9", {"encoding": "ascii"}, "caf\\xe9"),
        ("\ufeffça".encode("utf-16-le"), {"encoding": "utf-16"}, "ça"),
        ("ça".encode("utf-16-be"), {"encoding": "utf-16-be"}, "ça"),
        (b"a\0b", {"encoding": "utf-16-le"}, "a\\x62"),
        ("日本".encode("shift_jis"), {"encoding": "shift_jis"}, "日本"),
        (b"a\r\nb\rc\n", {}, "a\r\nb\rc"),
    ],
)
def test_decoding(data: bytes, options: dict[str, Any], out: str) -> None:
    """What is no text in the encoding becomes backslashes, or what `errors` says, and never raises."""
    assert echo(data, **options).out == out


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "cp1252", "gb18030", "iso2022_jp", "utf-7"])
@pytest.mark.parametrize("errors", ["strict", "backslashreplace", "surrogatepass"])
def test_any_bytes_are_decoded(encoding: str, errors: str) -> None:
    """Whatever a command writes, in whatever encoding it was said to be: there is an answer."""
    result = echo(bytes(range(256)) * 3 + EURO[:1], encoding=encoding, errors=errors, strip=False)
    assert result.code == 0
    assert len(result.out) > 100


def test_a_handler_of_the_callers_own() -> None:
    """Handlers registered with `codecs` serve."""
    codecs.register_error("childproof-test", lambda error: ("?", getattr(error, "end", 0)))
    assert echo(b"a\xffb", errors="childproof-test").out == "a?b"


@pytest.mark.parametrize(
    ("options", "out"),
    [
        ({}, "a  b"),
        ({"strip": False}, " \t\na  b \r\n\n"),
        ({"text": False}, b"a  b"),
        ({"text": False, "strip": False}, b" \t\na  b \r\n\n"),
        ({"text": False, "encoding": "utf-16"}, b"a  b"),
    ],
)
@pytest.mark.needs_proc
def test_white_space_at_the_ends(options: dict[str, Any], out: Any) -> None:
    """Trimmed at both ends unless strip=False; text=False gives bytes, trimmed likewise."""
    result = childproof.run("tee /dev/stderr", input=b" \t\na  b \r\n\n", **options)
    assert result == (0, out, out)


def test_nothing_is_an_empty_str_or_bytes() -> None:
    """The type does not depend on whether there was output, or on where it went."""
    assert childproof.run("true", text=False) == (0, b"", b"")
    assert childproof.run("echo x", stdout="null", stderr="file") == (0, "", "")


# ---- merge ----


@pytest.mark.parametrize("stdout", ["capture", "file"])
def test_merge_keeps_the_order(stdout: str) -> None:
    """Both streams are one, in the order in which they were written."""
    cmd = "for i in 1 2 3 4 5; do echo $i; echo $i >&2; done"
    assert childproof.run(cmd, merge=True, stdout=stdout) == (0, "1\n1\n2\n2\n3\n3\n4\n4\n5\n5", "")


def test_merge_goes_where_stdout_goes(tmp_path: Path) -> None:
    """Into a path, or nowhere."""
    assert childproof.run("echo a; echo b >&2", merge=True, stdout=tmp_path / "f") == (0, "", "")
    assert (tmp_path / "f").read_text() == "a\nb\n"
    assert childproof.run("echo a; echo b >&2", merge=True, stdout="null") == (0, "", "")


# ---- max_output ----


def halves(data: bytes, limit: int) -> bytes:
    """What is kept of `data`: the slow and obvious way."""
    return data if len(data) <= limit else data[: limit - limit // 2] + data[len(data) - limit // 2 :]


@pytest.mark.parametrize("stdout", ["capture", "file"])
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 1000])
def test_max_output_keeps_both_ends(stdout: str, limit: int) -> None:
    """Exactly the first half and the last, and the result tells that there was more."""
    for size in {max(limit - 1, 0), limit, limit + 1, 10 * limit + 10}:
        data = os.urandom(size)
        result = echo(data, stdout=stdout, max_output=limit, text=False, strip=False)
        assert result.out == halves(data, limit)
        assert result.truncated is (size > limit)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 10, 1000])
@pytest.mark.parametrize("chunk", [1, 2, 7, 500, 4000])
def test_max_output_in_any_pieces(limit: int, chunk: int) -> None:
    """However the output comes in, the same is kept, in memory of half as much again."""
    data = os.urandom(4000)
    sink = Ends(limit)
    for at in range(0, len(data), chunk):
        sink.add(data[at : at + chunk])
        assert len(sink._head) + len(sink._tail) <= 1.5 * limit + chunk + 1
        head, tail = sink.parts()
        assert head + tail == halves(data[: at + chunk], limit)


def test_max_output_is_for_each_stream() -> None:
    """One stream may be cut and the other whole."""
    result = childproof.run("seq 100 >&2; echo a", max_output=4)
    assert result == (0, "a", "1\n0")
    assert result.truncated


def peak_growth(call: str) -> int:
    """By how many bytes the peak of a new interpreter grows during a call of `run`."""
    code = f"""
import childproof, resource
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
childproof.run("true")
before = peak()
result = childproof.run({call})
assert result.code == 0, result
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("stdout", ["capture", "file"])
def test_max_output_bounds_the_memory(stdout: str) -> None:
    """300 MB go through a host that keeps a thousand bytes."""
    assert peak_growth(f"'head -c 300M /dev/zero', max_output=1000, stdout={stdout!r}, timeout=60") < 16 << 20


def test_output_is_held_once() -> None:
    """A large output takes little more memory than its size."""
    assert peak_growth("'head -c 200M /dev/zero', text=False, strip=False") < 300 << 20


@pytest.mark.parametrize("most", [8, 0])
def test_a_pipe_is_enlarged_when_it_was_full_twice(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """A larger pipe uses up the user's quota: it is for large output, so many at once, and given back."""
    monkeypatch.setattr(_output, "MOST_LARGE", most)
    sizes: list[int] = []

    def listen(_: str, data: bytes) -> None:
        sizes.append(len(data))
        time.sleep(0.002)  # so that the pipe fills up

    for _ in range(2):
        childproof.run("head -c 20M /dev/zero", on_output=listen)
        assert max(sizes[:2]) <= 65536
        assert (max(sizes) > 65536) is (most > 0)
        assert not _output._large
        sizes.clear()


# ---- "file" ----


def test_a_file_catches_both_streams() -> None:
    """Large output of both streams comes back whole."""
    result = childproof.run("seq 100000; seq 100000 >&2; exit 3", stdout="file", stderr="file")
    numbers = "\n".join(map(str, range(1, 100001)))
    assert result == (3, numbers, numbers)


@pytest.mark.needs_proc
def test_a_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies in the directory for temporary files, unlinked, so that nothing can be left of it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = childproof.run(["sh", "-c", 'readlink /proc/$$/fd/1; ls -A "$0"', tmp_path], stdout="file")
    assert result.out.startswith(f"{tmp_path}/")
    assert result.out.endswith(" (deleted)")
    assert not list(tmp_path.iterdir())


@pytest.mark.needs_proc
def test_without_a_place_for_files_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That there is none is in the result, as everything that befalls a command."""

    def fail() -> str:
        raise FileNotFoundError

    monkeypatch.chdir("/proc")  # where nobody can write
    monkeypatch.setattr(tempfile, "gettempdir", fail)
    result = childproof.run(["touch", tmp_path / "file"], stdout="file")
    assert (result.code, result.outcome) == (125, Outcome.NOT_STARTED)
    assert not (tmp_path / "file").exists()


def test_a_holder_of_a_file_delays_nobody_and_lives_on(tmp_path: Path) -> None:
    """It is not lingered for and not reported; what it writes later is lost, and it does not die of it."""
    proof = tmp_path / "proof"
    began = time.monotonic()
    result = childproof.run(
        'echo first; (sleep 0.3; echo more && echo more >&2 && : > "$PROOF"; exec sleep 74) & echo $!',
        stdout="file",
        stderr="file",
        linger=60,
        env={**os.environ, "PROOF": str(proof)},
    )
    pid = int(result.out.splitlines()[1])
    try:
        assert time.monotonic() - began < SLACK_SECONDS
        assert result == (0, f"first\n{pid}", "")
        assert result.held == ()
        assert wait_until(proof.exists), "it could not write"
        assert is_alive(pid)
    finally:
        stop(pid)


def test_a_file_is_read_at_the_deadline() -> None:
    """What was written before the tree was killed is there."""
    result = childproof.run("echo a; sleep 75", stdout="file", timeout=0.3)
    assert (result.code, result.out) == (124, "a")


# ---- paths, descriptors, files ----


@pytest.mark.parametrize("convert", [str, os.fsencode, Path])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_path(tmp_path: Path, stream: str, convert: Callable[[Path], Any]) -> None:
    """A path is created, or emptied, and nothing of that stream is in the result."""
    path = tmp_path / "out put"
    for text in ("a long line", "b"):
        options: dict[str, Any] = {stream: convert(path)}
        result = childproof.run(f"echo {text}; echo {text} >&2", **options)
        assert path.read_text() == f"{text}\n"
        assert result == ((0, "", text) if stream == "stdout" else (0, text, ""))


def test_a_relative_path_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins where the host is, not in the child's cwd."""
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    childproof.run("pwd", stdout="out", cwd="inner").check()
    assert (tmp_path / "out").read_text() == f"{tmp_path}/inner\n"


def test_a_path_that_blocks_is_inside_the_deadline(tmp_path: Path) -> None:
    """A FIFO that nobody reads is opened in the child, so the host is not stuck in it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    began = time.monotonic()
    result = childproof.run("echo a", stdout=fifo, timeout=1)
    assert time.monotonic() - began < 1 + 1 + SLACK_SECONDS
    assert (result.code, result.outcome) == (124, Outcome.TIMED_OUT)
    assert "open" in str(result.error)


def test_files_and_descriptors(tmp_path: Path) -> None:
    """The child writes where the file's descriptor is, and the caller's stays open."""
    with open(tmp_path / "f", "w+b") as file, tempfile.TemporaryFile() as other:
        childproof.run("echo a; echo b >&2", stdout=file, stderr=other.fileno()).check()
        childproof.run("echo c", stdout=file.fileno()).check()
        assert [os.pread(f.fileno(), 99, 0) for f in (file, other)] == [b"a\nc\n", b"b\n"]


def test_one_descriptor_for_both() -> None:
    """Both streams may be the same descriptor."""
    with tempfile.TemporaryFile() as file:
        childproof.run("echo a; echo b >&2; echo c", stdout=file, stderr=file).check()
        assert os.pread(file.fileno(), 99, 0) == b"a\nb\nc\n"


def test_streams_can_be_swapped(capfd: pytest.CaptureFixture[str]) -> None:
    """Our 2 as the child's 1 and our 1 as its 2: neither is overwritten before it is used."""
    assert childproof.run("echo out; echo err >&2", stdout=2, stderr=1) == (0, "", "")
    assert capfd.readouterr() == ("err\n", "out\n")


def test_inherit_and_null(capfd: pytest.CaptureFixture[str]) -> None:
    """Inherited output goes where ours goes; null goes nowhere."""
    assert childproof.run("echo out; echo err >&2", stdout="inherit", stderr="inherit") == (0, "", "")
    assert childproof.run("echo OUT; echo ERR >&2", stdout="null", stderr="null") == (0, "", "")
    assert capfd.readouterr() == ("out\n", "err\n")


def test_a_socket_pair() -> None:
    """Anything with a fileno() that has a descriptor serves."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        childproof.run("echo a", stdout=theirs).check()
        assert ours.recv(99) == b"a\n"


# ---- on_output ----


@pytest.mark.parametrize("max_output", [None, 10])
def test_on_output_gets_everything_in_order(max_output: int | None) -> None:
    """The pieces of each stream are what it wrote, whatever is kept; and they come as they are written."""
    seen: list[tuple[float, str, bytes]] = []
    cmd = "echo a; sleep 0.2; echo b >&2; seq 100000; seq 100000 >&2"
    result = childproof.run(
        cmd, on_output=lambda name, data: seen.append((time.monotonic(), name, data)), max_output=max_output
    )
    numbers = b"".join(b"%d\n" % i for i in range(1, 100001))
    assert b"".join(data for _, name, data in seen if name == "stdout") == b"a\n" + numbers
    assert b"".join(data for _, name, data in seen if name == "stderr") == b"b\n" + numbers
    assert seen[0][1:] == ("stdout", b"a\n")
    assert seen[1][0] - seen[0][0] > 0.1
    assert result.truncated is (max_output is not None)


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()], ids=repr)
def test_what_on_output_raises_propagates(error: BaseException) -> None:
    """It comes out as it is, after everything that was started is dead."""
    seen = io.BytesIO()

    def listen(_: str, data: bytes) -> None:
        seen.write(data)
        if seen.getvalue().count(b"\n") == 2:
            raise error

    with pytest.raises(type(error)) as caught:
        childproof.run("echo $$; sleep 76 & echo $!; wait", on_output=listen)
    assert caught.value is error
    for pid in map(int, seen.getvalue().split()):
        assert not is_alive(pid)
