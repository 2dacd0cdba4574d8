"""The documents: what README shows is what happens, and what is referred to exists."""

from __future__ import annotations

import os
import re
import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

import childproof
from childproof import _spawner
from childproof._exchange import State
from forcing import linux_build

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


NOT_EXECUTED = re.compile(r"<!-- not executed: .* -->\n$")
"""What stands before a block that takes too long, or needs what a test has not; with the reason."""


OF_LINUX = re.compile("no_new_privs|die_with_parent|contain=")
"""What the portable build refuses."""


class Block(NamedTuple):
    """A fenced block: the number of its first line, its language and its text."""

    line: int
    language: str
    text: str


def _blocks(document: Path) -> list[Block]:
    """The fenced blocks that are to be executed."""
    text = document.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [
        Block(text.count("\n", 0, match.start(2)) + 1, match[1], match[2])
        for match in found
        if not NOT_EXECUTED.search(text[: match.start()])
    ]


def _with(language: str) -> pytest.MarkDecorator:
    """All documents that have a block in `language`."""
    found = [path for path in DOCUMENTS if any(block.language == language for block in _blocks(path))]
    return pytest.mark.parametrize("document", found, ids=[str(path.relative_to(ROOT)) for path in found])


@_with("python")
def test_python(document: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The blocks of a document run, one after the other, and each line prints what stands behind it."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    left_out: list[int] = []
    for line, language, block in _blocks(document):
        if language != "python":
            continue
        if _spawner.PORTABLE and OF_LINUX.search(block):
            left_out.append(line)
            continue
        printed = StringIO()
        code = compile("\n" * (line - 1) + block, str(document), "exec")
        with redirect_stdout(printed):
            exec(code, names)  # that is what the test is for
        shown = re.findall(r"^(?: *print\(.*\)  # |.*  # shows )(.*)$", block, re.MULTILINE)
        assert printed.getvalue().splitlines() == shown, f"{document.name}:{line}"
    if left_out:
        pytest.skip(f"all but lines {left_out}, which need Linux")


@_with("sh")
def test_shell(document: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The blocks for a shell end with 0. README's are what CI begins and ends with."""
    if document.name == "README.md":
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for line, language, block in _blocks(document):
        if language == "sh":
            result = childproof.run(["sh", "-eu", "-c", block], timeout=120)
            assert result.code == 0, (f"{document.name}:{line}", result.err)


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_languages(document: Path) -> None:
    """Nothing that could be executed hides in a block of another language, and what is read by a program
    can be read by it.
    """
    for line, language, block in _blocks(document):
        assert language in ("", "python", "sh", "toml"), f"{document.name}:{line}"
        if language == "toml":
            assert block.startswith("[tool.pytest.ini_options]"), "see test_pytest_plugin.py"


def test_the_commands_of_the_readme() -> None:
    """Each is in the checkout and can be executed."""
    blocks = [block for block in _blocks(ROOT / "README.md") if block.language == "sh"]
    commands = [line.split()[0] for block in blocks for line in block.text.splitlines()]
    assert commands == ["tools/demo", "tools/test"]
    assert all(os.access(ROOT / command, os.X_OK) for command in commands)


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links(document: Path) -> None:
    """A link within the project leads somewhere."""
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


# ---- docs/design.md ----

TRACED = """
import os, childproof
run = lambda: childproof.run(["/bin/echo", "hi"], input="x", timeout=5)
run()
os.write(2, b"BEGIN")
run()
os.write(2, b"END")
"""


def _calls(cells: str) -> list[str]:
    """The system calls in one column of the table."""
    return re.findall(r"`(\w+)(?:\(|`)", cells)


def _traced(path: Path) -> tuple[list[str], list[str]]:
    """The names of the system calls of the second run: the parent's, and the child's up to its execve."""
    result = childproof.run(
        ["strace", "-f", "-qq", "-s", "8", "-e", "signal=none", "-o", str(path), sys.executable, "-c", TRACED],
        timeout=120,
    )
    assert result.code == 0, result.err
    text = path.read_text()
    lines = re.findall(r"^(\d+) +(\w+)\(", text[text.index("BEGIN") : text.index('"END"')], re.MULTILINE)
    parent = re.findall(r'^(\d+) +write\(2, "BEGIN"', text, re.MULTILINE)[0]
    theirs = [name for pid, name in lines if pid != parent]
    return [name for pid, name in lines if pid == parent], theirs[: theirs.index("execve") + 1]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not here")
@linux_build
def test_the_life_of_a_run_is_as_it_is_drawn(tmp_path: Path) -> None:
    """The table's system calls are those that strace shows: the child's up to its exec in just that order, the
    parent's as a set, since poll and read depend on who is faster.
    """
    text = (ROOT / "docs" / "design.md").read_text()
    table = text.partition("## One run, step by step")[2].partition("\nWith `stdin`")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ") and "the first time" not in line]
    rows = [re.split(r"(?<!\\)\|", line)[1:3] for line in lines]
    parent, child = _traced(tmp_path / "trace")
    drawn = [name for row in rows[1:] for name in _calls(row[1])]
    ordered = list(dict.fromkeys(child))
    assert list(dict.fromkeys(drawn[: drawn.index("execve") + 1])) == ordered
    assert {name for row in rows[1:] for name in _calls(row[0])} == set(parent) - {"rt_sigaction"}


def test_the_states_are_drawn() -> None:
    """The picture and the table have the states that there are, and no other."""
    states = {state.name for state in State}
    picture = (ROOT / "docs" / "pictures" / "states.svg").read_text()
    assert set(re.findall(r">([A-Z]{4,})</text>", picture)) == states
    table = (ROOT / "docs" / "design.md").read_text().partition("| state | what is waited for |")[2]
    assert set(re.findall(r"^\| ([A-Z]{4,}) \|", table, re.MULTILINE)) == states - {"DONE"}
