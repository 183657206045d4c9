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
Bits = Annotated[int, Field(ge=2, le=16)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
DAY, YEAR = 86400.0, 365 * 86400.0

RERAM_SECONDS = (0.0, 1.0, DAY, 2 * DAY)
"""Times at which ReRAM was measured (Wan et al. 2022); 0 stands for right after programming."""


class Options(BaseModel):
    """What a program asks of the array; the defaults are an array without any error.

    The largest weight of a line, or of a tile (`scaling`), is `fill` of its conductance range; the
    end of the range is 1 in what follows, and called a full weight.

    Attributes
    ----------
    device : str
        What programming and time do to a weight: ``ideal`` nothing, and learning finds no end of
        its range; ``pcm`` and ``reram`` as measured and modelled in aihwkit; ``pair`` as our own
        `conductance_pair.ConductancePair`.
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
    digital : str
        What of the input is computed in digital, before the DACs: its ``whitening`` (a fixed kernel
        that training took from image patches, as exact as the normalisation), every coupling of
        the ``input``, as chips often have their first layer, or ``none``. The filters that whiten
        amplify what little differs within a patch, and the errors of their devices meet the
        whole of it. In a graph with a learning rule, all are on arrays; under
        `on_device_learning` what is digital stays as it is.
    cells : str
        Device whose pulsed updates `Array.learn` makes: aihwkit's presets of Gokmen & Vlasov 2016
        (``constant-step``), of ECRAM, ReRAM and PCM, and PCM that is pulsed only by what a digital
        memory has gathered (``mixed-pcm``).
    seed : int
        Of every error and noise but those of pulses, which aihwkit draws by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    device: Literal["ideal", "pair"] | PulsedDevice = "ideal"
    programming_error: NonNegativeFloat = 0.0
    seconds: NonNegativeFloat = 0.0
    compensation: bool = True
    dac_bits: Bits | None = None
    adc_bits: Bits | None = None
    read_noise: NonNegativeFloat = 0.0
    output_noise: NonNegativeFloat = 0.0
    ir_drop: NonNegativeFloat = 0.0
    tile: Count = 512
    conv: Literal["shared", "unrolled"] = "shared"
    fill: Share = 1.0
    scaling: Literal["line", "tile"] = "line"
    centre: bool = True
    digital: Literal["none", "whitening", "input"] = "whitening"
    cells: PulsedDevice | None = None
    learning: Method = "written"
    fast: Annotated[float, Field(gt=0)] = 0.5
    asymmetry: Annotated[float, Field(gt=-1, lt=1)] | None = None
    states: Annotated[int, Field(ge=2)] | None = None
    dead: Annotated[float, Field(ge=0, le=1)] = 0.0
    seed: NonNegativeInt = 0

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
    try:
        options = Options(**{**PRESETS[preset], **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong(str(first["loc"][0]), first["input"], first["msg"]) from None
    if options.device == "reram" and options.seconds not in RERAM_SECONDS:
        times = ", ".join(f"{t:g}" for t in RERAM_SECONDS)
        raise _wrong("seconds", options.seconds, f"ReRAM was measured at {times} s only")
    return options


def _wrong(key: str, value: Any, remedy: str) -> ConfigError:
    return ConfigError(f"target 'crossbar', option '{key}'", f"is {value!r}", remedy)
