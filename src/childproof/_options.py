"""The types of the options of `run`, for type checkers only: nothing imports this when it runs.

What they mean stands in the docstring of `run`, what they default to in `make_command`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from childproof._cgroup import Cgroup

Word = str | bytes | PathLike[str] | PathLike[bytes]
Cmd = str | Sequence[Word]


class Options(TypedDict, total=False):
    """All but ``input``, ``timeout`` and ``text``, on which the type of the Result depends."""

    stdin: Any
    stdout: Any
    stderr: Any
    grace: float
    linger: float
    leftovers: Literal["leave", "kill"]
    mark: bool
    autopsy: bool
    max_output: int | None
    encoding: str
    errors: str
    strip: bool
    merge: bool
    on_output: Callable[[str, bytes], object] | None
    check: bool
    secrets: Sequence[str]
    cwd: Word | int | None
    env: Mapping[Any, Any] | None
    user: str | int | None
    group: str | int | None
    extra_groups: Sequence[str | int] | None
    umask: int | None
    limits: Mapping[str, int | float | tuple[int | float | None, int | float | None] | None] | None
    no_new_privs: bool
    pass_fds: Sequence[Any]
    nice: int | None
    new_session: bool
    start: Literal["auto", "clone", "vfork", "fork"]
    closing: Literal["auto", "close_range", "proc", "rlimit"]
    die_with_parent: bool
    contain: Literal["session", "cgroup", "pidns", "auto"] | Cgroup
