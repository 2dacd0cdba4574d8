"""Handles on a running command: `start` and `stream`."""
