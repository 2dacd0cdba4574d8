"""The benchmark: what spawning costs on this machine, and how it goes wrong."""
