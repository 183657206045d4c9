"""The chip-neutral IR: graphs, their operators and learning rules, and their text form."""
