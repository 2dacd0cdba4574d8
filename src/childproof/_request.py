"""What the spawner is asked for, in the form that the C reads: a `Command` laid out in one struct."""

from __future__ import annotations

import os

from childproof._attributes import NO_ATTRIBUTES, Attributes
from childproof._command import MARK, Command
from childproof._light import TYPE_CHECKING
from childproof._native import ffi, lib
from childproof._stdio import NULL, PIPE, Stdio
from childproof._supervise import NAMESPACES, SUPERVISOR

if TYPE_CHECKING:
    from typing import Any

_STDIO = {
    "inherit": lib.CP_STDIO_INHERIT,
    "null": lib.CP_STDIO_NULL,
    "pipe": lib.CP_STDIO_PIPE,
    "fd": lib.CP_STDIO_FD,
    "path": lib.CP_STDIO_PATH,
    "tempfile": lib.CP_STDIO_TEMPFILE,
    "stdout": lib.CP_STDIO_STDOUT,
    "link": lib.CP_STDIO_PIPE,
    "linked": lib.CP_STDIO_FD,
    "append": lib.CP_STDIO_APPEND,
}

_REQUEST = ffi.typeof("struct cp_request *")
_PLAIN = (NULL, PIPE, PIPE)


def _add_paths(request: Any, stdios: tuple[Stdio, Stdio, Stdio], keep: list[Any]) -> None:
    for slot, stdio in enumerate(stdios):
        if stdio.path is not None:
            keep.append(ffi.from_buffer(stdio.path + b"\0"))
            request.stdio_path[slot] = keep[-1]


def _add_cwd(request: Any, cwd: bytes | int, keep: list[Any]) -> None:
    if isinstance(cwd, int):
        request.flags |= lib.CP_SET_CWD_FD
        request.cwd_fd = cwd
    else:
        keep.append(ffi.from_buffer(cwd + b"\0"))
        request.cwd = keep[-1]


def _add_attributes(request: Any, attributes: Attributes, keep: list[Any]) -> None:
    """What the child is to change about itself. `keep` keeps the arrays until the spawn."""
    for flag, field, value in (
        (lib.CP_SET_UID, "uid", attributes.uid),
        (lib.CP_SET_GID, "gid", attributes.gid),
        (lib.CP_SET_UMASK, "umask", attributes.umask),
        (lib.CP_SET_NICE, "nice", attributes.nice),
        (lib.CP_NEW_GROUP, "process_group", attributes.process_group),
        (lib.CP_JOIN_CGROUP, "cgroup_fd", attributes.cgroup_fd),
    ):
        if value is not None:
            request.flags |= flag
            setattr(request, field, value)
    for flag, wanted in (
        (lib.CP_NO_NEW_PRIVS, attributes.no_new_privs),
        (lib.CP_KEEP_FDS, attributes.keep_fds),
        (lib.CP_KEEP_SIGNALS, attributes.keep_signals),
        (lib.CP_DETACH, attributes.detach),
        (lib.CP_SET_GROUPS, attributes.groups is not None),
    ):
        if wanted:
            request.flags |= flag
    for field, ctype, values in (
        ("groups", "unsigned[]", attributes.groups or ()),
        ("limits", "struct cp_limit[]", attributes.limits),
        ("pass_fds", "int[]", attributes.pass_fds),
    ):
        if values:
            keep.append(ffi.new(ctype, values))
            setattr(request, field, keep[-1])
            setattr(request, f"{field}_count", len(values))


def _row(request: Any, control: int, namespaces: bool) -> bytes:
    """The numbers of `request` as the supervisor reads them."""
    flags = request.flags
    numbers = [control, os.getpid(), namespaces, request.argc, flags, request.closing, request.disabled]
    numbers += [request.process_group, request.cwd_fd if flags & lib.CP_SET_CWD_FD else -1]
    numbers += [request.cgroup_fd if flags & lib.CP_JOIN_CGROUP else -1, request.umask, request.nice]
    numbers += [request.uid, request.gid, request.groups_count]
    numbers += [request.groups[i] for i in range(request.groups_count)]
    numbers.append(request.limits_count)
    for i in range(request.limits_count):
        limit = request.limits[i]
        numbers += [limit.resource, limit.soft, limit.hard]
    numbers.append(request.pass_fds_count)
    numbers += [request.pass_fds[i] for i in range(request.pass_fds_count)]
    return b" ".join([b"%d" % number for number in numbers])


def hand_to_supervisor(request: Any, command: Command, token: bytes | None, control: int, keep: list[Any]) -> None:
    """Make `request`, which is for the command, one for the supervisor that will carry it out. It leaves
    to the first exec only what cannot be done later: the pipes and files of 0, 1 and 2.
    """
    flags = request.flags
    if flags & lib.CP_SET_CWD_FD and request.cwd_fd <= 2:  # what the supervisor has there is the command's stdio
        flags &= ~lib.CP_SET_CWD_FD
        keep.append(ffi.from_buffer(b"/proc/%d/fd/%d\0" % (os.getpid(), request.cwd_fd)))
        request.flags, request.cwd = flags, keep[-1]
    cwd = ffi.string(request.cwd) if request.cwd else b""
    fds = {control, *(request.pass_fds[i] for i in range(request.pass_fds_count))}
    if flags & lib.CP_SET_CWD_FD:
        fds.add(request.cwd_fd)
    if flags & lib.CP_JOIN_CGROUP:
        fds.add(request.cgroup_fd)
    head = SUPERVISOR, _row(request, control, command.supervise == NAMESPACES), cwd
    strings = b"\0".join(head) + b"\0" + command.strings + SUPERVISOR + b"\0"
    if token is not None:
        strings += MARK + b"=" + token + b"\0"
    keep.append(ffi.from_buffer(strings))
    request.strings, request.strings_size = keep[-1], len(strings)
    request.argc = len(head) + len(command.argv) + len(command.candidates)
    request.candidates = 1
    request.flags = flags & (lib.CP_NEW_SESSION | lib.CP_KEEP_FDS | lib.CP_KEEP_SIGNALS)
    request.cwd = ffi.NULL
    request.groups_count = request.limits_count = 0
    keep.append(ffi.new("int[]", sorted(fds)))
    request.pass_fds, request.pass_fds_count = keep[-1], len(fds)


def make_request(command: Command, token: bytes | None, choices: tuple[int, int, int], keep: list[Any]) -> Any:
    """The C struct for `command`.

    Args:
        command: what to start.
        token: the value of the mark, or `None` for none.
        choices: the numbers of start, closing, and what is disabled.
        keep: gets the objects that must live as long as the struct is used.

    """
    environment, strings = command.environment, command.strings
    if token is not None:
        strings += MARK + b"=" + token + b"\0"
    stdios = command.stdin, command.stdout, command.stderr
    keep += ffi.from_buffer(strings), ffi.from_buffer(environment.block)
    request = ffi.new(
        _REQUEST,
        (
            keep[0],
            len(strings),
            len(command.argv),
            len(command.candidates),
            token is not None,
            keep[1],
            len(environment.block),
            environment.size,
            [_STDIO[stdio.kind] for stdio in stdios],
            lib.CP_NEW_SESSION if command.new_session else 0,
            *choices,
            [stdio.fd for stdio in stdios],
        ),
    )
    if stdios != _PLAIN:
        _add_paths(request, stdios, keep)
    if command.cwd is not None:
        _add_cwd(request, command.cwd, keep)
    if command.attributes is not NO_ATTRIBUTES:
        _add_attributes(request, command.attributes, keep)
    return request
