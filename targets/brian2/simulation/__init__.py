"""The process that runs Brian2 scripts, and learning between their runs."""
