"""Wrong and odd calls: refused before anything is created, or taken as they are meant."""

from __future__ import annotations

import errno
import inspect
import io
import math
import os
import re
import socket
import sys
from collections import UserString
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import Outcome
from conftest import children, descriptors

# ---- the audit hook: it can't be removed, so it is switched ----

Hook = Callable[[tuple[Any, ...]], None]
_hook: Hook | None = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _hook is not None and event == "subprocess.Popen":
        _hook(args)


sys.addaudithook(_audit)


@pytest.fixture
def hook() -> Iterator[Callable[[Hook], None]]:
    """Sets what is called with the arguments of the event subprocess.Popen."""

    def use(function: Hook) -> None:
        global _hook
        _hook = function

    yield use
    global _hook
    _hook = None


# ---- wrong calls ----


def closed(file: Any) -> Any:
    """`file`, closed."""
    file.close()
    return file


def without_descriptor(fd: object) -> Any:
    """A file whose fileno() gives `fd`."""
    file = io.BytesIO()
    file.fileno = lambda: fd  # type: ignore[method-assign, assignment, return-value]
    return file


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    # the command
    ({"cmd": []}, ValueError, "cmd is empty"),
    ({"cmd": ()}, ValueError, "cmd is empty"),
    ({"cmd": [""]}, ValueError, "cmd[0] is empty"),
    ({"cmd": [b"", "x"]}, ValueError, "cmd[0] is empty"),
    ({"cmd": "a\0b"}, ValueError, "cmd has a NUL character: 'a\\x00b'"),
    ({"cmd": ["a", "b\0"]}, ValueError, "cmd[1] has a NUL character: 'b\\x00'"),
    ({"cmd": ["a", b"\0"]}, ValueError, "cmd[1] has a NUL character: b'\\x00'"),
    ({"cmd": b"ls"}, TypeError, "b'ls'"),
    ({"cmd": bytearray(b"ls")}, TypeError, "bytearray(b'ls')"),
    ({"cmd": Path("ls")}, TypeError, "PosixPath('ls')"),
    ({"cmd": 5}, TypeError, "not 5"),
    ({"cmd": None}, TypeError, "not None"),
    ({"cmd": {"ls": 1}}, TypeError, "not {'ls': 1}"),
    ({"cmd": {"ls"}}, TypeError, "not {'ls'}"),
    ({"cmd": (word for word in ["ls"])}, TypeError, "not <generator"),
    ({"cmd": ["ls", 5]}, TypeError, "cmd[1] must be str, bytes or os.PathLike, not 5"),
    ({"cmd": ["ls", None]}, TypeError, "cmd[1] must be str, bytes or os.PathLike, not None"),
    ({"cmd": range(2)}, TypeError, "cmd[0] must be str"),
    ({"cmd": ["ls", "\ud800"]}, ValueError, "cmd[1] can't be encoded: 'utf-8' codec can't encode character '\\ud800'"),
    ({"cmd": [["ls"]]}, TypeError, "cmd[0] must be str, bytes or os.PathLike, not ['ls']"),
    # options that there are not, and words that are nearly right
    ({"time_out": 3}, TypeError, "there is no option 'time_out'; did you mean 'timeout'?"),
    ({"Timeout": 3}, TypeError, "there is no option 'Timeout'; did you mean 'timeout'?"),
    ({"xyzzy": 3}, TypeError, "there is no option 'xyzzy'"),
    ({"shell": True}, TypeError, "there is no option 'shell': a str goes to the shell, a sequence does not"),
    ({"capture_output": True}, TypeError, "there is no option 'capture_output': output is captured unless"),
    ({"preexec_fn": print}, TypeError, "there is no option 'preexec_fn': none of the caller's code runs in the child"),
    ({"limits": {"cpuu": 1}}, ValueError, "did you mean 'cpu'?"),
    ({"limits": {"memory": 1}}, ValueError, "did you mean 'as'?"),
    ({"limits": {3: 1}}, ValueError, "there is no limit 3; there are as, core"),
    ({"contain": "pidn"}, ValueError, "not 'pidn'; did you mean 'pidns'?"),
    ({"contain": None}, TypeError, "contain must be a str or a Cgroup, not None"),
    ({"leftovers": "kil"}, ValueError, "not 'kil'; did you mean 'kill'?"),
    ({"start": "colne"}, ValueError, "not 'colne'; did you mean 'clone'?"),
    ({"stdout": "captured"}, ValueError, "stdout='captured' would be the path of a file; did you mean 'capture'?"),
    ({"stderr": "Inherit"}, ValueError, "stderr='Inherit' would be the path of a file; did you mean 'inherit'?"),
    ({"stdin": "nul"}, ValueError, "stdin='nul' would be the path of a file; did you mean 'null'?"),
    ({"stdout": -1}, ValueError, 'stdout is no descriptor: -1; subprocess.PIPE is "capture" here'),
    ({"stderr": -2}, ValueError, "stderr is no descriptor: -2; subprocess.STDOUT is merge=True here"),
    ({"stdin": -1}, ValueError, "stdin is no descriptor: -1; subprocess.PIPE is input=DATA here"),
    ({"stdin": -3}, ValueError, 'stdin is no descriptor: -3; subprocess.DEVNULL is "null" here'),
    ({"stdin": -2}, ValueError, "stdin is no descriptor: -2"),
    ({"timeout": -5}, ValueError, "NaN: -5; 0 is a budget that has run out, None is no limit"),
    # times
    *[
        ({name: value}, error, f"{name} must {what}: {value!r}" if error is ValueError else f"{name} must {what}")
        for name in ("timeout", "grace", "linger")
        for value, error, what in [
            (math.nan, ValueError, "not be negative or NaN"),
            (-2, ValueError, "not be negative or NaN"),
            (-0.5, ValueError, "not be negative or NaN"),
            (-math.inf, ValueError, "not be negative or NaN"),
            (Decimal("NaN"), ValueError, "not be negative or NaN"),
            ("5", TypeError, "be a number of seconds, not '5'"),
            (b"5", TypeError, "be a number of seconds, not b'5'"),
            (True, TypeError, "be a number of seconds, not True"),
            (1j, TypeError, "be a number of seconds, not 1j"),
            ([1], TypeError, "be a number of seconds, not [1]"),
        ]
    ],
    ({"grace": -1}, ValueError, "grace must not be negative or NaN: -1"),
    ({"grace": None}, TypeError, "grace must be a number of seconds, not None"),
    ({"linger": -1}, ValueError, "linger must not be negative or NaN: -1"),
    ({"linger": None}, TypeError, "linger must be a number of seconds, not None"),
    # what becomes of the output
    ({"max_output": -1}, ValueError, "max_output must not be negative: -1"),
    ({"max_output": 1.5}, TypeError, "max_output must be an int or None, not 1.5"),
    ({"max_output": True}, TypeError, "max_output must be an int or None, not True"),
    ({"max_output": "1"}, TypeError, "max_output must be an int or None, not '1'"),
    ({"leftovers": "keep"}, ValueError, "not 'keep'"),
    ({"leftovers": None}, ValueError, "not None"),
    ({"on_output": "print"}, TypeError, "on_output must be callable, not 'print'"),
    ({"encoding": "utf-99"}, ValueError, "encoding='utf-99'"),
    ({"encoding": None}, TypeError, "not None and 'backslashreplace'"),
    ({"encoding": "rot13"}, ValueError, "encoding='rot13'"),
    ({"encoding": "idna"}, ValueError, "encoding='idna'"),
    ({"encoding": "punycode", "errors": "strict"}, ValueError, "encoding='punycode'"),
    ({"errors": "no-such"}, ValueError, "errors='no-such'"),
    ({"errors": "xmlcharrefreplace"}, ValueError, "errors='xmlcharrefreplace'"),
    ({"errors": None}, TypeError, "not 'utf-8' and None"),
    # descriptors
    ({"input": "", "stdin": "null"}, ValueError, "input and stdin='null' exclude each other"),
    ({"input": b"x", "stdin": 0}, ValueError, "input and stdin=0 exclude each other"),
    ({"merge": True, "stderr": "null"}, ValueError, "merge and stderr='null' exclude each other"),
    ({"stdin": "capture"}, ValueError, 'stdin can\'t be "capture"'),
    ({"stdin": "file"}, ValueError, 'stdin can\'t be "file"'),
    *[
        ({name: value}, error, f"{name} {message}")
        for name in ("stdin", "stdout", "stderr")
        for value, error, message in [
            (-1, ValueError, "is no descriptor: -1"),
            (1 << 31, ValueError, "is no descriptor: 2147483648"),
            (True, TypeError, "must be a keyword, a path, a descriptor or a file, not True"),
            (1.0, TypeError, "must be a keyword, a path, a descriptor or a file, not 1.0"),
            (object(), TypeError, "must be a keyword, a path, a descriptor or a file, not <object"),
            ("", ValueError, "is an empty path"),
            ("a\0", ValueError, "has a NUL character: 'a\\x00'"),
            (closed(io.FileIO(os.devnull)), ValueError, "is a closed file: <_io.FileIO [closed]>"),
            (closed(socket.socket()), ValueError, "has no descriptor any more: <socket.socket [closed]"),
            (io.BytesIO(), ValueError, "is a file without a descriptor: <_io.BytesIO"),
            (without_descriptor(None), TypeError, "has a fileno() that gives no int"),
            (without_descriptor(-1), ValueError, "has no descriptor any more"),
        ]
    ],
    ({"stdout": None}, TypeError, "stdout must be a keyword"),
    # input
    ({"input": 5}, TypeError, "input must be str, bytes-like or a file object, not 5"),
    ({"input": ["a"]}, TypeError, "input must be str, bytes-like or a file object, not ['a']"),
    ({"input": UserString("a")}, TypeError, "input must be str, bytes-like or a file object, not 'a'"),
    ({"input": closed(io.FileIO(os.devnull))}, ValueError, "input is a closed file: <_io.FileIO [closed]>"),
    ({"input": closed(io.StringIO())}, ValueError, "input is a closed file: <_io.StringIO"),
    ({"input": "é", "encoding": "ascii"}, ValueError, "input can't be encoded: 'ascii' codec can't encode character"),
    # directory and environment
    ({"cwd": "a\0b"}, ValueError, "cwd has a NUL character: 'a\\x00b'"),
    ({"cwd": 1.5}, TypeError, "cwd must be str, bytes or os.PathLike, not 1.5"),
    ({"cwd": 999999}, ValueError, "cwd is no open descriptor: 999999"),
    ({"cwd": 0}, ValueError, "cwd is the descriptor of something that is no directory: 0"),
    # what the child changes about itself
    ({"user": "nobody-of-this-name"}, ValueError, "there is no user 'nobody-of-this-name'"),
    ({"user": -1}, ValueError, "user must be from 0 to 4294967294, not -1"),
    ({"user": True}, TypeError, "user must be an int, not True"),
    ({"group": "nobody-of-this-name"}, ValueError, "group: there is no group 'nobody-of-this-name'"),
    ({"extra_groups": "users"}, TypeError, "extra_groups must be a sequence of names or numbers, not 'users'"),
    ({"extra_groups": [1 << 32]}, ValueError, "extra_groups must be from 0 to 4294967294, not 4294967296"),
    ({"umask": 0o1000}, ValueError, "umask must be from 0 to 0o777, not 0o1000"),
    ({"umask": "022"}, TypeError, "umask must be an int, as 0o022, not '022'"),
    ({"umask": True}, TypeError, "umask must be an int, not True"),
    ({"limits": {"memory": 1}}, ValueError, "there is no limit 'memory'; there are as, core, cpu"),
    ({"limits": {"cpu": -2}}, ValueError, "limits['cpu'] must be from 0 to"),
    ({"limits": {"cpu": (2, 1)}}, ValueError, "the soft limit 2 is above the hard limit 1"),
    ({"limits": {"cpu": (1, 2, 3)}}, ValueError, "one value, or a soft and a hard one, not (1, 2, 3)"),
    ({"limits": {"cpu": "1"}}, TypeError, "limits['cpu'] must be an int, not '1'"),
    ({"limits": 5}, TypeError, "limits must be a mapping as {'cpu': 10}, not 5"),
    ({"pass_fds": 3}, TypeError, "pass_fds must be a sequence of descriptors, not 3"),
    ({"pass_fds": [-1]}, ValueError, "pass_fds must be from 0 to 2147483647, not -1"),
    ({"pass_fds": ["a"]}, TypeError, "pass_fds must hold descriptors or files that have one, not 'a'"),
    ({"nice": 0.5}, TypeError, "nice must be an int, not 0.5"),
    ({"start": "spawn"}, ValueError, "start must be one of 'auto', 'clone', 'vfork', 'fork', not 'spawn'"),
    ({"closing": "fast"}, ValueError, "closing must be one of 'auto', 'close_range', 'proc', 'rlimit', not 'fast'"),
    ({"user": 0, "start": "clone"}, ValueError, "user, group and extra_groups need start='fork', not 'clone'"),
    ({"env": [("A", "b")]}, TypeError, "not [('A', 'b')]"),
    ({"env": "A=b"}, TypeError, "not 'A=b'"),
    ({"env": {"A=B": "c"}}, ValueError, "'A=B'"),
    ({"env": {"": "c"}}, ValueError, "''"),
    ({"env": {"A": 1}}, TypeError, "env['A'] must be str, bytes or os.PathLike, not 1"),
    ({"env": {1: "A"}}, TypeError, "a name in env must be str, bytes or os.PathLike, not 1"),
    ({"env": {"A": "b\0"}}, ValueError, "env['A'] has a NUL character: 'b\\x00'"),
    ({"env": {"A\0": "b"}}, ValueError, "a name in env has a NUL character: 'A\\x00'"),
    # secrets
    ({"secrets": "hunter2"}, TypeError, "secrets must be a sequence of str, not one string"),
    ({"secrets": b"hunter2"}, TypeError, "secrets must be a sequence of str, not one string"),
    ({"secrets": ("hunter2", "")}, ValueError, "secrets[1] is empty"),
    ({"secrets": ("hunter2", b"hunter2")}, TypeError, "secrets[1] must be a str, not a bytes"),
    ({"secrets": (1,)}, TypeError, "secrets[0] must be a str, not a int"),
    ({"secrets": 1}, TypeError, "not iterable"),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), WRONG, ids=[f"{i} {next(iter(w[0]))}" for i, w in enumerate(WRONG)]
)
def test_wrong_calls(hook: Callable[[Hook], None], call: dict[str, Any], error: type[Exception], message: str) -> None:
    """TypeError or ValueError with the value in it, before anything is created; never a secret."""
    events: list[object] = []
    hook(events.append)
    before = descriptors()
    with pytest.raises((TypeError, ValueError), match=re.escape(message)) as caught:
        childproof.run(**{"cmd": "true", **call})
    assert isinstance(caught.value, error)
    assert "hunter2" not in str(caught.value)
    assert not events
    assert descriptors() == before


def test_words_that_are_no_keywords_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is a keyword but for some letters is refused; with a directory or an ending it is a path."""
    monkeypatch.chdir(tmp_path)
    names = ["file1", "stdout", "errors", "nucleus", "./captured", "captured.txt"]
    for name in names:
        assert childproof.run(["echo", name], stdout=name, strip=False) == (0, "", "")
    assert [Path(name).read_text() for name in names] == [f"{name}\n" for name in names]
    assert childproof.run("cat", stdin=Path("stdout")).out == "stdout"


@pytest.mark.parametrize("call", ["start", "stream", "pipeline", "run_many"])
def test_every_call_names_an_option_that_there_is_not(call: str) -> None:
    """What takes the options of `run` refuses the others as it does."""
    with pytest.raises(TypeError, match="there is no option 'time_out'; did you mean 'timeout'"):
        list(getattr(childproof, call)(["true"], time_out=3))


def test_a_word_after_the_second_is_a_keyword() -> None:
    """Only cmd, input and timeout are positional, and the defaults are those of the contract."""
    parameters = inspect.signature(childproof.run).parameters.values()
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == ["cmd", "input", "timeout"]
    defaults = {p.name: p.default for p in parameters}
    expected = {
        "input": None, "timeout": None, "stdout": "capture", "stderr": "capture", "grace": 0.0, "linger": 0.5,
        "leftovers": "leave", "mark": True, "max_output": None, "text": True, "encoding": "utf-8",
        "errors": "backslashreplace", "strip": True, "merge": False, "on_output": None, "check": False,
        "secrets": (), "cwd": None, "env": None, "new_session": True,
    }  # fmt: skip
    assert {name: defaults[name] for name in expected} == expected


# ---- odd calls ----


@pytest.mark.parametrize(
    "timeout",
    [None, -1, -1.0, Decimal(-1), math.inf, 10**400, 1e300, Decimal(50), Fraction(101, 2), 50],
    ids=lambda timeout: str(timeout)[:9],
)
def test_timeouts_that_are_accepted(timeout: Any) -> None:
    """Any real number; `None` and -1 are none at all, and nothing is too large."""
    assert childproof.run("echo ok", timeout=timeout) == (0, "ok", "")


@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, Decimal(0)])
def test_timeout_zero_starts_nothing(hook: Callable[[Hook], None], tmp_path: Path, timeout: Any) -> None:
    """With no time left the command is not started: 124, and the error says it."""
    events: list[object] = []
    hook(events.append)
    result = childproof.run(["touch", tmp_path / "file"], timeout=timeout)
    assert result == (124, "", "")
    assert result.outcome is Outcome.TIMED_OUT
    assert (result.pid, result.usage, result.killed) == (0, None, ())
    assert "timed out after 0 s" in str(result.error)
    assert not (tmp_path / "file").exists()
    assert not events


class Word(str):
    """A str of the caller's own."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("cmd", "out"),
    [
        ("", ""),
        (Word("echo $((1 + 1))"), "2"),
        (("echo", "a"), "a"),
        ([Path("/bin/echo"), b"a", "", Word("b")], "a  b"),
        (["printf", "%s", "é\udcff"], "é\\xff"),
        (["echo", "$HOME", "*", ";"], "$HOME * ;"),
    ],
)
def test_commands_that_are_accepted(cmd: Any, out: str) -> None:
    """A str is the shell's; other words reach the program byte by byte."""
    assert childproof.run(cmd) == (0, out, "")


@pytest.mark.parametrize(
    ("env", "out"),
    [
        ({}, ""),
        ({"A": "b", b"C": Path("/d")}, "A=b\nC=/d"),
        ({"A": "", "B": "a=b\nc"}, "A=\nB=a=b\nc"),
        ({b"\xff": b"\xfe", "CHILDPROOF_RUN": "mine"}, "\\xff=\\xfe\nCHILDPROOF_RUN=mine"),
    ],
    ids=repr,
)
def test_environments_that_are_accepted(env: dict[Any, Any], out: str) -> None:
    """The given environment is the child's whole one, without the mark."""
    assert childproof.run(["/usr/bin/env"], env=env).out == out


def test_a_changed_environment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run has what was put into, or taken out of, os.environ."""
    monkeypatch.setenv("CHILDPROOF_TEST", "one")
    assert childproof.run("echo $CHILDPROOF_TEST").out == "one"
    os.environ["CHILDPROOF_TEST"] = "two"
    assert childproof.run("echo $CHILDPROOF_TEST").out == "two"
    os.environb[b"CHILDPROOF_TEST"] = b"\xff"
    assert childproof.run("printf $CHILDPROOF_TEST").out == "\\xff"
    del os.environ["CHILDPROOF_TEST"]
    assert childproof.run("echo ${CHILDPROOF_TEST-unset}").out == "unset"


@pytest.mark.parametrize("convert", [str, os.fsencode, Path])
def test_directories_that_are_accepted(tmp_path: Path, convert: Callable[[Path], Any]) -> None:
    """Cwd is str, bytes or path-like."""
    assert childproof.run("pwd", cwd=convert(tmp_path)).out == str(tmp_path)


@pytest.mark.parametrize("path", ["", ":/no", "/no:", "/no::/no", "/no:."])
def test_an_empty_directory_in_path_is_the_current_one(tmp_path: Path, path: str) -> None:
    """The current one is the child's, as for a shell."""
    (tmp_path / "here").symlink_to("/bin/pwd")
    assert childproof.run(["here", "-P"], cwd=tmp_path, env={"PATH": path}).out == str(tmp_path)


def test_what_is_no_directory_on_the_way_is_said(tmp_path: Path) -> None:
    """A path through a file fails with ENOTDIR; in a search that is like "not here"."""
    (tmp_path / "file").touch()
    result = childproof.run([tmp_path / "file" / "program"])
    assert (result.code, result.error and result.error.errno) == (127, errno.ENOTDIR)
    for path in (f"{tmp_path}/file:/nowhere", f"/nowhere:{tmp_path}/file"):
        result = childproof.run(["program"], env={"PATH": path})
        assert (result.code, result.error and result.error.errno) == (127, errno.ENOENT)


@pytest.mark.parametrize("slot", ["stdin", "stdout", "stderr"])
def test_a_failed_open_names_its_path(slot: str, tmp_path: Path) -> None:
    """Also where there are several."""
    paths: dict[str, Any] = {name: tmp_path / name for name in ("stdin", "stdout", "stderr")}
    paths["stdin"].touch()
    paths[slot] = tmp_path / "missing" / slot
    result = childproof.run(["true"], **paths)
    assert result.error is not None
    assert (result.error.stage, result.error.filename) == ("open", str(paths[slot]))


FAILING: list[tuple[dict[str, Any], int, str]] = [
    ({"cmd": ["no-such-program"]}, 127, "cannot start no-such-program: exec: No such file or directory"),
    ({"cmd": ["no-such program"]}, 127, "(a sequence is one word a program and argument; a command line is a str)"),
    ({"cmd": ["{tmp}/plain"]}, 126, "/plain: exec: Permission denied (nobody may execute it: chmod +x)"),
    ({"cmd": ["{tmp}"]}, 126, "exec: Permission denied (it is a directory)"),
    ({"cmd": ["plain"], "env": {"PATH": "{tmp}"}}, 126, "Permission denied (nobody may execute it: chmod +x)"),
    ({"cmd": ["./plain"], "cwd": "{tmp}"}, 126, "Permission denied (nobody may execute it: chmod +x)"),
    ({"cmd": ["{tmp}/script"]}, 126, "No such file or directory (the file exists; its interpreter or loader does not)"),
    ({"cwd": "{tmp}/missing"}, 125, "chdir: No such file or directory: '{tmp}/missing'"),
    ({"cwd": "{tmp}/plain"}, 125, "chdir: Not a directory: '{tmp}/plain'"),
    ({"cwd": ""}, 125, "chdir: No such file or directory: ''"),
    ({"stdout": "{tmp}"}, 125, "open: Is a directory: '{tmp}'"),
    ({"stdin": "{tmp}/missing"}, 125, "open: No such file or directory: '{tmp}/missing'"),
    ({"stdout": 999}, 125, "dup: Bad file descriptor: stdout=999"),
]


@pytest.mark.parametrize(("call", "code", "sentence"), FAILING, ids=[str(call) for call, _, _ in FAILING])
def test_failed_starts_say_what_and_with_what(call: dict[str, Any], code: int, sentence: str, tmp_path: Path) -> None:
    """The stage, the errno's words, the value, and what execve(2) leaves unsaid."""
    (tmp_path / "plain").write_text("x")
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(word) for word in value]
        if isinstance(value, dict):
            return {name: filled(word) for name, word in value.items()}
        return value.format(tmp=tmp_path) if isinstance(value, str) else value

    result = childproof.run(**filled({"cmd": ["true"], **call}))
    assert result.code == code
    assert sentence.format(tmp=tmp_path) in result.err


# ---- the audit event ----


def test_the_audit_event(hook: Callable[[Hook], None], tmp_path: Path) -> None:
    """subprocess.Popen is raised with executable, args, cwd and env, before anything exists."""
    before = children(), descriptors()
    events: list[tuple[Any, ...]] = []

    def listen(args: tuple[Any, ...]) -> None:
        events.append(args)
        assert (children(), descriptors()) == before

    hook(listen)
    env = {"A": "b"}
    childproof.run("echo $A", cwd=tmp_path, env=env)
    childproof.run([b"echo", Path("x")])
    assert events == [
        ("/bin/sh", ["/bin/sh", "-c", "echo $A"], str(tmp_path), env),
        ("echo", ["echo", "x"], None, None),
    ]


@pytest.mark.parametrize("error", [PermissionError("vetoed"), KeyboardInterrupt()], ids=repr)
def test_a_veto_propagates(hook: Callable[[Hook], None], tmp_path: Path, error: BaseException) -> None:
    """What a hook raises comes out of `run`, and nothing was created."""

    def veto(_: tuple[Any, ...]) -> None:
        raise error

    hook(veto)
    before = children(), descriptors()
    with pytest.raises(type(error)) as caught:
        childproof.run(["touch", tmp_path / "file"], stdout=tmp_path / "out")
    assert caught.value is error
    assert (children(), descriptors()) == before
    assert not list(tmp_path.iterdir())
