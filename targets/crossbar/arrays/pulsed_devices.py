"""Devices that pulses change, and the methods that were made for learning on them, by aihwkit.

All come from its presets, which were fitted to measured devices; what the options say otherwise
(asymmetry, states, dead cells) replaces a parameter of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from aihwkit.simulator.configs import (
    DigitalRankUpdateRPUConfig,
    SingleRPUConfig,
    UnitCellRPUConfig,
)
from aihwkit.simulator.configs.compounds import (
    ChoppedTransferCompound,
    DynamicTransferCompound,
    MixedPrecisionCompound,
    UnitCell,
    VectorUnitCell,
)
from aihwkit.simulator.configs.devices import PulsedDevice as Device
from aihwkit.simulator.parameters.enums import (
    BoundManagementType,
    NoiseManagementType,
    VectorUnitCellUpdatePolicy,
)
from aihwkit.simulator.presets.compounds import PCMPresetUnitCell
from aihwkit.simulator.presets.devices import (
    CapacitorPresetDevice,
    EcRamMOPresetDevice,
    EcRamPresetDevice,
    GokmenVlasovPresetDevice,
    IdealizedPresetDevice,
    ReRamArrayHfO2PresetDevice,
    ReRamArrayOMPresetDevice,
    ReRamESPresetDevice,
    ReRamSBPresetDevice,
)
from aihwkit.simulator.presets.utils import PresetIOParameters, PresetUpdateParameters
from aihwkit.simulator.rpu_base.tiles import AnalogTile
from torch import Tensor

from targets.crossbar.arrays.options import Options

DEVICES: Mapping[str, Callable[[], Any]] = {
    "idealized": IdealizedPresetDevice,
    "constant-step": GokmenVlasovPresetDevice,
    "ecram": EcRamPresetDevice,
    "ecram-mo": EcRamMOPresetDevice,
    "capacitor": CapacitorPresetDevice,
    "reram": ReRamSBPresetDevice,
    "reram-es": ReRamESPresetDevice,
    "reram-om": ReRamArrayOMPresetDevice,
    "reram-hfo2": ReRamArrayHfO2PresetDevice,
    "pcm": PCMPresetUnitCell,
    "mixed-pcm": PCMPresetUnitCell,
}
"""aihwkit's device of each value of option ``cells``; PCM is a pair of one-way devices."""

CHOPPED: Mapping[str, float] = {"tiki-taka-v2": 0.0, "chopped": 0.01, "agad": 0.1}
"""How often the sign of a line is turned between two reads, as in aihwkit's presets."""


def _device(options: Options) -> Any:
    """One device, or the pair of PCM, changed as `options` say."""
    found = DEVICES[options.pulsed_cells]()
    for one in _parts(found):
        _change(one, options)
    if options.copies == 1:
        return found
    copies = [deepcopy(found) for _ in range(options.copies)]
    shares = [1 / options.copies] * options.copies
    every = VectorUnitCellUpdatePolicy.ALL
    return VectorUnitCell(unit_cell_devices=copies, gamma_vec=shares, update_policy=every)


def _parts(device: Any) -> list[Any]:
    """The single devices of a cell."""
    if not isinstance(device, UnitCell):
        return [device]
    return [one for part in device.unit_cell_devices for one in _parts(part)]


def _change(device: Device, options: Options) -> None:
    if hasattr(device, "apply_write_noise_on_set"):
        # What is written, and not learnt, is written until a read finds it.
        device.apply_write_noise_on_set = False
    if options.asymmetry is not None:
        device.up_down = options.asymmetry
    if options.states is not None:
        device.dw_min = (device.w_max - device.w_min) / options.states
    if options.dead:
        device.corrupt_devices_prob = options.dead
        device.corrupt_devices_range = 1.0


def _config(options: Options) -> Any:
    """aihwkit's configuration of a tile that learns by the method of `options`."""
    method = options.pulsed_method
    if method == "mixed-precision":
        device = _device(options)
        # Each write draws its noise anew, so what is much smaller than that is not worth one.
        one = _parts(device)[0]
        noise = 0.2 * getattr(one, "write_noise_std", 0.0) / options.copies**0.5
        granularity = one.dw_min * max(noise, 1.0)
        compound = MixedPrecisionCompound(device=device, granularity=granularity)
        return DigitalRankUpdateRPUConfig(device=compound, update=PresetUpdateParameters())
    if method not in CHOPPED:
        device = _device(options)
        kind = UnitCellRPUConfig if isinstance(device, UnitCell) else SingleRPUConfig
        return kind(device=device, update=PresetUpdateParameters())
    devices = [_device(options), _device(options)]
    for one in [part for cell in devices for part in _parts(cell)]:
        if hasattr(one, "subtract_symmetry_point"):
            # Reads of the fast device are relative to where pulses up and down cancel.
            one.subtract_symmetry_point = True
    kind = DynamicTransferCompound if method == "agad" else ChoppedTransferCompound
    compound = kind(
        unit_cell_devices=devices,
        transfer_forward=PresetIOParameters(
            noise_management=NoiseManagementType.NONE, bound_management=BoundManagementType.NONE
        ),
        transfer_update=PresetUpdateParameters(
            # One transfer moves a weight by at most a hundredth of its range, or by ten steps.
            desired_bl=max(10, round(0.02 / _parts(devices[0])[0].dw_min)),
            update_bl_management=False,
            update_management=False,
        ),
        forget_buffer=False,
        units_in_mbatch=False,
        in_chop_prob=CHOPPED[method],
        fast_lr=0.5,
        auto_scale=True,
        # One rate for all methods: what arrives at the slow device is that rate times the gradient.
        correct_gradient_magnitudes=True,
    )
    if method == "agad":
        compound.tail_weightening = 50.0
    return UnitCellRPUConfig(device=compound, update=PresetUpdateParameters())


class PulsedDevices:
    """The devices of a tile as pulses find them, with what a method keeps beside them.

    Parameters
    ----------
    weights : Tensor, (outputs, inputs)
        What they are to hold at first, as far as each of them goes.
    options : Options
        Which devices, and by which method they learn.
    seed : int
        Which devices they are (steps, bounds). Pulses aihwkit draws from a generator that takes no
        seed.
    """

    def __init__(self, weights: Tensor, options: Options, seed: int) -> None:
        outputs, inputs = weights.shape
        config = _config(options)
        config.device.construction_seed = seed + 1  # aihwkit takes 0 for "by the clock"
        device = config.device.as_bindings(config.runtime.data_type)
        self._tile: AnalogTile = config.as_bindings().create_array(inputs, outputs, device)
        self._leaks = config.device.requires_decay()
        self.write(weights)

    def write(self, weights: Tensor) -> None:
        """Let the devices hold `weights`, as far as each of them goes."""
        self._tile.set_weights(weights.float())

    def weights(self) -> Tensor:
        """What a read finds, (outputs, inputs) in float64."""
        return self._tile.get_weights().double()

    def pulse(self, inputs: Tensor, outputs: Tensor, rate: float) -> None:
        """Add about ``rate * outputs^T inputs``; (N, inputs) and (N, outputs)."""
        self._tile.set_learning_rate(rate)
        sizes = [lines.abs().amax(1, keepdim=True) for lines in (inputs, outputs)]
        # Their product is what counts. As large on both sides, neither end of a method that
        # follows how large they are (`auto_scale`) mixes a state with a response to a nudge.
        even = torch.where(sizes[0] * sizes[1] > 0, sizes[1] / sizes[0], 1.0).sqrt()
        x, d = (inputs * even).float().contiguous(), (outputs / even).float().contiguous()
        self._tile.update(x, -d, False)
        if self._leaks:
            self._tile.decay_weights(1.0)

    def state(self) -> dict[str, np.ndarray]:
        """All that the devices and the method hold."""
        extra = {name: _plain(value) for name, value in self._tile.dump_extra().items()}
        text = json.dumps(extra).encode()
        return {
            "hidden": self._tile.get_hidden_parameters().numpy().copy(),
            "weights": self._tile.get_weights().numpy().copy(),
            "extra": np.frombuffer(text, np.uint8).copy(),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`, as far as aihwkit can.

        It gives back neither what mixed precision has gathered, less than a step a weight, nor
        what the noise of a write has put beyond the range of a device.
        """
        self._tile.set_weights(torch.from_numpy(state["weights"].copy()))
        self._tile.set_hidden_parameters(torch.from_numpy(state["hidden"].copy()))
        self._tile.load_extra(json.loads(state["extra"].tobytes()), False)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
