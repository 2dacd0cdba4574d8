"""A pytest plugin, ``-p childproof_patched``: what follows runs with the stdlib's `subprocess` patched."""

import childproof

childproof.patch()
