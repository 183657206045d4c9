"""Weights as conductances: how they lie on arrays, and what devices and converters do."""
