"""The API reference, from the docstrings, by pdoc. tools/docs runs this."""

from __future__ import annotations

import inspect
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pdoc

MODULES = ("childproof", "childproof.aio", "childproof.pytest_plugin")
"""Not `childproof.subprocess`, whose reference is the standard library's, and docs/migrate.md."""


def public(module: Any) -> dict[str, Any]:
    """The public names of `module`, which are then loaded, as pdoc needs them to be."""
    return {name: getattr(module, name) for name in getattr(module, "__all__", ())}


def unwrap(module: Any) -> None:
    """Give the functions whose parameters stand in another their own signature: pdoc would show the other."""
    for value in public(module).values():
        if inspect.isfunction(value) and hasattr(value, "__wrapped__"):
            signature = inspect.signature(value)
            own = inspect.signature(value, follow_wrapped=False)
            value.__signature__ = signature.replace(return_annotation=own.return_annotation)  # type: ignore[attr-defined]
            del value.__wrapped__


def gaps(name: str, value: Any) -> Iterator[str]:
    """What the docstrings of a public name lack."""
    if inspect.isclass(value) and value.__module__.startswith("childproof"):
        yield from gaps_of(name, value)
        for method, member in vars(value).items():
            if not method.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                yield from gaps_of(f"{name}.{method}", member)
    elif inspect.isfunction(value):
        yield from gaps_of(name, value)


def gaps_of(name: str, value: Any) -> Iterator[str]:
    """What one docstring lacks: a text, or a parameter that its "Args" do not name."""
    text = inspect.getdoc(value)
    if not text:
        yield f"{name} has no docstring"
        return
    if not inspect.isfunction(value):
        return
    known = inspect.signature(value, follow_wrapped=name.count(".") == 1).parameters
    for parameter in known.values():
        if parameter.name in ("self", "_"):
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            continue  # "**options: of `run`"
        if "Args:" in text and f"{parameter.name}:" not in text.partition("Args:")[2]:
            yield f"{name}: {parameter.name} is not under Args"
        elif "Args:" not in text and f"`{parameter.name}`" not in text:
            yield f"{name}: nothing is said of {parameter.name}"


def render(modules: list[Any], directory: Path) -> Iterator[str]:
    """Write the pages; what is wrong with them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.render.configure(docformat="google", show_source=False)
        pdoc.pdoc(*[module.__name__ for module in modules], output_directory=directory)
    # What is imported for type checkers only can't be looked up, and is shown as it is written.
    yield from (str(w.message) for w in caught if "parsing type annotation" not in str(w.message))
    for module in modules:
        page = (directory / f"{module.__name__.replace('.', '/')}.html").read_text()
        yield from (
            f"{module.__name__}.{name} is not in the page" for name in public(module) if f'id="{name}"' not in page
        )


def main(arguments: list[str]) -> int:
    """Write, or check."""
    modules = [import_module(name) for name in MODULES]
    wrong = [gap for module in modules for name, value in public(module).items() for gap in gaps(name, value)]
    for module in modules:
        unwrap(module)
    if arguments == ["--check"]:
        with tempfile.TemporaryDirectory() as scratch:
            wrong += render(modules, Path(scratch))
    else:
        directory = Path(arguments[0] if arguments else "build/api")
        wrong += render(modules, directory)
        print(directory / "index.html")
    for sentence in dict.fromkeys(wrong):
        print(sentence, file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
