"""What one does with targets: compare them, draw their page, trace a run, the whole demo.

Discovery looks at this package and at none of its modules, so they may import what is heavy.
"""
