"""What pyproject.toml cannot say: the cffi hook and the stable-ABI tag."""

import sys
import sysconfig

from setuptools import setup

# The stable ABI exists neither on PyPy nor on the free-threaded build.
limited = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

# The benchmark's floor is what Linux can do at best; elsewhere the benchmark goes without it.
floor = ["csrc/build_floor.py:ffibuilder"] if sys.platform.startswith("linux") else []

setup(
    cffi_modules=["csrc/build_ffi.py:ffibuilder", *floor],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if limited else {},
)
