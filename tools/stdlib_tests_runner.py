"""Run CPython's own tests of subprocess with childproof's drop-in in its place.

Run by each interpreter, by stdlib-tests: ``python stdlib_tests_runner.py REPORT [NAME...]``. Writes a
JSON object from test id to ``passed``, ``skipped: WHY`` or ``failed: TRACEBACK``.
"""

from __future__ import annotations

import json
import sys
import unittest
from pathlib import Path

from childproof import subprocess

sys.modules["subprocess"] = subprocess

MODULES = ("test.test_subprocess", "test.test_asyncio.test_subprocess")


class Recorder(unittest.TextTestResult):
    """Notes the outcome of each test; one that failed in any way stays failed."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.outcomes = {}

    def startTest(self, test):
        super().startTest(test)
        print(test.id(), file=sys.stderr, flush=True)
        self.outcomes[test.id()] = "passed"

    def _fail(self, test, error):
        name = getattr(test, "test_case", test).id()  # a subTest counts for its test
        self.outcomes[name] = "failed: " + self._exc_info_to_string(error, getattr(test, "test_case", test))

    def addError(self, test, err):
        super().addError(test, err)
        self._fail(test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._fail(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._fail(subtest, err)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.outcomes[getattr(test, "test_case", test).id()] = f"skipped: {reason}"

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.outcomes[test.id()] = "failed: unexpected success"


def main(report, names):
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(names or MODULES)
    import asyncio.unix_events

    import test.test_subprocess

    assert test.test_subprocess.subprocess is subprocess
    assert asyncio.unix_events.subprocess is subprocess
    runner = unittest.TextTestRunner(stream=sys.stderr, verbosity=0, resultclass=Recorder)
    result = runner.run(suite)
    Path(report).write_text(json.dumps(result.outcomes, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
