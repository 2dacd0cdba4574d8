"""The supervisor: a small program between this process and a command, made from csrc/supervisor.

It is the parent of whatever the command leaves, kills all of it when this process is gone, and is the
init of a pid namespace.
"""

from __future__ import annotations

import os

SUPERVISOR = os.path.join(os.fsencode(os.path.dirname(os.path.abspath(__file__))), b"_supervisor")
"""Its path; it is installed beside this file."""

NOBODY, SUPERVISED, NAMESPACES = 0, 1, 2
"""What a command asks for: none, a supervisor, and one that makes namespaces."""
