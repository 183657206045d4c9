"""What an energy is made of: the spec, and drive, cost and activation of each of its terms."""
