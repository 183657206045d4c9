"""The network in torch: its energy, how it settles and keeps stable, its start and its file."""

from ep_neuro.network.network import Landscape, Network, parameter_names

__all__ = ["Landscape", "Network", "parameter_names"]
