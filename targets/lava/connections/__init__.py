"""What a projection computes with on Lava: ours in NumPy, and the processes of Lava itself."""
