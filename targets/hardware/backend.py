"""A chip as a backend: maps a graph to its cores, checks every limit, writes what a host needs."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from compilers.hardware.limit_checks import violations
from compilers.hardware.limits import (
    TARGET_KEYS,
    HardwareLimits,
    Violation,
    load_hardware,
    parse_hardware,
)
from compilers.hardware.placement_report import draw_placement, placement_text
from compilers.ir.graph import Graph
from compilers.learning.weight_sharing import shared_plasticity
from compilers.passes.map_to_cores import map_to_cores
from compilers.passes.quantize import FEW_BITS, quantize
from compilers.passes.split_fan_in import split_fan_in
from compilers.pipeline import Pass
from compilers.program import Program, versions
from ep_neuro.errors import ConfigError, EPNeuroError, TargetError
from ep_neuro.results import CostEstimate
from ep_neuro.storage.yaml_io import read_text
from targets.interface.energy import estimate_on
from targets.interface.options import COUNT, checked
from targets.interface.protocols import Availability, Backend, Feature, Options, RunResult
from targets.interface.refusals import ONE_INPUT, forbidden
from targets.interface.unavailable import UnavailableBackend

WEIGHT_BITS = 8
"""Bits of a weight where neither the user nor the hardware file says how many."""

PLACEMENT, DRAWING = "placement.txt", "placement.svg"
"""Files of a program that show where its neurons lie."""

HARDWARE = "hardware.yaml"
"""File of a program that holds the hardware file of its chip, where that is none of ours."""

SCRIPT = ("lava_network.py", "lava_processes.py")
"""A script that builds a graph as a Lava process graph, for Loihi2HwCfg; here they end in ``.txt``.

One process for each population and each directed projection; the input, which is constant, enters
as a bias that the host computes. The script reads the program's records and arrays. It shares no
code with `targets.lava`, whose processes follow the phase commands of a session in shared memory: a
chip's host has neither.
"""


class HardwareBackend(Backend):
    """Compiles for one machine, described by a hardware file; it runs nothing by itself.

    Parameters
    ----------
    hardware : HardwareLimits
        With a ``target`` section.
    text : str, optional
        Its file, if it is none of those here: each program holds it.
    """

    tolerance = 0.0
    options: Mapping[str, Any] = {"chips": None}
    byte_weights = True

    def __init__(self, hardware: HardwareLimits, text: str = "") -> None:
        self.hardware = hardware
        self._own_file = {HARDWARE: text} if text else {}
        self.name = hardware.name
        self.summary = hardware.target["summary"]
        self.unsupported: Mapping[Feature, str] = _unsupported(hardware)
        self._writes_script = hardware.target.get("script") == "lava"

    def available(self) -> Availability:
        """Never: a program runs on the host of the chip; says what is missing, or what to run."""
        module = self.hardware.target["module"]
        if _find(module):
            how = "copy the program to the chip's host and run the script in its folder 'files'"
            return Availability(False, f"ep-neuro does not drive the chip itself; {how}")
        return Availability(False, self.hardware.target["missing"])

    def limits(self, options: Options) -> HardwareLimits:
        """The hardware file."""
        return self.hardware

    def passes(self, options: Options) -> Sequence[Pass]:
        """`quantize` where the graph is not integer yet, `split_fan_in`, then `map_to_cores`.

        Options: ``chips``, the number of chips to use.
        """
        chips: int | None = checked(self.name, self.options, options, {"chips": COUNT})["chips"]
        bits = int(self.hardware.parameter("default_weight_bits", WEIGHT_BITS))

        def in_integers(graph: Graph) -> Graph:
            if graph.quantised:
                return graph
            return quantize(graph, bits, per_channel=bits < FEW_BITS)

        place = partial(map_to_cores, hardware=self.hardware, chips=chips)
        return (
            Pass("quantize_for_chip", in_integers),
            Pass("split_fan_in", partial(split_fan_in, hardware=self.hardware)),
            Pass("map_to_cores", place),
        )

    def check(self, graph: Graph) -> Sequence[Violation]:
        """Every limit of the chip that `graph` breaks, and what it cannot run or learn."""
        script = _unwritable(graph) if self._writes_script else ()
        return (*violations(graph, self.hardware), *script, *shared_plasticity(graph))

    def emit(self, graph: Graph) -> Program:
        """The graph, its placement as text and drawing, and a script where there is one to write.

        Raises
        ------
        TargetError
            If the graph is not placed or still holds floating-point numbers.
        """
        if not graph.placement or not graph.quantised:
            problem = f"is not {'in integers' if graph.placement else 'placed on cores'}"
            remedy = "compile it for this target"
            raise TargetError(f"target '{self.name}', graph '{graph.name}'", problem, remedy)
        files = {
            PLACEMENT: placement_text(graph, self.hardware),
            DRAWING: _drawing(graph, self.hardware),
            **self._own_file,
        }
        if self._writes_script and not _unwritable(graph):
            files |= _lava_files()
        return Program(target=self.name, graph=graph, files=files, provenance=versions())

    def open(self, program: Program) -> NoReturn:
        """Always `TargetError`: what is missing, and how one gets it."""
        problem, _, remedy = self.available().reason.partition("; ")
        raise TargetError(f"target '{self.name}'", problem, remedy)

    def estimate(self, program: Program, result: RunResult) -> CostEstimate:
        """Energy and time on the placed cores, from events that another target counted.

        Messages of partial sums are among them if it ran this program's graph.
        """
        return estimate_on(self.hardware, program.graph, result)


def backend_from(path: str | Path) -> HardwareBackend:
    """The backend of the hardware file `path`; `ConfigError` if it is none, or has no target."""
    return _backend_of(read_text(path), str(path))


def backend_in(program: Program) -> HardwareBackend | None:
    """The backend of the hardware file that `program` holds; None without one for its target.

    A program moved to another target by hand may still hold the file of the first.
    """
    text = program.files.get(HARDWARE)
    chip = text and _backend_of(text, f"program '{program.graph.name}', {HARDWARE}")
    return chip if chip and chip.name == program.target else None


def _backend_of(text: str, where: str) -> HardwareBackend:
    hardware = parse_hardware(text, where)
    if not hardware.target:
        remedy = f"give it {', '.join(TARGET_KEYS)}, as targets/hardware/loihi2.yaml does"
        raise ConfigError(where, "key 'target' is missing", remedy)
    return HardwareBackend(hardware, text)


def hardware_backends(folder: Path) -> tuple[Backend, ...]:
    """A backend for every hardware file in `folder` that has a ``target`` section.

    One that cannot be read becomes an `UnavailableBackend` of the file's name, which says why.
    """
    found: list[Backend] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            hardware = load_hardware(path)
        except EPNeuroError as error:
            found.append(
                UnavailableBackend(path.stem, f"{path.name}: {error.problem}", error.remedy)
            )
            continue
        if hardware.target:
            found.append(HardwareBackend(hardware))
    return tuple(found)


def _unwritable(graph: Graph) -> list[Violation]:
    """What a graph may hold and the script cannot say."""
    late = [
        Violation(f"projection '{p.name}', delay", p.delay, 1, "give every projection one step")
        for p in graph.projections
        if p.delay > 1
    ]
    return late + forbidden(graph, (abs(len(graph.sources) - 1), *ONE_INPUT))


def _lava_files() -> dict[str, str]:
    """The script and its processes, by file name; a graph has one input and is quantised."""
    return {name: (Path(__file__).parent / f"{name}.txt").read_text("utf-8") for name in SCRIPT}


def _unsupported(hardware: HardwareLimits) -> dict[Feature, str]:
    reasons = {
        Feature.LEARNING: "its programs settle only; ep-neuro writes no learning rule for it"
    }
    if hardware.limit("message_bits") < 2:
        reason = "a message of the chip is a spike without a value"
        reasons |= {Feature.GRADED: reason, Feature.SIGMA_DELTA: reason}
    return reasons


def _find(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _drawing(graph: Graph, hardware: HardwareLimits) -> str:
    """The placement as SVG, the same text for the same graph."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": graph.name, "svg.fonttype": "none"}):
        draw_placement(graph, hardware).savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
