"""The drop-in for the stdlib's `subprocess`."""
