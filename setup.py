"""What pyproject.toml cannot say: the cffi hook, the stable-ABI tag, and the supervisor's executable."""

import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError
from setuptools.modified import newer_group

# The stable ABI exists neither on PyPy nor on the free-threaded build.
limited = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

SUPERVISOR_SOURCES = sorted(map(str, Path("csrc", "supervisor").glob("*.c")))
"""Besides the spawner's own, all of which it has too."""


PACKAGES = "Debian, Ubuntu: gcc libc6-dev python3-dev. Fedora: gcc python3-devel. Alpine: gcc musl-dev python3-dev"


def what_is_missing(compiler: str) -> str:
    """What a build needs and this machine lacks, for people; empty if it has both."""
    missing = []
    if shutil.which(compiler) is None:
        missing.append(f"a C compiler ({compiler})")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append("Python's headers (Python.h)")
    return " and ".join(missing)


class BuildBoth(build_ext):
    """The extension, and beside it the supervisor: a program from the same sources, with the same flags."""

    def build_extension(self, ext: Any) -> None:
        """The supervisor goes with the spawner.

        Raises:
            PlatformError: there is nothing to build with.

        """
        try:
            super().build_extension(ext)
        except CompileError:
            missing = what_is_missing(self.compiler.compiler[0])
            if not missing:
                raise
            raise PlatformError(
                "childproof is partly written in C, and there is no ready-made wheel for this Python and system. "
                f"To build it, {missing} must be installed ({PACKAGES})."
            ) from None
        portable = ("CHILDPROOF_PORTABLE", None) in ext.define_macros  # it needs a subreaper
        if ext.name == "childproof._native" and not portable:
            self._build_supervisor(ext)

    def _build_supervisor(self, ext: Any) -> None:
        spawner = [source for source in ext.sources if Path(source).parts[0] == "csrc"]
        to = self._supervisor()
        if not (self.force or newer_group([*SUPERVISOR_SOURCES, *spawner, *ext.depends], str(to))):
            return
        objects = self.compiler.compile(
            SUPERVISOR_SOURCES + spawner,
            output_dir=str(Path(self.build_temp, "supervisor")),
            macros=ext.define_macros,
            include_dirs=ext.include_dirs,
            extra_postargs=ext.extra_compile_args,
        )
        to.parent.mkdir(parents=True, exist_ok=True)
        # Static: it starts in a third of the time, and the command's LD_PRELOAD is no business of it.
        try:
            self._link(objects, to, [*ext.extra_link_args, "-s", "-static"])
        except LinkError:
            self._link(objects, to, ext.extra_link_args)

    def _link(self, objects: list[str], to: Path, options: list[str]) -> None:
        self.compiler.link_executable(objects, to.name, output_dir=str(to.parent), extra_postargs=options)

    def _supervisor(self) -> Path:
        return Path(self.build_lib, "childproof", "_supervisor")

    def copy_extensions_to_source(self) -> None:
        """For an editable installation."""
        super().copy_extensions_to_source()
        package = self.get_finalized_command("build_py").get_package_dir("childproof")
        if self._supervisor().exists():
            self.copy_file(str(self._supervisor()), str(Path(package, "_supervisor")))

    def get_outputs(self) -> list[str]:
        """What is installed."""
        built = self._supervisor()
        return [*super().get_outputs(), *([str(built)] if built.exists() else [])]


# The benchmark's floor is what Linux can do at best; elsewhere the benchmark goes without it.
floor = ["csrc/build_floor.py:ffibuilder"] if sys.platform.startswith("linux") else []

setup(
    cffi_modules=["csrc/build_ffi.py:ffibuilder", *floor],
    cmdclass={"build_ext": BuildBoth},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if limited else {},
)
