"""Figures and texts of the report, and the plain records that they are drawn from."""
