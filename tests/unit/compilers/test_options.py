"""Claims about the options of backends: written as KEY=VALUE, and refused unless declared."""

from __future__ import annotations

from typing import Any

import pytest

import targets
from compilers import compile as compile_program
from compilers.options import read_options, refuse_unknown
from ep_neuro.errors import ConfigError
from ep_neuro.network.architectures import zoo
from ep_neuro.network.network import Network


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(zoo("digits_dense"), 0)


def test_values_are_read_as_yaml() -> None:
    found = read_options(["chips=2", "lowering=faithful", "time_limit=1.5", "drift=true", "x=null"])
    assert found == {
        **{"chips": 2, "lowering": "faithful", "time_limit": 1.5, "drift": True, "x": None}
    }
    assert read_options([]) == {}


@pytest.mark.parametrize("text", ["chips", "=2", "chips="])
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--option {text}: is not KEY=VALUE; write --option"):
        read_options([text])


def test_a_key_comes_once() -> None:
    with pytest.raises(ConfigError, match=r"--option chips=3: 'chips' is given twice"):
        read_options(["chips=2", "chips=3"])


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    refuse_unknown("target 't'", {"a": 1}, ["a", "batch"])
    with pytest.raises(ConfigError, match=r"'bach': target 't' takes a, batch; did you mean"):
        refuse_unknown("target 't'", ["a", "bach"], ["a", "batch"])
    with pytest.raises(ConfigError, match=r"option 'a': target 't' takes no options; leave it out"):
        refuse_unknown("target 't'", ["a"], [])


@pytest.mark.parametrize(
    ("target", "options", "says"),
    [
        ("reference", {"chips": 2}, "option 'chips': target 'reference' takes precision, device"),
        ("pynn", {"chips": 2}, "option 'chips': target 'pynn' takes no options"),
        ("lava", {"lowring": "faithful"}, "did you mean 'lowering'?"),
        (
            "lava",
            {"lowering": "fast"},
            "option 'lowering': is 'fast'; choose from batched, faithful",
        ),
        ("loihi2", {"chip": 2}, "target 'loihi2' takes chips; did you mean 'chips'?"),
        ("loihi2", {"chips": 0}, "give a whole number from 1 to"),
    ],
)
def test_the_compiler_refuses_an_option_before_any_pass(
    network: Network, target: str, options: dict[str, Any], says: str
) -> None:
    def observer(name: str, _: object) -> None:
        raise AssertionError(f"pass {name} ran")

    with pytest.raises(ConfigError) as caught:
        compile_program(network, target, options=options, observer=observer)
    assert says in str(caught.value)


def test_an_option_that_is_known_travels_with_the_program(network: Network) -> None:
    assert targets.get("lava").options["lowering"] == "batched"  # type: ignore[attr-defined]
    program = compile_program(network, "lava", options={"lowering": "faithful"})
    assert program.options == {"lowering": "faithful"}
