"""Machines as data: limits, placement on cores, word lengths, and what a run costs."""
