"""Test builds of the extension: the package copied, its C compiled with other flags."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
TESTS_C = ROOT / "tests" / "c"
CHILD_SIDE = {"child.c", "close_fds.c"}
"""The files whose functions run in the child, on its own small block."""

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-fPIC", "-g", f"-I{CSRC}", f"-I{TESTS_C}"]


def gcc(*arguments: str) -> None:
    """One call of the compiler; its complaints are the exception."""
    done = subprocess.run(["gcc", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"gcc {' '.join(arguments)}\n{done.stderr}")


def build(
    directory: Path,
    flags: Sequence[str] = ("-O1",),
    parent_flags: Sequence[str] = (),
    child_flags: Sequence[str] = (),
    link: Sequence[str] = (),
    more: Sequence[Path] = (),
) -> Path:
    """The package with its C compiled anew.

    Args:
        directory: where to; what must be on PYTHONPATH before all else.
        flags: for each file.
        parent_flags: for those that do not run in the child.
        child_flags: for child.c.
        link: for the extension.
        more: other C files that are part of it.

    Returns:
        `directory`.

    """
    package = directory / "childproof"
    shutil.copytree(ROOT / "src" / "childproof", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    script: dict[str, Any] = runpy.run_path(str(CSRC / "build_ffi.py"))
    objects = []
    for source in [*(CSRC / name for name in script["SOURCES"]), *more]:
        objects.append(str(directory / f"{source.stem}.o"))
        own = [] if source.name in CHILD_SIDE else parent_flags
        if source.name == "child.c":
            own = child_flags
        gcc(*FLAGS, *flags, *own, "-c", str(source), "-o", objects[-1])
    builder = script["ffibuilder"]
    name, source, extension, options = builder._assigned_source
    options = {
        **options,
        "sources": [],
        "depends": [],
        "extra_objects": objects,
        "include_dirs": [str(CSRC)],
        "extra_compile_args": ["-w"],
        "extra_link_args": list(link),
    }
    builder._assigned_source = name, source, extension, options
    builder.compile(tmpdir=str(directory))
    return directory


def build_with_faults(directory: Path) -> dict[str, str]:
    """A build whose calls, and Python's, can be made to fail; the environment that it needs."""
    hook = ["-DCHILDPROOF_FAULTS", "-include", str(TESTS_C / "fault.h")]
    build(directory, [*hook, "-O1"])
    library = directory / "libfault.so"
    gcc(
        *FLAGS, "-O2", "-w", "-shared", "-o", str(library), str(TESTS_C / "fault.c"), str(TESTS_C / "preload.c"), "-ldl"
    )
    return {**environment(directory), "LD_PRELOAD": str(library), "CHILDPROOF_FAULTS": str(library)}


def environment(directory: Path) -> dict[str, str]:
    """What a Python needs to import that build."""
    return {**os.environ, "PYTHONPATH": f"{directory}:{ROOT / 'tests'}"}


if __name__ == "__main__":
    print(build_with_faults(Path(sys.argv[1])))
