"""Fuzzing of every kind of file and of the command line; `python -m tests.fuzz` is the long one."""
