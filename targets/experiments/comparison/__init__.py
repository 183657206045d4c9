"""One model side by side on targets: rows, layers, sweeps, their page, records of a run."""
