"""Claims about Loihi 2 as a target: it maps, checks, writes a script that computes the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import targets
from compilers import compile_network, load_program, save_program
from compilers.frontend import lower
from compilers.hardware.limits import Quantity, load_hardware
from compilers.hardware.placement_report import placement_text
from compilers.hardware.resources import resources
from compilers.ir.graph import Graph, Spiking
from compilers.passes.encode import with_spiking
from compilers.passes.expand_couplings import expand_couplings
from compilers.passes.map_to_cores import map_to_cores
from compilers.passes.quantize import quantize
from ep_neuro.energy.spec import INPUT, CouplingSpec, NetworkSpec
from ep_neuro.errors import ConfigError, TargetError
from ep_neuro.network.architectures import cifar10_resnet, digits_dense, hopfield_resnet13
from ep_neuro.network.network import Network
from targets.hardware.backend import HardwareBackend
from targets.interface.protocols import Feature
from targets.lava.runtime.environment import interpreter
from tests.conformance.cases import FEATURES, Case
from tests.helpers.graphs import classifier, conv, graph_of, random_residual_spec, samples

GOLDEN = Path(__file__).parents[2] / "golden"
LOIHI2 = targets.get("loihi2")

AXONS = Quantity(9, "axons", "made up")

NARROW = HardwareBackend(
    replace(
        LOIHI2.hardware,
        limits={**LOIHI2.hardware.limits, "axons_in_per_core": AXONS},
    )
)
"""Loihi 2 with cores of so few input axons that what the outputs of `WIDE` hear is split."""

HEAD = CouplingSpec(pre="a", post="out", gain=0.5)

WIDE = classifier("wide", 4, 3, {"a": (4, 3, 3)}, conv(INPUT, "a", 2), HEAD)

LAVA = targets.get("lava").available()

needs_lava = pytest.mark.skipif(not LAVA.available, reason=LAVA.reason)


def placed(seed: int = 0, encoding: str = "graded", bits: int = 8) -> Graph:
    """A small residual graph, through the passes of the target."""
    graph = quantize(graph_of(random_residual_spec(seed), encoding), bits)  # type: ignore[arg-type]
    for step in LOIHI2.passes({}):
        graph = step.run(graph)
    return graph


# --- what it says of itself --------------------------------------------------------------------


def test_it_says_what_is_missing_and_how_one_gets_it() -> None:
    reason = LOIHI2.available().reason
    assert not LOIHI2.available().available
    assert "lava-loihi" in reason
    assert "INRC" in reason
    assert Feature.LEARNING in LOIHI2.unsupported
    program = LOIHI2.emit(placed())
    for use in (targets.open, LOIHI2.open):
        with pytest.raises(TargetError, match="INRC"):
            use(program)


def test_where_the_package_is_installed_it_says_what_to_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("targets.hardware.backend._find", lambda module: True)
    assert not LOIHI2.available().available
    assert "run the script" in LOIHI2.available().reason


@pytest.mark.parametrize("options", [{"chips": 0}, {"chips": "2"}, {"chips": True}, {"cihps": 2}])
def test_a_wrong_option_is_refused(options: dict[str, object]) -> None:
    network = Network(digits_dense())
    with pytest.raises(ConfigError, match="loihi2"):
        compile_network(network, LOIHI2, bits=8, options=options)


# --- passes and limits -------------------------------------------------------------------------


def test_a_network_in_floating_point_gets_the_weights_of_the_chip() -> None:
    graph = graph_of(random_residual_spec(0))
    for step in LOIHI2.passes({}):
        graph = step.run(graph)
    assert graph.quantised
    assert graph.provenance["bits"] == "8"
    assert graph.placement


def test_wide_weights_and_channel_exponents_are_violations() -> None:
    wide = [str(v) for v in LOIHI2.check(placed(bits=12))]
    assert "12 bits exceed the limit of 8" in wide[0]
    graph = placed()
    name = graph.projections[0].weight
    arrays = {**graph.arrays, f"exponent/{name}": np.full(len(graph.arrays[name]), 3)}
    projections = tuple(
        type(p)(**{**vars(p), "exponent": f"exponent/{name}" if p.weight == name else None})
        for p in graph.projections
    )
    shifted = graph.with_arrays(arrays=arrays, projections=projections)
    assert any(
        "exponents of" in str(v) or "channels' exponents" in str(v) for v in LOIHI2.check(shifted)
    )


def test_what_the_script_cannot_say_is_a_violation_and_leaves_it_out() -> None:
    graph = placed()
    slow = replace(graph, projections=tuple(replace(p, delay=2) for p in graph.projections))
    assert len(LOIHI2.check(slow)) == len(graph.projections)
    assert "2 exceed the limit of 1; give every" in str(LOIHI2.check(slow)[0])
    assert "lava_network.py" in LOIHI2.emit(graph).files
    assert "lava_network.py" not in LOIHI2.emit(slow).files


def test_what_was_not_compiled_for_the_chip_cannot_be_emitted() -> None:
    floating = graph_of(random_residual_spec(0))
    with pytest.raises(TargetError, match="not placed"):
        LOIHI2.emit(floating)
    with pytest.raises(TargetError, match="not in integers"):
        LOIHI2.emit(map_to_cores(floating, load_hardware_of("loihi2")))


def load_hardware_of(name: str):
    return load_hardware(Path(targets.__file__).parent / "hardware" / f"{name}.yaml")


@pytest.mark.parametrize("chip", ["loihi2", "spinnaker2"])
def test_the_full_residual_network_is_placed_as_before(chip: str) -> None:
    """Shapes alone decide, so weights are not quantised here: 8 bits are noted."""
    graph = expand_couplings(lower(Network(hopfield_resnet13(), 0), {"bits": "8"}))
    hardware = load_hardware_of(chip)
    text = placement_text(map_to_cores(graph, hardware), hardware)
    golden = GOLDEN / f"placement_hopfield_resnet13_{chip}.txt"
    if os.environ.get("EP_NEURO_WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_full_residual_network_compiles_within_a_minute(tmp_path: Path) -> None:
    command = ["compile", "zoo:hopfield_resnet13", "--target", "loihi2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "ep_neuro", *command, "--out", "program"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(GOLDEN.parents[1])},
        check=True,
        timeout=60,
        capture_output=True,
    )
    fields = json.loads(done.stdout)
    assert fields["violations"] == []
    assert (fields["cores"], fields["chips"], fields["neurons"]) == (182, 2, 296970)
    assert fields["weight_bytes"] < fields["synapses"]


@pytest.mark.slow
@pytest.mark.parametrize("code", list(FEATURES))
def test_the_cifar_10_network_maps_its_5120_axons_split_over_cores(code: str) -> None:
    program = compile_network(Network(cifar10_resnet(), 0), LOIHI2, code=code, bits=8)
    assert LOIHI2.check(program.graph) == ()
    assert [p.name for p in program.graph.split] == ["h7->h7_to_output"]
    assert resources(program.graph)["chips"] == 1


def test_what_a_program_costs_on_the_chip_follows_from_a_run_elsewhere() -> None:
    spec, reference = random_residual_spec(0), targets.get("reference")
    graph = placed()
    x, y = samples(spec, 2)
    with reference.open(reference.emit(graph)) as session:
        result = session.settle(x, y)
    cost = LOIHI2.estimate(LOIHI2.emit(graph), result)
    assert cost.energy_joule == pytest.approx(sum(cost.parts.values()))
    assert "assumption" in cost.source
    one_core = reference.emit(replace(graph, placement=()))
    assert cost.seconds < reference.estimate(one_core, result).seconds
    assert cost.learning_joule is not None
    assert cost.learning_joule > cost.energy_joule


# --- the program -------------------------------------------------------------------------------


def test_the_script_is_the_same_for_every_graph_and_reads_its_records() -> None:
    files, others = (LOIHI2.emit(placed(seed)).files for seed in (1, 2))
    for name in ("lava_network.py", "lava_processes.py"):
        compile(files[name], name, "exec")
        assert files[name] == others[name]
    assert "Loihi2HwCfg" in files["lava_network.py"]


@needs_lava
@pytest.mark.parametrize(
    ("chip", "spec"), [(LOIHI2, random_residual_spec(1)), (NARROW, WIDE)], ids=["whole", "split"]
)
@pytest.mark.parametrize(
    ("code", "reset"), [*((code, "soft") for code in FEATURES), ("spike", "hard")]
)
def test_the_script_computes_what_the_integer_reference_computes(
    code: str, reset: str, chip: HardwareBackend, spec: NetworkSpec, tmp_path: Path
) -> None:
    reference = targets.get("reference")
    program = Case(chip, code, 8).compile(spec, steps=12, seed=3)  # type: ignore[arg-type]
    assert bool(program.graph.split) == (chip is NARROW)
    program = replace(program, graph=with_spiking(program.graph, reset=reset))
    x, _ = samples(spec, 1, seed=4)
    variables = [f"{p.name}.v" for p in program.graph.neurons]
    if not isinstance(program.graph.neurons[0].dynamics, Spiking):
        variables += [f"{p.name}.z" for p in program.graph.neurons]
    with reference.open(reference.emit(program.graph)) as session:
        expected = session.settle(x, probes=variables).free
    save_program(program, tmp_path / "program")
    np.save(tmp_path / "x.npy", x[0])
    script = tmp_path / "program" / "files" / "lava_network.py"
    subprocess.run(
        [interpreter(), str(script), "x.npy", "found.npz"],
        cwd=tmp_path,
        check=True,
        timeout=60,
        capture_output=True,
    )
    found = np.load(tmp_path / "found.npz")
    for name in variables:
        np.testing.assert_array_equal(found[name], expected.probes[name][-1, 0].ravel(), name)
    np.testing.assert_allclose(found["output"], expected.outputs[0].ravel(), rtol=0, atol=1e-12)
    assert load_program(tmp_path / "program").digest() == program.digest()


def test_uneven_channels_share_one_exponent_for_a_weight_of_the_chip_is_a_byte() -> None:
    network = Network(digits_dense())
    weight = network.weights["input->h1"]
    weight.data.mul_(0.5 ** torch.linspace(0, 8, len(weight))[:, None])
    assert any(p.exponent for p in compile_network(network, bits=8).graph.projections)
    for bits in (8, None):
        chip = compile_network(network, LOIHI2, bits=bits)
        assert not any(p.exponent for p in chip.graph.projections)
