"""What the child changes about itself before its exec: ids, limits, umask and the like.

Everything is looked up and checked here, in the parent: names cannot be resolved in the child.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from math import inf

from childproof._light import TYPE_CHECKING, NamedTuple
from childproof._text import did_you_mean

if TYPE_CHECKING:
    from typing import Any

INFINITY = (1 << 64) - 1
"""What the kernel takes for "no limit" (getrlimit(2))."""

MOST_ID = (1 << 32) - 2
"""The largest user or group id; the next stands for "unchanged" (setresuid(2))."""


class Attributes(NamedTuple):
    """What the child is to change; `None` and empty: it is inherited.

    Attributes:
        uid, gid: real, effective and saved id.
        groups: the supplementary groups; an empty tuple means none, `None` means those of the host.
        umask: file mode creation mask.
        nice: what is added to the niceness.
        limits: (number of the resource, soft limit, hard limit).
        no_new_privs: exec gives no privileges any more (prctl(2), PR_SET_NO_NEW_PRIVS).
        pass_fds: descriptors above 2 that it gets under their own numbers, sorted.
        process_group: 0: it leads a new one; a number: it joins that one.
        keep_fds: close nothing; close-on-exec decides.
        keep_signals: what this process ignores stays ignored.
        cgroup_fd: an open ``cgroup.procs`` that it joins by.
        detach: the program is not our child but its: see `childproof._spawner.Child.service`.

    """

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    umask: int | None = None
    nice: int | None = None
    limits: tuple[tuple[int, int, int], ...] = ()
    no_new_privs: bool = False
    pass_fds: tuple[int, ...] = ()
    process_group: int | None = None
    keep_fds: bool = False
    keep_signals: bool = False
    cgroup_fd: int | None = None
    detach: bool = False

    @property
    def changes_ids(self) -> bool:
        """Whether the child becomes somebody else."""
        return self.uid is not None or self.gid is not None or self.groups is not None


NO_ATTRIBUTES = Attributes()


def _int(value: Any, name: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {value}")
    return value


def _umask(umask: Any) -> int:
    if isinstance(umask, str):
        raise TypeError(f"umask must be an int, as 0o022, not {umask!r}")
    if isinstance(umask, int) and not 0 <= umask <= 0o777:
        raise ValueError(f"umask must be from 0 to 0o777, not {umask:#o}")
    return _int(umask, "umask", 0, 0o777)


def _user(user: Any) -> int:
    if not isinstance(user, str):
        return _int(user, "user", 0, MOST_ID)
    import pwd  # few ask for it

    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {user!r}; one without a name is given by number") from None


def _group(group: Any, name: str) -> int:
    if not isinstance(group, str):
        return _int(group, name, 0, MOST_ID)
    import grp  # few ask for it

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"{name}: there is no group {group!r}; one without a name is given by number") from None


def _groups(groups: Any) -> tuple[int, ...]:
    if isinstance(groups, (str, bytes)) or not isinstance(groups, Iterable):
        raise TypeError(f"extra_groups must be a sequence of names or numbers, not {groups!r}")
    return tuple([_group(group, "extra_groups") for group in groups])


def _limit_value(value: Any, name: str) -> int:
    if value is None or value == -1 or value == inf:
        return INFINITY
    return _int(value, name, 0, INFINITY)


_CALLED_SO = {"memory": "as", "files": "nofile", "processes": "nproc", "time": "cpu"}
"""What some call them, and what may be near to another name."""


def _limits(limits: Any) -> tuple[tuple[int, int, int], ...]:
    import resource  # few ask for it

    if not isinstance(limits, Mapping):
        raise TypeError(f"limits must be a mapping as {{'cpu': 10}}, not {limits!r}")
    names = {name[7:].lower(): getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    found = []
    for name, value in limits.items():
        if name not in names:
            meant = did_you_mean(_CALLED_SO.get(name, name), names)
            raise ValueError(f"there is no limit {name!r}; there are {', '.join(sorted(names))}{meant}")
        pair = value if isinstance(value, (tuple, list)) else (value, value)
        if len(pair) != 2:
            raise ValueError(f"limits[{name!r}] must be one value, or a soft and a hard one, not {value!r}")
        soft, hard = (_limit_value(each, f"limits[{name!r}]") for each in pair)
        if soft > hard:
            raise ValueError(f"limits[{name!r}]: the soft limit {pair[0]!r} is above the hard limit {pair[1]!r}")
        found.append((names[name], soft, hard))
    return tuple(found)


def _pass_fds(fds: Any) -> tuple[int, ...]:
    if isinstance(fds, (str, bytes)) or not isinstance(fds, Iterable):
        raise TypeError(f"pass_fds must be a sequence of descriptors, not {fds!r}")
    numbers = {_int(fd if isinstance(fd, int) else _fileno(fd), "pass_fds", 0, (1 << 31) - 1) for fd in fds}
    for fd in numbers:
        check_open(fd, "pass_fds")
    return tuple(sorted(fd for fd in numbers if fd > 2))


def check_open(fd: int, name: str) -> None:
    """Refuse a number that is not open: it could become that of a descriptor of ours, and the child
    would get that in its place.

    Raises:
        ValueError: it is not.

    """
    try:
        os.fstat(fd)
    except OSError:
        raise ValueError(f"{name} has a descriptor that is not open: {fd}") from None


def _fileno(file: Any) -> Any:
    try:
        return file.fileno()
    except (AttributeError, OSError, ValueError):
        raise TypeError(f"pass_fds must hold descriptors or files that have one, not {file!r}") from None


def make_attributes(
    user: Any,
    group: Any,
    extra_groups: Any,
    umask: Any,
    limits: Any,
    no_new_privs: Any,
    pass_fds: Any,
    nice: Any,
) -> Attributes:
    """Check these parameters of `run` and decide what they mean.

    Raises:
        TypeError, ValueError: one is wrong; nothing has been created.

    """
    return Attributes(
        None if user is None else _user(user),
        None if group is None else _group(group, "group"),
        None if extra_groups is None else _groups(extra_groups),
        None if umask is None else _umask(umask),
        None if nice is None else _int(nice, "nice", -40, 40),
        () if limits is None else _limits(limits),
        bool(no_new_privs),
        _pass_fds(pass_fds),
    )


def fd_directory(cwd: Any) -> int:
    """The descriptor of a directory, given for ``cwd``.

    Raises:
        ValueError: it is none.

    """
    try:
        mode = os.fstat(cwd).st_mode
    except (OSError, OverflowError):
        raise ValueError(f"cwd is no open descriptor: {cwd}") from None
    import stat

    if not stat.S_ISDIR(mode):
        raise ValueError(f"cwd is the descriptor of something that is no directory: {cwd}")
    return int(cwd)
