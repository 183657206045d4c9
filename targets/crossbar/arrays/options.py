"""Options of the crossbar: what its devices, converters and wires do to a weight and to a read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, ValidationError

from compilers.options import refuse_unknown
from ep_neuro.errors import ConfigError

PulsedDevice = Literal[
    "constant-step",
    "ecram",
    "reram",
    "pcm",
    "mixed-pcm",
    "idealized",
    "ecram-mo",
    "capacitor",
    "reram-es",
    "reram-om",
    "reram-hfo2",
]
Method = Literal["written", "plain", "tiki-taka-v2", "chopped", "agad", "mixed-precision"]
METHODS: tuple[str, ...] = get_args(Method)
CELLS: tuple[str, ...] = get_args(PulsedDevice)
TRANSFERS = ("tiki-taka-v2", "chopped", "agad")
ONE_WAY = ("pcm", "mixed-pcm")
Bits = Annotated[int, Field(ge=2, le=16)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
DAY, YEAR = 86400.0, 365 * 86400.0

AGEING = ("pcm", "reram")
"""Devices of which aihwkit models what time does."""

RERAM_SECONDS = (0.0, 1.0, DAY, 2 * DAY)
"""Times at which ReRAM was measured (Wan et al. 2022); 0 stands for right after programming."""


class Options(BaseModel):
    """What a program asks of the array; the defaults are an array without any error.

    The largest weight of a line, or of a tile (`scaling`), is `fill` of its conductance range; the
    end of the range is 1 in what follows, and called a full weight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    device: Literal["ideal", "pair"] | PulsedDevice = "ideal"
    """What programming and time do to a weight, and which devices learning pulses: ``ideal``
    nothing, and learning finds no end of its range; ``pcm`` and ``reram`` as measured and modelled
    in aihwkit; ``pair`` as our own `conductance_pair.ConductancePair`; the others are written
    exactly and keep what they hold."""
    programming_error: NonNegativeFloat = 0.0
    """Standard deviation of a Gaussian error of every weight, in full weights, beside the device's
    own."""
    seconds: NonNegativeFloat = 0.0
    """Time since programming."""
    compensation: bool = True
    """Whether each tile's outputs are scaled back by what its devices lost to drift."""
    dac_bits: Bits | None = None
    adc_bits: Bits | None = None
    """Resolution of the converters, sign included; None: unlimited."""
    read_noise: NonNegativeFloat = 0.0
    """Noise of a device at each read, in full weights; of PCM it grows with the conductance."""
    output_noise: NonNegativeFloat = 0.0
    """Noise of an output line at each read, in products of a full input and a full weight."""
    ir_drop: NonNegativeFloat = 0.0
    """Voltage that wires lose, relative to wires of 0.35 ohm a cell at 5 uS a device."""
    tile: Count = 512
    """Most input lines, and most output lines, of one tile."""
    conv: Literal["shared", "unrolled"] = "shared"
    """``shared``: one kernel matrix, read for each patch in turn. ``unrolled``: every synapse is a
    cell of its own, all read at once."""
    fill: Annotated[float, Field(gt=0, le=8)] = 1.0
    """Share of the conductance range that the largest weight takes; less leaves learning room, and
    above 1 the largest weights end with the range, to the gain of all others."""
    scaling: Literal["line", "tile"] = "line"
    """Whether each output ``line`` of a tile has a conductance range of its own, or all of the
    ``tile`` share that of its largest weight. Errors of devices are shares of the range, so small
    lines keep their precision by the first, and room to grow in learning by the second. It costs a
    multiplication in digital at each line, as chips have it behind their ADCs (Le Gallo et al.
    2023, Nature Electronics 6, 680), and one before the DACs of a transposed read."""
    centre: bool = True
    """Whether the mean by which the network normalises its input is taken off in digital, before
    the DACs, and given back with the biases. Otherwise it goes through the array, where every error
    of a weight becomes one of a bias. A session that learns reads inputs as they are."""
    digital: Literal["none", "whitening", "input"] = "whitening"
    """What of the input is computed in digital, before the DACs: its ``whitening`` (a fixed kernel
    that training took from image patches, as exact as the normalisation), every coupling of the
    ``input``, as chips often have their first layer, or ``none``. The filters that whiten amplify
    what little differs within a patch, and the errors of their devices meet the whole of it. In a
    graph with a learning rule, all are on arrays."""
    cells: PulsedDevice | None = None
    """Devices that pulses change, by aihwkit's presets; None for those of `device` (of ``ideal``
    and ``pair`` ``constant-step``). ``idealized`` (10,000 symmetric steps) and ``constant-step``
    (1,200; Gokmen & Vlasov 2016), ``ecram`` and ``ecram-mo`` (lithium, metal oxide), ``capacitor``
    (it leaks), ``reram`` and ``reram-es`` (Gong et al. 2018, two models), ``reram-om`` and
    ``reram-hfo2`` (arrays of Gong, Rasch et al. 2022: 21 and 4 states), ``pcm``, a pair of one-way
    devices; ``mixed-pcm`` is that by mixed precision."""
    learning: Method = "written"
    """How a commit of `ep-neuro learn` changes devices: ``written`` exactly; by ``plain``
    stochastic pulses (Gokmen & Vlasov 2016); ``mixed-precision``, pulsed once a digital sum of the
    updates makes a step (Nandakumar et al. 2020); by pulses on a second device, which is read a
    line at a time into a digital sum that pulses the first (``tiki-taka-v2``, Gokmen 2021), whose
    signs are ``chopped`` against what is asymmetric, and with a reference point of its own
    (``agad``; both Rasch et al. 2024). With a value but ``written``, lines have one range by
    default (`scaling` is ``tile``), of which weights take `FILLS`."""
    asymmetry: Annotated[float, Field(gt=-1, lt=1)] | None = None
    """Steps up are ``1 +``, down ``1 -`` that of the mean; None: as measured."""
    states: Annotated[int, Field(ge=2)] | None = None
    """Steps from the least to the largest weight; None: as measured."""
    dead: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the devices that hold a random conductance of their range for ever."""
    copies: Annotated[int, Field(ge=1, le=64)] = 1
    """Cells a weight, side by side, whose mean it is and which are pulsed alike: each errs by
    itself (Boybat et al. 2018)."""
    on_off: Annotated[float, Field(gt=1)] | None = None
    """Largest over smallest conductance of a device, where lines are passive: they settle to the
    mean of their inputs by conductance, amplified so that without a smallest one the weights would
    be those of the program. What the smallest of a pair lead weakens every weight."""
    seed: NonNegativeInt = 0
    """Of every error and noise but those of pulses, which aihwkit draws by itself."""

    @property
    def pulsed_cells(self) -> str:
        """The devices that pulses change."""
        own = "constant-step" if self.device in ("ideal", "pair") else self.device
        return self.cells or own

    @property
    def pulsed_method(self) -> str:
        """How they learn where they are pulsed."""
        if self.learning != "written":
            return self.learning
        return "mixed-precision" if self.pulsed_cells == "mixed-pcm" else "plain"

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

FILLS: Mapping[str, float] = {
    **dict.fromkeys(("reram", "reram-es", "reram-om", "reram-hfo2"), 1.0),
    **dict.fromkeys(ONE_WAY, 4.0),
}
PULSED_FILL = 0.3
"""Option ``fill`` by cells, and of all others, where pulses learn: the less exact a device is, the
more of its range the weights take."""

OPTIONS: Mapping[str, Any] = {"preset": "ideal", **Options().model_dump()}
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
    pulses = values.get("learning", "written") != "written"
    try:
        options = Options(**{**PRESETS[preset], **values})
        if pulses:
            fill = FILLS.get(options.pulsed_cells, PULSED_FILL)
            options = options.model_copy(update={"scaling": "tile", "fill": fill, **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong(str(first["loc"][0]), first["input"], first["msg"]) from None
    if options.device == "reram" and options.seconds not in RERAM_SECONDS:
        times = ", ".join(f"{t:g}" for t in RERAM_SECONDS)
        raise _wrong("seconds", options.seconds, f"ReRAM was measured at {times} s only")
    if options.pulsed_cells in ONE_WAY and options.copies > 1:
        raise _wrong("copies", options.copies, "a weight on PCM is one pair; give 1")
    if options.pulsed_cells in ONE_WAY and options.learning in TRANSFERS:
        problem = f"PCM only goes up, and '{options.learning}' needs steps both ways"
        raise _wrong("learning", options.learning, f"{problem}; choose mixed-precision")
    return options


def _wrong(key: str, value: Any, remedy: str) -> ConfigError:
    return ConfigError(f"target 'crossbar', option '{key}'", f"is {value!r}", remedy)
