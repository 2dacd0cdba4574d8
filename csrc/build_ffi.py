"""Builds childproof._native; setup.py names `ffibuilder`."""

import os
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
SOURCES = ["spawn.c", "fds.c", "block.c", "child.c", "reopen.c", "close_fds.c", "reap.c", "follow.c"]
SOURCES += ["process.c", "open_files.c", "syscalls.c", "supervised.c"]  # the last: the host's side of csrc/supervisor
PORTABLE = bool(os.environ.get("CHILDPROOF_PORTABLE")) or not sys.platform.startswith("linux")
WARNINGS = ["-Wall", "-Wextra", "-Wshadow"]

ffibuilder = FFI()
ffibuilder.cdef((HERE / "childproof.h").read_text())
ffibuilder.set_source(
    "childproof._native",
    '#include <sys/types.h>\n#include "childproof.h"\n',
    sources=[os.path.relpath(HERE / name, HERE.parent) for name in SOURCES],
    include_dirs=[os.path.relpath(HERE, HERE.parent)],
    depends=[
        os.path.relpath(HERE / name, HERE.parent)
        for name in ("childproof.h", "internal.h", "sys.h", "sys_linux.h", "sys_posix.h", "supervisor/supervisor.h")
    ],
    define_macros=[
        ("_GNU_SOURCE", None),
        # POSIX only, as for systems that are not Linux.
        *([("CHILDPROOF_PORTABLE", None)] if PORTABLE else []),
    ],
    py_limited_api=True,
    # These come behind Python's own flags, so they have the last word.
    extra_compile_args=[
        "-std=c11",
        "-O2",
        *WARNINGS,
        *(["-Werror"] if os.environ.get("CHILDPROOF_WERROR") else []),
        "-fvisibility=hidden",
        "-fstack-protector-strong",
        "-U_FORTIFY_SOURCE",
        "-D_FORTIFY_SOURCE=3",
    ],
    extra_link_args=["-Wl,-z,relro,-z,now,-z,noexecstack"],
)
