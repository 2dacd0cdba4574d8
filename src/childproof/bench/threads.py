"""The family of one program started from several threads at once."""

from childproof.bench.many import spread as everyone

__all__ = ["everyone"]
