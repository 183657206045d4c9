"""Runs that are killed, or whose disk fails, at random moments; `python -m tests.crash`."""
