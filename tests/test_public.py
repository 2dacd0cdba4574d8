"""The public face: what it names, what the documents say of it, what a user's checker and installer see."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import pytest

import childproof
import user_code
from childproof._cli import SUBCOMMANDS

ROOT = Path(__file__).parents[1]
MODULES = ("childproof", "childproof.aio")
SUBMODULES = {"aio", "bench", "pytest_plugin", "subprocess"}


def _public(module: str) -> dict[str, Any]:
    loaded = import_module(module)
    return {name: getattr(loaded, name) for name in loaded.__all__}


@pytest.mark.parametrize("module", MODULES)
def test_all_is_all(module: str) -> None:
    """Each name of ``__all__`` is there, once, and `dir` shows it."""
    names = import_module(module).__all__
    assert len(names) == len(set(names))
    assert set(names) <= set(dir(import_module(module)))
    assert all(value is not None for value in _public(module).values())


def test_the_index_names_what_there_is() -> None:
    """docs/api.md has each public name once, and no other."""
    text = (ROOT / "docs" / "api.md").read_text()
    sections = re.split(r"^## `([\w.]+)`$", text, flags=re.MULTILINE)[1:]
    found = {
        module: re.findall(r"^\| `(\w+)`", body, re.MULTILINE)
        for module, body in zip(sections[::2], sections[1::2], strict=True)
    }
    assert found == {module: sorted(import_module(module).__all__, key=found[module].index) for module in MODULES}


def test_what_the_documents_name_exists() -> None:
    """Each ``childproof.NAME`` in a document is a public name or module."""
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for name in re.findall(r"(?<![\w./])childproof\.([A-Za-z_]\w+)", document.read_text()):
            assert name in childproof.__all__ or name in SUBMODULES, f"{document.name}: childproof.{name}"


# ---- docstrings ----


def _described() -> Iterator[tuple[str, Any]]:
    """All public functions, classes, methods and properties."""
    for module in MODULES:
        for name, value in _public(module).items():
            if not inspect.isfunction(value) and not (inspect.isclass(value) and "childproof" in value.__module__):
                continue
            yield f"{module}.{name}", value
            for method, member in vars(value).items() if inspect.isclass(value) else ():
                if not method.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                    yield f"{module}.{name}.{method}", member


def _arguments(text: str) -> str:
    """The section of a docstring that describes parameters, or all of it where there is none."""
    return text.partition("Args:")[2].partition("Returns:")[0] or text


@pytest.mark.parametrize(("name", "value"), [pytest.param(*pair, id=pair[0]) for pair in _described()])
def test_docstrings(name: str, value: Any) -> None:
    """Each public function has one that names every parameter, and says what comes back."""
    text = inspect.getdoc(value)
    assert text, f"{name} has none"
    if not inspect.isfunction(value):
        return
    signature = inspect.signature(value, follow_wrapped=True)
    for parameter in signature.parameters.values():
        if parameter.name == "self" or parameter.kind is parameter.VAR_KEYWORD:
            continue
        named = rf"^\s*\*?{parameter.name}:|`{parameter.name}`"
        # The others are those of `run`, to which it refers.
        refers = "of `run`" in text or "in `run`" in text or "as in `" in text or "as for `run`" in text
        assert re.search(named, _arguments(text), re.MULTILINE) or refers, f"{name}: {parameter.name}"
    own = inspect.signature(value, follow_wrapped=False)
    if own.return_annotation not in (None, "None") and name.count(".") == 1:
        assert "Returns:" in text, name


# ---- what a user's tools see ----


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(function, id=function.__name__, marks=[pytest.mark.needs_proc] * (function is user_code.looking))
        for function in user_code.FUNCTIONS
    ],
)
def test_what_a_user_writes(function: Callable[[], object]) -> None:
    """It runs; what the types are is said by mypy and pyright, which both read that file."""
    function()


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help(name: str) -> None:
    """Each subcommand has one, which also says what its exit status means, in 100 columns at most."""
    code, out, err = childproof.run([sys.executable, "-m", "childproof", name, "--help"], timeout=60)
    assert (code, err) == (0, "")
    assert out.startswith("usage: ")
    assert "exit status" in out.lower()
    assert max(map(len, out.splitlines())) <= 100


def test_types_are_shipped() -> None:
    """A checker believes our annotations."""
    assert (Path(childproof.__file__).with_name("py.typed")).exists()


def test_runtime_dependencies() -> None:
    """They are cffi and psutil, and nothing else."""
    needed = {re.split(r"[^\w-]", line)[0] for line in requires("childproof") or [] if "extra ==" not in line}
    assert needed == {"cffi", "psutil"}


def test_the_version() -> None:
    """It stands in one place; the changelog is about it."""
    assert childproof.__version__ == version("childproof")
    assert f"## [{childproof.__version__.partition('.dev')[0]}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    ("code", "more"),
    [("import childproof", {"threading", "re", "typing"}), ("import childproof; childproof.run('true')", set())],
)
def test_nothing_heavy_is_imported(code: str, more: set[str]) -> None:
    """Neither by ``import childproof`` nor by a plain `run`."""
    path = f"import sys; sys.path[:] = {sys.path!r}; "
    modules = childproof.run([sys.executable, "-I", "-S", "-c", f"{path}{code}; print(*sys.modules)"])
    assert modules.code == 0, modules.err
    assert not ({"subprocess", "psutil", "logging", "asyncio", "anyio", "argparse"} | more) & set(modules.out.split())
