"""Run CPython's own tests of subprocess with childproof's drop-in in its place.

Run by each interpreter, for stdlib-tests: ``python stdlib_tests_runner.py REPORT [NAME...]``. Writes a
JSON object from test id to ``passed``, ``skipped: WHY`` or ``failed: TRACEBACK``. With
``CHILDPROOF_TEST_STDLIB=1`` the stdlib's module stays, to see what is skipped there.
"""

from __future__ import annotations

import json
import os
import sys
import unittest
from pathlib import Path
from typing import Any

from childproof import subprocess
from childproof._dropin import transports

MODULES = ("test.test_subprocess", "test.test_asyncio.test_subprocess")

if os.environ.get("CHILDPROOF_TEST_STDLIB") != "1":
    sys.modules["subprocess"] = subprocess
    transports.wanted = True  # with what patch() does to asyncio

import subprocess as tested  # noqa: E402  # behind the line that decides which it is


class Recorder(unittest.TextTestResult):
    """Notes the outcome of each test; a subtest counts for its test, and a failure stays one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.outcomes: dict[str, str] = {}

    def _note(self, test: Any, outcome: str) -> None:
        name = getattr(test, "test_case", test).id()
        if not self.outcomes.get(name, "").startswith("failed"):
            self.outcomes[name] = outcome

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        print(test.id(), file=sys.stderr, flush=True)
        self._note(test, "passed")

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self._note(test, f"failed: {self.errors[-1][1]}")

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self._note(test, f"failed: {self.failures[-1][1]}")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, f"failed: {(self.failures + self.errors)[-1][1]}")

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self._note(test, f"skipped: {reason}")

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self._note(test, "failed: unexpected success")


def main(report: str, names: list[str]) -> None:
    """Run the tests `names`, or all, and write `report`."""
    suite = unittest.defaultTestLoader.loadTestsFromNames(names or MODULES)
    for user in ("test.test_subprocess", "asyncio.unix_events"):
        assert vars(sys.modules[user])["subprocess"] is tested, user
    result = unittest.TextTestRunner(sys.stderr, verbosity=0, resultclass=Recorder).run(suite)
    assert isinstance(result, Recorder)
    Path(report).write_text(json.dumps(result.outcomes, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
