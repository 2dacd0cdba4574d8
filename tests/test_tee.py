"""`tee`: what is captured is shown too, whole and at once."""

from __future__ import annotations

import io
from typing import Any

import pytest

import childproof


class Counting(io.StringIO):
    """Counts how often it is flushed."""

    flushed = 0

    def flush(self) -> None:
        """See the class."""
        self.flushed += 1


def test_shown_and_captured(capsys: pytest.CaptureFixture[str]) -> None:
    """Each stream on the one of the same name, this program's by default."""
    result = childproof.run("echo out; echo err >&2", on_output=childproof.tee())
    assert result == (0, "out", "err")
    assert capsys.readouterr() == ("out\n", "err\n")


def test_characters_are_not_torn_by_the_other_stream() -> None:
    """Half of one waits for the other half, though something else is shown between."""
    screen = io.StringIO()
    command = r"printf 'gr\303'; sleep 0.2; printf E >&2; sleep 0.2; printf '\274n'"
    result = childproof.run(command, on_output=childproof.tee(screen, screen))
    assert screen.getvalue() == "grEün"
    assert result == (0, "grün", "E")


def test_files_for_bytes() -> None:
    """The same bytes arrive there, as far as they are characters."""
    screen = io.BytesIO()
    command = r"printf 'gr\303'; sleep 0.2; printf E >&2; sleep 0.2; printf '\274n\377'"
    childproof.run(command, on_output=childproof.tee(screen, screen))
    assert screen.getvalue() == "grEün\\xff".encode()


def test_half_a_character_at_the_end() -> None:
    """It is shown as an escape: at the end of the block, or when the tee is gone."""
    screen = io.StringIO()
    with childproof.tee(screen) as show:
        childproof.run(r"printf 'a\303'", on_output=show)
        assert screen.getvalue() == "a"
    assert screen.getvalue() == "a\\xc3"
    childproof.run(r"printf 'b\303'", on_output=childproof.tee(screen))
    assert screen.getvalue() == "a\\xc3b\\xc3"


def test_every_piece_is_flushed() -> None:
    """Whoever looks at the screen sees it when it comes."""
    screen = Counting()
    childproof.run("echo a; sleep 0.2; echo b", on_output=childproof.tee(screen))
    assert screen.flushed == 2


def test_one_may_be_left_out() -> None:
    """`None`: it is not shown."""
    screen = io.StringIO()
    childproof.run("echo out; echo err >&2", on_output=childproof.tee(None, screen))
    assert screen.getvalue() == "err\n"


def test_a_screen_that_can_not_show_everything() -> None:
    """What its encoding lacks is escaped, and nothing raises."""
    data = io.BytesIO()
    screen = io.TextIOWrapper(data, encoding="ascii", write_through=True)
    childproof.run("echo grün", on_output=childproof.tee(screen))
    assert data.getvalue() == b"gr\\xfcn\n"


def test_an_output_of_another_encoding() -> None:
    """Text is decoded for files of text; files for bytes get what was written."""
    screen, data = io.StringIO(), io.BytesIO()
    show = childproof.tee(screen, data, encoding="latin-1")
    childproof.run(r"printf '\374'; printf '\374' >&2", on_output=show, encoding="latin-1")
    assert screen.getvalue() == "ü"
    assert data.getvalue() == b"\xfc"


def test_a_raw_file_that_takes_a_part() -> None:
    """It is given the rest."""

    class Raw(io.RawIOBase):
        taken = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.taken += bytes(data[:3])
            return min(len(data), 3)

    raw = Raw()
    childproof.run("printf 0123456789", on_output=childproof.tee(raw))
    assert raw.taken == b"0123456789"


def test_a_file_of_neither_kind() -> None:
    """It is asked what it takes."""

    class Takes:
        def __init__(self, kind: type) -> None:
            self.kind, self.got = kind, []  # type: ignore[var-annotated]

        def write(self, data: Any) -> None:
            if not isinstance(data, self.kind):
                raise TypeError
            self.got.append(data)

    text, data = Takes(str), Takes(bytes)
    childproof.run("echo a; echo b >&2", on_output=childproof.tee(text, data))
    assert "".join(text.got) == "a\n"
    assert b"".join(data.got) == b"b\n"


def test_what_writing_raises() -> None:
    """It ends the command and propagates."""
    screen = io.StringIO()
    screen.close()
    with pytest.raises(ValueError, match="closed file"):
        childproof.run("echo a; sleep 600", on_output=childproof.tee(screen))


def test_no_file() -> None:
    """A wrong call."""
    with pytest.raises(TypeError, match="stdout must be a file"):
        childproof.tee(7)
