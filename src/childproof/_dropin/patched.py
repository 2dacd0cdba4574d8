"""``python -m childproof._dropin.patched SCRIPT ...`` or ``-m MODULE ...``: a program, patched."""

from __future__ import annotations

import os
import runpy
import sys

from childproof._dropin.patch import patch


def main() -> None:
    """Run what `sys.argv` names as python would."""
    words = sys.argv[1:]
    patch()
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)  # sys.path[0] is the working directory
        return
    if words[0] == "--":
        del words[0]
    sys.argv = words
    if not getattr(sys.flags, "safe_path", False):  # 3.11
        sys.path[0] = os.path.dirname(os.path.realpath(words[0]))
    runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
