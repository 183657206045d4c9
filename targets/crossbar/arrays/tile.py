"""aihwkit's analog tile, read in both directions.

aihwkit's compiled tile draws the noise of a read from a generator that takes no seed, and computes
in float32. So reads are aihwkit's torch tile in float64, with the two effects that it leaves out
after the same formulas; `tests/unit/crossbar/test_arrays.py` compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from aihwkit.inference.compensation.drift import GlobalDriftCompensation
from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
from aihwkit.inference.noise.reram import ReRamWan2022NoiseModel
from aihwkit.simulator.configs import TorchInferenceRPUConfig
from aihwkit.simulator.parameters import IOParameters
from aihwkit.simulator.parameters.enums import (
    BoundManagementType,
    NoiseManagementType,
    RPUDataType,
    WeightNoiseType,
)
from aihwkit.simulator.tiles.analog_mvm import AnalogMVM
from aihwkit.simulator.tiles.inference_torch import TorchInferenceTile
from aihwkit.simulator.tiles.torch_tile import TorchSimulatorTile
from torch import Tensor

from targets.crossbar.arrays.options import Options

ADC_RANGE = 10.0
"""Largest output that the ADC of a tile shows, in products of a full input and a full weight: that
of Rasch et al. 2023."""


class Randomness:
    """A seeded stream of torch's global generator, from which aihwkit draws; others stay as is."""

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._state = torch.get_rng_state()

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draws inside go on where the last ones ended."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._state)
            yield
            self._state = torch.get_rng_state()

    def state(self) -> np.ndarray:
        """Where the stream stands, bytes."""
        return self._state.numpy().copy()

    def restore(self, state: np.ndarray) -> None:
        """Go on from `state`."""
        self._state = torch.from_numpy(np.ascontiguousarray(state, np.uint8).copy())


class Read(AnalogMVM):
    """One read of a torch tile, with IR drop and the noise of devices as in the compiled tile."""

    @classmethod
    def check_support(cls, io_pars: IOParameters) -> None:
        """What aihwkit refuses for a torch tile, less the two effects that `Read` adds."""
        none = WeightNoiseType.NONE
        super().check_support(replace(io_pars, ir_drop=0.0, w_noise=0.0, w_noise_type=none))

    @classmethod
    def _compute_analog_mv(
        cls,
        weight: Tensor,
        input_: Tensor,
        trans: bool,
        scale: Any,
        scaling: bool,
        is_test: bool,
        io_pars: IOParameters,
        **fwd_pars: Any,
    ) -> Any:
        asymmetric = io_pars.inp_asymmetry != 0.0
        x = cls._prepare_input(input_, scale, scaling, asymmetric, io_pars)
        y = cls._matmul(weight, x, trans)
        if io_pars.ir_drop > 0:
            y = y - cls._ir_drop(weight, x, trans, io_pars)
        if io_pars.w_noise > 0:
            y = y + cls._noise(weight, x, trans, io_pars) * torch.randn_like(y)
        return cls._finalize_output(out_values=y, io_pars=io_pars, **fwd_pars)

    @classmethod
    def _ir_drop(cls, weight: Tensor, x: Tensor, trans: bool, io: IOParameters) -> Tensor:
        """Loss along the wires, by the polynomial in the current of aihwkit's compiled tile."""
        n = x.shape[-1]
        current = cls._matmul(weight.abs(), x.abs(), trans)
        a = n / io.ir_drop_g_ratio * current
        away = 1 - torch.arange(n, dtype=x.dtype) / n
        lost = cls._matmul(weight, x * (1 - away**2), trans)
        return io.ir_drop * a * (a * (0.05 * a - 0.2) + 0.5) * lost

    @classmethod
    def _noise(cls, weight: Tensor, x: Tensor, trans: bool, io: IOParameters) -> Tensor:
        """Standard deviation at each output: constant for a device, or with its conductance."""
        if io.w_noise_type == WeightNoiseType.PCM_READ:
            return io.w_noise * cls._matmul(weight.abs(), x**2, trans).sqrt()
        return io.w_noise * x.norm(dim=-1, keepdim=True)


class TwoWayTile(TorchSimulatorTile):
    """aihwkit's torch tile with the transposed read: the same devices and converters, from behind.

    Where `formed` is False there is no device, hence no conductance and no noise of one. ``reach``
    holds the ranges of the ADC of the outputs and of that of the inputs.
    """

    def __init__(
        self, x_size: int, d_size: int, rpu_config: TorchInferenceRPUConfig, bias: bool = False
    ) -> None:
        super().__init__(x_size, d_size, rpu_config, bias, Read)
        self.formed: Tensor | None = None
        self.reach = (ADC_RANGE, ADC_RANGE)

    def set_weights(self, weight: Tensor) -> None:
        """Set the weights, zero where no device is."""
        super().set_weights(weight if self.formed is None else weight * self.formed)

    def fit_converters(self) -> None:
        """Narrow both ADCs to what the weights can sum up to."""
        total = self.weight.detach().abs()
        outputs, inputs = (float(total.sum(axis).max()) for axis in (1, 0))
        self.reach = (min(max(outputs, 1e-6), ADC_RANGE), min(max(inputs, 1e-6), ADC_RANGE))

    def forward(self, x_input: Tensor, *_: bool, **__: bool) -> Tensor:
        """``W x``; (N, in) -> (N, out)."""
        return self._read(x_input, False)

    def backward(self, d_input: Tensor, *_: bool, **__: bool) -> Tensor:
        """``W^T d``; (N, out) -> (N, in)."""
        return self._read(d_input, True)

    def _read(self, lines: Tensor, trans: bool) -> Tensor:
        weight, lines = self.weight.detach(), lines.to(self.weight.dtype)
        if self._f_io.is_perfect:
            return lines @ (weight if trans else weight.T)
        io = replace(self._f_io, out_bound=self.reach[int(trans)])
        return self._analog_mvm.matmul(weight, lines, io, trans, is_test=True)


def make_tile(outputs: int, inputs: int, options: Options) -> TorchInferenceTile:
    """An aihwkit tile of that size whose weights are not set yet.

    ``tile.tile.forward`` and ``tile.tile.backward`` read it in both directions, and
    ``tile.alpha`` compensates its drift.
    """
    noise = PCMLikeNoiseModel(g_max=25.0)
    if options.device == "reram":
        # Its coefficients are in uS at 40 uS, and it scales them by its own g_max.
        noise = ReRamWan2022NoiseModel(g_max=40.0)
    config = TorchInferenceRPUConfig(
        forward=_converters(options),
        noise_model=noise,
        drift_compensation=GlobalDriftCompensation() if options.compensation else None,
    )
    config.simulator_tile_class = TwoWayTile
    config.runtime.data_type = RPUDataType.DOUBLE
    config.mapping.weight_scaling_omega = options.fill
    return TorchInferenceTile(outputs, inputs, config).eval()


def _converters(options: Options) -> IOParameters:
    def resolution(bits: int | None) -> float:
        return -1.0 if bits is None else 1 / (2**bits - 2)

    # Of PCM, read noise grows with the conductance.
    pcm = options.device == "pcm"
    kind = WeightNoiseType.PCM_READ if pcm else WeightNoiseType.ADDITIVE_CONSTANT
    return IOParameters(
        is_perfect=options.perfect,
        inp_res=resolution(options.dac_bits),
        out_res=resolution(options.adc_bits),
        out_bound=ADC_RANGE,
        out_noise=options.output_noise,
        w_noise=options.read_noise,
        w_noise_type=kind if options.read_noise else WeightNoiseType.NONE,
        ir_drop=options.ir_drop,
        # Inputs are scaled by the largest of a read in digital, each read by itself; the iterative
        # management of bounds would let the samples of a batch see each other.
        noise_management=NoiseManagementType.ABS_MAX,
        bound_management=BoundManagementType.NONE,
    )
