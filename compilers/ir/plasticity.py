"""Learning rules: typed sums of products over what one synapse can see, and who learns by them.

A rule has two expressions. `tag` says what a phase leaves behind in the synapse, `commit` how the
weight changes by it. Both are text over a fixed set of names; parsing them is the type check, and
a name that is not local to the synapse has no meaning here. What remains is a sum of products, the
form in which the learning engine of a chip runs a rule:

==========================  ====================================================================
``pre``, ``post``           traces of the two neurons that the synapse joins, in real units
``pre_before, ...``         the same one step ago (rules that run at every step)
``pre_free, ...``           the same in the phase of which this one sends differences
``sign``                    plasticity sign of the running phase: 1, -1 or 0
``weight``, ``tag``         the synapse's own weight (real units) and accumulator
``noise``                   a random number in [0, 1) of this synapse and commit
``rate``, ``decay``         constants of the coupling
==========================  ====================================================================

A trace is ``offset + gain * s`` (the population's readout, two constants), where ``s`` is the
message of graded neurons, the sum of the messages of sigma-delta neurons and of the input, and a
weighted mean of the messages of spiking ones over the phase
(`compilers.learning.traces.spike_weights`): what the other end of a synapse has been sent, and no
more.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ep_neuro.errors import GraphError, nearest

ENDS = ("pre", "post", "pre_before", "post_before", "pre_free", "post_free")
"""Traces of the two ends."""

TAG_NAMES = (*ENDS, "sign", "weight", "tag")
"""What the tag may read: it is written while the phases run."""

COMMIT_NAMES = ("tag", "weight", "noise", "rate", "decay")
"""What a commit may read: the traces are gone by then, and what they left is in the tag."""

MAX_TERMS = 16
"""Products in one expression; a learning engine has room for a few."""

MAX_FACTORS = 6
"""Names in one product."""


# --- expressions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """`coefficient` times the product of `factors`; a name that repeats is a power."""

    coefficient: float
    factors: tuple[str, ...]

    def power(self, *names: str) -> int:
        """How often `names` stand in the product."""
        return sum(self.factors.count(name) for name in names)


Polynomial = dict[tuple[str, ...], float]


@cache
def terms(text: str, names: tuple[str, ...], subject: str) -> tuple[Term, ...]:
    """The sum of products that `text` says, over `names`.

    Raises
    ------
    GraphError
        If `text` is no expression of names, numbers, ``+``, ``-`` and ``*``, reads any other name,
        or has too many terms or factors; `subject` names the rule.
    """
    try:
        found = _polynomial(ast.parse(text.strip(), mode="eval").body, names, subject)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise GraphError(
            subject, f"'{text[:60]}' is no expression", "write a sum of products"
        ) from None
    return tuple(Term(c, factors) for factors, c in found.items() if c)


def _polynomial(node: ast.expr, names: tuple[str, ...], subject: str) -> Polynomial:
    match node:
        case ast.Name(name):
            if name not in names:
                problem = f"it reads '{name}', which the synapse cannot see there"
                raise GraphError(subject, problem, nearest(name, names))
            return {(name,): 1.0}
        case ast.Constant(float() | int() as value) if not isinstance(value, bool):
            if not math.isfinite(value):
                raise GraphError(subject, f"{value} is not finite", "give a number")
            return {(): float(value)}
        case ast.UnaryOp(ast.USub(), operand):
            return {f: -c for f, c in _polynomial(operand, names, subject).items()}
        case ast.BinOp(left, ast.Add() | ast.Sub() | ast.Mult() as operator, right):
            a, b = (_polynomial(side, names, subject) for side in (left, right))
            return _combined(operator, a, b, subject)
    problem = f"'{ast.unparse(node)[:60]}' is no sum of products"
    raise GraphError(subject, problem, "use names, numbers, +, - and *")


def _combined(operator: ast.operator, a: Polynomial, b: Polynomial, subject: str) -> Polynomial:
    total: Polynomial = {}
    if isinstance(operator, ast.Mult):
        for f, c in a.items():
            for g, d in b.items():
                product = tuple(sorted(f + g))
                total[product] = total.get(product, 0.0) + c * d
    else:
        factor = -1.0 if isinstance(operator, ast.Sub) else 1.0
        total = dict(a)
        for g, d in b.items():
            total[g] = total.get(g, 0.0) + factor * d
    longest = max((len(f) for f in total), default=0)
    for count, limit, what in (
        (len(total), MAX_TERMS, "terms"),
        (longest, MAX_FACTORS, "factors in a product"),
    ):
        if count > limit:
            problem = f"{count} {what} exceed the {limit} of a learning engine"
            raise GraphError(subject, problem, "shorten the expression")
    return total


# --- rules -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """How a synapse changes; see the module's docstring for what `tag` and `commit` may read.

    Raises
    ------
    GraphError
        If an expression does not type-check, the tag does not accumulate, the commit does not
        read the tag, or `keep` is asked of a commit that is not proportional to the tag.
    """

    name: str
    """In messages and reports."""
    when: Literal["phase", "step"]
    """Whether the tag is evaluated at the end of each phase whose plasticity sign is not 0, or
    after every step of one. With "step", commits happen after every step too."""
    tag: str
    """The new tag; ``tag + ...``, for a synapse adds up what several samples leave."""
    commit: str
    """Change of the weight in real units, from the mean of the tags over the samples of a batch;
    the tag is empty afterwards."""
    keep: bool = False
    """For integer weights: whether the commit rounds to nearest and leaves in the tag what rounding
    has left, so that no change is ever lost; otherwise rounding is stochastic, and the tag starts
    again at zero."""

    def __post_init__(self) -> None:
        subject = f"rule '{self.name}'"
        if not (isinstance(self.tag, str) and isinstance(self.commit, str)):
            raise GraphError(subject, "its expressions are no texts", "write a sum of products")
        if self.when not in ("phase", "step"):
            raise GraphError(subject, f"when '{self.when}' is no event", "choose phase or step")
        if sorted((t.coefficient, t.factors) for t in self.tag_terms if t.power("tag")) != [
            (1.0, ("tag",))
        ]:
            problem = f"its tag '{self.tag}' does not accumulate"
            raise GraphError(subject, problem, "write tag + what this phase adds")
        before = any(t.power("pre_before", "post_before") for t in self.tag_terms)
        if before and self.when == "phase":
            problem = "it reads traces one step ago, and runs once a phase"
            raise GraphError(subject, problem, "use when='step'")
        learnt = [t for t in self.commit_terms if t.power("tag")]
        if not learnt:
            problem = f"its commit '{self.commit}' never reads the tag"
            raise GraphError(subject, problem, "write rate * tag, for instance")
        if self.keep and (len(learnt) > 1 or learnt[0].power("tag", "weight", "noise") > 1):
            problem = f"'{self.commit}' is not proportional to the tag, which keep needs"
            raise GraphError(subject, problem, "write rate * tag, or use keep=False")

    @property
    def differs(self) -> bool:
        """Whether it learns from nudged phases that send differences to the free one."""
        return any(t.power("pre_free", "post_free") for t in self.tag_terms)

    @property
    def tag_terms(self) -> tuple[Term, ...]:
        """`tag` as a sum of products, the old tag included."""
        return terms(self.tag, TAG_NAMES, f"rule '{self.name}', tag")

    @property
    def commit_terms(self) -> tuple[Term, ...]:
        """`commit` as a sum of products."""
        return terms(self.commit, COMMIT_NAMES, f"rule '{self.name}', commit")


CONTRASTIVE = Rule("contrastive", "phase", "tag + sign * pre * post", "rate * tag - decay * weight")
"""Contrastive Hebbian learning gated by the phase: ``post pre`` at ``+beta`` minus at ``-beta``.

Centered equilibrium propagation (Laborieux et al. 2021, eq. 11) on a network whose energy is
bilinear in the states of the two ends.
"""

SPIKE_AVERAGE = Rule(
    "spike-average", "phase", "tag + sign * pre * post", "rate * tag - decay * weight"
)
"""The same products of the two ends' mean spike counts in each phase, its middle weighted most.

O'Connor et al. 2019 ("Training a spiking neural network with equilibrium propagation") estimate
the states from spikes in both phases; the soft-reset neuron's rate *is* the state.
"""

CONTINUAL = Rule(
    "continual",
    "step",
    "tag + sign * (pre * post - pre_before * post_before)",
    "rate * tag - decay * weight",
)
"""Weights change at every step of the nudged phase, by the change of ``pre post`` in that step.

Continual EP (Ernoult et al. 2020, "Equilibrium propagation with continual weight updates"): the
sum over the phase is the one-sided contrast, and the synapse stores no free state.
"""

ONE_SIDED = Rule("one-sided", "phase", "tag + sign * pre * post", "rate * tag - decay * weight")
"""``post pre`` at ``+beta`` minus in the free phase: two phases, with an error of order beta.

Scellier & Bengio 2017, eq. 8.
"""

DIFFERENCE = Rule(
    "difference",
    "phase",
    "tag + sign * (pre_free * post + pre * post_free)",
    "rate * tag - decay * weight",
)
"""The contrast of `CONTRASTIVE` where nudged phases send what differs from the free one.

With ``z = m + h`` at ``+beta`` and ``m - h`` at ``-beta`` it is ``m h + h m``, to second order.
"""

RULES: Mapping[str, Rule] = {
    rule.name: rule for rule in (CONTRASTIVE, SPIKE_AVERAGE, CONTINUAL, ONE_SIDED, DIFFERENCE)
}


def named_rule(name: str) -> Rule:
    """The rule called `name`; `GraphError` with the nearest name if there is none."""
    if name in RULES:
        return RULES[name]
    raise GraphError(f"rule '{name}'", "there is none of this name", nearest(name, RULES))


# --- who learns --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plasticity:
    """One weight or bias of a graph that learns.

    A tied weight is one synapse wherever it is stored, whose ``pre`` and ``post`` are those of its
    forward projection. A kernel's synapse sees every place where it stands; its tag is the sum. A
    bias is a synapse from a constant 1, one for each element of the population's first axis.
    """

    weight: str
    """Id of the weight, or of the bias of a population."""
    rule: Rule
    """How it learns."""
    rate: float
    """Constant of the rule: learning rate over the sum of ``sign * nudge`` of the phases."""
    decay: float = 0.0
    """Constant of the rule."""
    bits: int | None = None
    """Bits of an integer weight, sign included; its range is symmetric. None: floating point."""
    mask: str | None = None
    """Id of an array of the weight's shape that is 0 where a synapse is stuck; None: none is."""
    seed: int = 0
    """Of the random numbers: those of commit ``n`` (from 0) of the ``i``-th record of a graph are
    ``numpy.random.default_rng([seed, i, n]).integers(0, 2**16, shape)``, in units of 2**-16."""
    power: int = 0
    """Of two, by which the rule multiplies `rate`; see `compilers.passes.units.unit_power`."""
    coarser: int = 0
    """Bits by which the unit of an integer tag is coarser than that of a product of two traces."""

    @property
    def step(self) -> float:
        """What ``rate`` stands for in the rule, ``rate * 2**power``."""
        return math.ldexp(self.rate, self.power)
