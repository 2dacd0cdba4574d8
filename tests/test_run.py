"""`run` on ordinary commands: what it hands back."""

import childproof
from childproof import Outcome


def test_the_triple() -> None:
    """A result unpacks into exactly three."""
    code, out, err = childproof.run("echo out; echo err >&2; exit 3")
    assert (code, out, err) == (3, "out", "err")


def test_a_sequence_has_no_shell() -> None:
    """A sequence is executed as it is."""
    assert childproof.run(["echo", "$HOME; false"]) == (0, "$HOME; false", "")


def test_signal() -> None:
    """A death by signal N is -N."""
    result = childproof.run("kill -9 $$")
    assert result.code == -9
    assert result.outcome is Outcome.SIGNALED
