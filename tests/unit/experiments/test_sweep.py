"""Claims about sweeps: what may be varied, and which points are on the Pareto front."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ep_neuro.errors import ConfigError
from targets.experiments.comparison.compare import Choice
from targets.experiments.comparison.sweep import Sweep, front

NUMBER = st.integers(0, 5).map(float)
POINTS = st.lists(st.tuples(NUMBER | st.none(), NUMBER | st.none()), max_size=12)


def test_a_sweep_orders_steps_and_keeps_the_order_of_bits() -> None:
    sweep = Sweep.parse(["steps=64,8,16", "bits=8,float,2"])
    assert sweep == Sweep((8, 16, 64), (8, None, 2))
    assert sweep.axes == ("steps", "bits")
    assert sweep.points == 9
    assert Sweep.parse([]) == Sweep()
    assert Sweep().axes == ()


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["step=8"], ("--sweep step=8", "'step' cannot be swept", "did you mean 'steps'?")),
        (["leak=0.5"], ("'leak' cannot be swept, steps and bits can", "write steps=8,16,32,64")),
        (["steps"], ("--sweep steps", "'' is no number of steps from 1 to 1,000,000")),
        (["steps=8,,16"], ("'' is no number of steps",)),
        (["steps=0,8"], ("'0' is no number of steps from 1",)),
        (["steps=float"], ("'float' is no number of steps",)),
        (["bits=8,17"], ("'17' is no number of bits from 2 to 16", "write bits=8,6,4,3,2")),
        (["bits=-2"], ("'-2' is no number of bits",)),
        (["bits=8,8"], ("a value comes twice", "name each once")),
        (["bits=8", "bits=6"], ("--sweep bits=6", "swept already", "join both into one list")),
    ],
)
def test_a_bad_sweep_is_refused_with_a_remedy(texts: list[str], says: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        Sweep.parse(texts)
    for part in says:
        assert part in str(caught.value)


def test_every_choice_runs_at_every_number_of_bits() -> None:
    choices = [Choice("reference", "spike"), Choice("lava")]
    spread = Sweep(bits=(8, None)).over_bits(choices)
    assert [(c.target, c.code, c.bits) for c in spread] == [
        *(("reference", "spike", 8), ("reference", "spike", None)),
        *(("lava", "graded", 8), ("lava", "graded", None)),
    ]
    assert Sweep(steps=(8,)).over_bits(choices) == choices


def test_what_is_swept_cannot_be_fixed_as_well() -> None:
    with pytest.raises(ConfigError, match=r"lava:graded:4: names 4 bits while --sweep varies them"):
        Sweep(bits=(8,)).over_bits([Choice("lava", "graded", 4)])
    with pytest.raises(ConfigError, match=r"--steps 32: steps are swept as well; drop --steps"):
        Sweep(steps=(8, 16)).compiled_steps(32)
    assert Sweep(steps=(8, 16)).compiled_steps(None) == 16
    assert Sweep(bits=(8,)).compiled_steps(32) == 32


@given(POINTS)
def test_nothing_beats_the_front_and_the_front_beats_all_the_rest(
    points: list[tuple[float | None, float | None]],
) -> None:
    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] >= b[0] and a[1] <= b[1]

    on_front = front([gain for gain, _ in points], [cost for _, cost in points])
    known = [None if None in p else (float(p[0] or 0), float(p[1] or 0)) for p in points]
    best = [p for p, chosen in zip(known, on_front, strict=True) if chosen]
    assert None not in best
    for point, chosen in zip(known, on_front, strict=True):
        if point is not None:
            assert chosen is not any(beats(other, point) for other in best if other is not None)
    assert bool(best) is any(p is not None for p in known)
