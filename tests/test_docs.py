"""The documents: what README shows is what happens, and what is referred to exists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def _blocks(text: str, language: str) -> Iterator[tuple[int, str]]:
    """The fenced blocks in `language`, each with the number of its first line."""
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start(1)) + 1, match[1]


def test_the_examples_of_the_readme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They run, and each `print` prints what stands behind it as a comment."""
    readme = ROOT / "README.md"
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = list(_blocks(readme.read_text(), "python"))
    assert blocks
    for line, block in blocks:
        printed = StringIO()
        code = compile("\n" * (line - 1) + block, str(readme), "exec")
        with redirect_stdout(printed):
            exec(code, names)  # that is what the test is for
        shown = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
        assert printed.getvalue().splitlines() == shown


def test_the_commands_of_the_readme() -> None:
    """Each is in the checkout and can be executed."""
    commands = [
        line.split()[0] for _, block in _blocks((ROOT / "README.md").read_text(), "sh") for line in block.splitlines()
    ]
    assert commands == ["tools/demo", "tools/test"]
    assert all(os.access(ROOT / command, os.X_OK) for command in commands)


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links(document: Path) -> None:
    """A link within the project leads somewhere."""
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target
