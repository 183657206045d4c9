"""The certificate of a program that learns: its updates, the exact gradient, and what limits it."""
