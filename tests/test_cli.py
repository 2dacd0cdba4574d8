"""The command ``childproof run``, as a process of its own: what passes through, codes, diagnosis, ends."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from childproof import Holder, Outcome, ProcessInfo, Usage, __version__
from childproof._cli.base import Outlet
from conftest import SLACK_SECONDS, is_alive, stop, wait_until

CLI = [sys.executable, "-m", "childproof", "run"]
AT_MOST_SECONDS = 60.0
"""For what has no bound in the contract: a test must not hang."""

AFTER_DEADLINE_SECONDS = 1.0
LINGER_SECONDS = 0.5

WITH_SIGNAL = """
import os, signal, sys
signal.signal(int(sys.argv[1]), signal.Handlers[sys.argv[2]])
os.execv(sys.argv[3], sys.argv[3:])
"""

MEASURE = """
import resource, subprocess, sys
total = 0
with subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE) as cli:
    while data := cli.stdout.read(1 << 20):
        total += len(data)
print(total, cli.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""

Words = str | bytes | Path


def with_signal(number: int, disposition: str) -> tuple[str, ...]:
    """What to put before a command that is to start with a signal ignored, or not ignored."""
    return sys.executable, "-S", "-E", "-c", WITH_SIGNAL, str(int(number)), disposition


def cli(*args: Words, before: tuple[str, ...] = (), **options: Any) -> subprocess.CompletedProcess[bytes]:
    """``childproof run`` with `args`, run to its end."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(
        [*before, *CLI, *args], start_new_session=True, timeout=AT_MOST_SECONDS, check=False, **options
    )


def cli_json(*args: Words) -> dict[str, Any]:
    """What ``childproof run --json`` with `args` prints."""
    done = cli("--json", *args)
    assert done.stdout.endswith(b"}\n")
    assert done.stdout.count(b"\n") == 1
    result: dict[str, Any] = json.loads(done.stdout.decode("ascii"))
    assert done.returncode == (result["code"] if result["code"] >= 0 else 128 - result["code"])
    return result


@contextmanager
def background(*args: Words, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """``childproof run`` with `args`, running; the test sees to its end, or it is killed."""
    pipe = subprocess.PIPE
    command = [*before, *CLI, *args]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[bytes]) -> bytes:
    """The first line of its stdout, without waiting for more."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], AT_MOST_SECONDS)[0], "no output"
    return process.stdout.readline()


def lines_of(data: bytes) -> list[str]:
    """The lines of a diagnosis, each of which must be marked as ours."""
    lines = data.decode().splitlines()
    assert all(line.startswith("childproof: ") for line in lines), lines
    return [line.removeprefix("childproof: ") for line in lines]


def all_dead(pids: list[int]) -> bool:
    """Whether none of `pids` runs any more; init may still have to reap them."""
    return wait_until(lambda: not any(map(is_alive, pids)), SLACK_SECONDS)


# ---- what passes through ----


def test_both_streams_pass_through_as_they_are() -> None:
    """Every byte arrives on the descriptor it was written to, and nothing is added."""
    script = "import os; os.write(1, bytes(range(256)) * 1000); os.write(2, bytes(range(255, -1, -1)) * 1000)"
    done = cli("--", sys.executable, "-c", script)
    assert done.stdout == bytes(range(256)) * 1000
    assert done.stderr == bytes(range(255, -1, -1)) * 1000
    assert done.returncode == 0


def test_output_is_live_and_stdin_is_the_commands() -> None:
    """A line comes out while the command runs, and what is written to our stdin reaches it."""
    with background("echo first; cat") as process:
        assert first_line(process) == b"first\n"
        assert process.poll() is None
        out, err = process.communicate(b"in\0put", timeout=AT_MOST_SECONDS)
    assert (process.returncode, out, err) == (0, b"in\0put", b"")


@pytest.mark.parametrize("options", [[], ["--timeout", "50"]])
def test_memory_stays_bounded(options: list[str]) -> None:
    """200 MB pass through a process that never has 100 MB."""
    command = [sys.executable, "-c", MEASURE, *CLI, *options, "head -c 200000000 /dev/zero"]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=AT_MOST_SECONDS, check=True)
    total, code, peak = map(int, done.stdout.split())
    assert (total, code) == (200_000_000, 0)
    assert peak < 100_000_000


def test_a_reader_that_stops_does_not_hold_up_the_deadline() -> None:
    """The tree is killed in time, what the reader finds later has no hole, and the loss is told."""
    began = time.monotonic()
    with background("--timeout", "1", "--", "seq", "100000000") as process:
        assert process.wait(AT_MOST_SECONDS) == 124
        assert time.monotonic() - began < 1 + AFTER_DEADLINE_SECONDS + SLACK_SECONDS
        out, err = process.communicate(timeout=AT_MOST_SECONDS)
    whole, _, _ = out.rpartition(b"\n")
    assert whole.split() == [b"%d" % number for number in range(1, whole.count(b"\n") + 2)]
    assert re.fullmatch(r"\d+ bytes of stdout are lost: nobody has read them in time", lines_of(err)[-1])


def test_what_a_slow_reader_has_not_taken_at_the_deadline_is_kept_for_it() -> None:
    """Past the deadline nothing waits, and nothing of a moderate output is lost or out of order."""
    reader, writer = os.pipe()
    try:
        outlet = Outlet(writer, time.monotonic())
        data = b"".join(b"%d\n" % number for number in range(60_000))
        outlet.take(data[:200_000])
        outlet.take(data[200_000:])
        assert outlet.missed > 0
        got = b""
        while outlet.missed:
            got += os.read(reader, 1 << 20)
            outlet.take(b"")
        assert got + os.read(reader, 1 << 20) == data
    finally:
        os.close(reader)
        os.close(writer)


def test_an_outlet_keeps_only_so_much() -> None:
    """A reader that takes nothing does not make us keep everything, and what is dropped is the end."""
    reader, writer = os.pipe()
    try:
        outlet = Outlet(writer, time.monotonic())
        for _ in range(64):
            outlet.take(b"x" * (1 << 20))
        assert len(outlet._kept) < 3 << 20
        room = (64 << 20) - outlet.missed
        assert os.read(reader, 1 << 20) == b"x" * room
    finally:
        os.close(reader)
        os.close(writer)


def test_closed_descriptors_are_not_filled_by_ours() -> None:
    """Started without stdin and stdout, it does not take pipes of its own for them."""
    script = "trap 'echo out; echo err >&2; exit' TERM; while :; do sleep 0.1; done"
    done = cli("--timeout", "1", "--grace", "10", script, before=("/bin/sh", "-c", 'exec "$@" <&- >&-', "sh"))
    assert done.returncode == 124
    assert done.stdout == b""
    assert b"err\nchildproof: timed out after 1 s: " in done.stderr


# ---- codes, and what is executed ----


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["exit 0"], 0),
        (["exit 3"], 3),
        (["kill -9 $$"], 137),
        (["--no-shell", "no-such-program"], 127),
        (["--no-shell", "/etc/passwd"], 126),
        (["--timeout", "0", "true"], 124),
        (["--timeout", "0.2", "sleep 600"], 124),
    ],
)
def test_the_exit_code(args: list[str], code: int) -> None:
    """It exits with the command's code, 128+N for a signal, and the codes of `timeout` and `env`."""
    assert cli(*args).returncode == code


def test_the_code_of_a_command_that_could_not_be_started() -> None:
    """Where descriptors have run out the code is 125, and the diagnosis names the step."""
    done = cli("true", before=("/bin/sh", "-c", 'ulimit -n 6; exec "$@"', "sh"))
    assert done.returncode == 125
    (line,) = lines_of(done.stderr)
    assert "pipe" in line
    assert os.strerror(24) in line


def test_a_failed_start_is_told_once() -> None:
    """One line says that there is no such program, and stdout stays empty."""
    done = cli("--no-shell", "no-such-program")
    (line,) = lines_of(done.stderr)
    assert "no-such-program" in line
    assert done.stdout == b""


def test_one_word_goes_to_the_shell() -> None:
    """A single word is a command line."""
    assert cli("echo $((1+1))").stdout == b"2\n"


@pytest.mark.parametrize("separator", [[], ["--"]])
def test_several_words_are_executed_as_they_are(separator: list[str]) -> None:
    """No shell reads them, so no quoting is lost, and options among them are the command's."""
    words = ["--timeout", "0", "$((1+1))", "two  words", "*", "--json", "-h", "--", ""]
    done = cli("--timeout", "50", *separator, "printf", "[%s]", *words)
    assert done.stdout.decode() == "".join(f"[{word}]" for word in words)
    assert done.stderr == b""


def test_no_shell_for_one_word() -> None:
    """With --no-shell a single word is the name of a program."""
    assert cli("--no-shell", "echo $((1+1))").returncode == 127
    assert cli("--no-shell", "echo").stdout == b"\n"


def test_the_second_separator_is_the_commands() -> None:
    """``-- --`` runs a program of that name."""
    assert cli_json("--", "--", "echo")["cmd"] == ["--", "echo"]


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--"],
        ["--timeout", "5"],
        ["--timeout", "-1", "true"],
        ["--timeout=-0.5", "true"],
        ["--timeout", "nan", "true"],
        ["--timeout", "soon", "true"],
        ["--grace", "-1", "true"],
        ["--linger", "nan", "true"],
        ["--max-output", "5", "true"],
        ["--json", "--max-output", "-5", "true"],
        ["--json", "--max-output", "many", "true"],
        ["--time", "5", "true"],
        ["--no-such\noption", "true"],
        ["--no-shell", ""],
    ],
)
def test_wrong_arguments(args: list[str]) -> None:
    """One line says what is wrong, nothing is started, and the code is 2."""
    done = cli(*args)
    assert done.returncode == 2
    assert len(lines_of(done.stderr)) == 1
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rnu", "ls"], "there is no subcommand 'rnu': there are run, launch, many"),
        (["rnu", "ls"], "; did you mean 'run'? (see childproof --help)"),
        (["--jsno", "run", "true"], "there is no option --jsno before the subcommand (see childproof --help)"),
        (["--versoin"], "; did you mean '--version'? (see childproof --help)"),
        (["run", "--time-out", "3", "true"], "--time-out; did you mean '--timeout'? (see childproof run --help)"),
        (["run", "--time-out=3", "true"], "no option --time-out; did you mean '--timeout'?"),
        (["run", "--version", "true"], "there is no option --version (see childproof run --help)"),
        (["launch", "--ready-prt", "5", "true"], "no option --ready-prt; did you mean '--ready-port'?"),
        (["many", "-x"], "there is no option -x (see childproof many --help)"),
        (["many", "--job", "3"], "there is no option --job; did you mean '--jobs'?"),
        (["holders", "1", "2"], "too many arguments: '2' (see childproof holders --help)"),
        (["tree", "one"], "argument PID: invalid int value: 'one'"),
        (["bench", "--rouds", "3"], "there is no option --rouds; did you mean '--rounds'?"),
        ([], "the following arguments are required: SUBCOMMAND"),
    ],
)
def test_a_misspelt_word_is_named_with_what_was_meant(words: list[str], sentence: str) -> None:
    """By the parser that has the options, on one line."""
    done = subprocess.run([sys.executable, "-m", "childproof", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence in done.stderr


def test_the_version() -> None:
    """With the name of the program; nobody need read it."""
    words = [sys.executable, "-m", "childproof", "--version"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == f"childproof {__version__}\n"


def test_the_help_tells_what_becomes_of_the_words() -> None:
    """It says when there is a shell, and exits with 0; read by nobody, it exits as quietly."""
    done = cli("--help")
    assert done.returncode == 0
    assert b"/bin/sh" in done.stdout
    assert b"without a shell" in done.stdout
    reader, writer = os.pipe()
    os.close(reader)
    unread = cli("--help", stdout=writer)
    os.close(writer)
    assert (unread.returncode, unread.stderr) == (141, b"")


# ---- diagnosis ----


def test_a_timeout_kills_the_tree_and_names_it() -> None:
    """At the deadline the child and its descendants die, in another session too, and each is named."""
    began = time.monotonic()
    done = cli("--timeout", "1", "sleep 601 & setsid sleep 602 & echo $$ $!; sleep 603")
    assert time.monotonic() - began < 1 + AFTER_DEADLINE_SECONDS + SLACK_SECONDS
    assert done.returncode == 124
    sentence, *others = lines_of(done.stderr)
    assert sentence.startswith("timed out after 1 s: sleep 601")
    killed = [int(match[1]) for line in others if (match := re.match(r"killed pid (\d+) \(", line))]
    assert len(killed) == len(others) == 4
    assert set(map(int, done.stdout.split())) <= set(killed)
    assert all_dead(killed)


def test_grace() -> None:
    """With --grace the command is asked first, and what it says then still passes through."""
    began = time.monotonic()
    done = cli("--timeout", "1", "--grace", "20", "trap 'echo bye; exit' TERM; while :; do sleep 0.1; done")
    assert time.monotonic() - began < 1 + 20 + AFTER_DEADLINE_SECONDS + SLACK_SECONDS
    assert (done.returncode, done.stdout) == (124, b"bye\n")


def test_a_held_pipe_is_not_waited_for_and_its_holder_is_named() -> None:
    """A service in the background: it comes back after the linger, says who holds what, what will
    become of it, and leaves it alone.
    """
    began = time.monotonic()
    done = cli("sleep 600 & echo start ok")
    assert time.monotonic() - began < LINGER_SECONDS + 1 + SLACK_SECONDS
    held, fate = lines_of(done.stderr)
    match = re.match(
        r"pid (\d+) \(sleep 600\) still holds stdout \(its fd 1\), stderr \(its fd 2\) of sleep 600 &", held
    )
    assert match is not None, held
    assert is_alive(int(match[1]))
    stop(int(match[1]))
    assert (done.returncode, done.stdout) == (0, b"start ok\n")
    assert "EPIPE" in fate
    assert "SIGPIPE" in fate


def test_linger() -> None:
    """With a longer --linger what a descendant writes late is passed on, and nobody is left."""
    done = cli("--linger", "30", "(sleep 1; echo late) & echo now")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"now\nlate\n", b"")


def test_kill_leftovers() -> None:
    """With --kill-leftovers the service dies and is named, and the code is the command's."""
    done = cli("--kill-leftovers", "sleep 600 & echo $!; exit 3")
    pid = int(done.stdout)
    (line,) = lines_of(done.stderr)
    assert line.startswith(f"killed pid {pid} (sleep 600)")
    assert done.returncode == 3
    assert all_dead([pid])


def test_a_command_cannot_forge_a_diagnosis() -> None:
    """Control characters in its words are escaped, in every sentence that shows them."""
    forged = "x\nchildproof: all is well\x1b[2J\x85\udcff"
    done = cli("--timeout", "1", "--", "sh", "-c", "sleep 600; :", forged)
    assert "all is well" in done.stderr.decode()
    assert [line.split()[0] for line in lines_of(done.stderr)] == ["timed", "killed", "killed"]
    done = cli("--no-shell", forged)
    (line,) = lines_of(done.stderr)
    assert r"x\nchildproof: all is well\x1b[2J\x85" in line


def test_the_diagnosis_begins_on_a_line_of_its_own() -> None:
    """A command that was killed within a line of its stderr does not swallow ours."""
    done = cli("--timeout", "1", "printf partial >&2; exec sleep 600")
    partial, _, rest = done.stderr.partition(b"\n")
    assert partial == b"partial"
    assert lines_of(rest)[0].startswith("timed out")


# ---- --json ----


def test_json_has_the_whole_result() -> None:
    """One object with every attribute, also of output and words that are no UTF-8."""
    result = cli_json("--", "sh", "-c", "printf 'a\\377\\n'; echo err >&2; exit 3", b"\xfe\xc3\xa4")
    assert result.pop("pid") > 0
    assert 0 < result.pop("duration") < AT_MOST_SECONDS
    assert set(result.pop("usage")) == set(Usage._fields)
    assert result == {
        "cmd": ["sh", "-c", "printf 'a\\377\\n'; echo err >&2; exit 3", "\\xfeä"],
        "code": 3,
        "out": "a\\xff",
        "err": "err",
        "outcome": Outcome.EXITED.value,
        "truncated": False,
        "held": [],
        "killed": [],
        "survivors": [],
        "autopsy": [],
        "error": None,
        "ok": False,
    }


def test_json_of_a_signal() -> None:
    """In JSON the code is the Result's, -N; a success is ok."""
    result = cli_json("kill -15 $$")
    assert (result["cmd"], result["code"], result["outcome"]) == ("kill -15 $$", -15, "signaled")
    assert cli_json("true")["ok"] is True


def test_json_of_a_failed_start() -> None:
    """The error has its stage, errno and sentence."""
    result = cli_json("--no-shell", "no-such-program")
    assert (result["code"], result["outcome"], result["usage"]) == (127, "not started", None)
    assert result["error"] == {"stage": "exec", "errno": 2, "message": result["err"]}


def test_json_of_a_held_pipe() -> None:
    """Holders are objects with the names of the fields."""
    result = cli_json("sleep 600 & echo start ok")
    (holder,) = result["held"]
    stop(holder["pid"])
    assert tuple(holder) == Holder._fields
    assert (holder["fds"], holder["streams"], holder["command"]) == ([1, 2], ["stdout", "stderr"], "sleep 600")


def test_json_of_a_timeout() -> None:
    """What was killed are objects with the names of the fields, and what was read is there."""
    result = cli_json("--timeout", "1", "echo begun; exec sleep 600")
    (killed,) = result["killed"]
    assert tuple(killed) == ProcessInfo._fields
    assert (killed["pid"], killed["command"]) == (result["pid"], "sleep 600")
    assert (result["out"], result["outcome"], result["error"]["stage"]) == ("begun", "timed out", "run")


def test_json_with_max_output() -> None:
    """Of each stream the first and the last half of N bytes are kept."""
    result = cli_json("--max-output", "6", "printf 123456789; printf 1234 >&2")
    assert (result["out"], result["err"], result["truncated"]) == ("123789", "1234", True)


# ---- the end of childproof itself ----


def test_a_reader_that_has_seen_enough() -> None:
    """As with ``| head -1``: the tree is killed, the code is 141, and nothing is said."""
    with background("echo $$; exec yes") as process:
        pid = int(first_line(process))
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(AT_MOST_SECONDS) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert all_dead([pid])


def test_json_that_nobody_reads() -> None:
    """That is 141 too, as quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    done = cli("--json", "true", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """Output that can't be written kills the tree, and the reason is told."""
    with Path("/dev/full").open("wb") as full:
        done = cli("echo $$ >pid; exec yes", stdout=full, cwd=tmp_path)
    (line,) = lines_of(done.stderr)
    assert os.strerror(28) in line
    assert "stdout" in line
    assert done.returncode == 125
    assert all_dead([int((tmp_path / "pid").read_text())])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_to_childproof_kills_the_tree(number: signal.Signals) -> None:
    """Ctrl-C and its like: the command and its descendants die, the code is 128+N, nothing is said."""
    with background("sleep 600 & echo $$ $!; wait", before=with_signal(number, "SIG_DFL")) as process:
        pids = list(map(int, first_line(process).split()))
        process.send_signal(number)
        out, err = process.communicate(timeout=AT_MOST_SECONDS)
    assert (process.returncode, out, err) == (128 + number, b"", b"")
    assert all_dead(pids)


@pytest.mark.parametrize("reader_leaves", [False, True])
def test_more_signals_do_not_break_off_the_killing(reader_leaves: bool) -> None:
    """A service manager sends several: the first one counts, and nothing is left all the same. So it
    is when they come while the tree is killed because nobody reads the output any more.
    """
    command = "for i in 1 2 3 4 5 6 7 8; do setsid sleep 600 & printf '%s ' $!; done; echo; exec yes"
    with background(command, before=with_signal(signal.SIGHUP, "SIG_DFL")) as process:
        pids = list(map(int, first_line(process).split()))
        if reader_leaves and process.stdout is not None:
            process.stdout.close()
            process.stdout = None
            time.sleep(0.003)  # for the killing to begin
        while process.poll() is None:
            for number in (signal.SIGTERM, signal.SIGHUP):
                process.send_signal(number)
            time.sleep(0.001)
        _, err = process.communicate(timeout=AT_MOST_SECONDS)
    # A negative one: the last of them found the interpreter without its handlers, at its very end.
    assert process.returncode in (141, 128 + signal.SIGTERM, 128 + signal.SIGHUP, -signal.SIGTERM, -signal.SIGHUP)
    assert err == b""
    assert len(pids) == 8
    assert all_dead(pids)


def test_what_is_ignored_stays_ignored() -> None:
    """Under nohup it goes on when the terminal goes away."""
    with background("echo begun; cat", before=with_signal(signal.SIGHUP, "SIG_IGN")) as process:
        first_line(process)
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(b"rest", timeout=AT_MOST_SECONDS)
    assert (process.returncode, out, err) == (0, b"rest", b"")


def test_the_status_survives_an_ignored_sigchld(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started with SIGCHLD ignored, which drops the status of children, it still knows the code."""
    monkeypatch.setenv("CHILDPROOF_DISABLE", "pidfd_info")
    assert cli("exit 3", before=with_signal(signal.SIGCHLD, "SIG_IGN")).returncode == 3


def test_the_command_gets_no_dispositions_of_ours() -> None:
    """Nothing is blocked or handled in it, and SIGPIPE, which Python ignores, kills it as usual."""
    done = cli("--", "cat", "/proc/self/status")
    status = dict(line.split(":", 1) for line in done.stdout.decode().splitlines())
    assert int(status["SigBlk"], 16) == int(status["SigCgt"], 16) == 0
    assert not int(status["SigIgn"], 16) & 1 << signal.SIGPIPE - 1


def test_it_imports_little() -> None:
    """json, logging and psutil cost more than all the rest, and are not needed for a command."""
    command = [sys.executable, "-X", "importtime", *CLI[1:], "true"]
    done = subprocess.run(command, capture_output=True, timeout=AT_MOST_SECONDS, check=True)
    imported = {line.rpartition(b"|")[2].strip() for line in done.stderr.splitlines()}
    assert b"childproof._cli" in imported
    assert not imported & {b"json", b"logging", b"psutil", b"subprocess", b"asyncio"}
