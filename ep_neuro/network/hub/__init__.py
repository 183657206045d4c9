"""Trained models that come with the package: their cards, and how their weights are packed."""
