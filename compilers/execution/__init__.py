"""The executor of a graph: the equations of `compilers.ir`, in any float type or integers."""
