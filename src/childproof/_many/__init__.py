"""`run_many`: many commands on one thread, or through an executor."""
