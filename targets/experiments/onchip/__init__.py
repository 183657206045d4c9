"""Learning on a chip: schedule, run and state, faults and recovery, and the way back to torch."""
