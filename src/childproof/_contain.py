"""What ``contain=`` means: checked once, before anything is created."""

from __future__ import annotations

from childproof._light import TYPE_CHECKING
from childproof._supervise import NAMESPACES, NOBODY, SUPERVISED
from childproof._text import did_you_mean

if TYPE_CHECKING:
    from typing import Any

    from childproof._attributes import Attributes
    from childproof._cgroup import Cgroup

KINDS = ("session", "cgroup", "pidns", "auto")


def make_contain(contain: Any, attributes: Attributes) -> tuple[str, Cgroup | None]:
    """The kind, and for a cgroup what is wanted of it.

    Raises:
        TypeError, ValueError: it is none, or excludes another option.

    """
    from childproof._cgroup import Cgroup  # few ask for it

    if isinstance(contain, Cgroup):
        return "cgroup", _checked(contain)
    if not isinstance(contain, str):
        raise TypeError(f"contain must be a str or a Cgroup, not {contain!r}")
    if contain not in KINDS:
        meant = did_you_mean(contain, KINDS)
        raise ValueError(f"contain must be one of {', '.join(map(repr, KINDS))}, not {contain!r}{meant}")
    if contain == "pidns" and attributes.changes_ids:
        raise ValueError("contain='pidns' excludes user, group and extra_groups: its namespace has one user")
    return contain, Cgroup() if contain in ("cgroup", "auto") else None


def _checked(cgroup: Cgroup) -> Cgroup:
    for name in ("memory_bytes", "pids"):
        value = getattr(cgroup, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, not {value}")
    return cgroup


def supervision(kind: str, die_with_parent: Any) -> int:
    """Which supervisor that takes."""
    if kind == "pidns":
        return NAMESPACES
    return SUPERVISED if die_with_parent else NOBODY
