"""Simulators in processes of their own: forked, asked, limited in time, ended as a group."""
