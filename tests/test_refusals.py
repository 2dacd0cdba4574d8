"""Kernels and containers that refuse a system call, with and without /proc."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from childproof._spawner import PORTABLE

pytest.importorskip("pyseccomp")

CALLS = {
    "close_range": "filter.add_rule(answer, 'close_range')",
    "clone3": "filter.add_rule(answer, 'clone3')",
    "clone with pidfd": (
        "filter.add_rule(answer, 'clone', seccomp.Arg(0, seccomp.MASKED_EQ, 0x1000, 0x1000));"
        "filter.add_rule(answer, 'clone3')"  # whose flags no filter can see
    ),
    "pidfd_open": "filter.add_rule(answer, 'pidfd_open')",
    "pidfd_send_signal": "filter.add_rule(answer, 'pidfd_send_signal')",
    "waitid on a pidfd": "filter.add_rule(answer, 'waitid', seccomp.Arg(0, seccomp.EQ, 3))",
    "waitid": "filter.add_rule(answer, 'waitid')",
    "prctl": "filter.add_rule(answer, 'prctl', seccomp.Arg(0, seccomp.EQ, 1))",  # PR_SET_PDEATHSIG
}
"""Rules for libseccomp. prctl as a whole can't be refused from Python, whose filter needs it."""

SCRIPT = """
import errno, json, os, signal, sys
import pyseccomp as seccomp
import childproof
sleeper = childproof.run(["sleep", "600"], timeout=0.01)  # imports what a deadline needs, as a host may
null = os.open("/dev/null", os.O_RDONLY)
for fd in (5, 77, 300):
    os.dup2(null, fd)  # inheritable by a careless spawn
filter = seccomp.SyscallFilter(seccomp.ALLOW)
answer = seccomp.ERRNO(getattr(errno, {error!r}))
{rules}
filter.load()
before = sorted(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
probe = '''
import fcntl
found = []
for fd in range(1024):
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        continue
    found.append(fd)
print(found)
'''
answers = {{}}
for name, run in (
    ("plain", lambda: childproof.run([sys.executable, "-S", "-E", "-c", probe], timeout=60)),
    ("fails", lambda: childproof.run(["/nonexistent"], timeout=60)),
    ("deadline", lambda: childproof.run(["sleep", "600"], timeout=0.2)),
    ("tree", lambda: childproof.run("sleep 600 & sleep 600", timeout=0.2)),
    ("leftovers", lambda: childproof.run("sleep 600 & echo x", timeout=60, linger=0.05, leftovers="kill")),
):
    result = run()
    answers[name] = [result.code, result.out, result.outcome.name, str(result.error or ""), result.duration,
                     [info.pid for info in result.survivors]]
try:
    left = os.waitpid(-1, os.WNOHANG)[0]
    answers["left"] = True
except ChildProcessError:
    answers["left"] = False
print(json.dumps(answers))
"""

UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL"]


def _refused(call: str, error: str, hidden: bool) -> Any:
    script = SCRIPT.format(rules=CALLS[call], error=error)
    command = [sys.executable, "-c", script]
    if hidden:
        shell = 'mount -t tmpfs none /proc && "$@"; exit $?'
        command = [*UNSHARE, "sh", "-c", shell, "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("hidden", [False, True], ids=["proc", "no proc"])
@pytest.mark.parametrize(
    ("call", "error"), list(itertools.product(CALLS, ("ENOSYS", "EPERM"))), ids=lambda value: value.replace(" ", "_")
)
def test_a_refused_call_is_done_without(call: str, error: str, hidden: bool) -> None:
    """It works, or there is one clear error: never "no such file" for a file that exists, never an extra
    descriptor in the child, never a zombie, never a deadline that does not hold.
    """
    if hidden and os.geteuid():
        pytest.skip("hiding /proc needs root")
    if call == "waitid" and PORTABLE:
        pytest.skip("the portable build has nothing but waitid to see an end by that it does not take")
    answers = _refused(call, error, hidden)
    code, out, outcome, sentence, *_ = answers["plain"]
    assert (code, outcome, out) == (0, "EXITED", "[0, 1, 2]"), sentence
    assert answers["fails"][:3] == [127, "", "NOT_STARTED"]
    assert os.strerror(errno.ENOENT) in answers["fails"][3]
    for name in ("deadline", "tree"):
        code, _, outcome, _, duration, survivors = answers[name]
        assert (code, outcome, survivors) == (124, "TIMED_OUT", [])
        assert duration < 0.2 + 1 + 5
    assert answers["leftovers"][:3] == [0, "x", "EXITED"]
    assert not answers["left"]
