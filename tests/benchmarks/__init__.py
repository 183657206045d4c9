"""Measurements: `make bench` runs them, the tests only see that they run."""
