"""The plan of tests/c/fault.h, in a process that has it: see `variants.build_with_faults`."""

from __future__ import annotations

import ctypes
import os


class Plan(ctypes.Structure):
    """``struct cpf_plan`` of tests/c/fault.h."""

    _fields_ = (
        ("armed", ctypes.c_int),
        ("pid", ctypes.c_int),
        ("origin", ctypes.c_int),
        ("call", ctypes.c_int),
        ("nth", ctypes.c_int),
        ("times", ctypes.c_int),
        ("error", ctypes.c_int),
        ("close_error", ctypes.c_int),
        ("without", ctypes.c_int * 9),
        ("without_pidfd_flag", ctypes.c_int),
        ("nofile", ctypes.c_ulong),
        ("kill_parent_at", ctypes.c_int),
        ("child_calls", ctypes.c_int),
        ("slow_names_s", ctypes.c_int),
        ("hits", ctypes.c_int),
        ("counts", (ctypes.c_int * 64) * 3),
    )


library = ctypes.CDLL(os.environ["CHILDPROOF_FAULTS"])
library.cpf_name.restype = ctypes.c_char_p
plan = ctypes.POINTER(Plan).in_dll(library, "cpf_plan").contents
