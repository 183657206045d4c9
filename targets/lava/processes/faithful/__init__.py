"""Processes of the faithful network; as in the folder above, none does anything on import."""
