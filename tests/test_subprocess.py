"""The drop-in behaves as the stdlib's `subprocess`, and what others hook into stays."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import signal
import subprocess as stdlib
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import _spawner, subprocess
from conftest import SLACK_SECONDS, is_alive, program, stop, wait_until
from forcing import every_way as every_way
from forcing import force

HOLDER = "sleep 600 & echo $!"


# ---- the module ----


def test_every_public_name_of_the_stdlib_is_there() -> None:
    """And those that are not ours are the very same objects: an `except` elsewhere still catches."""
    assert subprocess.__all__ == stdlib.__all__
    ours = {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
    for name in stdlib.__all__:
        assert (getattr(subprocess, name) is getattr(stdlib, name)) == (name not in ours), name
    assert issubclass(subprocess.Popen, stdlib.Popen)


def test_private_names_are_the_stdlib_s_to_read_and_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries read them, and debuggers replace them."""
    module: Any = subprocess
    for name in ("_args_from_interpreter_flags", "_active", "_cleanup", "list2cmdline", "_USE_VFORK", "_mswindows"):
        if hasattr(stdlib, name):
            assert getattr(module, name) is getattr(stdlib, name)
            assert name in dir(module)
    monkeypatch.setattr(stdlib, "_active", stdlib._active)  # type: ignore[attr-defined]  # what is restored
    module._active = mine = []  # type: ignore[var-annotated]
    assert stdlib._active is mine  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"childproof\.subprocess"):
        _ = module.no_such_name


def test_linger_is_checked() -> None:
    """A wrong value is refused where it is set, not at the next run."""
    module: Any = subprocess
    before = module.linger
    for wrong, error in (("5", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)):
        with pytest.raises(error, match="linger"):
            module.linger = wrong
        with pytest.raises(error, match="linger"):
            module.Popen(["true"], linger=wrong)
    assert module.linger == before == 0.5


# ---- starting ----


@pytest.mark.usefixtures("every_way")
def test_the_functions_return_what_the_stdlib_s_do() -> None:
    """Each of them, with each way to start."""
    done = subprocess.run(["sh", "-c", "cat; echo e >&2; exit 3"], input=b"in", capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in", b"e\n")
    assert subprocess.run("echo é", shell=True, text=True, stdout=subprocess.PIPE, encoding="utf-8").stdout == "é\n"
    assert subprocess.call(["sh", "-c", "exit 4"]) == 4
    assert subprocess.check_call(["true"]) == 0
    with pytest.raises(stdlib.CalledProcessError) as caught:
        subprocess.check_output(["sh", "-c", "echo out; exit 5"])
    assert (caught.value.returncode, caught.value.output) == (5, b"out\n")
    assert subprocess.getstatusoutput("echo a; exit 6") == (6, "a")
    assert subprocess.getoutput("echo a; exit 6") == "a"
    assert subprocess.run(["sh", "-c", "kill -9 $$"]).returncode == -9


@pytest.mark.parametrize(
    "options",
    [{}, {"cwd": "/no/such/directory"}, {"executable": "/no/such/program"}, {"user": 1 << 40}, {"env": {"a=b": "c"}}],
)
@pytest.mark.parametrize(
    "args", [["true"], ["/no/such"], ["no-such-program"], ["/etc/passwd"], [], ["a\0b"], [1], ["/"]]
)
def test_a_failed_start_raises_what_the_stdlib_raises(args: list[Any], options: dict[str, Any]) -> None:
    """Type, errno and file name."""

    def start(module: Any) -> Any:
        try:
            with module.Popen(args, **options):
                return None
        except Exception as error:
            return type(error), getattr(error, "errno", None), getattr(error, "filename", None)

    assert start(subprocess) == start(stdlib)


def test_a_failed_start_leaves_no_descriptor_to_its_traceback() -> None:
    """It may be kept for long, and with it the object that was never made."""
    before = set(os.listdir("/proc/self/fd"))
    caught = []
    for program_name in ("/no/such", "/proc/self/fd/0"):
        with pytest.raises(OSError, match="Errno") as error:
            subprocess.Popen([program_name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        caught.append(error)
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_child_gets_what_is_asked_for(tmp_path: Path) -> None:
    """cwd, env, umask, session, group, program name and descriptors."""
    read, write = os.pipe()
    script = "pwd; echo $A; umask; ps -o sid=,pgid= -p $$; echo $0; echo fd >/proc/self/fd/$F"
    done = subprocess.run(
        ["argv0", "-c", script],
        executable="/bin/sh",
        cwd=tmp_path,
        env={"A": "b", "F": str(write), "PATH": "/bin:/usr/bin"},
        umask=0o31,
        start_new_session=True,
        pass_fds=[write],
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    lines = done.stdout.split("\n")
    assert (lines[0], lines[1], int(lines[2], 8), lines[4]) == (str(tmp_path), "b", 0o31, "argv0")
    sid, pgid = lines[3].split()
    assert sid == pgid != str(os.getsid(0))
    assert os.read(read, 10) == b"fd\n"
    os.close(read)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
def test_the_child_becomes_who_is_asked_for() -> None:
    """By number and by name; and the error of a failure is the stdlib's."""
    command = ["sh", "-c", "id -u; id -g; id -G"]
    options: dict[str, Any] = {"user": 65534, "group": "nogroup", "extra_groups": []}
    for module in (subprocess, stdlib):
        assert module.check_output(command, text=True, **options).split() == ["65534"] * 3


@pytest.mark.usefixtures("every_way")
def test_the_child_gets_no_other_descriptor() -> None:
    """Those that are inheritable neither, with the default of close_fds; and with False they do."""
    fd = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        listed = subprocess.check_output(program("fds"), text=True, stdin=subprocess.DEVNULL)
        assert [int(line.split()[0]) for line in listed.splitlines()][:3] == [0, 1, 2]
        assert f"\n{fd} " not in listed
        assert f"\n{fd} /dev/null" in subprocess.check_output(program("fds"), text=True, close_fds=False)
    finally:
        os.close(fd)


def test_the_environment_is_handed_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mark is added, and that of an outer run is kept."""
    monkeypatch.setenv("CHILDPROOF_RUN", "outer")
    assert subprocess.check_output("echo $CHILDPROOF_RUN", shell=True, text=True) == "outer\n"
    assert "CHILDPROOF_RUN" not in subprocess.check_output(["env"], env={"A": "1"}, text=True)


def test_the_audit_event_is_the_stdlib_s() -> None:
    """Raised before anything is started, with the same four."""
    code = (
        "import sys\nfrom childproof import subprocess\n"
        "sys.addaudithook(lambda e, a: e == 'subprocess.Popen' and print(a))\n"
        "subprocess.run(['true', 'x'], cwd='/', env={'A': 'b', 'PATH': '/bin:/usr/bin'})\n"
    )
    listed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert listed == "('true', ['true', 'x'], '/', {'A': 'b', 'PATH': '/bin:/usr/bin'})\n"


def test_preexec_fn_is_done_by_the_stdlib(tmp_path: Path) -> None:
    """It must run in a fork of this process; the child is then waited for as any other."""
    made = tmp_path / "made"
    with pytest.warns(childproof.OutputCut):
        done = subprocess.run(["sh", "-c", HOLDER], stdout=subprocess.PIPE, preexec_fn=made.touch)
    assert made.exists()
    stop(int(done.stdout))
    with pytest.raises(stdlib.SubprocessError, match="preexec_fn"):
        subprocess.Popen(["true"], preexec_fn=lambda: 1 / 0)


def test_a_replaced_fork_exec_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As debuggers do it, to follow the children."""
    import _posixsubprocess

    calls = []
    original = _posixsubprocess.fork_exec

    def fork_exec(*args: Any) -> int:
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(_posixsubprocess, "fork_exec", fork_exec)
    if hasattr(stdlib, "_fork_exec"):
        monkeypatch.setattr(stdlib, "_fork_exec", fork_exec)
    assert subprocess.run(["sh", "-c", "exit 3"]).returncode == 3
    assert len(calls) == 1


def test_an_interrupt_in_the_constructor_leaves_nothing() -> None:
    """Its handler runs while the exec is awaited; the child is killed and reaped."""

    class InterruptError(Exception):
        pass

    real = _spawner.Child.await_exec

    def await_exec(child: Any, milliseconds: int) -> int:
        real(child, milliseconds)
        raise InterruptError

    patcher = pytest.MonkeyPatch()
    patcher.setattr(_spawner.Child, "await_exec", await_exec)
    try:
        with pytest.raises(InterruptError):
            subprocess.Popen(["sleep", "600"], stdout=subprocess.PIPE)
    finally:
        patcher.undo()


# ---- hooks ----


def test_what_others_override_is_called() -> None:
    """By the stdlib's code, with the stdlib's arguments."""
    seen: list[str] = []

    base: Any = subprocess.Popen  # whose inner methods typeshed does not know

    class Mine(base):  # type: ignore[misc]  # as above
        def _get_handles(self, *args: Any) -> Any:
            seen.append("_get_handles")
            return super()._get_handles(*args)

        def _execute_child(self, *args: Any) -> Any:
            seen.append("_execute_child")
            return super()._execute_child(*args)

        def _communicate(self, data: Any, endtime: Any, orig_timeout: Any) -> Any:
            seen.append("_communicate")
            return super()._communicate(data, endtime, orig_timeout)

        def _wait(self, timeout: Any) -> Any:
            seen.append("_wait")
            return super()._wait(timeout)

    with Mine(
        ["echo", "x"], -1, None, None, subprocess.PIPE, None, None, True, False, "/", {"PATH": "/bin"}
    ) as process:
        assert process.communicate()[0] == b"x\n"
    assert [name for i, name in enumerate(seen) if name not in seen[:i]] == [
        "_get_handles",
        "_execute_child",
        "_communicate",
        "_wait",
    ]


def test_run_looks_up_popen_in_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who replaces `Popen` there replaces it for all functions."""
    original: Any = subprocess.Popen
    made = []

    def mine(*args: Any, **options: Any) -> Any:
        made.append(args)
        return original(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", mine)
    functions: Any = (subprocess.run, subprocess.call, subprocess.check_call, subprocess.check_output)
    for function in functions:
        function(["true"])
    subprocess.getoutput("true")
    assert len(made) == 5


# ---- waiting, signals, threads ----


@pytest.mark.usefixtures("every_way")
def test_wait_poll_and_signals() -> None:
    """A running child has no returncode; one that was signalled has its number."""
    with subprocess.Popen(["sleep", "600"]) as process:
        assert process.poll() is None
        with pytest.raises(stdlib.TimeoutExpired, match=r"0\.05 seconds"):
            process.wait(timeout=0.05)
        process.terminate()
        assert process.wait() == process.poll() == -signal.SIGTERM
        process.kill()  # nobody is signalled
    assert repr(process) == "<Popen: returncode: -15 args: ['sleep', '600']>"


def test_kill_tree_kills_what_the_child_has_started() -> None:
    """Not only the child, and whoever holds its pipes too, in a session of its own."""
    command = "setsid sleep 600 & echo $!; sleep 600 >/dev/null & echo $!; wait"
    with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline()) for _ in range(2)]
        process.kill_tree()
        assert process.returncode == -signal.SIGKILL
        assert not any(map(is_alive, pids))
        process.kill_tree()  # there is nobody any more


def test_a_forked_copy_neither_kills_nor_reaps_the_child() -> None:
    """It is the parent's."""
    with subprocess.Popen(["sleep", "600"], stdout=subprocess.PIPE) as process:
        pid = os.fork()
        if pid == 0:
            try:
                process.kill()
                process.kill_tree()
                warnings.simplefilter("ignore")
                process.wait()
            finally:
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert process.poll() is None
        process.kill()


def test_an_interrupt_ends_a_run() -> None:
    """As with the stdlib: the child is killed, and KeyboardInterrupt comes out."""
    code = (
        "import os, signal, threading\nfrom childproof import subprocess\nfrom childproof._processes import procfs\n"
        "threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()\n"
        "try: subprocess.run(['sleep', '600'], stdout=-1)\n"
        "except KeyboardInterrupt: print([p.name for p in procfs.table().values() if p.ppid == os.getpid()])\n"
    )
    done = childproof.run([sys.executable, "-c", code], timeout=60)
    assert (done.code, done.out) == (0, "[]"), done.err


def test_many_threads_may_wait_for_one_child() -> None:
    """All of them get its status, and its pidfd is closed when the last one has."""
    with subprocess.Popen(["sleep", "0.3"]) as process:
        codes: list[int] = []
        threads = [threading.Thread(target=lambda: codes.append(process.wait())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert codes == [0] * 8
    child: Any = vars(process)["_child"]
    assert child.pidfd == -1


def test_a_process_that_was_dropped_is_reaped_by_the_next() -> None:
    """As the stdlib does it, by `_active`."""
    process: Any = subprocess.Popen(["true"])
    pid = process.pid
    with pytest.warns(ResourceWarning, match="still running"):
        del process
    assert wait_until(lambda: subprocess.run(["true"]) and not Path(f"/proc/{pid}").exists())


def test_a_lost_status_is_not_invented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not tell either, it is 125 with a warning, not 0."""
    force(monkeypatch, disabled=_spawner.FEATURES["pidfd_info"])
    with subprocess.Popen(["true"]) as process:
        os.waitpid(process.pid, 0)
        with pytest.warns(childproof.StatusLost, match=str(process.pid)):
            assert process.wait() == 125
    with subprocess.Popen(["true"]) as process:
        os.waitpid(process.pid, 0)
        with pytest.raises(childproof.StatusLost):  # an error, as all warnings are in these tests
            process.wait()
        assert process.wait() == 125
        child: Any = vars(process)["_child"]
        assert child.pidfd == -1


def test_the_status_that_another_wait_took_is_asked_of_the_kernel() -> None:
    """Linux 6.15 tells by the pidfd; before it is lost, never 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", childproof.StatusLost)
        with subprocess.Popen(["sh", "-c", "exit 3"]) as process:
            os.waitpid(process.pid, 0)
            assert process.wait() in (3, 125)


def test_a_signal_handler_may_signal_the_child_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the thread that it interrupts is about to take the status."""
    real = _spawner.Child.reap
    interrupted = False

    def reap(child: Any) -> bool:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            process.terminate()  # as a handler would, with the lock held
        return real(child)

    with subprocess.Popen(["sleep", "600"]) as process:
        monkeypatch.setattr(_spawner.Child, "reap", reap)
        assert process.poll() in (None, -signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


def test_a_child_that_is_left_to_the_end_of_the_interpreter() -> None:
    """Its destructor, which runs when little is left of the modules, is silent."""
    code = "from childproof import subprocess\np = subprocess.Popen(['sleep', '0.1'], stdout=-1)\n"
    for ending in ("", "del p\n", "import os, sys\nsys.modules.clear()\n"):
        done = childproof.run([sys.executable, "-c", code + ending])
        assert (done.code, done.err) == (0, "")


def test_its_signature_is_the_stdlib_s() -> None:
    """For those who look which parameters there are."""
    assert inspect.signature(subprocess.Popen) == inspect.signature(stdlib.Popen)


# ---- communicate ----


def test_what_was_read_ahead_is_not_lost() -> None:
    """A line read by hand brings more than the line into the file's buffer."""
    for text in (False, True):
        with subprocess.Popen(
            "echo a; echo b; sleep 0.1; echo c", shell=True, stdout=subprocess.PIPE, text=text
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == ("a\n" if text else b"a\n")
            assert process.communicate()[0] == ("b\nc\n" if text else b"b\nc\n")


def test_communicate_goes_on_after_a_timeout() -> None:
    """Nothing that was read before is lost, and the pipes block again meanwhile."""
    with subprocess.Popen(
        "echo a; read x; echo $x; exec sleep 600", shell=True, stdin=-1, stdout=-1, text=True
    ) as process:
        with pytest.raises(stdlib.TimeoutExpired) as caught:
            process.communicate("b\n", timeout=0.3)
        assert "a\n" in caught.value.output
        assert process.stdout is not None
        assert os.get_blocking(process.stdout.fileno())
        process.kill()
        assert process.communicate()[0] == "a\nb\n"
        assert process.communicate()[0] == "a\nb\n"


def test_large_input_and_output() -> None:
    """All of it, both ways at once."""
    data = os.urandom(3_000_000)
    assert subprocess.run(["cat"], input=data, stdout=subprocess.PIPE).stdout == data
    assert subprocess.run(["cat"], input=data, capture_output=True, timeout=600).stdout == data
    assert subprocess.run(["sh", "-c", "exit 0"], input=data).returncode == 0  # it need not be read


def test_text_is_decoded_as_the_stdlib_does() -> None:
    """Newlines too, and what can't be decoded raises, unless `errors` says otherwise."""
    command = ["printf", r"a\r\nb\rc\nd"]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout == "a\nb\nc\nd"
    with pytest.raises(UnicodeDecodeError):
        subprocess.run(["printf", r"\377"], stdout=subprocess.PIPE, encoding="utf-8")
    assert subprocess.run(["printf", r"\377"], capture_output=True, encoding="utf-8", errors="replace").stdout == "�"


def test_linger_none_waits_for_the_holder() -> None:
    """The stdlib's behaviour, for one call."""
    began = time.monotonic()
    out = subprocess.check_output("(sleep 1; echo late) & echo early", shell=True, text=True, linger=None)
    assert time.monotonic() - began >= 1
    assert sorted(out.split()) == ["early", "late"]


def test_what_the_holder_writes_within_linger_is_read() -> None:
    """And nobody is named when it lets go in time."""
    done = subprocess.run("(sleep 0.2; echo late) &", shell=True, stdout=subprocess.PIPE, linger=600)
    assert (done.stdout, done.held) == (b"late\n", ())


def test_a_holder_that_is_cut_off_lives_on() -> None:
    """It does not die of SIGPIPE, since the background reads on."""
    with pytest.warns(childproof.OutputCut):
        done = subprocess.run(
            "(while :; do echo x; sleep 0.05; done) & echo $! >&2; exec 2>&-",
            shell=True,
            capture_output=True,
            linger=0.1,
        )
    pid = int(done.stderr)
    time.sleep(0.5)
    assert is_alive(pid)
    stop(pid)


# ---- patch ----


@pytest.fixture
def patched() -> Iterator[None]:
    """The stdlib's module is patched, and is as it was afterwards."""
    before = dict(vars(stdlib))
    childproof.patch(linger=0.2)
    yield
    childproof.unpatch()
    assert dict(vars(stdlib)) == before


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("name", ["check_output", "getoutput", "run"])
def test_patch_reaches_all_functions_of_the_stdlib_s_module(name: str) -> None:
    """They go through `Popen` and `run`; so does what was imported before by name."""
    options: dict[str, Any] = {} if name == "getoutput" else {"shell": True}
    if name == "run":
        options["stdout"] = stdlib.PIPE
    with pytest.warns(childproof.OutputCut) as caught:
        getattr(stdlib, name)("sleep 600 & exit 0", **options)
    assert caught[0].filename == __file__
    stop(int(str(caught[0].message).split()[1]))


def test_unpatch_leaves_what_somebody_else_has_put_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not ours to take away; and a second unpatch does nothing."""
    module: Any = stdlib
    monkeypatch.setattr(module, "run", module.run)  # what is restored
    original = module.Popen
    childproof.patch()
    childproof.patch(linger=3)
    assert subprocess.linger == 3
    module.run = len
    with pytest.warns(RuntimeWarning, match=r"subprocess\.run "):
        childproof.unpatch()
    assert module.run is len
    childproof.unpatch()
    assert module.Popen is original is not subprocess.Popen
    assert subprocess.linger == 0.5


@pytest.mark.usefixtures("patched")
def test_asyncio_uses_it() -> None:
    """Its children are ours, and its `communicate` lingers."""

    async def main() -> tuple[Any, float]:
        process = await asyncio.create_subprocess_shell(HOLDER, stdout=asyncio.subprocess.PIPE)
        transport: Any = vars(process)["_transport"]
        assert isinstance(transport.get_extra_info("subprocess"), subprocess.Popen)
        began = time.monotonic()
        out, _ = await process.communicate()
        return out, time.monotonic() - began

    with pytest.warns(childproof.OutputCut):
        out, seconds = asyncio.run(main())
    assert seconds < 0.2 + SLACK_SECONDS
    stop(int(out))


def test_the_command_runs_a_program_patched(tmp_path: Path) -> None:
    """A script and a module, from the first line on, with its own arguments, path and status."""
    script = tmp_path / "script.py"
    script.write_text(
        "import subprocess, sys\nassert __name__ == '__main__'\n"
        "print(subprocess.Popen.__module__, sys.argv[1:], sys.path[0])\nsys.exit(7)\n"
    )
    for words, folder in (([str(script)], str(tmp_path)), (["-m", "script"], str(tmp_path))):
        done = subprocess.run(
            [sys.executable, "-m", "childproof", "python", *words, "-x", "y"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert (done.returncode, done.stdout) == (7, f"childproof.subprocess ['-x', 'y'] {folder}\n"), done.stderr
    done = subprocess.run([sys.executable, "-m", "childproof", "python"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "missing" in done.stderr


def test_results_and_errors_pickle() -> None:
    """They are the stdlib's own classes."""
    done = pickle.loads(pickle.dumps(subprocess.run(["echo", "x"], capture_output=True)))
    assert (type(done), done.stdout, done.held) == (stdlib.CompletedProcess, b"x\n", ())
