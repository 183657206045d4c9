"""Tools that read NIR files: which nodes each takes, how it steps them, and what it loses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from compilers.ir.dynamics import Reset
from ep_neuro.errors import ConfigError, nearest

Filter = Literal["euler", "exponential", "decaying", "unscaled"]

MEMBRANE = 1e6
"""Time constant, in steps, of a membrane that shall not leak, where a reader wants one that does:
it forgets a millionth a step, of which float32 still holds a sixteenth."""

SHORT = 1 / 64
"""Time constant, in steps, of a filter that shall hold nothing, where a reader decays
exponentially."""


class Reader(BaseModel):
    """One tool, as `targets.nir.export` has to know it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """What ``--option reader=`` calls it."""
    tool: str
    """The package, and the function that reads."""
    tested: str = ""
    """Version that `examples/nir_readers.py` measures; empty if all here is from `source`."""
    source: str
    """Where its nodes and their dynamics are from."""
    takes: frozenset[str]
    """Types of nodes that it takes, beside ``Input`` and ``Output``."""
    neuron: Literal["LI", "IF", "CubaLIF"]
    """What a spiking population becomes; ``LI``: the tool is given graded ones."""
    plain: bool = False
    """Whether a spiking population of leak 1, which needs no filter, becomes an ``IF`` instead."""
    filters: Filter
    """How it steps a filter with time constant tau, ``a = exp(-dt / tau)``, under a drive I:
    ``euler`` ``u += dt / tau (I - u)``, ``exponential`` ``u = a u + (1 - a) I``, ``decaying``
    ``u = a (u + I)``, ``unscaled`` ``u = a u + I``."""
    dt: float = 1.0
    """What it takes a step for, in units of its time constants."""
    events: bool = False
    """Its inputs are spikes: a graded input has to come as their rate."""
    neurons: int | None = None
    """Most of one file; None: no limit."""
    resets: tuple[Reset, ...] = ("soft",)
    """What a spike can take off its membranes: 1 (``soft``) or all (``hard``). A network that asks
    for neither gets the first, and so do the reference and `run`."""
    call: str
    """How to load a file, after which each call is a step."""
    hard: str = ""
    """The same for a network with a hard reset, where that differs."""
    loses: str
    """What of our dynamics it has not, in one line."""
    cycles: str
    """What it does with feedback."""

    @property
    def planes(self) -> bool:
        """Whether populations may be planes, joined by ``Conv2d``."""
        return "Conv2d" in self.takes

    def gain(self, leak: float) -> float:
        """What drives are multiplied by, so that a filter of `leak` steps as ours does."""
        return {"decaying": leak / (1 - leak or math.inf), "unscaled": leak}.get(self.filters, 1.0)

    def tau(self, leak: float) -> float:
        """Time constant of a filter of `leak`, in the reader's unit."""
        if self.filters == "euler":
            return self.dt / leak
        return self.dt * (SHORT if leak == 1 else -1 / math.log1p(-leak))

    def leak(self, tau: float) -> float:
        """The leak of a filter with time constant `tau`; inverse of `tau`."""
        return self.dt / tau if self.filters == "euler" else -math.expm1(-self.dt / tau)


_START = "membranes start at 0, ours at 0.5"
_MANY = "it fires more than once a step, so that rates exceed 1"
_NIRTORCH = (
    "fed forward within a step, fed back from the step before, by the older executor of nirtorch; "
    "that gives what it ran last, so read state.cache of the output where the input enters twice"
)

READERS: Mapping[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader(
            name="sinabs",
            tool="sinabs.nir.from_nir",
            tested="3.1.3",
            source="sinabs 3.1.3, sinabs/nir.py and layers/",
            # Its reader of LI refuses planes: it asks for the truth of an array of v_leak.
            takes=frozenset({"Affine", "IF", "LI"}),
            neuron="IF",
            plain=True,
            filters="unscaled",
            call="sinabs.nir.from_nir(graph, batch_size=N)",
            loses=f"{_START}; {_MANY}",
            cycles=_NIRTORCH,
        ),
        Reader(
            name="rockpool",
            tool="rockpool.nn.modules.torch.nir.from_nir",
            tested="3.1.0",
            source="rockpool 3.1.0, nn/modules/torch/nir.py and lif_torch.py",
            takes=frozenset({"Affine", "Linear", "CubaLIF"}),
            neuron="CubaLIF",
            filters="decaying",
            call="from_nir(graph), samples one by one: it keeps the state of the first of a batch",
            loses=f"{_START}; {_MANY}",
            cycles=_NIRTORCH,
        ),
        Reader(
            name="norse",
            tool="norse.torch.from_nir",
            tested="1.1.0",
            source="norse 1.1.0, torch/utils/import_nir.py and functional/",
            takes=frozenset({"Affine", "Conv2d", "Linear", "CubaLIF"}),
            neuron="CubaLIF",
            filters="euler",
            dt=1e-3,
            resets=("soft", "hard"),
            call="norse.torch.from_nir(graph, reset_method=norse.torch.functional.reset_subtract)",
            hard="norse.torch.from_nir(graph)",
            loses=f"{_START}; resets to 0 unless loaded with reset_method=reset_subtract",
            cycles=_NIRTORCH,
        ),
        Reader(
            name="snntorch",
            tool="snntorch.import_nir.import_from_nir",
            tested="1.0.0",
            source="snntorch 1.0.0, import_nir.py",
            takes=frozenset({"Affine", "Conv2d", "Linear", "CubaLIF"}),
            neuron="CubaLIF",
            filters="euler",
            dt=1e-4,
            resets=("soft", "hard"),
            call="import_from_nir(graph), then reset_mechanism = 'subtract' on each Synaptic",
            hard="import_from_nir(graph)",
            loses=f"{_START}; resets to 0 unless reset_mechanism is set to 'subtract' once loaded",
            cycles="fed forward within a step, fed back from the step before, by nirtorch 2.6",
        ),
        Reader(
            name="spinnaker2",
            tool="spinnaker2.s2_nir.from_nir (py-spinnaker2)",
            source="s2_nir.py of py-spinnaker2 and its copies: get_accumulated_bias, convert_*; "
            "PyPI has none",
            takes=frozenset({"Affine", "Linear", "IF", "CubaLIF"}),
            neuron="CubaLIF",
            plain=True,
            filters="exponential",
            events=True,
            resets=("soft", "hard"),
            call="s2_nir.from_nir(graph, ConversionConfig(scale_weights=True))",
            hard="s2_nir.from_nir(graph, ConversionConfig(scale_weights=True, "
            "reset=ResetMethod.ZERO))",
            loses=f"{_START}; weights of 8 bits; biases pass no filter; inputs are spikes, at the "
            "pixels' rate",
            cycles="a projection for each edge, a step each",
        ),
        Reader(
            name="brainscales2",
            tool="hxtorch.spiking.utils.from_nir (hxtorch), jaxsnn.event.from_nir (jaxsnn)",
            source="hxtorch 3bfc7aa and jaxsnn 0.3.0, from_nir.py; PyPI has no hxtorch",
            takes=frozenset({"Linear", "CubaLIF"}),
            neuron="CubaLIF",
            filters="exponential",
            dt=1e-3,
            events=True,
            neurons=512,
            resets=("hard",),
            call="from_nir(graph, ConversionConfig(dt=1e-6))",
            loses="hard reset, as in `run`; weights of 6 bits; membranes leak; feedback is wired "
            "by hand; inputs are spikes, the last of which never rests and brings the biases",
            cycles="hxtorch runs the edges in order and keeps the last into each node",
        ),
        Reader(
            name="nengo",
            tool="nir_to_nengo, an example of NIR's documentation",
            tested="4.1.0",
            source="NIR, docs/source/examples/nengo, and nengo 4.1.0",
            takes=frozenset({"Affine", "LI"}),
            neuron="LI",
            filters="exponential",
            dt=1e-3,
            call="nengo, wired as nir_to_nengo does, which itself runs under NumPy 1 alone",
            loses="the box: states leave [0, 1], unless a function of their node clips them",
            cycles="a connection for each edge, through the filter of its end",
        ),
    )
}
"""Readers by name."""


def reader_of(name: object) -> Reader:
    """The reader of this name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if not isinstance(name, str) or name not in READERS:
        problem = f"is none of {', '.join(READERS)}"
        raise ConfigError(f"reader '{name}'", problem, nearest(str(name), READERS, "take one"))
    return READERS[name]
