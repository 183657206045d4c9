"""Tests: unit, conformance, golden, examples, browser, and what they share in `helpers`."""
