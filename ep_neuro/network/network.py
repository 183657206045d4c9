"""The energy of a spec in torch: parameters, and the landscape of one clamped batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from ep_neuro.energy.activations import activation
from ep_neuro.energy.costs import ByClass, Cost, CrossEntropy, SoftmaxReadout, SquaredError
from ep_neuro.energy.operators import Operators, arranged
from ep_neuro.energy.spec import INPUT, CouplingSpec, NetworkSpec
from ep_neuro.energy.weight_standardization import pull_back, standardised
from ep_neuro.errors import DataError, SpecError
from ep_neuro.network.settling import Schedule, SettleResult, settle
from ep_neuro.storage.value_checks import memory

State = dict[str, Tensor]
"""States by population name, each (N, *population shape)."""


class Network(nn.Module):
    """Weights and biases of a `NetworkSpec`.

    Parameters
    ----------
    spec : NetworkSpec
        What to build.
    seed : int
        Seed of the initial weights: normal, with `NetworkSpec.initial_std`.

    Attributes
    ----------
    weights : mapping of Parameter
        By coupling name ``pre->post``; shapes as in `NetworkSpec.weight_shapes`.
    feedback : mapping of Parameter
        Weights of the way back of untied couplings, by coupling name.
    gains : mapping of Parameter, (channels,)
        Of standardised couplings, by coupling name; one a neuron where the coupling is dense.
        `weights` has the weights before they are standardised, `effective` those of the dynamics.
    readout : Linear or None
        From the output population to the classes, outside the dynamics.
    class_weights : Tensor or None, (classes,)
        Factor of the cost of each sample by its class; training sets it, and no file keeps it.

    Raises
    ------
    SpecError
        If the parameters and one state exceed the memory of this machine.
    """

    class_weights: Tensor | None

    def __init__(self, spec: NetworkSpec, seed: int = 0) -> None:
        super().__init__()
        _refuse_giant(spec)
        self.spec = spec
        self.register_buffer("class_weights", None, persistent=False)
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.ParameterDict()
        self.feedback = nn.ParameterDict()
        self.gains = nn.ParameterDict()
        for c in spec.couplings:
            shape = spec.weight_shapes[c.name]
            std = spec.initial_std(c)
            # What is fixed is out of reach of an optimiser's weight decay, too.
            self.weights[c.name] = nn.Parameter(
                torch.randn(shape, generator=generator) * std, requires_grad=not c.whiten
            )
            if c.untied:
                self.feedback[c.name] = nn.Parameter(torch.randn(shape, generator=generator) * std)
            if c.standardise:
                self.gains[c.name] = nn.Parameter(torch.full(shape[:1], spec.real_gain(c)))
        # The slash keeps a population called `half` or `copy` apart from the module's own names.
        self._biases = nn.ParameterDict(
            {f"bias/{p.name}": nn.Parameter(torch.zeros(p.shape[0])) for p in spec.populations}
        )
        self.readout: nn.Linear | None = None
        if spec.readout is not None:
            size = math.prod(spec.shapes[spec.output])
            with torch.random.fork_rng(devices=[]):
                self.readout = nn.Linear(size, spec.readout.classes)
            with torch.no_grad():
                self.readout.weight.normal_(0, spec.initial_readout_std, generator=generator)
                self.readout.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Output (N, *output shape) at the free equilibrium of raw inputs `x` (N, *input shape).

        Autograd does not pass through it: an equilibrium is found without a graph, and the gradient
        of a cost is what an estimator makes of several; see `ep_neuro.loss`. With a readout,
        `scores` makes classes of it.

        Raises
        ------
        DataError
            If `x` does not fit the network.
        """
        return self.settle(x).state[self.spec.output]

    @torch.no_grad()
    def settle(self, x: Tensor, schedule: Schedule | None = None) -> SettleResult:
        """The free equilibrium of raw inputs `x` (N, *input shape), from rest; see `forward`.

        By the defaults of `Schedule` if none is given.
        """
        return settle(Landscape(self, x), schedule or Schedule())

    @property
    def biases(self) -> dict[str, nn.Parameter]:
        """Biases by population."""
        return {p.name: self._biases[f"bias/{p.name}"] for p in self.spec.populations}

    def effective(self) -> dict[str, Tensor]:
        """Weights by coupling as the dynamics sees them; plain ones are the parameters themselves.

        Gradients flow through the standardisation, and none to a whitening, which is fixed.
        """
        return {c.name: self._effective(c) for c in self.spec.couplings}

    def _effective(self, c: CouplingSpec) -> Tensor:
        weight = self.weights[c.name]
        if c.standardise:
            return standardised(weight, self.gains[c.name])
        return weight.detach() if c.whiten else weight

    @property
    def fixed(self) -> set[str]:
        """Parameter ids that training does not move."""
        return {f"weight/{c.name}" for c in self.spec.couplings if c.whiten}

    def pulled_back(self, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradient by parameter id of one whose ``weight/pre->post`` belong to `effective`."""
        found = dict(gradient)
        for c in self.spec.couplings:
            weight, gain = f"weight/{c.name}", f"gain/{c.name}"
            if c.standardise:
                found[weight], found[gain] = pull_back(
                    self.weights[c.name], self.gains[c.name], gradient[weight]
                )
            elif c.whiten:
                found[weight] = torch.zeros_like(gradient[weight])
        return found

    def folded(self) -> Network:
        """The same function with `effective` weights as parameters; itself if it is plain.

        What comes after training, compilers for instance, need not know of reparametrisations.
        """
        plain = self.spec.plain()
        if plain == self.spec:
            return self
        other = copy.deepcopy(self)
        other.spec, other.gains = plain, nn.ParameterDict()
        with torch.no_grad():
            for name, weight in self.effective().items():
                other.weights[name].copy_(weight).requires_grad_()
        return other

    @property
    def cost(self) -> Cost:
        """What nudges the output: the cost of the spec or of the readout, by `class_weights`."""
        plain: Cost = CrossEntropy() if self.spec.cost == "cross-entropy" else SquaredError()
        if self.readout is not None:
            plain = SoftmaxReadout(self.readout)
        return plain if self.class_weights is None else ByClass(plain, self.class_weights)

    def scores(self, z: Tensor) -> Tensor:
        """Scores of the classes (N, classes) at output `z`: its values, or the readout's logits."""
        flat = z.flatten(1)
        return flat if self.readout is None else self.readout(flat)

    def check_input(self, x: Tensor) -> None:
        """Raise `DataError` unless `x` is (N, *input shape)."""
        expected = self.spec.input.shape
        if tuple(x.shape[1:]) != expected:
            raise DataError(
                f"input of '{self.spec.name}'",
                f"samples are {list(x.shape[1:])}, the network takes {list(expected)}",
                "choose a data set or a network that fits",
            )

    def normalise(self, x: Tensor) -> Tensor:
        """Clamped input of raw pixels `x` (N, *input shape); `DataError` if the shape differs."""
        self.check_input(x)
        x = x.to(next(self.parameters()))
        if self.spec.input.mean is not None:
            x = x - _per_channel(x.new_tensor(self.spec.input.mean), x.dim() - 1)
        if self.spec.input.std is not None:
            x = x / _per_channel(x.new_tensor(self.spec.input.std), x.dim() - 1)
        return x


class Landscape:
    """The energy of `network` with a batch `x` clamped: all that settling needs.

    The drive of the clamped input never changes, so it is computed once.

    Parameters
    ----------
    network : Network
        Its parameters are read, not copied; gradients flow to them unless under ``no_grad``.
    x : Tensor, (N, *input shape)
        Raw input.
    precision : dtype, optional
        Type of weights and states while settling; that of the network by default. The drive of the
        input is computed in the network's own type and rounded once.

    Raises
    ------
    DataError
        If `x` does not fit the network.
    """

    def __init__(self, network: Network, x: Tensor, precision: torch.dtype | None = None) -> None:
        self.network, self.spec = network, network.spec
        self.boxes = self.spec.boxes
        self.activations = {p.name: activation(p) for p in self.spec.populations}
        self.shapes = self.spec.shapes
        weights, feedback = network.effective(), dict(network.feedback.items())
        self.operators = Operators(weights, self.shapes, precision, feedback)
        self.into: dict[str, list[CouplingSpec]] = {p: [] for p in self.boxes}
        self.out_of: dict[str, list[CouplingSpec]] = {p: [] for p in self.boxes}
        self.size = len(x)
        self.clamped = arranged(network.normalise(x).to(next(iter(weights.values())).dtype))
        exact = self.operators if precision is None else Operators(weights, self.shapes)
        # A bias alone is one for all samples, (1, *shape) or (1, channels, 1, 1): it broadcasts.
        self.constant = {
            p: _per_channel(network.biases[p], len(self.shapes[p]))[None] for p in self.boxes
        }
        for c in self.spec.couplings:
            if c.pre == INPUT:
                self.constant[c.post] = self.constant[c.post] + exact.forward(c, self.clamped)
            else:
                self.into[c.post].append(c)
                self.out_of[c.pre].append(c)
        if precision is not None:
            self.constant = {p: v.to(precision) for p, v in self.constant.items()}

    def rest(self) -> State:
        """Every population at zero, or at the end of its box that is nearest to zero."""
        like = next(iter(self.constant.values()))
        return {
            p: self.clip(p, arranged(like.new_zeros(self.size, *self.shapes[p])))
            for p in self.boxes
        }

    def silent(self) -> set[str]:
        """The populations that `rest` leaves at zero."""
        return {p for p, box in self.boxes.items() if box is None or box[0] <= 0 <= box[1]}

    def clip(self, name: str, value: Tensor) -> Tensor:
        """`value` held in the box of population `name`."""
        box = self.boxes[name]
        return value if box is None else value.clamp(*box)

    def drive(self, z: State, name: str, silent: Collection[str] = ()) -> Tensor:
        """``I = sum_in W * z_pre + sum_out W^T * z_post + b`` of population `name`.

        Populations that are known to be zero throughout may be named as `silent`, to save work.
        """
        return self._recurrent(z, name, self.constant[name], silent)

    def linear_drive(self, z: State, name: str, silent: Collection[str] = ()) -> Tensor:
        """The part of the drive that is linear in the states: ``drive(z) - drive(0)``."""
        return self._recurrent(z, name, None, silent)

    def _recurrent(
        self, z: State, name: str, total: Tensor | None, silent: Collection[str]
    ) -> Tensor:
        for c in self.into[name]:
            if c.pre not in silent:
                total = _plus(total, self.operators.forward(c, z[c.pre]))
        for c in self.out_of[name]:
            if c.post not in silent:
                total = _plus(total, self.operators.adjoint(c, z[c.post], z[name]))
        like = z[name]
        if total is None:
            return torch.zeros_like(like)
        return total if total.shape == like.shape else total.expand_as(like)

    def repeated(self, times: int) -> Landscape:
        """The landscape of the batch several times over, as phases that settle in one need it."""
        constant = {
            p: v if len(v) < self.size else torch.cat([v] * times) for p, v in self.constant.items()
        }
        return self._with(constant, times * self.size)

    def select(self, index: Tensor) -> Landscape:
        """The landscape of the samples at `index`, pinned as it is."""
        constant = {p: v if len(v) < self.size else v[index] for p, v in self.constant.items()}
        size = int(index.sum()) if index.dtype == torch.bool else len(index)
        other = self._with(constant, size)
        other.operators = self.operators.select(index)
        return other

    def _with(self, constant: State, size: int) -> Landscape:
        other = copy.copy(self)
        other.constant, other.size = constant, size
        return other

    def pinned(self, z: State) -> Landscape:
        """The landscape with every max-pool choosing as it does at `z`: its drive is affine."""
        pooled = [c for into in self.into.values() for c in into if c.pool == "max"]
        if not pooled:
            return self
        other = copy.copy(self)
        other.operators = self.operators.pinned(
            {c.name: self.operators.places(c, z[c.pre]) for c in pooled}
        )
        return other

    def energy(self, z: State) -> Tensor:
        """``E = sum_l (Phi_l(z_l) - <b_l, z_l>) - sum_(i->j) <z_j, W * z_i>``, (N,).

        ``Phi`` is ``|z|^2 / 2`` in a box, and as `Sigmoid` says where the activation is smooth.
        With untied couplings, this is the energy of their forward weights, which no sweep descends.
        """
        total = self.pairing(z, z)
        for p, value in z.items():
            own = self.activations[p].potential(value) - value * self.constant[p]
            total = total + own.flatten(1).sum(1)
        return total

    def pairing(self, post: State, pre: State) -> Tensor:
        """``- sum_(i->j) <post_j, W * pre_i>`` between free populations, (N,)."""
        total = torch.zeros_like(next(iter(post.values())).flatten(1)[:, 0])
        for p, value in post.items():
            for c in self.into[p]:
                image = self.operators.forward(c, pre[c.pre])
                total = total - (value * image).flatten(1).sum(1)
        return total

    def tilt(self, z: State, direction: State) -> Tensor:
        """``<dE/dz, direction>`` at `z`, less the part of ``Phi``: it has no parameters; (N,)."""
        total = self.pairing(direction, z) + self.pairing(z, direction)
        for p, value in direction.items():
            total = total - (value * self.constant[p]).flatten(1).sum(1)
        return total


def _plus(total: Tensor | None, part: Tensor) -> Tensor:
    """`total` and `part`, which is nobody else's and so may be written over."""
    if total is None:
        return part
    return total + part if torch.is_grad_enabled() else part.add_(total)


def _per_channel(values: Tensor, dims: int) -> Tensor:
    """`values`, one a channel or one a neuron, as they broadcast over a state of `dims` axes."""
    return values.view(*values.shape, *[1] * (dims - values.dim()))


def parameter_names(network: Network) -> Mapping[str, nn.Parameter]:
    """Parameters by the ids of the model file.

    ``weight/pre->post``, ``bias/population``, and where the spec has them ``feedback/pre->post``,
    ``gain/pre->post``, ``readout/weight`` and ``readout/bias``.
    """
    readout = {} if network.readout is None else dict(network.readout.named_parameters())
    return {
        **{f"weight/{name}": w for name, w in network.weights.items()},
        **{f"bias/{name}": b for name, b in network.biases.items()},
        **{f"feedback/{name}": w for name, w in network.feedback.items()},
        **{f"gain/{name}": g for name, g in network.gains.items()},
        **{f"readout/{name}": p for name, p in readout.items()},
    }


def _refuse_giant(spec: NetworkSpec) -> None:
    """Raise `SpecError` if the parameters and one state alone exceed the memory of this machine."""
    neurons = {f"population '{name}'": math.prod(shape) for name, shape in spec.shapes.items()}
    needed, there = 4 * (spec.parameters + sum(neurons.values())), memory()
    if needed > there:
        weights = {name: math.prod(shape) for name, shape in spec.weight_shapes.items()}
        sizes = neurons | {f"a population at coupling '{name}'": n for name, n in weights.items()}
        largest = max(sizes, key=lambda name: sizes[name])
        raise SpecError(
            f"network '{spec.name}'",
            f"its parameters and one state take {needed / 1e9:,.0f} GB, this machine has "
            f"{there / 1e9:,.0f} GB",
            f"narrow {largest} ({sizes[largest]:,} numbers)",
        )
