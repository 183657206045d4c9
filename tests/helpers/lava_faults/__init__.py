"""Lava Processes that fail on purpose; a folder of its own, as Lava executes what lies beside."""
