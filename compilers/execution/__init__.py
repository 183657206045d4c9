"""The executor of a graph: the equations of `compilers.ir` on batches, in float64 or integers."""
