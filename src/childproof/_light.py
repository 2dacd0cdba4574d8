"""What is needed of `typing` when the program runs, without importing it.

`typing` and what it brings with it (`re`, `contextlib`) take a third of the time of
``import childproof``. Type checkers go by the names: they see `typing`'s.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
    from typing import Protocol as Protocol
    from typing import overload as overload
else:

    class Protocol:
        """Says nothing when the program runs."""

    def overload(function):  # noqa: ANN001  # type checkers do not look here
        """Likewise."""
        return function

    class _NamedTupleType(type):
        """Makes a plain `collections.namedtuple` of a class body, as `typing.NamedTuple` does."""

        def __new__(cls, name, bases, body):  # noqa: ANN001  # as above
            fields = body.get("__annotations__", {})
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            for key, value in body.items():
                if key not in ("__annotations__", "__module__", "__qualname__"):
                    setattr(made, key, value)
            return made

    NamedTuple = type.__new__(_NamedTupleType, "NamedTuple", (), {})
