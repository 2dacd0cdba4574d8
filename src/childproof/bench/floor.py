"""The C floor: the same work as a contender's, without Python in it."""

from __future__ import annotations

import os
from typing import Any

try:
    from childproof.bench._floor import ffi, lib
except ImportError as error:  # an installation without the benchmark's C still measures the rest
    FAILED: str | None = str(error)
else:
    FAILED = None

CAPACITY_BYTES = 1 << 16


class Floor:
    """A program with its arguments and today's environment, ready to be run again and again."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._keep: list[Any] = []
        self._argv = self._strings([os.fsencode(word) for word in words])
        self._envp = self._strings([key + b"=" + value for key, value in os.environb.items()])
        self._buffer = ffi.new("char[]", CAPACITY_BYTES)
        self._result = ffi.new("struct floor_result *")

    def _strings(self, items: list[bytes]) -> Any:
        strings = [ffi.new("char[]", item) for item in items]
        self._keep += strings
        return ffi.new("char *[]", [*strings, ffi.NULL])

    def run(self) -> None:
        """Capture both outputs.

        Raises:
            OSError: it could not be started.

        """
        error = lib.floor_run(self._argv[0], self._argv, self._envp, self._buffer, CAPACITY_BYTES, self._result)
        if error:
            raise OSError(error, os.strerror(error))

    def wait(self) -> None:
        """Capture nothing, await its death. Raises as `run` does."""
        error = lib.floor_wait(self._argv[0], self._argv, self._envp, self._result)
        if error:
            raise OSError(error, os.strerror(error))

    @property
    def code(self) -> int:
        """Of the last run: exit status, or -N for signal N."""
        return int(self._result.code)

    @property
    def output(self) -> bytes:
        """Of the last run, both streams in the order in which they were read."""
        return bytes(ffi.buffer(self._buffer, self._result.size))

    @property
    def returned_ns(self) -> int:
        """When the last run was over, on ``CLOCK_MONOTONIC``."""
        return int(self._result.returned_ns)
