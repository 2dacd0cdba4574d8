"""Failing and delaying system calls in a real process, with strace's injection.

The process is attached to after its start, so that the interpreter's own calls do not count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

PROLOGUE = """
import json, os, sys
import childproof
print(os.getpid(), flush=True)
sys.stdin.readline()
"""


def inject(faults: list[str], code: str, env: dict[str, str] | None = None, seconds: float = 60) -> Any:
    """What `code` assigns to `answer`, run in a fresh process under the faults.

    Args:
        faults: expressions for strace's ``-e inject=``, as ``pipe2:error=EMFILE:when=2``. The call
            itself counts from 1 behind the moment of attaching.
        code: Python, in a module that has imported childproof, json, os and sys.
        env: added to the environment.
        seconds: how long the whole may take.

    """
    script = PROLOGUE + code + "\nprint(json.dumps(answer), flush=True)\n"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        options = [item for fault in faults for item in ("-e", f"inject={fault}")]
        with subprocess.Popen(
            ["strace", "-f", "-p", str(pid), "-o", "/dev/null", *options],
            stderr=subprocess.PIPE,
            text=True,
        ) as strace:
            assert strace.stderr is not None
            line = strace.stderr.readline()
            assert "attached" in line, line
            try:
                out, _ = process.communicate("go\n", timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            finally:
                strace.terminate()
    return json.loads(out.splitlines()[-1])
