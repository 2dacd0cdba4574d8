"""Builds childproof.bench._floor, the C that the benchmark measures against; setup.py names `ffibuilder`."""

import os
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent

ffibuilder = FFI()
ffibuilder.cdef((HERE / "floor.h").read_text())
ffibuilder.set_source(
    "childproof.bench._floor",
    '#include <stddef.h>\n#include "floor.h"\n',
    sources=[os.path.relpath(HERE / "floor.c", HERE.parent)],
    include_dirs=[os.path.relpath(HERE, HERE.parent)],
    depends=[os.path.relpath(HERE / "floor.h", HERE.parent)],
    define_macros=[("_GNU_SOURCE", None)],
    py_limited_api=True,
    extra_compile_args=[
        "-std=c11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Wshadow",
        *(["-Werror"] if os.environ.get("CHILDPROOF_WERROR") else []),
        "-fvisibility=hidden",
    ],
    extra_link_args=["-Wl,-z,relro,-z,now,-z,noexecstack"],
)
