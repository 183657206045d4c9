"""Studies as independent jobs: their rows, and who computes them."""
