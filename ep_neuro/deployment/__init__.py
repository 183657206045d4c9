"""What compiling and training for a chip share: grids, leaks, thresholds, compiled dynamics."""
