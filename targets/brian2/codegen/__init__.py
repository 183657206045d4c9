"""The Brian2 script of a graph: equations, synapses, learning, and the parts all share."""
