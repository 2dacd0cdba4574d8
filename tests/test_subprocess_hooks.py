"""The packages that hook into `subprocess` work with the drop-in: each the real one, in a process of
its own, before and after `patch`.

They come with the extra ``dropin-tests``. Without one of them its test is skipped, and fails with
``CHILDPROOF_REQUIRE_PACKAGES=1``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import childproof

Script = Callable[..., Any]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Run a Python program; what it has printed last, as JSON."""

    def run(package: str, text: str, *words: str, **variables: str) -> Any:
        if find_spec(package) is None:
            if os.environ.get("CHILDPROOF_REQUIRE_PACKAGES") == "1":
                pytest.fail(f"{package} is not installed")
            pytest.skip(f"needs {package}, of the extra dropin-tests")
        path = tmp_path / "program.py"
        path.write_text(text)
        env = {**os.environ, **variables}
        done = childproof.run([sys.executable, path, *words], timeout=120, cwd=tmp_path, env=env)
        assert done.code == 0, done.err
        return json.loads(done.out.splitlines()[-1])

    return run


ORDER = """
steps = [hook, lambda: childproof.patch(linger=0.1)]
for step in steps if sys.argv[1] == "hook first" else steps[::-1]:
    step()
"""

both_orders = pytest.mark.parametrize("order", ["hook first", "patch first"])


@both_orders
def test_sentry(script: Script, order: str) -> None:
    """It wraps `Popen.__init__`, `wait` and `communicate`, hands a trace on to the child by `env`, and
    has a span of each.
    """
    text = f"""
import json, os, sys, childproof, subprocess, sentry_sdk
from sentry_sdk.transport import Transport
events = []
class Keep(Transport):
    def capture_envelope(self, envelope): events.append(envelope)
def hook(): sentry_sdk.init(dsn="http://key@localhost/1", transport=Keep, traces_sample_rate=1.0)
{ORDER}
with sentry_sdk.start_transaction(name="t"):
    done = subprocess.run("echo $SUBPROCESS_SENTRY_TRACE; exit 3", shell=True, stdout=subprocess.PIPE, text=True)
items = [item.payload.json or {{}} for event in events for item in event.items]
spans = sorted({{span["op"] for item in items for span in item.get("spans", ())}})
print(json.dumps([done.returncode, done.held, done.stdout.count("-"), spans]))
"""
    assert script("sentry_sdk", text, order) == [
        3,
        [],
        2,
        ["subprocess", "subprocess.communicate", "subprocess.wait"],
    ]


@both_orders
def test_ddtrace(script: Script, order: str) -> None:
    """It wraps `Popen.__init__` and `wait` by wrapt, and reads positions of the arguments."""
    text = f"""
import json, sys, childproof, subprocess, ddtrace
from ddtrace.trace import TraceFilter, tracer
seen = []
class Keep(TraceFilter):
    def process_trace(self, trace): seen.extend(trace)
tracer.configure(trace_processors=[Keep()])
def hook(): ddtrace.patch(subprocess=True)
{ORDER}
done = subprocess.run(["sh", "-c", "exit 3"], stdout=subprocess.PIPE)
tracer.flush()
codes = {{code for span in seen if (code := span.get_tags().get("cmd.exit_code"))}}
print(json.dumps([done.returncode, sorted(codes), hasattr(done, "held")]))
"""
    variables = {
        "DD_APPSEC_ENABLED": "true",
        "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    }
    assert script("ddtrace", text, order, **variables) == [3, ["3"], True]


def test_coverage(script: Script, tmp_path: Path) -> None:
    """``patch = subprocess`` measures the Python programs that are started, by their environment."""
    (tmp_path / "child.py").write_text("print('child')\n")
    (tmp_path / "main.py").write_text(
        "import childproof, subprocess, sys\n"
        "childproof.patch()\n"
        "subprocess.run([sys.executable, 'child.py'], check=True)\n"
    )
    (tmp_path / "coverage.cfg").write_text("[run]\npatch = subprocess\nparallel = true\nsource = .\n")
    text = """
import json, subprocess, sys
for words in (["run", "main.py"], ["combine", "-q"], ["json", "-q", "-o", "report.json"]):
    command, *rest = words
    subprocess.run([sys.executable, "-m", "coverage", command, "--rcfile=coverage.cfg", *rest], check=True)
files = json.load(open("report.json"))["files"]
print(json.dumps(sorted(name for name in files if files[name]["executed_lines"])))
"""
    assert script("coverage", text) == ["child.py", "main.py"]


def test_sarge(script: Script) -> None:
    """Its `Popen` is a subclass that overrides `_get_handles` and `_execute_child`."""
    text = """
import json, childproof
childproof.patch()
import sarge
from childproof import subprocess
done = sarge.run("echo a b | tr a-z A-Z && false || echo end", stdout=sarge.Capture())
print(json.dumps([issubclass(sarge.Popen, subprocess.Popen), done.stdout.text, sarge.get_stdout("cat", input="x")]))
"""
    assert script("sarge", text) == [True, "A B\nend\n", "x"]


def test_psutil(script: Script) -> None:
    """Its `Popen` has one of `subprocess` inside, and gives its attributes."""
    text = """
import json, childproof
childproof.patch()
import psutil
from childproof import subprocess
process = psutil.Popen(["sleep", "600"], stdout=subprocess.PIPE)
inner = [value for value in vars(process).values() if isinstance(value, subprocess.Popen)]
name = process.name()
process.kill()
print(json.dumps([len(inner), name, process.wait(timeout=60), process.communicate()[0].decode()]))
"""
    assert script("psutil", text) == [1, "sleep", -9, ""]


def test_pytest_subprocess(script: Script, tmp_path: Path) -> None:
    """It puts a fake in the place of `subprocess.Popen`, which `run` looks up there; what it lets
    through is ours.
    """
    (tmp_path / "test_fake.py").write_text(
        "import childproof, subprocess\n"
        "from childproof import subprocess as ours\n"
        "childproof.patch()\n"
        "kept = [ours.Popen]  # names of modules are replaced too\n"
        "def test_it(fp):\n"
        "    fp.register(['no-such-program'], stdout='faked', returncode=3)\n"
        "    done = subprocess.run(['no-such-program'], capture_output=True, text=True)\n"
        "    assert (done.returncode, done.stdout.strip()) == (3, 'faked')\n"
        "    fp.pass_command(['echo', 'real'])\n"
        "    with subprocess.Popen(['echo', 'real'], stdout=subprocess.PIPE) as process:\n"
        "        assert isinstance(process, kept[0])\n"
        "        assert process.communicate()[0] == b'real\\n'\n"
        "def test_undone():\n"
        "    assert subprocess.Popen is ours.Popen is kept[0]\n"
    )
    text = """
import json, subprocess, sys
command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_fake.py"]
done = subprocess.run(command, capture_output=True, text=True)
print(json.dumps(done.stdout.splitlines()[-1]))
"""
    assert script("pytest_subprocess", text).startswith("2 passed")


GEVENT = """
import json, sys
if sys.argv[1] == "patch first":
    import childproof
    childproof.patch()
from gevent import monkey
monkey.patch_all()
import gevent, time
refused = False
if sys.argv[1] == "by name":
    from childproof import subprocess
else:
    import subprocess
if sys.argv[1] == "gevent first":
    import childproof
    try:
        childproof.patch()
    except RuntimeError:
        refused = True
ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.01)
gevent.spawn(tick)
done = subprocess.run("sleep 1; echo out; exit 3", shell=True, stdout=subprocess.PIPE)
try:
    subprocess.run(["sleep", "600"], timeout=1)
    late = False
except subprocess.TimeoutExpired:
    late = True
print(json.dumps([done.returncode, done.stdout.decode(), late, ticks > 50, refused]))
"""


@pytest.mark.parametrize("order", ["patch first", "gevent first", "by name"])
def test_gevent(script: Script, order: str) -> None:
    """Other greenlets run while one waits, in whatever order, and by name too; after gevent's own
    patch ours is refused.
    """
    assert script("gevent", GEVENT, order) == [3, "out\n", True, True, order == "gevent first"]


GREEN_RUN = """
import json
from gevent import monkey
monkey.patch_all()
import gevent, childproof
ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.01)
gevent.spawn(tick)
done = childproof.run("sleep 1; echo out; exit 3")
late = childproof.run("sleep 600", timeout=1)
print(json.dumps([done.code, done.out, late.code, ticks > 50]))
"""


def test_run_under_gevent(script: Script) -> None:
    """`childproof.run` too waits by gevent's `poll`, and not in C."""
    assert script("gevent", GREEN_RUN) == [3, "out", 124, True]
