"""What changes in a story: the chip or the world, and the network that is to learn on."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

import compilers
from compilers.ir.bounds import BOUNDS
from compilers.ir.graph import Graph, Population
from compilers.ir.operators import apply
from compilers.ir.plasticity import CONTRASTIVE, DIFFERENCE, SPIKE_AVERAGE
from compilers.learning.real_units import real_weight
from compilers.passes.units import faintness
from compilers.program import Program
from ep_neuro.data.datasets import Dataset, Split
from ep_neuro.errors import ConfigError, GraphError, nearest
from ep_neuro.network.checkpoint import Model
from ep_neuro.network.network import Network, parameter_names
from targets.experiments.onchip import faults
from targets.experiments.onchip.plastic import plastic
from targets.experiments.onchip.recovery import inverted, mixed, only, rotated, without

STEPS = {"graded": 16, "spike": 32}
"""Steps of the free phase by code, where nothing else is asked for; 32 of any other."""

DELTA_RATE = 4.0
"""Default rate times the mean squared length of what a neuron hears, where that is largest: the
delta rule is stable below a rate that falls with it (Widrow & Hoff 1960)."""

LENGTH_IMAGES = 20
"""Training images from which that length is told."""

OLD_SHARE = 4
"""A new class is learnt with one image of each old class for so many of its own."""

PICTURE = 48
"""Most rows and columns of weights in a picture."""


@dataclass(frozen=True)
class StorySetting:
    """How a story's network is deployed and learns.

    Attributes
    ----------
    code : str
        Encoding of the messages.
    bits : int or None
        Of a weight; None: floating point.
    steps, nudged_steps : int or None
        Length of the phases; None: `STEPS`, and half of it.
    headroom : int
        Bits of a weight that are left for learning to fill, since what a weight is worth stays.
    rule : str or None
        None: ``difference`` of graded messages, ``spike-average`` of spikes, else ``contrastive``.
    rate, output_rate : float or None
        See `targets.plastic`; by default what `default_rate` finds.
    keep : bool or None
        See `targets.plastic`.
    images : int or None
        Different training images that there are to learn from; None: all.
    test : int or None
        Test images, the first ones; None: all.
    held_out : int
        Most validation images that are settled at each point.
    """

    code: str = "graded"
    bits: int | None = 8
    steps: int | None = None
    nudged_steps: int | None = None
    headroom: int = 1
    rule: str | None = None
    rate: float | None = None
    output_rate: float | None = None
    keep: bool | None = None
    images: int | None = None
    test: int | None = None
    held_out: int = 200

    def __post_init__(self) -> None:
        for name in ("images", "test", "held_out"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"story, {name}", f"{value} is below 1", "give at least 1")


@dataclass(frozen=True, eq=False)
class World:
    """What there is before anything changes."""

    model: Model
    """With the squared error."""
    data: Dataset
    setting: StorySetting
    target: str
    seed: int
    """Of what changes."""

    def program(self, **changes: Any) -> Program:
        """The model on its chip, ready to learn; `changes` are of the setting, ``bits`` say."""
        how = replace(self.setting, **changes)
        steps = how.steps or STEPS.get(how.code, 32)
        rules = {"graded": DIFFERENCE, "spike": SPIKE_AVERAGE}
        whole = compilers.compile(
            self.model,
            self.target,
            code=how.code,
            bits=how.bits,
            steps=steps,
            nudged_steps=how.nudged_steps,
            headroom=how.headroom if how.bits else None,
            learn=how.rule or rules.get(how.code, CONTRASTIVE).name,
        )
        rate = how.rate
        if rate is None:
            images = self.data.train.head(LENGTH_IMAGES)
            rate = default_rate(whole.graph, self.model.network, images)
        ready = plastic(whole, rate=rate, output_rate=how.output_rate, keep=how.keep)
        return replace(ready, graph=_within_reach(ready.graph))


@dataclass(frozen=True, eq=False)
class Changed:
    """What a story comes to."""

    told: str
    """What happened, a sentence without its end."""
    before: Program
    """The chip before the change."""
    program: Program
    """The chip after it, which learns."""
    data: Dataset
    """What there is to learn from and to test on."""
    old: Split
    """Test samples of the old task."""
    new: Split
    """Test samples of the new one; the same where the chip changed."""
    pictures: Mapping[str, np.ndarray]
    """Images (height, width) or (channels, height, width), 0 to 1, by caption."""


def default_rate(graph: Graph, network: Network, images: Split) -> float:
    """The rate at which `graph` learns where nothing else is asked for, in units: `DELTA_RATE`.

    `network`, whose graph it is, settles `images`.
    """
    with torch.no_grad():
        found = network.settle(torch.from_numpy(images.x)).state
    states = {name: z.numpy().astype(np.float64) for name, z in found.items()}
    lengths = []
    for p in (tie.first for tie in graph.tied()):
        sender, weight = graph.population(p.pre), graph.arrays[p.weight]
        state, readout = states.get(p.pre, images.x), sender.readout
        squares = np.square((state.reshape(-1, *sender.shape) - readout.offset) / readout.gain)
        heard = apply(p.operator, np.ones(weight.shape), squares, graph.population(p.post).shape)
        lengths.append(float(heard.mean()))
    return DELTA_RATE / max(1.0, *lengths)


def _within_reach(graph: Graph) -> Graph:
    """`graph` in which only that learns to which the response to a nudge is heard.

    A difference is sent as much louder as it is fainter, up to an end; a mean of spikes over T
    steps resolves one part in T of a box; graded states have messages as fine as it takes.
    """
    rule = graph.plasticity[0].rule
    if rule.differs:
        (_, most), loss = BOUNDS[Population, "louder"], graph.population(graph.output).louder
        heard = most - loss
    elif graph.encoding == "spike":
        heard = round(math.log2(max(p.steps for p in graph.phases if p.sign)))
    else:
        return graph
    faint = faintness(graph)
    driven = {p.bias: p.name for p in graph.neurons} | {w: graph.tie(w).post for w in graph.ties}
    kept = tuple(r for r in graph.plasticity if faint.get(driven[r.weight], heard + 1) <= heard)
    if not kept:
        problem = f"no response to a nudge is louder than one part in 2**{heard}"
        raise GraphError(f"graph '{graph.name}'", problem, "take more steps, or the code graded")
    return graph.with_arrays(plasticity=kept)


# --- the changes ---------------------------------------------------------------------------------


def damaged(world: World, stuck: float = 0.1, dead: float = 0.05) -> Changed:
    """Shares of the synapses stick at random values and of the hidden neurons never send."""
    whole = world.program()
    broken = faults.damage(whole, stuck=stuck, dead=dead, seed=world.seed).program
    told = f"{stuck:.0%} of the synapses stuck at random values, {dead:.0%} of the neurons dead"
    return _on_chip(world, told, whole, broken)


def drifted(
    world: World, days: float = 30.0, exponent: float = 0.055, spread: float = 0.015
) -> Changed:
    """Weights fall by the power law of phase-change memory, each device with its own exponent."""
    whole = world.program()
    fallen = faults.drift(
        whole, seconds=days * faults.DAY, exponent=exponent, spread=spread, seed=world.seed
    )
    told = f"{days:g} days of drift as PCM has it, exponents {exponent:g} ± {spread:g}"
    return _on_chip(world, told, whole, fallen)


def coarse(world: World, to: float = 2) -> Changed:
    """The chip has weights of so few bits."""
    whole, few = world.program(headroom=0), world.program(bits=int(to), headroom=0)
    return _on_chip(world, f"weights of {int(to)} bits", whole, few)


def turned(world: World, turns: float = 1) -> Changed:
    """The sensor was mounted on its side: every image is turned to the left by right angles."""
    return _in_the_world(
        world, f"images turned by {90 * int(turns)} degrees", partial(rotated, turns=int(turns))
    )


def swapped(world: World) -> Changed:
    """The sensor's polarity changed: dark and bright are exchanged."""
    return _in_the_world(world, "dark and bright exchanged", inverted)


def new_class(world: World, label: float = 9) -> Changed:
    """A class comes whose output neuron was blank; some images of the old ones are learnt again."""
    data, new = world.data, int(label)
    if not 0 <= new < len(data.classes):
        problem = f"{label:g} is no class of {data.name}, which has {len(data.classes)}"
        raise ConfigError("story new-class, label", problem, f"give 0 to {len(data.classes) - 1}")
    program = replace(world, model=_blank(world.model, new)).program()
    olds = [label for label in range(len(data.classes)) if label != new]
    own, others = only(data.train, new), [only(data.train, label) for label in olds]
    count = len(own)
    if world.setting.images is not None:
        count = max(1, round(world.setting.images * OLD_SHARE / (OLD_SHARE + len(olds))))
    each = max(1, count // OLD_SHARE)
    seen = replace(data, train=mixed(own.head(count), *(s.head(each) for s in others)))
    order = np.random.default_rng([world.seed, 11]).permutation(len(seen.train))
    name = data.classes[new] if data.classes else str(new)
    pictures = {f"a new {name}": own.x[0], f"an old {data.classes[olds[0]]}": others[0].x[0]}
    return Changed(
        f"class {name} is new: {min(count, len(own))} images of it, {each} of each old one",
        program,
        program,
        replace(seen, train=seen.train.at(order)),
        without(data.test, new),
        only(data.test, new),
        pictures,
    )


@dataclass(frozen=True)
class Kind:
    """A story: what it is called, and what happens in it."""

    title: str
    happen: Callable[..., Changed]


STORIES = {
    "damaged": Kind("The damaged array", damaged),
    "drifted": Kind("The drifted chip", drifted),
    "coarse": Kind("The coarse chip", coarse),
    "rotated": Kind("The rotated sensor", turned),
    "inverted": Kind("The inverted sensor", swapped),
    "new-class": Kind("The new class", new_class),
}
"""Every story by its name."""


def _on_chip(world: World, told: str, whole: Program, now: Program) -> Changed:
    test = world.data.test
    pictures = {
        "weights before": weights_shown(whole, whole),
        "weights after the change": weights_shown(now, whole),
    }
    return Changed(told, whole, now, world.data, test, test, pictures)


def _in_the_world(world: World, told: str, change: Callable[[Dataset], Dataset]) -> Changed:
    program, data = world.program(), change(world.data)
    pictures = {"before": world.data.test.x[0], "after the change": data.test.x[0]}
    return Changed(told, program, program, data, world.data.test, data.test, pictures)


def _blank(model: Model, label: int) -> Model:
    """`model` whose output neuron of class `label` has neither weights nor a bias."""
    network = copy.deepcopy(model.network)
    output = network.spec.output
    with torch.no_grad():
        for name, values in parameter_names(network).items():
            if name == f"bias/{output}" or (
                name.startswith("weight/") and name.endswith(f"->{output}")
            ):
                values[label] = 0
    return Model(network, {k: v for k, v in model.metadata.items() if k != "sha256"})


def weights_shown(program: Program, beside: Program) -> np.ndarray:
    """Some weights into the output, from 0 to 1; 0.5 is none, the ends the largest of `beside`."""
    graph = program.graph
    weight = next(w for w in reversed(graph.ties) if graph.tie(w).post == graph.output)
    shown = (real_weight(p.graph, weight) for p in (program, beside))
    now, other = (np.ravel(values)[: PICTURE**2] for values in shown)
    side = math.isqrt(now.size)
    largest = max(float(np.abs(other).max(initial=0)), 1e-12)
    return 0.5 + 0.5 * now[: side * side].reshape(side, side) / largest


def change_of(kind: str) -> Callable[..., Changed]:
    """What happens in the story `kind`; `ConfigError` with the nearest name if there is none."""
    if kind not in STORIES:
        raise ConfigError(f"story '{kind}'", "there is none of this name", nearest(kind, STORIES))
    return STORIES[kind].happen


def defaults_of(kind: str) -> dict[str, float]:
    """How much changes in it, by parameter, where nothing else is said."""
    parameters = list(inspect.signature(change_of(kind)).parameters.values())[1:]
    return {p.name: p.default for p in parameters}


def checked(kind: str, change: Mapping[str, float]) -> Mapping[str, float]:
    """`change`; `ConfigError` if the story `kind` has no such parameter."""
    known = defaults_of(kind)
    for name in change:
        if name not in known:
            remedy = nearest(name, known, f"choose from {', '.join(known)}" if known else "drop it")
            raise ConfigError(f"story {kind}, {name}", "there is no such change", remedy)
    return change
