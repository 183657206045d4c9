"""Claims about old import paths: they lead to the module itself, wherever it is now."""

from __future__ import annotations

import importlib

import pytest

import ep_neuro as ep
from ep_neuro._moved import MOVED, home_of


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_gives_the_module_at_the_new_one(old: str) -> None:
    now = importlib.import_module(home_of(old))
    assert importlib.import_module(f"ep_neuro.{old}") is now
    assert now.__name__ == now.__spec__.name == home_of(old)


def test_modules_whose_name_a_room_took_keep_their_public_names() -> None:
    from ep_neuro.data import load
    from ep_neuro.network import Landscape, Network, parameter_names
    from ep_neuro.training import evaluate, train

    assert (Landscape, Network) == (ep.Landscape, ep.Network)
    assert (parameter_names, evaluate, train) == (ep.parameter_names, ep.evaluate, ep.train)
    assert load is ep.data.load


def test_a_module_that_never_was_is_an_import_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"ep_neuro\.settled"):
        importlib.import_module("ep_neuro.settled")
