"""Files: written whole or not at all, YAML, and what numbers read from one must be."""
