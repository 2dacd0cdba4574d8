"""`tee`: output that is captured is shown as well."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from childproof._handle.lines import make_decoder

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

NAMES = ("stdout", "stderr")


def _takes_text(file: Any) -> bool:
    """Whether it wants str; asked by writing nothing where its type does not tell."""
    if isinstance(file, io.TextIOBase):
        return True
    if isinstance(file, (io.RawIOBase, io.BufferedIOBase)):
        return False
    try:
        file.write("")
    except TypeError:
        return False
    return True


class _Outlet:
    """One of the two files."""

    def __init__(self, file: Any, encoding: str) -> None:
        self._file = file
        self._decoder = make_decoder(encoding, "backslashreplace")
        self._takes_text = _takes_text(file)
        # What a file of another encoding can't show is escaped, as undecodable bytes are.
        self._shows = str(getattr(file, "encoding", None) or "utf-8") if self._takes_text else encoding

    def show(self, data: bytes, final: bool = False) -> None:
        """Write what of `data` is whole characters."""
        text = self._decoder.decode(data, final)
        if not text:
            return
        shown = text.encode(self._shows, "backslashreplace")
        self._write(shown.decode(self._shows) if self._takes_text else shown)
        flush = getattr(self._file, "flush", None)
        if flush is not None:
            flush()

    def _write(self, data: Any) -> None:
        while len(data) > 0:
            count = self._file.write(data)
            if not isinstance(count, int) or count >= len(data):
                return
            data = data[count:]  # a raw file may take a part


class Tee:
    """An ``on_output`` that shows; made by `tee`."""

    def __init__(self, outlets: dict[str, _Outlet]) -> None:
        self._outlets = outlets

    def __call__(self, stream: str, data: bytes) -> None:
        """Show `data`, which came from `stream`."""
        outlet = self._outlets.get(stream)
        if outlet is not None:
            outlet.show(data)

    def close(self) -> None:
        """Show what an output that broke off within a character has left. The files stay open."""
        for outlet in self._outlets.values():
            outlet.show(b"", final=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # a file that has been closed meanwhile; there is nobody to tell
            return


def tee(stdout: Any = ..., stderr: Any = ..., *, encoding: str = "utf-8") -> Tee:
    """An ``on_output`` that shows the output as it comes, while it is captured too.

        result = childproof.run("make", on_output=childproof.tee())

    Each piece is flushed at once. Half a character is kept until the other half comes, so that two
    streams that share a terminal do not tear each other's; where none comes, it is shown as an escape
    when the command is over and nobody has the tee any more, or at `Tee.close`, or at the end of a with
    block.

    Writing to a file that does not take the data blocks the thread that drives the command, and
    meanwhile the deadline of a `run` waits. What writing raises ends the command.

    Args:
        stdout: where the command's standard output is shown: a file for text or for bytes; `None`:
            nowhere. Default: this program's `sys.stdout` of the moment.
        stderr: likewise; default: `sys.stderr`.
        encoding: of the command's output.

    Returns:
        A `Tee`. For one command: give each its own.

    Raises:
        TypeError: one of them can't be written to.

    """
    outlets = {}
    for name, file in zip(NAMES, (stdout, stderr), strict=True):
        target = getattr(sys, name) if file is ... else file
        if target is None:  # as sys.stdout may be, in a program without a console
            continue
        if not hasattr(target, "write"):
            raise TypeError(f"{name} must be a file that is open for writing, or None, not {file!r}")
        outlets[name] = _Outlet(target, encoding)
    return Tee(outlets)
