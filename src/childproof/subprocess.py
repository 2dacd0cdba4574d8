"""The stdlib's `subprocess` on childproof's spawner: ``from childproof import subprocess``.

Every name, exception and default is the stdlib's; what differs is listed in docs/migrate.md. All that
is not defined here, names with an underscore too, is read from the stdlib's module, and set there.

``childproof.subprocess.linger`` is for how many seconds `communicate`, `run` and the like go on reading
after the child's end while somebody else holds its pipes; `None`: as long as they do.
"""

from childproof._dropin import module

module.fill(__name__)
