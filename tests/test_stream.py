"""`stream` and the lines of a handle: live, whole, bounded, and nothing left when one has seen enough."""

from __future__ import annotations

import gc
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import CommandError, Outcome, SpawnError
from childproof._handle.lines import MOST_LINE, Lines
from childproof._processes.procfs import read_process
from conftest import SLACK_SECONDS, is_alive, wait_until

MIB = 1 << 20


def resident_bytes() -> int:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def written_bytes(pid: int) -> int:
    """What `pid` has written in all (proc(5), io)."""
    fields = Path(f"/proc/{pid}/io").read_text().split()
    return int(fields[fields.index("wchar:") + 1])


# ---- lines ----


def test_lines_come_while_the_command_runs() -> None:
    """Each as soon as its end is there, though the command goes on for long."""
    with childproof.stream("echo a; echo b >&2; sleep 600") as stream:
        assert {next(stream), next(stream)} == {("stdout", "a"), ("stderr", "b")}
        assert stream.result is None
        assert is_alive(stream.child.pid)


def test_kinds_of_ends() -> None:
    r"""\n, \r and \r\n, torn or not; empty lines are lines; what has not ended is the last one."""
    command = r"printf 'a\n\nb\r10%%\r'; sleep 0.1; printf '20%%\r'; sleep 0.1; printf '\nc\r\n\r\nlast'"
    lines = [line for _, line in childproof.stream(command)]
    assert lines == ["a", "", "b", "10%", "20%", "c", "", "last"]


def test_a_progress_display_is_live() -> None:
    r"""Its \r is an end at once: nobody waits to see whether \n follows."""
    with childproof.stream(r"printf '10%%\r'; sleep 600") as stream:
        assert next(stream) == ("stdout", "10%")


def test_the_last_line_of_each_stream() -> None:
    """Both may have one that has not ended."""
    assert list(childproof.stream("printf out; printf err >&2")) == [("stdout", "out"), ("stderr", "err")]


def test_no_output() -> None:
    """Nothing is no line."""
    stream = childproof.stream("exit 3")
    assert list(stream) == []
    assert stream.result == (3, "", "")
    with pytest.raises(StopIteration):
        next(stream)


def test_characters_are_whole() -> None:
    """Torn anywhere by the writing; what is no character is escaped, as in a Result."""
    command = r"printf 'gr\303'; sleep 0.1; printf '\274n\n\377\n\303'"
    assert [line for _, line in childproof.stream(command)] == ["grün", "\\xff", "\\xc3"]


def test_an_encoding_of_two_bytes() -> None:
    """Ends are looked for in characters, not in bytes."""
    data = "ਊ\nlineਊ\r\nend".encode("utf-16-le")  # U+0A0A is two newlines to whoever looks at bytes
    stream = childproof.stream(["cat"], data, encoding="utf-16-le")
    assert [line for _, line in stream] == ["ਊ", "lineਊ", "end"]


def test_bytes() -> None:
    """text=False."""
    assert list(childproof.stream(r"printf 'a\377\r\nb'", text=False)) == [("stdout", b"a\xff"), ("stdout", b"b")]


def test_errors_strict() -> None:
    """Decoding does not raise."""
    assert list(childproof.stream(r"printf '\377\n'", errors="strict")) == [("stdout", "\\xff")]


def test_a_line_without_an_end_is_handed_out_in_pieces() -> None:
    """Memory is bounded, and nothing is lost."""
    pieces = [line for _, line in childproof.stream(f"head -c {2 * MOST_LINE + 5} /dev/zero; echo; echo x")]
    assert [len(piece) for piece in pieces] == [MOST_LINE, MOST_LINE, 5, 1]


@pytest.mark.parametrize("text", [True, False], ids=["text", "bytes"])
@pytest.mark.parametrize("seed", range(20))
def test_it_does_not_matter_where_output_is_torn(seed: int, text: bool) -> None:
    """Lines are what they would be of the output as a whole."""
    chance = random.Random(seed)
    letters = ["a", "ü", "\n", "\r", "\r\n", "€", "𐍈"]
    written = "".join(chance.choices(letters, k=300))
    plain = written.replace("\r\n", "\n").replace("\r", "\n")
    expected: list[Any] = plain.split("\n")
    expected = expected[:-1] if expected[-1] == "" else expected
    data = written.encode()
    if not text:
        expected = [line.encode() for line in expected]
    lines = Lines(text, "utf-8", "backslashreplace")
    got: list[Any] = []
    while data:
        size = chance.randint(1, 9)
        lines.add("stdout", data[:size])
        data = data[size:]
        if chance.random() < 0.5:
            while (line := lines.take()) is not None:
                got.append(line[1])
    lines.end()
    while (line := lines.take()) is not None:
        got.append(line[1])
    assert got == expected


# ---- a consumer that is slow ----


def test_a_consumer_that_stops_reading() -> None:
    """5 s under `yes`: memory is flat, and the deadline is kept all the same."""
    with childproof.stream("yes", timeout=3) as stream:
        for _ in range(300_000):
            next(stream)
        before = resident_bytes()
        time.sleep(5)
        assert resident_bytes() - before < 8 * MIB
        assert not is_alive(stream.child.pid)
        for _ in stream:
            pass
        result = stream.result
    assert result is not None
    assert (result.code, result.outcome) == (124, Outcome.TIMED_OUT)
    assert result.duration < 4 + SLACK_SECONDS
    assert result.truncated
    assert len(result.out) <= 65536


def test_a_slow_consumer_slows_the_command() -> None:
    """It stands still as long as nobody fetches, and goes on when somebody does."""
    with childproof.stream(["yes"]) as stream:
        next(stream)
        pid = stream.child.pid

        def is_asleep() -> bool:
            """All that it ever sleeps for is a full pipe."""
            process = read_process(pid)
            return process is not None and process.state == "S"

        assert wait_until(is_asleep)
        count = written_bytes(pid)
        time.sleep(0.3)
        assert written_bytes(pid) == count
        for _ in range(2 * MIB):  # of 2 bytes each; more than the pipe and one read hold
            next(stream)
        assert written_bytes(pid) > count


def test_a_million_short_lines_are_not_kept() -> None:
    """Memory is bounded by what one read gives, not by the output."""
    list(zip(range(100_000), childproof.stream("yes"), strict=False))
    before = resident_bytes()
    stream = childproof.stream("seq 1000000")
    assert sum(1 for _ in stream) == 1_000_000
    assert resident_bytes() - before < 16 * MIB
    assert stream.result is not None
    assert stream.result.truncated


def test_max_output() -> None:
    """What the Result keeps is the caller's to say; `None`: all."""
    stream = childproof.stream("seq 100000", max_output=None, strip=False)
    lines = [line for _, line in stream]
    assert stream.result is not None
    assert stream.result.out == "".join(f"{line}\n" for line in lines)


# ---- the end ----

COMMAND = "setsid sleep 600 & echo $$ $!; wait"


def pids_of(line: str) -> list[int]:
    """Those that COMMAND has printed."""
    return [int(word) for word in line.split()]


def test_break() -> None:
    """With the loop the command ends, and its tree."""
    pids = []
    for _, line in childproof.stream(COMMAND):
        pids = pids_of(line)
        break
    assert len(pids) == 2
    assert not any(map(is_alive, pids))


def test_an_exception() -> None:
    """When the exception is gone nobody has the stream any more."""

    def fail() -> None:
        for _, line in childproof.stream(COMMAND):
            raise ZeroDivisionError(line)

    try:
        fail()
    except ZeroDivisionError as error:
        line = str(error)
    gc.collect()
    assert not any(map(is_alive, pids_of(line)))


@pytest.mark.parametrize("way", ["with", "close", "del"])
def test_ways_to_leave(way: str) -> None:
    """All of them kill the tree."""
    stream = childproof.stream(COMMAND)
    _, line = next(stream)
    if way == "with":
        with stream:
            pass
    elif way == "close":
        stream.close()
        assert stream.result is not None
        assert stream.result.code == -9
    else:
        del stream
    assert not any(map(is_alive, pids_of(line)))


def test_what_was_written_before_the_end_is_handed_out() -> None:
    """At the deadline too."""
    stream = childproof.stream("echo a; printf b; sleep 600", timeout=0.5)
    assert [line for _, line in stream] == ["a", "b"]
    assert stream.result is not None
    assert stream.result.outcome is Outcome.TIMED_OUT


def test_a_holder_does_not_hold_the_lines() -> None:
    """They end `linger` after the child."""
    began = time.monotonic()
    stream = childproof.stream("echo a; sleep 600 & echo $!", leftovers="kill")
    lines = [line for _, line in stream]
    assert time.monotonic() - began < 1.5 + SLACK_SECONDS
    assert lines[0] == "a"
    assert not is_alive(int(lines[1]))


def test_check() -> None:
    """The end raises if the command did not succeed; all lines come before."""
    lines: list[tuple[str, str]] = []
    with pytest.raises(CommandError, match="exited with 3: bad"):
        lines.extend(childproof.stream("echo a; echo bad >&2; exit 3", check=True))
    assert sorted(lines) == [("stderr", "bad"), ("stdout", "a")]


def test_a_failed_start() -> None:
    """It raises, as of `start`."""
    with pytest.raises(SpawnError, match="/nonexistent"):
        childproof.stream(["/nonexistent"])


def test_on_output_and_merge() -> None:
    """Both work as in `run`."""
    seen: list[tuple[str, bytes]] = []
    stream = childproof.stream("echo a >&2", merge=True, on_output=lambda *args: seen.append(args))
    assert list(stream) == [("stdout", "a")]
    assert seen == [("stdout", b"a\n")]
