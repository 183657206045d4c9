"""Plastic weights at work: tags, changes at a commit, and the values a session holds."""
