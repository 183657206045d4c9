"""An array: one weight as conductances on as many tiles as it needs, read in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from targets.crossbar.arrays.conductance_pair import ConductancePair
from targets.crossbar.arrays.layouts import Layout
from targets.crossbar.arrays.mapping import blocks
from targets.crossbar.arrays.options import Options
from targets.crossbar.arrays.pulsed_devices import PulsedDevices
from targets.crossbar.arrays.tile import Randomness, make_tile

Read = Callable[[Tensor], Tensor]
"""A read of one tile, from the lines that drive it to those that it drives."""


class Tile:
    """A block of a matrix on one aihwkit tile.

    A weight is ``scale * gain * g``, where g lies in [-1, 1]. Output lines have a scale each, or
    share one (option ``scaling``). It multiplies what the ADC gives in a forward read, and what the
    DAC gets in a transposed one, so both directions have the same weights.
    """

    def __init__(
        self, block: np.ndarray, formed: np.ndarray | None, options: Options, seed: int
    ) -> None:
        self._options, self._seed = options, seed
        outputs, inputs = block.shape
        self._tile = make_tile(outputs, inputs, options)
        if formed is not None:
            self._tile.tile.formed = torch.from_numpy(formed)
        self._scale = _scales(block, options)
        self._alpha = self._gain = 1.0
        self._typical = 0.0
        self._pulsed: PulsedDevices | None = None
        self._program(torch.from_numpy(block) / self._scale[:, None])
        self._typical = float(self._tile.tile.get_weights().abs().mean())
        self._hold(self._tile.tile.get_weights())
        if options.learning != "written":
            self._form()

    def _program(self, target: Tensor) -> None:
        options, tile = self._options, self._tile
        written = target + options.programming_error * torch.randn_like(target)
        tile.tile.set_weights(written)
        tile.tile.fit_converters()
        if options.device in ("pcm", "reram"):
            tile.reference_combined_weights = tile.tile.get_weights()
            tile.program_weights()
            if options.device == "pcm" or options.seconds:
                tile.drift_weights(options.seconds)
            if options.compensation:
                self._alpha = float(tile.alpha)
        elif options.device == "pair":
            pair = ConductancePair().program(written.numpy(), np.random.default_rng(self._seed))
            tile.tile.set_weights(torch.from_numpy(pair.at(options.seconds)))
            if options.compensation:
                self._alpha = pair.compensation(options.seconds)

    def _hold(self, conductances: Tensor) -> None:
        """Let the cells hold `conductances`, relative to the range."""
        self._tile.tile.set_weights(conductances)
        self._gain = self._alpha
        if self._options.on_off is not None:
            least = 1 / self._options.on_off
            led = (1 - least) * float(conductances.abs().mean()) + 2 * least
            self._gain *= (1 - least) * self._typical / led

    def forward(self, lines: Tensor) -> Tensor:
        """``W x`` as read; (N, inputs) -> (N, outputs)."""
        return self._scale * self._gain * self._tile.tile.forward(lines)

    def backward(self, lines: Tensor) -> Tensor:
        """``W^T z`` as read; (N, outputs) -> (N, inputs)."""
        return self._gain * self._tile.tile.backward(lines * self._scale)

    def weights(self) -> np.ndarray:
        """The weights as they stand, (outputs, inputs)."""
        return (self._scale[:, None] * self._gain * self._tile.tile.get_weights()).numpy()

    def conductances(self) -> np.ndarray:
        """What the cells hold, relative to the range; (outputs, inputs)."""
        return self._tile.tile.get_weights().numpy().copy()

    def restore(self, conductances: np.ndarray) -> None:
        """Set what the cells hold, exactly."""
        self._hold(torch.from_numpy(conductances))
        self._pulsed = None

    def write(self, change: np.ndarray) -> None:
        """Add `change` to the weights exactly, as far as conductances go."""
        held = self._tile.tile.get_weights()
        written = held + torch.from_numpy(change) / (self._scale[:, None] * self._gain)
        if self._options.device != "ideal":
            # The range bounds what is written; what noise put beyond it stays where it is.
            edge = held.abs().clamp(min=1.0)
            written = written.clamp(-edge, edge)
        self._hold(written)
        self._pulsed = None

    def pulse(self, inputs: Tensor, outputs: Tensor, rate: float) -> None:
        """Add about ``rate * outputs^T inputs`` by pulses on both sides of the devices."""
        pulsed = self._pulsed or self._form()
        pulsed.pulse(inputs, outputs / self._scale, rate / self._gain)
        self._hold(pulsed.weights())

    def _form(self) -> PulsedDevices:
        """Put the weights on pulsed devices, as far as each of those goes."""
        held = self._tile.tile.get_weights()
        self._pulsed = PulsedDevices(held, self._options, self._seed)
        self._hold(self._pulsed.weights())
        return self._pulsed

    def age(self, seconds: float) -> None:
        """Let `seconds` pass since the last write, as aihwkit models PCM and ReRAM.

        Of a method with a second device, what counts is the first one, which is read.
        """
        model, held = self._tile.rpu_config.noise_model, self._tile.tile.get_weights()
        _, drift = model.apply_programming_noise(held)
        aged = model.apply_drift_noise(held, drift, seconds)
        if self._options.compensation:
            self._alpha *= float(held.abs().sum() / aged.abs().sum().clamp(min=1e-12))
        if self._pulsed is not None:
            self._pulsed.write(aged)
        self._hold(aged)

    def devices(self) -> dict[str, np.ndarray]:
        """The state of pulsed devices by name; nothing where there are none."""
        return {} if self._pulsed is None else self._pulsed.state()

    def restore_devices(self, state: Mapping[str, np.ndarray]) -> None:
        """Let pulsed devices go on from `state`; what the cells hold stays as it was restored."""
        held = self._tile.tile.get_weights().clone()
        self._form().restore(state)
        self._hold(held)


class Array:
    """One weight on its tiles.

    Parameters
    ----------
    weight : ndarray
        Of the coupling, in its own shape.
    layout : Layout
        How the coupling lies on the lines of the matrix.
    options : Options
        What devices, converters and wires do.
    randomness : Randomness
        Where programming and reads draw from.
    seed : int
        Seed of what does not come from there: our own device model, and which pulsed devices.
    """

    def __init__(
        self,
        weight: np.ndarray,
        layout: Layout,
        options: Options,
        randomness: Randomness,
        seed: int = 0,
    ) -> None:
        self.layout = layout
        matrix = np.ascontiguousarray(layout.matrix(weight.astype(np.float64)))
        self._rows, self._columns = (blocks(n, options.tile) for n in matrix.shape)
        self._randomness, self._perfect = randomness, options.perfect
        formed = layout.formed
        with randomness.drawn():
            self._tiles = [
                [
                    Tile(
                        np.ascontiguousarray(matrix[r, c]),
                        None if formed is None else np.ascontiguousarray(formed[r, c]),
                        options,
                        seed + len(self._columns) * i + j,
                    )
                    for j, c in enumerate(self._columns)
                ]
                for i, r in enumerate(self._rows)
            ]

    @torch.no_grad()
    def forward(self, pre: np.ndarray) -> np.ndarray:
        """Read ``op(W, pre)``; (N, *pre shape) -> (N, *post shape)."""
        reads = [[tile.forward for tile in row] for row in self._tiles]
        lines = self.layout.inputs(torch.from_numpy(pre))
        return self.layout.to_post(self._read(reads, self._columns, lines)).numpy()

    @torch.no_grad()
    def backward(self, post: np.ndarray) -> np.ndarray:
        """Read ``op^T(W, post)``, from behind; (N, *post shape) -> (N, *pre shape)."""
        reads = [[tile.backward for tile in column] for column in zip(*self._tiles, strict=True)]
        lines = self.layout.outputs(torch.from_numpy(post))
        return self.layout.to_pre(self._read(reads, self._rows, lines)).numpy()

    def _read(self, reads: Sequence[Sequence[Read]], driven: list[slice], lines: Tensor) -> Tensor:
        with nullcontext() if self._perfect else self._randomness.drawn():
            sums = [
                reduce(torch.add, [r(lines[:, d]) for r, d in zip(along, driven, strict=True)])
                for along in reads
            ]
        return torch.cat(sums, 1)

    def weights(self) -> np.ndarray:
        """The weight as the devices hold it; where cells share one, their mean."""
        matrix = np.block([[tile.weights() for tile in row] for row in self._tiles])
        return self.layout.weight(matrix)

    def conductances(self) -> np.ndarray:
        """What the cells hold, (output lines, input lines), relative to each tile's range."""
        return np.block([[tile.conductances() for tile in row] for row in self._tiles])

    def restore(self, conductances: np.ndarray) -> None:
        """Set what the cells hold, exactly; see `conductances`."""
        for tile, (r, c) in self._blocks():
            tile.restore(np.ascontiguousarray(conductances[r, c]))

    def age(self, seconds: float) -> None:
        """Let `seconds` pass; see `Tile.age`."""
        with self._randomness.drawn():
            for tile, _ in self._blocks():
                tile.age(seconds)

    def devices(self) -> dict[str, np.ndarray]:
        """What pulsed devices and their method hold, by number of the tile and name."""
        return {
            f"{n}/{key}": value
            for n, (tile, _) in enumerate(self._blocks())
            for key, value in tile.devices().items()
        }

    def restore_devices(self, state: Mapping[str, np.ndarray]) -> None:
        """Let pulsed devices go on from `state`; see `devices`."""
        for n, (tile, _) in enumerate(self._blocks()):
            start = f"{n}/"
            own = {k[len(start) :]: v for k, v in state.items() if k.startswith(start)}
            if own:
                tile.restore_devices(own)

    def update(self, change: np.ndarray) -> None:
        """Add `change`, of the weight's shape, to the weight: an ideal write.

        It ends where conductances do, but for ideal devices. Errors of the devices stay.
        """
        matrix = self.layout.matrix(change.astype(np.float64))
        for tile, (r, c) in self._blocks():
            tile.write(np.ascontiguousarray(matrix[r, c]))

    @torch.no_grad()
    def pulse(self, pre: np.ndarray, post: np.ndarray, rate: float) -> None:
        """Add about ``rate * sum_n post_n x pre_n`` over the synapses of N samples, by pulses.

        Parameters
        ----------
        pre, post : ndarray, (N, *shape)
            Activities on either side.
        rate : float
            Above 0; for the opposite sign, turn that of `post`.
        """
        inputs = self.layout.inputs(torch.from_numpy(np.ascontiguousarray(pre, np.float64)))
        outputs = self.layout.outputs(torch.from_numpy(np.ascontiguousarray(post, np.float64)))
        for tile, (r, c) in self._blocks():
            tile.pulse(inputs[:, c], outputs[:, r], rate)

    def _blocks(self) -> Iterator[tuple[Tile, tuple[slice, slice]]]:
        for row, r in zip(self._tiles, self._rows, strict=True):
            for tile, c in zip(row, self._columns, strict=True):
                yield tile, (r, c)


def _scales(block: np.ndarray, options: Options) -> Tensor:
    """The weight that the end of the conductance range stands for, by output line; (outputs,)."""
    by_line = np.abs(block).max(1)
    whole = by_line.max() or options.fill
    # A line without weights holds changes as large as those of the others.
    largest = np.where(by_line > 0, by_line, whole) if options.scaling == "line" else whole
    return torch.from_numpy(np.broadcast_to(largest, by_line.shape) / options.fill)
