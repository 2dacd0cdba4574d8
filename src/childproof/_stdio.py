"""What the child's descriptors 0, 1 and 2 are to be. Nothing is created here."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable

from childproof._light import TYPE_CHECKING, NamedTuple
from childproof._text import did_you_mean

if TYPE_CHECKING:
    from typing import Any


class Stdio(NamedTuple):
    """What one of the child's descriptors 0, 1, 2 is to be.

    Attributes:
        kind: ``inherit``, ``null``, ``pipe``, ``fd``, ``path``, ``tempfile`` or ``stdout``; ``append``
            is a path that is written at its end; ``link``
            for a pipe from this command to another, ``linked`` at its other end.
        fd: the host's descriptor, for ``fd``.
        path: the path for ``path`` and ``append``, the directory for ``tempfile``.
        owner: the object that keeps `fd` open.

    """

    kind: str
    fd: int = -1
    path: bytes | None = None
    owner: object = None


INHERIT = Stdio("inherit")
NULL = Stdio("null")
PIPE = Stdio("pipe")
STDOUT = Stdio("stdout")
LINK_OUT = Stdio("link")


def link_in(fd: int) -> Stdio:
    """For a command that reads from `fd`, which is the end of another's link."""
    return Stdio("linked", fd)


class Feed(NamedTuple):
    """What is written to the child's stdin; at most one of the three is set.

    Attributes:
        data: bytes that are there already.
        fd: a descriptor of the host that is read as it becomes readable.
        read: a function that is called for more, in the thread that drives.
        owner: the object that keeps `fd` open.

    """

    data: memoryview | None = None
    fd: int = -1
    read: Callable[[int], Any] | None = None
    owner: object = None


def encode(value: Any, what: str) -> bytes:
    """A word, a path or a name for the system.

    Raises:
        TypeError, ValueError: `value`, which is called `what`, can't be one.

    """
    try:
        data = os.fsencode(value)
    except TypeError:
        raise TypeError(f"{what} must be str, bytes or os.PathLike, not {value!r}") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} can't be encoded: {error}; give it as bytes") from None
    if b"\0" in data:
        raise ValueError(f"{what} has a NUL character: {value!r}")
    return data


def _fileno(file: Any, name: str) -> int:
    """The descriptor of a file object of the caller's."""
    if getattr(file, "closed", False) is True:
        raise ValueError(f"{name} is a closed file: {file!r}")
    try:
        fd = file.fileno()
    except OSError as error:
        raise ValueError(f"{name} is a file without a descriptor: {file!r}") from error
    if not isinstance(fd, int):
        raise TypeError(f"{name} has a fileno() that gives no int: {file!r}")
    if fd < 0:  # as of a closed socket
        raise ValueError(f"{name} has no descriptor any more: {file!r}")
    return fd


def _of_subprocess(number: int, name: str) -> str:
    """For who has handed in one of its constants, what that is here."""
    if number == -3:
        return '; subprocess.DEVNULL is "null" here'
    if name == "stdin":
        return "; subprocess.PIPE is input=DATA here" if number == -1 else ""
    return {-1: '; subprocess.PIPE is "capture" here', -2: "; subprocess.STDOUT is merge=True here"}.get(number, "")


_KEYWORDS = ("capture", "inherit", "null")


def _refuse_misspelt(word: str, name: str) -> None:
    """What looks like a keyword would be taken for the path of a file, and the output be lost in it."""
    if word[:1].lower() in "cin" and (meant := did_you_mean(word, _KEYWORDS)):
        raise ValueError(f'{name}={word!r} would be the path of a file{meant} The file is "./{word}"')


def _descriptor(value: Any, name: str) -> Stdio:
    if isinstance(value, bool):
        raise TypeError(f"{name} must be a keyword, a path, a descriptor or a file, not {value!r}")
    if isinstance(value, int):
        if not 0 <= value < 1 << 31:
            raise ValueError(f"{name} is no descriptor: {value}{_of_subprocess(value, name)}")
        return Stdio("fd", value)
    if isinstance(value, (str, bytes, os.PathLike)):
        if isinstance(value, str) and value.isalpha():
            _refuse_misspelt(value, name)
        path = encode(value, name)
        if not path:
            raise ValueError(f"{name} is an empty path")
        return Stdio("path", -1, path)
    if not hasattr(value, "fileno"):
        raise TypeError(f"{name} must be a keyword, a path, a descriptor or a file, not {value!r}")
    return Stdio("fd", _fileno(value, name), None, value)


def output_stdio(value: Any, name: str) -> Stdio:
    """What ``stdout=`` or ``stderr=`` means."""
    if value == "capture":
        return PIPE
    if value == "null":
        return NULL
    if value == "inherit":
        return INHERIT
    if value == "file":
        from tempfile import gettempdir  # 5 ms, and few ask for it

        try:
            folder = gettempdir()
        except OSError:  # there is none to write to: then the child says what it could not open
            folder = os.curdir
        return Stdio("tempfile", -1, os.fsencode(folder))
    return _descriptor(value, name)


def input_stdio(value: Any) -> Stdio:
    """What ``stdin=`` means."""
    if value is None or value == "null":
        return NULL
    if value == "inherit":
        return INHERIT
    if value in ("capture", "file"):
        raise ValueError(f'stdin can\'t be "{value}": give the data as input=, or a path as "./{value}"')
    return _descriptor(value, "stdin")


def bytes_view(data: Any) -> memoryview:
    """The bytes of `data`. Items wider than a byte would be counted in items otherwise, and those
    that do not lie side by side can't be written at all.
    """
    view = memoryview(data)
    try:
        return view.cast("B")
    except (TypeError, ValueError, NotImplementedError):  # whatever has no such view is copied
        return memoryview(view.tobytes())


def _from_bytes(data: Any) -> tuple[Stdio, Feed | None]:
    view = bytes_view(data)
    return (PIPE, Feed(data=view)) if len(view) else (NULL, None)


def _is_plain(source: Any) -> bool:
    """Whether it gives what is in its descriptor, as a `gzip.GzipFile` does not."""
    buffered = getattr(source, "buffer", source)
    return isinstance(getattr(buffered, "raw", buffered), io.FileIO) or not hasattr(source, "read")


def _from_file(source: Any, fd: int) -> tuple[Stdio, Feed | None]:
    """The descriptor behind a Python file; a regular file becomes the child's stdin itself."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return PIPE, Feed(fd=fd, owner=source)
    if not _is_plain(source):
        return PIPE, Feed(read=source.read, owner=source)
    if hasattr(source, "read"):
        # Python may have read ahead of what the caller has seen, or not yet written what it wrote.
        # First tell(), since after flush() a text file that is iterated gives a wrong answer.
        offset: int = source.tell()
        if offset >> 64:  # the decoder of a text file is amid something, which no offset stands for
            return PIPE, Feed(read=source.read, owner=source)
        source.flush()
        os.lseek(fd, offset, os.SEEK_SET)
    return Stdio("fd", fd, None, source), None


def feed_stdio(source: Any, encoding: str) -> tuple[Stdio, Feed | None]:
    """What stdin becomes for `input`, and what is written to it."""
    if isinstance(source, str):
        try:
            return _from_bytes(source.encode(encoding, "surrogateescape"))
        except UnicodeEncodeError as error:
            raise ValueError(f"input can't be encoded: {error}; give it as bytes") from None
    if getattr(source, "closed", False) is True:
        raise ValueError(f"input is a closed file: {source!r}")
    if hasattr(source, "fileno"):
        try:
            return _from_file(source, source.fileno())
        except (OSError, AttributeError):
            pass  # it has no descriptor after all, or can't tell where it is: then it is read
    read = getattr(source, "read", None)
    if callable(read):
        return PIPE, Feed(read=read, owner=source)
    try:
        return _from_bytes(source)
    except TypeError:
        raise TypeError(f"input must be str, bytes-like or a file object, not {source!r}") from None
