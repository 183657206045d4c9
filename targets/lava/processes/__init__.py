"""Lava Processes and their ProcessModels, and nothing else.

Lava executes every module of this folder when it looks for the model of a Process, so a module in
here must not do anything on import. One time step of a graph of them is one synchronous step of
`compilers.ir.graph`. Batched, a population sends the message of its last step, the couplings turn
messages into currents, and the population steps on their sum. Faithful, synapses hold each message
for a step, as Lava's own do, and a population steps before it sends. Either hand-over is the step
of delay.
"""
