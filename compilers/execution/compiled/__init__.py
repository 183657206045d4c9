"""Whole phases in one compiled loop: sums cost what messages change, not what there are weights."""
