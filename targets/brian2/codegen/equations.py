"""Brian2 code of one population and of one tied weight: equations, events, synapses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from textwrap import indent

from compilers.ir import graph as ir
from compilers.ir.operators import fanout
from ep_neuro.errors import GraphError
from targets.brian2.codegen.plasticity import (
    LEARN,
    TEACHES,
    forgets,
    record_of,
    tag_code,
    trace_code,
    trace_equations,
)

MESSAGE = {ir.Graded: "z", ir.SigmaDelta: "d", ir.Spiking: ""}
"""What a message of each dynamics is worth; a spike is worth 1."""


def synapses_per_sample(graph: ir.Graph) -> int:
    """Synapses of one sample, those of both directions of a weight counted once."""
    count = 0
    for tie in graph.tied(recurrent=True):
        pre, post = graph.population(tie.pre).shape, graph.population(tie.post).shape
        count += int(fanout(tie.operator, graph.arrays[tie.weight].shape, pre, post).sum())
    return count


def plain(given: Iterable[str]) -> dict[str, str]:
    """For each name one that Python, Brian2 and C++ accept: letters, digits and ``_``."""
    found: dict[str, str] = {}
    for name in given:
        short = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "x"
        found[name] = short if short not in found.values() else f"{short}_{len(found)}"
    return found


def names(graph: ir.Graph) -> dict[str, str]:
    """What code calls the populations of `graph`."""
    return plain(p.name for p in graph.populations)


# --- phases ------------------------------------------------------------------------------------


def rest(graph: ir.Graph, population: ir.Population) -> dict[str, float]:
    """State of `population` before the first step: all that a later phase has to take over."""
    match population.dynamics:
        case ir.Graded():
            return {"v": 0.0}
        case ir.SigmaDelta():
            return {"v": 0.0, "sent": 0.0, "J": 0.0}
        case _:
            shown = {"s": 0.0} if population.name == graph.output else {}
            return {"u": 0.0, "v": 0.5, "J": 0.0, **shown}


def kept(graph: ir.Graph) -> dict[int, str]:
    """Phases, by number, whose end another than the next one starts from; with short names."""
    called = plain(p.name for p in graph.phases)
    return {
        i: called[p.name]
        for i, p in enumerate(graph.phases)
        if any(later.start == p.name for later in graph.phases[i + 2 :])
    }


def restarts(graph: ir.Graph) -> dict[int, str | None]:
    """Phases, by number, that do not go on from the one before; with the phase they start from."""
    pairs = enumerate(zip(graph.phases, graph.phases[1:], strict=False), start=1)
    return {i: late.start for i, (early, late) in pairs if late.start != early.name}


def _switches(graph: ir.Graph, population: ir.Population) -> list[str]:
    """Code at the start of a step that keeps the end of a phase, and goes back to it.

    A sum with one zero factor is exact, and Brian2 knows no conditional assignment.
    """
    lines, short = [], kept(graph)
    called = plain(p.name for p in graph.phases)
    for variable in rest(graph, population):
        for i, name in short.items():
            lines.append(_switch(f"{variable}_{name}", variable, i + 1))
    for i, start in restarts(graph).items():
        for variable, value in rest(graph, population).items():
            origin = repr(value) if start is None else f"{variable}_{called[start]}"
            lines.append(_switch(variable, origin, i))
    return lines


def _switch(variable: str, value: str, phase: int) -> str:
    begin = f"begin_{phase}"
    return f"{variable} = int(k == {begin}) * {value} + int(k != {begin}) * {variable}"


def _nudge(graph: ir.Graph) -> str:
    """The nudging factor as an expression of the step."""
    terms = [
        f"{phase.nudge!r} * int(k >= begin_{i} and k < end_{i})"
        for i, phase in enumerate(graph.phases)
        if phase.nudge
    ]
    return " + ".join(terms) or "0.0"


def _begins(graph: ir.Graph, population: ir.Population, called: Mapping[str, str]) -> list[str]:
    """Code at the first step of a batch: neurons go to rest, and get the drive of their sample."""
    name = called[population.name]
    states = [f"{variable} = {value!r}" for variable, value in rest(graph, population).items()]
    target = [f"y = target_{name}(t, i)"] if population.name == graph.output else []
    return [*states, f"b = drive_{name}(t, i)", *target]


# --- neurons -----------------------------------------------------------------------------------

_EACH_BATCH = 'dt=period * DT, when="start", order=-1'
"""When a batch begins; before anything else in that step."""


def neurons(graph: ir.Graph, population: ir.Population, called: Mapping[str, str]) -> str:
    """Statements that make the NeuronGroup of `population`."""
    name, plastic = f"p_{called[population.name]}", bool(graph.plasticity)
    equations = indent("\n".join(_equations(graph, population, called)), " " * 8)
    lines = [
        f"# {population.name}: {type(population.dynamics).__name__}, {population.shape}",
        f"{name} = NeuronGroup(",
        f"    batch * {population.size},",
        f'    """\n{equations}\n    """,',
        '    method="euler",',
        *(f"    {line}," for line in _events(graph, population)),
        f'    namespace={{"tau": DT / {getattr(population.dynamics, "leak", 1.0)!r}}},',
        f'    name="{name}",',
        ")",
        f"{name}.period = period",
        *_after(graph, population, name),
    ]
    begin = indent("\n".join(_begins(graph, population, called)), " " * 8)
    lines.append(f'{name}.run_regularly(\n    """\n{begin}\n    """,\n    {_EACH_BATCH},\n)')
    if plastic:
        code = trace_code(population)
        lines.append(f'{name}.run_on_event("{LEARN}", "{code}", when="end")')
    switches = [*_switches(graph, population), *(forgets(graph, population) if plastic else [])]
    if switches:
        text = indent("\n".join(switches), " " * 8)
        lines.append(f'{name}.run_regularly(\n    """\n{text}\n    """,\n    when="start",\n)')
    return "\n".join(lines)


def _equations(graph: ir.Graph, population: ir.Population, called: Mapping[str, str]) -> list[str]:
    dynamics, output = population.dynamics, population.name == graph.output
    spiking = isinstance(dynamics, ir.Spiking)
    currents, leaking = _currents(graph, population, called), "u" if spiking else "v"
    nudge = [f"nudge * (y - {'s' if spiking else 'z'})"] if output else []
    lines = [
        f"d{leaking}/dt = (I - {leaking}) / tau : 1",
        f"I = {' + '.join(['b', *currents, *nudge])} : 1",
        "v : 1" if spiking else f"z = {_clip('v', population.box)} : 1",
        *(_changes(graph, dynamics) if isinstance(dynamics, ir.SigmaDelta) else []),
        *(f"{current} : 1" for current in currents),
        "b : 1",
        "k = t_in_timesteps % period : integer (shared)",
        "period : integer (shared, constant)",
    ]
    if output:
        lines += ["y : 1", f"nudge = {_nudge(graph)} : 1 (shared)"]
        lines += ["s : 1"] if spiking else []
    lines += trace_equations(graph, population) if graph.plasticity else []
    short = kept(graph).values()
    return [*lines, *(f"{v}_{name} : 1" for v in rest(graph, population) for name in short)]


def _changes(graph: ir.Graph, dynamics: ir.SigmaDelta) -> list[str]:
    """Equations of a message that is a change, and of the threshold that falls with each step."""
    start, end, decay = (float(v) for v in (dynamics.start, dynamics.end, dynamics.decay))
    skips = "".join(f" - int(k >= begin_{i}) * skip_{i}" for i in restarts(graph))
    return [
        "d = z - sent : 1",
        f"age = k{skips} : integer (shared)",
        f"theta = clip({start!r} * {decay!r} ** age, {end!r}, inf) : 1 (shared)",
        "sent : 1",
    ]


def _currents(graph: ir.Graph, population: ir.Population, called: Mapping[str, str]) -> list[str]:
    """Variables that recurrent input arrives in.

    States are summed anew at every step, each sender's by itself; events add to one variable.
    """
    if not isinstance(population.dynamics, ir.Graded):
        return ["J"]
    sources = {p.name for p in graph.sources}
    return [f"I_{called[p.pre]}" for p in graph.into(population.name) if p.pre not in sources]


def _clip(value: str, box: tuple[float, float] | None) -> str:
    return value if box is None else f"clip({value}, {float(box[0])!r}, {float(box[1])!r})"


def _events(graph: ir.Graph, population: ir.Population) -> list[str]:
    learn = f', "{LEARN}": "{TEACHES}"' if graph.plasticity else ""
    match population.dynamics:
        case ir.Graded():
            return [f'events={{"send": "z != 0"{learn}}}']
        case ir.SigmaDelta():
            return [f'events={{"send": "abs(d) >= theta and d != 0"{learn}}}']
        case dynamics:
            mark = "; s = 1" if population.name == graph.output else ""
            mark += "; n += weight" if learn else ""
            events = [f"events={{{learn[2:]}}}"] if learn else []
            hard = isinstance(dynamics, ir.Spiking) and dynamics.reset == "hard"
            reset = "v = 0" if hard else "v -= 1"
            return ['threshold="v >= 1"', f'reset="{reset}{mark}"', *events]


def _after(graph: ir.Graph, population: ir.Population, name: str) -> list[str]:
    """Statements about what a neuron does besides leaking."""
    match population.dynamics:
        case ir.SigmaDelta():
            return [f'{name}.run_on_event("send", "sent += d", when="resets")']
        case ir.Spiking(bound=bound):
            low, high = -float(bound), 1.0 + float(bound)
            forget = "; s = 0" if population.name == graph.output else ""
            code = f"v = clip(v + u, {low!r}, {high!r}); J = 0{forget}"
            return [f'{name}.run_regularly("{code}", when="groups", order=1)']
        case _:
            return []


# --- synapses ----------------------------------------------------------------------------------


def synapses_name(tie: ir.Tie, called: Mapping[str, str]) -> str:
    """Name of the Synapses of `tie`; untied feedback is another object than its forward weight."""
    back = "_back" if tie.forward is None else ""
    return f"w_{called[tie.pre]}_{called[tie.post]}{back}"


def synapses(graph: ir.Graph, tie: ir.Tie, called: Mapping[str, str]) -> str:
    """Statements that make the Synapses of `tie`."""
    pre, post = (f"p_{called[name]}" for name in (tie.pre, tie.post))
    name = synapses_name(tie, called)
    model, pathways = _transmission(graph, tie, called)
    shown = f'"{model[0]}"'
    if len(model) > 1:
        text = indent("\n".join(model), " " * 8)
        shown = f'"""\n{text}\n    """'
    lines = [
        f"# {tie.pre} - {tie.post}: {type(tie.operator).__name__}",
        f"{name} = Synapses(",
        f"    {pre},",
        f"    {post},",
        f"    {shown},",
        *(f"    {line}," for line in pathways),
        f'    name="{name}",',
        ")",
        f"connect({name}, batch, W[{tie.weight!r}], {sites(graph, tie)})",
    ]
    if record_of(graph, tie.weight, tie.pre, tie.post) is not None:
        # After all that a step does: traces count its own messages.
        lines.append(f'{name}.{LEARN}.when, {name}.{LEARN}.order = "end", 1')
    return "\n".join(lines)


def _transmission(
    graph: ir.Graph, tie: ir.Tie, called: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Model equations of a tie, and the arguments that say what its events do."""
    plastic = tie.weight in {record.weight for record in graph.plasticity}
    model = ["w : 1", "site : integer (constant)"] if plastic else ["w : 1 (constant)"]
    code: dict[str, dict[str, str]] = {"pre": {}, "post": {}}
    events: dict[str, str] = {}
    for p, at, to in ((tie.forward, "pre", "post"), (tie.backward, "post", "pre")):
        if p is None:
            continue
        dynamics = graph.population(p.pre).dynamics
        worth = MESSAGE[type(dynamics)]
        product = f"{p.scale!r} * w" + (f" * {worth}_{at}" if worth else "")
        if isinstance(dynamics, ir.Graded):
            model.append(f"I_{called[p.pre]}_{to} = {product} : 1 (summed)")
        else:
            code[at][at] = f"J_{to} += {product}"
            events[at] = "spike" if isinstance(dynamics, ir.Spiking) else "send"
    record = record_of(graph, tie.weight, tie.pre, tie.post)
    if record is not None:
        model.append("tag : 1")
        code["post"][LEARN], events[LEARN] = tag_code(record), LEARN
    pathways = [f"on_{end}={_quoted(parts)}" for end, parts in code.items() if parts]
    if set(events.values()) - {"spike"}:
        pathways.append(f"on_event={_quoted(events)}")
    return model, pathways


def _quoted(texts: Mapping[str, str]) -> str:
    """`texts` as Python writes them with double quotes; one that is no other's is a plain text."""
    if set(texts) <= {"pre"} or set(texts) <= {"post"}:
        (text,) = texts.values()
        return f'"{text}"'
    return "{" + ", ".join(f'"{key}": "{text}"' for key, text in texts.items()) + "}"


def sites(graph: ir.Graph, edge: ir.Tie | ir.Projection) -> str:
    """The call that lists the synapses of `edge`."""
    pre, post = (graph.population(name).shape for name in (edge.pre, edge.post))
    shape = graph.arrays[edge.weight].shape
    match edge.operator:
        case ir.Dense():
            return f"dense({pre}, {post})"
        case ir.DenseTranspose():
            return f"turned(dense({post}, {pre}))"
        case ir.Conv(stride, padding):
            return f"conv({shape}, {pre}, {post}, {stride}, {padding})"
        case ir.ConvTranspose(stride, padding):
            return f"turned(conv({shape}, {post}, {pre}, {stride}, {padding}))"
        case _:
            problem = "is split over the cores of another machine"
            raise GraphError(f"'{edge.pre}->{edge.post}'", problem, "compile it for Brian2")
