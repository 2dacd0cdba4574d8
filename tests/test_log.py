"""The log: one line a command, which output can't forge and which shows no secret."""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest

import childproof
from childproof import CommandError, Result, _journal
from childproof._text import Masker, one_line
from conftest import is_alive, stop


class Log:
    """What the logger ``childproof`` was given."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def at(self, level: int) -> list[str]:
        """The texts at `level`, in order."""
        return [r.getMessage() for r in self._caplog.records if r.name == "childproof" and r.levelno == level]

    def all(self) -> list[str]:
        """Every text."""
        return [r.getMessage() for r in self._caplog.records if r.name == "childproof"]

    def field(self, name: str) -> str:
        """The field ``IN``, ``OUT`` or ``ERR`` of the last DEBUG record."""
        return self.at(logging.DEBUG)[-1].split(f"<{name}>:")[1].split(" <")[0]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Log:
    """The log at DEBUG, of a process that has run nothing yet."""
    monkeypatch.setattr(_journal, "_last", OrderedDict())
    caplog.set_level(logging.DEBUG, "childproof")
    return Log(caplog)


def fresh(code: str) -> str:
    """What a new interpreter prints for `code`, stderr too."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


# ---- what is logged, and how ----


def test_the_record_of_a_command(log: Log) -> None:
    """An ordinary command, failed or not, is one DEBUG record: code, seconds, command, in, out, err."""
    childproof.run("cat; echo oops >&2; exit 3", input="in\n")
    (line,) = log.all()
    assert log.at(logging.DEBUG) == [line]
    pattern = r"<EXE>\(3,\d+\.\d{3}s\):cat; echo oops >&2; exit 3 <IN>:in\\n <OUT>:in <ERR>:oops"
    assert re.fullmatch(pattern, line)


@pytest.mark.parametrize(
    ("source", "shown"),
    [(b"a\xff\n", "a\\xff\\n"), (bytearray(b"b"), "b"), (memoryview(b"c"), "<memoryview>"), (None, "")],
)
def test_the_input_is_shown_as_far_as_it_is_known(log: Log, source: object, shown: str) -> None:
    """Bytes are decoded for the record; of another object there is the type."""
    childproof.run("cat", input=source)
    assert log.field("IN") == shown


def test_a_sequence_is_shown_as_it_would_be_typed(log: Log, tmp_path: Path) -> None:
    """Words are quoted where a shell would need it, bytes and paths too."""
    childproof.run(["echo", "a b", b"\xff", tmp_path])
    assert f"):echo 'a b' '\\udcff' {tmp_path} <IN>:" in log.all()[0]


def test_a_long_output_is_cut(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record holds no more of one output than the bound, and says how much is missing."""
    monkeypatch.setattr(_journal, "SHOWN_CHARACTERS", 10)
    childproof.run("printf 0123456789abc")
    assert log.field("OUT") == "0123456789... 3 more"


def test_what_could_not_start_is_an_error(log: Log) -> None:
    """A failed start is one ERROR with the error's sentence, besides the DEBUG record."""
    result = childproof.run(["/no/such/program"])
    assert log.at(logging.ERROR) == [str(result.error)]
    assert len(log.all()) == 2


def test_a_timeout_is_a_warning_and_so_is_each_killed_process(log: Log) -> None:
    """The sentence of the timeout, and pid, command and parent of whoever was killed."""
    result = childproof.run("sleep 61 & sleep 62; :", timeout=0.3)
    warnings = log.at(logging.WARNING)
    assert warnings.count(f"timed out after 0.3 s: {result.cmd}") == 1
    assert sorted(info.command for info in result.killed) == [
        "/bin/sh -c sleep 61 & sleep 62; :",
        "sleep 61",
        "sleep 62",
    ]
    for info in result.killed:
        assert warnings.count(f"killed pid {info.pid} ({info.command}), child of {info.ppid}") == 1
    assert len(warnings) == 4


def test_a_held_pipe_is_a_warning_with_the_cure(log: Log) -> None:
    """One line says who holds which stream of what, by which descriptors, and what to do."""
    result = childproof.run("sleep 63 & echo $!", linger=0.1)
    pid = int(result.out)
    try:
        assert log.at(logging.WARNING) == [
            f"pid {pid} (sleep 63) still holds stdout (its fd 1), stderr (its fd 2) of {result.cmd};"
            " start it with childproof launch, or redirect its output"
        ]
        assert is_alive(pid)
    finally:
        stop(pid)


# ---- repeated output ----


@pytest.mark.parametrize(("name", "redirect"), [("OUT", ""), ("ERR", " >&2")])
@pytest.mark.parametrize(("text", "repeated"), [("x" * 256, False), ("x" * 257, True), ("é" * 129, True)])
def test_repeated_output(log: Log, name: str, redirect: str, text: str, repeated: bool) -> None:
    """Output is abbreviated when it is over 256 bytes and equal to the last one of the command."""
    cmd = "cat" + redirect
    for source, shown in [
        (text, text),
        (text, "<equal last...>" if repeated else text),
        (text + "y", text + "y"),
        (text, text),  # it is not the last one's any more
    ]:
        childproof.run(cmd, input=source)
        assert log.field(name) == shown
    childproof.run(cmd + " ", input=text)
    assert log.field(name) == text, "another command's output"


def test_the_streams_are_compared_apart(log: Log) -> None:
    """One stream may be as before, the other not."""
    for shown in ("o" * 300, "<equal last...>"):
        childproof.run("cat; head -c 300 /dev/urandom | od -An -tx1 >&2", input="o" * 300)
        assert log.field("OUT") == shown
        assert len(log.field("ERR")) > 300


def test_the_memory_is_bounded_and_holds_hashes(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that was used longest ago is forgotten first; no text is kept."""
    monkeypatch.setattr(_journal, "REMEMBERED_COMMANDS", 3)
    text = "x" * 300
    commands = {name: f"cat # {name}" for name in "abcd"}

    def is_remembered(name: str) -> bool:
        childproof.run(commands[name], input=text)
        return log.field("OUT") == "<equal last...>"

    assert [is_remembered(name) for name in "abcad"] == [False, False, False, True, False]
    assert len(_journal._last) == 3
    assert is_remembered("a")
    assert not is_remembered("b")
    for key, value in _journal._last.items():
        assert [type(item) for item in (key, *value)] == [int, int, int]


# ---- a line can't be forged ----

NASTY = [
    "\n",
    "\r",
    "\x1b[31m",
    "\x07",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x7f",
    "\x85",
    "\u061c",
    "\u200f",
    "\u2028",
    "\u2029",
    "\u202e",
    "\u2066",
    "�",
]


@pytest.mark.parametrize("nasty", NASTY, ids=ascii)
def test_no_character_forges_a_line(log: Log, nasty: str) -> None:
    """What breaks lines, moves the cursor or reorders text is escaped, in each field."""
    word = f"a{nasty}b"
    result = childproof.run(["sh", "-c", 'cat; printf %s "$0" >&2; exit 1', word], input=word)
    (line,) = log.all()
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    with pytest.raises(CommandError) as caught:
        result.check()
    assert str(caught.value).isprintable()


def test_no_program_or_path_forges_a_line(log: Log) -> None:
    """Nor do the names in the sentences of what could not start, in the log and in `err`."""
    bad = "/no\n\x1b[2J\u202e/such"
    for result in (childproof.run([bad]), childproof.run("true", cwd=bad), childproof.run("true", stdout=bad)):
        assert result.outcome is childproof.Outcome.NOT_STARTED
        assert result.err.isprintable()
    assert len(log.at(logging.ERROR)) == 3
    assert all(line.isprintable() for line in log.all())


def test_no_other_process_forges_a_line(log: Log) -> None:
    """Nor do the command lines of holders and of those that are killed."""
    nasty = "x\n<EXE>(0)\x1b[2J\u202e"
    held = childproof.run(["sh", "-c", 'sh -c "sleep 64; :" "$0" &', nasty], linger=0.1)
    for holder in held.held:
        stop(holder.pid)
    killed = childproof.run(["sh", "-c", "sleep 65; :", nasty], timeout=0.3)
    assert any("\n" in holder.command for holder in held.held)
    assert any("\n" in info.command for info in killed.killed)
    assert len(log.at(logging.WARNING)) == 1 + 1 + 2
    assert all(line.isprintable() for line in log.all())


def test_printable_text_is_left_alone() -> None:
    """Letters of any script, symbols and the backslash are shown as they are."""
    text = "naïve 日本語 \\n 🙂 \u00a0."
    assert one_line(text) == text


# ---- secrets ----

SECRETS = {
    "quotes and spaces": 'it\'s "top" $ecret',
    "two lines": "it's\n top $ecret",
    "read from a file": "top $ecret\n",
}


@pytest.fixture(params=list(SECRETS.values()), ids=list(SECRETS))
def secret(request: pytest.FixtureRequest) -> str:
    """A secret that something on its way changes: quoting, escaping or stripping."""
    value: str = request.param
    return value


def complaint(result: Result[str]) -> list[str]:
    """The texts that `result` may be quoted by."""
    with pytest.raises(CommandError) as caught:
        result.check()
    return [str(caught.value), *([str(result.error)] if result.error else [])]


def assert_masked(texts: list[str], at_least: int = 1) -> None:
    """No part of the secret is in `texts`, and its replacement is in at least so many."""
    for text in texts:
        assert "top" not in text
        assert "ecret" not in text
    assert sum("***" in text for text in texts) >= at_least


def test_secrets_are_masked_in_every_field(log: Log, secret: str) -> None:
    """In the command, where quoting would change them, in input, output, errors and complaints."""
    script = 'cat; printf %s "$0" >&2; exit 1'
    words = childproof.run(["sh", "-c", script, secret], input=secret, secrets=[secret])
    line = childproof.run(f"echo {shlex.quote(secret)} >&2; exit 1", input=secret.encode(), secrets=[secret])
    assert log.at(logging.DEBUG)[0].count("***") == 4
    assert_masked([*log.all(), *complaint(words), *complaint(line)], 4)
    assert secret.strip() in words.out, "the result has what the command wrote"


def test_secrets_are_masked_in_failed_starts(log: Log, secret: str) -> None:
    """In program, directory and output path, wherever they are quoted."""
    bad = f"/no/{secret}"
    results = [
        childproof.run([bad], secrets=[secret]),
        childproof.run("true", cwd=bad, secrets=[secret]),
        childproof.run("true", stdout=bad, secrets=[secret]),
    ]
    texts = [text for result in results for text in (*complaint(result), result.err)]
    assert_masked([*log.at(logging.ERROR), *texts], len(texts) + 3)
    assert_masked(log.all())


def test_secrets_are_masked_in_other_processes(log: Log, secret: str) -> None:
    """In the command lines of holders and of those that are killed, and in a timeout's sentence."""
    held = childproof.run(["sh", "-c", 'sh -c "sleep 66; :" "$0" &', secret], linger=0.1, secrets=[secret])
    for holder in held.held:
        stop(holder.pid)
    killed = childproof.run(["sh", "-c", "sleep 67; :", secret], timeout=0.3, secrets=[secret])
    assert "top" in "".join(info.command for info in killed.killed), "seen, but not shown"
    assert_masked([*log.all(), *complaint(killed)], 6)


@pytest.mark.parametrize(
    ("secrets", "text", "masked"),
    [
        (("abcd", "cdef"), "xabcdefx", "x***x"),
        (("abc", "abcdef"), "abcdef abc", "*** ***"),
        (("cd", "abcdef"), "abcdef", "***"),
        (("abab",), "xababab", "x***"),
        (("ab", "bc", "cd"), "abcd", "***"),
        (("a", "*"), "a*", "******"),
        (("x",), "abc", "abc"),
        ((" ",), "a b", "a***b"),
    ],
)
def test_overlapping_secrets_leave_no_end(secrets: tuple[str, ...], text: str, masked: str) -> None:
    """Where secrets overlap, all that belongs to any of them is gone."""
    assert Masker(secrets)(text) == masked


# ---- what it costs ----


@pytest.mark.parametrize("level", [logging.INFO, logging.CRITICAL])
def test_nothing_is_formatted_when_the_level_is_off(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    """Without DEBUG no record is put together, and without WARNING nothing at all."""

    def never(*_: object) -> str:
        raise AssertionError("formatted")

    for name in ("_record", "show_command", "one_line", "_field"):
        monkeypatch.setattr(_journal, name, never)
    caplog.set_level(level, "childproof")
    assert childproof.run("cat", input="x", secrets=["x"]) == (0, "x", "")
    if level == logging.CRITICAL:
        assert childproof.run("sleep 68", timeout=0.1).code == 124
        assert childproof.run(["/no/such"]).code == 127
        stop(childproof.run("sleep 69 &", linger=0).held[0].pid)


def test_logging_is_not_imported() -> None:
    """Neither by the import nor by a run, failed or not."""
    code = "import sys, childproof; childproof.run('true'); childproof.run(['/no']); print('logging' in sys.modules)"
    assert fresh(code) == "False\n"


def test_nothing_is_printed_without_a_handler() -> None:
    """The logger has a NullHandler, so that `logging` does not write to stderr by itself."""
    code = (
        "import childproof, logging; childproof.run(['/no']);"
        "print([type(h).__name__ for h in logging.getLogger('childproof').handlers])"
    )
    assert fresh(code) == "['NullHandler']\n"


def test_logging_may_be_imported_later() -> None:
    """The log goes to whoever sets logging up, before or after the first command."""
    code = (
        "import childproof; childproof.run('true'); import logging;"
        "logging.basicConfig(format='%(levelname)s %(name)s');"
        "childproof.run(['/no'])"
    )
    assert fresh(code) == "ERROR childproof\n"
