"""Claims about hardware files as targets, and about what a run costs on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import targets
from compilers import load_program, save_program
from compilers.hardware.cost import (
    Activity,
    learning_joule,
    memory_traffic,
    phase_cost,
    stored_weights,
)
from compilers.hardware.limits import HardwareLimits, load_hardware
from compilers.hardware.placement import messages
from compilers.ir.graph import Graph
from compilers.passes.map_to_cores import map_to_cores
from compilers.passes.quantize import quantize
from ep_neuro.errors import ConfigError, TargetError
from targets.hardware.backend import HardwareBackend, hardware_backends
from targets.interface.energy import estimate_on
from targets.interface.protocols import Feature
from targets.interface.unavailable import UnavailableBackend
from tests.helpers.graphs import digits_like_residual, graph_of, random_residual_spec, samples

FOLDER = Path(targets.__file__).parent / "hardware"

CHIP = """
name: abacus
target: {summary: a toy, module: no_such_module, missing: it is not for sale; build one}
limits:
  cores: {value: 4, unit: cores, source: counted}
  chips: {value: 1, unit: chips, source: counted}
  neurons_per_core: {value: 200, unit: neurons, source: counted}
  message_bits: {value: 1, unit: bits, source: beads}
"""


def hardware(name: str) -> HardwareLimits:
    return load_hardware(FOLDER / f"{name}.yaml")


def residual() -> Graph:
    return quantize(graph_of(digits_like_residual()), 8)


def busy(graph: Graph, steps: int = 10) -> Activity:
    """Every neuron speaks twice."""
    events = {p.name: 2.0 * p.size for p in graph.populations}
    return Activity(events, {name: 50.0 * n for name, n in events.items()}, steps)


# --- a chip is a file --------------------------------------------------------------------------


def test_every_hardware_file_with_a_target_section_is_a_target() -> None:
    for path in FOLDER.glob("*.yaml"):
        described = load_hardware(path)
        assert described.name == path.stem
        assert (described.name in targets.names()) is bool(described.target)
    assert {"loihi2", "spinnaker2"} <= set(targets.names())


def test_a_new_chip_is_one_file_away(tmp_path: Path) -> None:
    (tmp_path / "abacus.yaml").write_text(CHIP)
    (chip,) = hardware_backends(tmp_path)
    assert chip.name == "abacus"
    assert chip.available().reason == "it is not for sale; build one"
    assert {Feature.GRADED, Feature.SIGMA_DELTA} <= set(chip.unsupported)
    graph = quantize(graph_of(random_residual_spec(0), "spike"), 8)
    for step in chip.passes({}):
        graph = step.run(graph)
    assert list(chip.check(graph)) == []
    assert list(chip.emit(graph).files) == ["placement.txt", "placement.svg"]


def test_the_file_of_a_chip_stands_where_a_target_does(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(CHIP)
    chip = targets.get(str(tmp_path / "my.yaml"))
    assert chip.summary == "a toy"
    assert "abacus" not in targets.names()
    (tmp_path / "bare.yaml").write_text("name: bare")
    with pytest.raises(ConfigError, match=r"bare\.yaml: key 'target' is missing; give it summary"):
        targets.get(str(tmp_path / "bare.yaml"))
    with pytest.raises(ConfigError, match="there_is_none"):
        targets.get(str(tmp_path / "there_is_none.yaml"))


def test_a_program_carries_the_hardware_file_of_its_chip(tmp_path: Path) -> None:
    """Whoever loads it later knows the chip by the program alone, built in of that name or not."""
    for name in ("abacus", "loihi2"):
        (tmp_path / "my.yaml").write_text(CHIP.replace("abacus", name))
        chip = targets.get(str(tmp_path / "my.yaml"))
        save_program(chip.emit(map_to_cores(residual(), chip.limits({}))), tmp_path / "p")
        (tmp_path / "my.yaml").unlink()
        program = load_program(tmp_path / "p")
        found = targets.get(program)
        assert (found.name, found.limits({})) == (name, chip.limits({}))
        assert found.emit(program.graph).files == program.files
        with pytest.raises(TargetError, match="it cannot run here: it is not for sale; build one"):
            targets.open(program)
    with pytest.raises(TargetError, match="'abacus': there is none of this name"):
        targets.get("abacus")
    elsewhere = replace(program, target="reference")
    assert targets.get(elsewhere) is targets.get("reference")


def test_a_graded_network_does_not_fit_a_chip_of_binary_spikes(tmp_path: Path) -> None:
    (tmp_path / "abacus.yaml").write_text(CHIP)
    (chip,) = hardware_backends(tmp_path)
    graph = graph_of(digits_like_residual())
    for step in chip.passes({}):
        graph = step.run(graph)
    subjects = [v.subject for v in chip.check(graph)]
    assert sum("messages" in s for s in subjects) == len(graph.neurons)
    assert any("chips" in str(v) for v in chip.check(graph))


def test_a_hardware_file_that_cannot_be_read_is_a_target_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "abacus.yaml").write_text(CHIP)
    (tmp_path / "bad.yaml").write_text("name: bad\nlimits: {cores: 3}")
    (tmp_path / "nominal.yaml").write_text("name: nominal")
    good, bad = hardware_backends(tmp_path)
    assert isinstance(good, HardwareBackend)
    assert isinstance(bad, UnavailableBackend)
    assert bad.name == "bad"
    assert "bad.yaml" in bad.available().reason


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("{summary: s}", "target: is not complete"),
        ("{summary: s, module: m, missing: ' '}", "holds an empty value"),
        ("{summary: s, module: m, missing: x, script: fortran}", "script 'fortran' is unknown"),
        ("{summary: s, module: m, missing: x, colour: red}", "target: is not complete"),
    ],
)
def test_a_bad_target_section_is_one_line(target: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "h.yaml").write_text(f"name: h\ntarget: {target}")
    with pytest.raises(ConfigError) as caught:
        load_hardware(tmp_path / "h.yaml")
    assert complaint in str(caught.value)


def test_every_assumption_says_that_it_is_one() -> None:
    """What no publication at hand says of Loihi 2 must not pass for published."""
    chip = hardware("loihi2")
    facts = {**chip.limits, **chip.parameters}
    assumed = {name for name, q in facts.items() if q.source.startswith("assumption")}
    cores = {"synaptic_bytes", "memory_bytes", "axons_in", "axons_out"}
    assert assumed == {f"{name}_per_core" for name in cores} | {
        "axon_bytes",
        "cores_per_router",
        "shared_kernels",
    }
    assert chip.energy is not None
    assert all(q.source.startswith("assumption") for q in vars(chip.energy).values())


# --- cost --------------------------------------------------------------------------------------


def test_an_unplaced_graph_costs_the_sum_of_its_events() -> None:
    graph, loihi = residual(), hardware("loihi")
    done = busy(graph)
    events, synops = sum(done.events.values()), sum(done.synops.values())
    updates = 10 * sum(p.size for p in graph.neurons)
    cost = phase_cost(graph, loihi, done)
    assert cost.joule == pytest.approx(1e-12 * (1.7 * events + 23.6 * synops + 81 * updates))
    assert cost.seconds == pytest.approx(1e-9 * (3.5 * synops + 8.4 * updates))
    assert cost.parts["hops"] == cost.between_chips == 0


def test_a_placed_message_costs_as_often_as_it_is_sent() -> None:
    graph, chip = residual(), hardware("loihi2")
    assert chip.energy is not None
    placed = map_to_cores(graph, chip)
    neurons = {p.name: float(p.size) for p in graph.neurons}
    cost = phase_cost(placed, chip, Activity(neurons, dict.fromkeys(neurons, 0.0), 0))
    assert cost.parts["messages"] == pytest.approx(chip.energy.event.value * messages(placed).sum())
    # Five cores stand at the routers of cores 0-3 and 4: only messages to and from `out` hop.
    assert cost.parts["hops"] > 0
    assert cost.parts["synaptic operations"] == cost.parts["neuron updates"] == 0


def test_more_cores_are_faster_and_more_chips_are_crossed() -> None:
    graph, chip = residual(), hardware("loihi2")
    small = replace(
        chip,
        limits={
            **chip.limits,
            "neurons_per_core": replace(chip.limits["neurons_per_core"], value=64),
            "cores": replace(chip.limits["cores"], value=12),
        },
    )
    few, many = (phase_cost(map_to_cores(graph, h), h, busy(graph)) for h in (chip, small))
    assert many.seconds < few.seconds < phase_cost(graph, chip, busy(graph)).seconds
    assert few.between_chips == 0 < many.between_chips
    assert many.parts["messages"] > few.parts["messages"]


def test_memory_traffic_is_a_weight_a_synaptic_operation_and_every_state_twice_a_step() -> None:
    graph = residual()
    silent = Activity({}, {}, 3)
    words = {"h1": 4, "h2": 4, "h3": 3, "h4": 3, "out": 3}
    states = sum(3 * words[p.name] * p.size for p in graph.neurons)
    assert memory_traffic(graph, silent) == 2 * 3 * states
    assert memory_traffic(graph, replace(silent, synops={"h1": 100.0})) == 100 + 6 * states


def test_a_learning_step_costs_all_phases_and_every_stored_weight() -> None:
    graph, chip = residual(), hardware("loihi2")
    assert chip.energy is not None
    placed = map_to_cores(graph, chip)
    phases = [busy(graph, steps) for steps in (10, 5, 5)]
    settling = sum(phase_cost(placed, chip, phase).joule for phase in phases)
    change = chip.energy.weight_update.value * stored_weights(placed, chip)
    assert learning_joule(placed, chip, phases) == pytest.approx(settling + change)
    assert stored_weights(placed, chip) == stored_weights(graph, chip)
    fixed = replace(
        chip,
        energy=replace(chip.energy, weight_update=replace(chip.energy.weight_update, value=0.0)),
    )
    assert learning_joule(placed, fixed, phases) is None


def test_an_estimate_breaks_down_into_its_parts() -> None:
    spec = random_residual_spec(1)
    graph, reference = quantize(graph_of(spec), 8), targets.get("reference")
    x, y = samples(spec, 3)
    with reference.open(reference.emit(graph)) as session:
        free, nudged = session.settle(x), session.settle(x, y)
    cost, learning = (estimate_on(hardware("loihi"), graph, r) for r in (free, nudged))
    assert cost.energy_joule == pytest.approx(sum(cost.parts.values()))
    assert cost.learning_joule is None
    assert learning.learning_joule is not None
    assert learning.learning_joule > 2 * learning.energy_joule
    assert cost.memory_bytes > 0
    assert np.isfinite(cost.seconds)


def test_without_energy_constants_there_is_no_estimate() -> None:
    graph = residual()
    with pytest.raises(TargetError, match="has no energy constants"):
        phase_cost(graph, hardware("spinnaker2"), busy(graph))
