"""The session's side of learning on Lava, and what its processes share of a plastic weight."""
