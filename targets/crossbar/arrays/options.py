"""Options of the crossbar: what its devices, converters and wires do to a weight and to a read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compilers.options import refuse_unknown
from ep_neuro.errors import ConfigError

DEVICES = ("ideal", "pcm", "reram", "pair")
CONVOLUTIONS = ("shared", "unrolled")
SCALINGS = ("line", "tile")
CELLS = ("constant-step", "ecram", "reram", "pcm", "mixed-pcm")
DAY, YEAR = 86400.0, 365 * 86400.0

RERAM_SECONDS = (0.0, 1.0, DAY, 2 * DAY)
"""Times at which ReRAM was measured (Wan et al. 2022); 0 stands for right after programming."""


@dataclass(frozen=True)
class Options:
    """What a program asks of the array; the defaults are an array without any error.

    The largest weight of a line, or of a tile (`scaling`), is `fill` of its conductance range; the
    end of the range is 1 in what follows, and called a full weight.

    Attributes
    ----------
    device : str
        What programming and time do to a weight: ``ideal`` nothing, and learning finds no end of
        its range; ``pcm`` and ``reram`` as measured and modelled in aihwkit; ``pair`` as our own
        `pair.ConductancePair`.
    programming_error : float
        Standard deviation of a Gaussian error of every weight, in full weights, beside the
        device's own.
    seconds : float
        Time since programming.
    compensation : bool
        Whether each tile's outputs are scaled back by what its devices lost to drift.
    dac_bits, adc_bits : int, optional
        Resolution of the converters, sign included; None for unlimited.
    read_noise : float
        Noise of a device at each read, in full weights; of PCM it grows with the conductance.
    output_noise : float
        Noise of an output line at each read, in products of a full input and a full weight.
    ir_drop : float
        Voltage that wires lose, relative to wires of 0.35 ohm a cell at 5 uS a device.
    tile : int
        Most input lines, and most output lines, of one tile.
    conv : str
        ``shared``: one kernel matrix, read for each patch in turn. ``unrolled``: every synapse is
        a cell of its own, all read at once.
    fill : float
        Share of the conductance range that the largest weight takes; less leaves learning room.
    scaling : str
        Whether each output ``line`` of a tile has a conductance range of its own, or all of the
        ``tile`` share that of its largest weight. Errors of devices are shares of the range, so
        small lines keep their precision by the first, and room to grow in learning by the second.
        It costs a multiplication in digital at each line, as chips have it behind their ADCs (Le
        Gallo et al. 2023, Nature Electronics 6, 680), and one before the DACs of a transposed read.
    centre : bool
        Whether the mean by which the network normalises its input is taken off in digital, before
        the DACs, and given back with the biases. Otherwise it goes through the array, where every
        error of a weight becomes one of a bias. A session that learns reads inputs as they are.
    cells : str
        Device whose pulsed updates `Array.pulse` makes: aihwkit's presets of Gokmen & Vlasov 2016
        (``constant-step``), of ECRAM, ReRAM and PCM, and PCM that is pulsed only by what a digital
        memory has gathered (``mixed-pcm``).
    seed : int
        Of every error and noise but those of pulses, which aihwkit draws by itself.
    """

    device: str = "ideal"
    programming_error: float = 0.0
    seconds: float = 0.0
    compensation: bool = True
    dac_bits: int | None = None
    adc_bits: int | None = None
    read_noise: float = 0.0
    output_noise: float = 0.0
    ir_drop: float = 0.0
    tile: int = 512
    conv: str = "shared"
    fill: float = 1.0
    scaling: str = "line"
    centre: bool = True
    cells: str = "constant-step"
    seed: int = 0

    @property
    def perfect(self) -> bool:
        """Whether a read returns the exact product with the weights as they are."""
        errors = (self.dac_bits, self.adc_bits, self.read_noise, self.output_noise, self.ir_drop)
        return not any(errors)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "ideal": {},
    "pcm": dict(
        device="pcm", dac_bits=8, adc_bits=8, read_noise=0.0175, output_noise=0.04, ir_drop=1.0
    ),
    "reram": dict(
        device="reram", dac_bits=8, adc_bits=8, read_noise=0.01, output_noise=0.04, ir_drop=1.0
    ),
}
"""Options by the name that the option ``preset`` takes; what else is given goes before them.

Converters, noise of lines and PCM, and wires are those of Rasch et al. 2023 (aihwkit's
StandardHWATrainingPreset); 1 % of read noise is what aihwkit advises for ReRAM.
"""


OPTIONS: Mapping[str, Any] = {"preset": "ideal", **dataclasses.asdict(Options())}
"""Every option with its default, that of the preset ``ideal``."""


def read_options(given: Mapping[str, Any]) -> Options:
    """The options of a program, over those of its ``preset``.

    Raises
    ------
    ConfigError
        For an unknown key, or a value out of range.
    """
    values = dict(given)
    preset = values.pop("preset", "ideal")
    if preset not in PRESETS:
        raise _wrong("preset", preset, f"choose from {', '.join(PRESETS)}")
    refuse_unknown("target 'crossbar'", given, OPTIONS)
    options = Options(**{**PRESETS[preset], **values})
    for key, (fits, remedy) in _rules().items():
        if not fits(getattr(options, key)):
            raise _wrong(key, getattr(options, key), remedy)
    if options.device == "reram" and options.seconds not in RERAM_SECONDS:
        times = ", ".join(f"{t:g}" for t in RERAM_SECONDS)
        raise _wrong("seconds", options.seconds, f"ReRAM was measured at {times} s only")
    return options


def _rules() -> dict[str, tuple[Any, str]]:
    at_least_0 = (lambda v: _number(v) and v >= 0, "give a number from 0 on")
    yes_or_no = (lambda v: isinstance(v, bool), "give true or false")
    bits = (lambda v: v is None or (_whole(v) and 2 <= v <= 16), "give 2 to 16 bits, or none")
    return {
        "device": (lambda v: v in DEVICES, f"choose from {', '.join(DEVICES)}"),
        **dict.fromkeys(("programming_error", "seconds", "read_noise"), at_least_0),
        **dict.fromkeys(("output_noise", "ir_drop"), at_least_0),
        **dict.fromkeys(("compensation", "centre"), yes_or_no),
        **dict.fromkeys(("dac_bits", "adc_bits"), bits),
        "tile": (lambda v: _whole(v) and v >= 1, "give a number of lines from 1 on"),
        "conv": (lambda v: v in CONVOLUTIONS, f"choose from {', '.join(CONVOLUTIONS)}"),
        "fill": (lambda v: _number(v) and 0 < v <= 1, "give a share above 0, at most 1"),
        "scaling": (lambda v: v in SCALINGS, f"choose from {', '.join(SCALINGS)}"),
        "cells": (lambda v: v in CELLS, f"choose from {', '.join(CELLS)}"),
        "seed": (lambda v: _whole(v) and v >= 0, "give a whole number from 0 on"),
    }


def _number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(key: str, value: Any, remedy: str) -> ConfigError:
    return ConfigError(f"target 'crossbar', option '{key}'", f"is {value!r}", remedy)
