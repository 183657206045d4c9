"""Lava's own Python: found, started, supervised, and the memory that it shares with us."""
