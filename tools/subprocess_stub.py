"""Make src/childproof/subprocess.pyi anew: typeshed's overloads as mypy brings them, with `linger`.

Run it with the interpreter of the environment that mypy is in, when typeshed has changed what matters.
"""

from __future__ import annotations

import re
from pathlib import Path

import mypy

HEAD = '''\
"""Types of the drop-in: those of the stdlib's module, and `linger`, `held` and `kill_tree`.

Made by tools/subprocess_stub.py from typeshed's subprocess.pyi (https://github.com/python/typeshed,
Apache License 2.0, partly MIT): of each function the form that Python 3.11 has.
"""

import subprocess
from _typeshed import ReadableBuffer, StrOrBytesPath
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from subprocess import (
    DEVNULL as DEVNULL,
    PIPE as PIPE,
    STDOUT as STDOUT,
    CalledProcessError as CalledProcessError,
    SubprocessError as SubprocessError,
    TimeoutExpired as TimeoutExpired,
    getoutput as getoutput,
    getstatusoutput as getstatusoutput,
    list2cmdline as list2cmdline,
)
from typing import IO, Any, AnyStr, Literal, TypeAlias, TypeVar, overload

from childproof import Holder

__all__ = [
    "CalledProcessError",
    "CompletedProcess",
    "DEVNULL",
    "PIPE",
    "Popen",
    "STDOUT",
    "SubprocessError",
    "TimeoutExpired",
    "call",
    "check_call",
    "check_output",
    "getoutput",
    "getstatusoutput",
    "run",
]

_FILE: TypeAlias = None | int | IO[Any]
_InputString: TypeAlias = ReadableBuffer | str
_CMD: TypeAlias = StrOrBytesPath | Sequence[StrOrBytesPath]
_ENV: TypeAlias = Mapping[bytes, StrOrBytesPath] | Mapping[str, StrOrBytesPath]

_T = TypeVar("_T")

linger: float | None

# When the program runs this is the stdlib's class; what `run` returns has one attribute more.
class CompletedProcess(subprocess.CompletedProcess[_T]):
    held: tuple[Holder, ...]

'''

POPEN = """\
class Popen(subprocess.Popen[AnyStr]):
    held: tuple[Holder, ...]
    def kill_tree(self) -> None: ...
"""


def block(text: str, first: str) -> list[str]:
    """The lines of the branch for 3.11 and later that begins with a comment and `first`."""
    indent = first[: len(first) - len(first.lstrip()) - 4]
    lines = text.split("\n")
    start = next(
        i
        for i, line in enumerate(lines)
        if line == f"{indent}if sys.version_info >= (3, 11):" and first in lines[i + 2 : i + 4]
    )
    end = next(i for i in range(start + 1, len(lines)) if lines[i] == f"{indent}else:")
    return [line[4:] for line in lines[start + 1 : end]]


def with_linger(lines: list[str]) -> list[str]:
    """`linger` as the last parameter of each."""
    done: list[str] = []
    for line in lines:
        if line.strip().startswith(") ->"):
            done.append(f"{re.match(' *', line).group()}    linger: float | None = ...,")  # type: ignore[union-attr]
        if not re.match(r"\s*# 3\.\d+ (adds|and)", line):
            done.append(line)
    return done


def main() -> None:
    """Write it."""
    text = (Path(mypy.__file__).parent / "typeshed" / "stdlib" / "subprocess.pyi").read_text()
    names = ("run", "call", "check_call", "check_output")
    parts = [HEAD, *("\n".join(with_linger(block(text, f"    def {name}("))) for name in names)]
    parts.append(POPEN + "\n".join(with_linger(block(text, "        def __init__("))))
    target = Path(__file__).parent.parent / "src" / "childproof" / "subprocess.pyi"
    target.write_text("\n".join(parts).rstrip() + "\n")


if __name__ == "__main__":
    main()
