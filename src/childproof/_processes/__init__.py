"""Other processes: who they are, what they hold and wait for, and how a tree of them is killed."""
