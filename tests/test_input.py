"""What a child reads: bytes, files, descriptors and objects, without a wait that no deadline ends."""

from __future__ import annotations

import bz2
import ctypes
import gzip
import io
import lzma
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import childproof
from childproof import Outcome, _feed, _output
from childproof._processes import procfs
from conftest import SLACK_SECONDS, is_alive, wait_until

IDLE_SECONDS = 60.0
"""A timeout for what must not wait at all, so that a failure does not hang the tests."""


def cat(source: Any, **options: Any) -> Any:
    """What `cat` makes of `source`, as bytes."""
    return childproof.run("cat", input=source, text=False, strip=False, **{"timeout": IDLE_SECONDS, **options})


@pytest.fixture
def pipe() -> Iterator[tuple[io.BufferedReader, io.FileIO]]:
    """A pipe of ours: its end for reading, and the one for writing."""
    reading, writing = os.pipe()
    with open(reading, "rb") as source, open(writing, "wb", buffering=0) as sink:
        yield source, sink


# ---- data ----


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("é\udcff", "é".encode() + b"\xff"),
        (b"a\0\xff", b"a\0\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abc")[1:], b"bc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(b"abc")[::-1], b"cba"),
        (array("I", [1, 2, 3]), array("I", [1, 2, 3]).tobytes()),
        (memoryview(array("d", [1.5, 2.5])), array("d", [1.5, 2.5]).tobytes()),
        (memoryview(array("H", [1, 2, 3, 4]))[::3], array("H", [1, 4]).tobytes()),
        (memoryview(b"abcdef").cast("B", [2, 3]), b"abcdef"),
        (memoryview(array("i", [7])).cast("B").cast("i", []), array("i", [7]).tobytes()),
        ((ctypes.c_uint16 * 2)(1, 2), array("H", [1, 2]).tobytes()),
        ("", b""),
        (b"", b""),
        (array("I"), b""),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, (str, bytes)) else type(value).__name__,
)
def test_data(source: Any, data: bytes) -> None:
    """Text and whatever has a buffer arrive byte by byte, however wide or far apart the items are."""
    assert cat(source) == (0, data, b"")


def test_text_has_the_encoding_of_the_output() -> None:
    """`encoding` is for both."""
    assert childproof.run("cat", input="ça", encoding="utf-16") == (0, "ça", "")
    assert childproof.run("od -An -tx1", input="ç", encoding="latin-1").out == "e7"


@pytest.mark.parametrize("kind", ["bytes", "object", "pipe"])
def test_a_large_input(kind: str, pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    """5 MB go through while the output is read: neither side waits for the other."""
    data = os.urandom(5_000_000)
    if kind == "pipe":
        writer = threading.Thread(target=write_all, args=(pipe[1], data))
        writer.start()
        assert cat(pipe[0]).out == data
        writer.join()
    else:
        assert cat(data if kind == "bytes" else io.BytesIO(data)).out == data


def write_all(sink: io.FileIO, data: bytes) -> None:
    """Write `data` and close."""
    view = memoryview(data)
    while view:
        view = view[sink.write(view) :]
    sink.close()


@pytest.mark.needs_proc
def test_without_input_nothing_is_waited_for() -> None:
    """Stdin is null unless something else was asked for."""
    assert childproof.run("readlink /proc/$$/fd/0; cat") == (0, "/dev/null", "")


# ---- stdin= ----


@pytest.mark.needs_proc
def test_stdin(tmp_path: Path, pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    """A path, a file, a descriptor or ours."""
    path = tmp_path / "file"
    path.write_text("data")
    with path.open() as file:
        for stdin in (str(path), path, file):
            assert childproof.run("cat", stdin=stdin).out == "data"
    write_all(pipe[1], b"piped")
    assert childproof.run("cat", stdin=pipe[0].fileno()).out == "piped"
    assert childproof.run("cat", stdin="null").out == ""
    ours = os.readlink("/proc/self/fd/0")
    assert childproof.run("readlink /proc/$$/fd/0", stdin="inherit").out == ours


# ---- files ----


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A file of many lines, more than Python reads ahead."""
    path = tmp_path / "lines"
    path.write_text("".join(f"line {i}\n" for i in range(5000)))
    return path


@pytest.mark.parametrize("options", [{"mode": "rb"}, {"mode": "r"}, {"mode": "r+b"}, {"mode": "rb", "buffering": 0}])
@pytest.mark.needs_proc
def test_a_regular_file_from_where_the_caller_is(lines: Path, options: dict[str, Any]) -> None:
    """It becomes stdin itself, beginning with what the caller has not read, not what Python has."""
    with open(lines, **options) as file:
        file.readline()
        result = childproof.run("readlink /proc/$$/fd/0; cat", input=file)
        assert not file.closed
    assert result.out.splitlines() == [str(lines), *lines.read_text().splitlines()[1:]]


def test_what_was_just_written_is_flushed(tmp_path: Path) -> None:
    """What Python still has to write goes where it belongs, though the child moves the offset."""
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    with path.open("r+b") as file:
        file.write(b"X")
        assert cat(file).out == b"bcdef"
    assert path.read_bytes() == b"Xbcdef"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-be", "gb18030", "utf-7", "iso2022_jp"])
def test_a_text_file_amid_its_text(tmp_path: Path, encoding: str) -> None:
    """The child gets the rest of the text: of the file, or through Python where no offset stands for it."""
    path = tmp_path / "file"
    text = "".join(f"日本 {i}\n" for i in range(2000))
    path.write_bytes(text.encode(encoding))
    with path.open(encoding=encoding) as file:
        file.read(1)
        amid_a_shift = file.tell() >= 1 << 64
        out = cat(file).out.decode("utf-8" if amid_a_shift else encoding)
    assert amid_a_shift is (encoding in ("utf-7", "iso2022_jp"))
    assert out == text[1:]


def test_a_file_that_is_iterated(lines: Path) -> None:
    """A text file in a for loop can't tell where it is: the child gets what the loop has not had."""
    with lines.open() as file:
        for _ in file:
            out = cat(file).out.decode()
            break
    assert out == lines.read_text().partition("\n")[2]


@pytest.mark.parametrize("mode", ["rb", "rt"])
@pytest.mark.parametrize("module", [gzip, bz2, lzma])
def test_a_compressed_file(tmp_path: Path, module: Any, mode: str) -> None:
    """A file object that decodes what is in its descriptor is read, not passed on."""
    with module.open(tmp_path / "file", "w") as file:
        file.write(b"line 1\nline 2\n")
    with module.open(tmp_path / "file", mode) as file:
        file.readline()
        assert cat(file).out == b"line 2\n"


def test_a_file_within_a_file(tmp_path: Path) -> None:
    """Likewise a member of an archive."""
    (tmp_path / "member").write_text("data")
    with tarfile.open(tmp_path / "tar", "w") as tar:
        tar.add(tmp_path / "member", "member")
    with tarfile.open(tmp_path / "tar") as tar:
        assert cat(tar.extractfile("member")).out == b"data"


@pytest.mark.parametrize("kind", ["named", "spooled", "descriptor"])
def test_other_files(kind: str) -> None:
    """Wrappers of files, and what has a fileno() and nothing else."""
    make: Any = tempfile.SpooledTemporaryFile if kind == "spooled" else tempfile.NamedTemporaryFile
    with make() as file:
        file.write(b"data")
        file.seek(1)
        source = SimpleNamespace(fileno=file.fileno) if kind == "descriptor" else file
        assert cat(source).out == b"ata"


# ---- descriptors that are no regular files ----


def test_a_pipe(pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    """What is in the pipe, and comes later, until its end."""
    source, sink = pipe
    sink.write(b"now ")
    writer = threading.Timer(0.2, write_all, (sink, b"later"))
    writer.start()
    assert cat(source).out == b"now later"
    writer.join()
    assert os.get_blocking(source.fileno()), "others may have it too: its flags stay"


def test_a_socket() -> None:
    """Likewise a socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"sent")
        theirs.shutdown(socket.SHUT_WR)
        assert cat(ours).out == b"sent"


def test_a_device() -> None:
    """A device without an end is read as long as the child reads."""
    with open("/dev/zero", "rb") as zero:
        assert childproof.run("head -c 1000000 | wc -c", input=zero, timeout=IDLE_SECONDS) == (0, "1000000", "")


def test_the_deadline_holds_while_the_source_is_idle(pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    """A source that never gives anything delays no one past the timeout."""
    began = time.monotonic()
    result = cat(pipe[0], timeout=0.5)
    assert time.monotonic() - began < 0.5 + 1 + SLACK_SECONDS
    assert (result.code, result.outcome) == (124, Outcome.TIMED_OUT)


@pytest.mark.parametrize("cmd", ["echo done", "exec <&-; sleep 0.2; echo done"])
def test_an_idle_source_does_not_hold_a_child_that_ends(cmd: str, pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    """The child's exit is the end, though its input never came."""
    began = time.monotonic()
    assert childproof.run(cmd, input=pipe[0], timeout=IDLE_SECONDS) == (0, "done", "")
    assert time.monotonic() - began < 0.5 + SLACK_SECONDS


def test_what_comes_too_late_is_left_in_the_source(pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    """Once the child has closed its stdin, nothing more is taken from a source."""
    source, sink = pipe
    writer = threading.Timer(0.3, write_all, (sink, b"later"))
    writer.start()
    childproof.run("exec <&-; sleep 0.6", input=source).check()
    writer.join()
    assert source.read() == b"later"


def test_reading_what_somebody_else_took_does_not_block(pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    """The source was ready, but its data went to another reader: there is no wait in read(2)."""
    source, sink = pipe
    rescue = threading.Timer(SLACK_SECONDS, sink.write, (b"x",))
    rescue.start()
    with pytest.raises(BlockingIOError):
        _feed._read_now(source.fileno())
    rescue.cancel()
    rescue.join()


# ---- objects ----


class Pieces:
    """An object whose read() gives one piece after the other, whatever size is asked for."""

    def __init__(self, *pieces: object) -> None:
        self._pieces = iter(pieces)

    def read(self, _: int) -> object:
        """The next piece; an exception is raised."""
        piece = next(self._pieces, b"")
        if isinstance(piece, BaseException):
            raise piece
        return piece


@pytest.mark.parametrize(
    ("source", "data"),
    [
        (io.BytesIO(b"bytes"), b"bytes"),
        (io.StringIO("téxt\udcff"), "téxt".encode() + b"\xff"),
        (Pieces("a", b"b", bytearray(b"c"), array("H", [1]), memoryview(b"xyz")[::2]), b"abc\1\0xz"),
        (Pieces(b"x" * 300_000, "y" * 300_000), b"x" * 300_000 + b"y" * 300_000),
        (Pieces(), b""),
    ],
)
def test_an_object_with_read(source: Any, data: bytes) -> None:
    """Its pieces, of text or of bytes, until an empty one."""
    assert cat(source) == (0, data, b"")


def test_an_object_is_read_from_where_it_is() -> None:
    """The position of a BytesIO counts, and it is called in this thread."""
    threads = []

    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            threads.append(threading.current_thread())
            return super().read(size)

    source = Source(b"abcdef")
    source.seek(2)
    assert cat(source).out == b"cdef"
    assert set(threads) == {threading.current_thread()}


@pytest.mark.parametrize(
    ("piece", "error"),
    [(None, TypeError), (5, TypeError), (OSError("mine"), OSError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=repr,
)
def test_what_read_raises_propagates(tmp_path: Path, piece: object, error: type[BaseException]) -> None:
    """It comes out of `run`, as does a TypeError for what is no data, after the tree is dead."""
    path = tmp_path / "pids"

    class Source(Pieces):
        def read(self, size: int) -> object:
            while not path.exists() or path.read_text().count("\n") < 2:
                time.sleep(0.01)
            return super().read(size)

    with pytest.raises(error) as caught:
        childproof.run('sleep 77 & echo "$!\n$$" > "$P"; wait', Source(piece), env={**os.environ, "P": str(path)})
    if isinstance(piece, BaseException):
        assert caught.value is piece
    else:
        assert ("fileno()" if piece is None else "'int'") in str(caught.value)
    pids = [int(pid) for pid in path.read_text().split()]
    # Without /proc nobody sees the grandchild end: it has been signalled.
    assert wait_until(lambda: not any(map(is_alive, pids)), 0 if procfs.pids() else 5)


# ---- children that do not read ----

UNREAD: list[Callable[[], Any]] = [
    lambda: b"x" * 5_000_000,
    lambda: io.BytesIO(b"x" * 5_000_000),
    lambda: Pieces(*["x" * 100_000] * 50),
]


@pytest.mark.parametrize("make", UNREAD, ids=["bytes", "BytesIO", "pieces"])
@pytest.mark.parametrize("cmd", ["echo done", "exec <&-; sleep 0.1; echo done", "head -c 1; echo done"])
def test_a_child_that_does_not_read(cmd: str, make: Callable[[], Any]) -> None:
    """To leave input unread is no error."""
    code, out, err = childproof.run(cmd, input=make(), timeout=IDLE_SECONDS)
    assert (code, out[-4:], err) == (0, "done", "")


@pytest.mark.parametrize("kind", ["bytes", "object", "pipe"])
def test_waiting_costs_nothing(kind: str, pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    """While a child that has closed its stdin lives on, nobody spins on the pipe's error."""
    source: Any = {"bytes": b"x" * 500_000, "object": Pieces(b"x" * 500_000), "pipe": pipe[0]}[kind]
    before = time.process_time()
    childproof.run("exec <&-; sleep 0.5", input=source).check()
    assert time.process_time() - before < 0.25


def test_unread_input_is_not_waited_for() -> None:
    """A child that lives on without reading is killed at the deadline."""
    began = time.monotonic()
    assert childproof.run("echo a; sleep 78", input=b"x" * 5_000_000, timeout=0.5)[:2] == (124, "a")
    assert time.monotonic() - began < 0.5 + 1 + SLACK_SECONDS


@pytest.mark.parametrize("source", ["b'x' * 5_000_000", "io.BytesIO(b'x' * 5_000_000)"])
def test_a_host_that_dies_of_sigpipe_does_not_die_of_this(source: str) -> None:
    """Where SIGPIPE has its default action, it is neither delivered nor left pending."""
    code = f"""
import childproof, io, signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
print(childproof.run("exec <&-; sleep 0.1; echo done", input={source}))
print(signal.sigpending(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != -signal.SIGPIPE
    first, second = done.stdout.splitlines()
    assert first.startswith("Result(code=0, out='done', err=''")
    assert second == "set() set()"


def test_large_input_has_a_large_pipe_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it ends: taken to its end, not read, or cut by the deadline; and only so many at once."""
    sizes: list[int] = []
    enlarge = _output.enlarge

    def noting(fd: int, owner: object) -> int:
        sizes.append(enlarge(fd, owner))
        return sizes[-1]

    monkeypatch.setattr("childproof._feed.enlarge", noting)
    data = b"x" * (1 << 20)
    assert childproof.run(["wc", "-c"], input=data, timeout=60).out == str(1 << 20)
    assert childproof.run("exit 3", input=data, timeout=60).code == 3
    assert childproof.run("exec sleep 600", input=data * 2, timeout=0.5).code == 124
    assert len(sizes) == 3
    assert not _output._large
    assert childproof.run(["wc", "-c"], input=b"x" * 100_000, timeout=60).out == "100000"
    assert len(sizes) == 3
    monkeypatch.setattr(_output, "MOST_LARGE", 0)
    assert childproof.run(["wc", "-c"], input=data, timeout=60).out == str(1 << 20)
    assert sizes[3:] == [0]
