"""Claims about any input: a good answer or one line, whatever stands in a file or on the line.

The long profile is `python -m tests.fuzz` (`make fuzz`); what it found stands in `test_seeds.py`.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.case import Case, Outcome
from tests.fuzz.claims import fault_of
from tests.fuzz.classes import CLASSES
from tests.fuzz.supervisor import LOST, Supervisor


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_input_gets_an_answer_or_one_line(
    supervisor: Supervisor, name: str, data: st.DataObject
) -> None:
    assert supervisor.fault(data.draw(CLASSES[name])) is None


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (Outcome(0, '{"a": 1}\n', ""), None),
        (Outcome(2, "", "warning: x\nerror: a: is b; do c\n"), None),
        (Outcome(0, '{"a": 1}\n{"b": 2}\n', ""), "not one line"),
        (Outcome(0, '{"a": null}\n', "", infinite=1), "not finite"),
        (Outcome(2, "", "Traceback\n"), "traceback"),
        (Outcome(2, "", "error: a: is b; do c\nerror: a: is b; do c\n"), "2 errors"),
        (Outcome(2, "", "error: something happened\n"), "without object or remedy"),
        (Outcome(2, '{"a": 1}\n', "error: a: is b; do c\n"), "beside an answer"),
        (Outcome(3, "", ""), "exit code 3"),
        (Outcome(0, '{"a": 1}\n', "", peak=3 << 30), "took 3.0 GiB"),
        (Outcome(0, '{"a": 1}\n', "", escaped=("pwned",)), "wrote pwned"),
        (Outcome(1, "", "error: x\n", traceback="a\nKeyError: 1\n"), "unforeseen: KeyError"),
    ],
)
def test_the_claim_tells_good_from_bad(found: Outcome, fault: str | None) -> None:
    said = fault_of(Case(("evaluate", "m", "--json")), found)
    assert said is None if fault is None else said is not None and fault in said


def test_a_number_that_is_not_finite_is_seen_in_text() -> None:
    case = Case(("evaluate", "m"))
    assert fault_of(case, Outcome(0, "residual: nan\n", "")) == "'nan' in the answer"
    assert fault_of(case, Outcome(0, "model: a/nan/inf.yaml\n", "")) is None


def test_children_that_die_whatever_they_try_are_no_fault_of_the_inputs() -> None:
    dying = "import sys; from multiprocessing.connection import Connection as C; "
    with Supervisor() as supervisor:
        supervisor.child = ("-c", dying + "C(int(sys.argv[1])).send('ready')")
        case = Case(("evaluate", "m"))
        for _ in range(LOST):
            assert "died by exit code 0" in str(supervisor.fault(case))
        with pytest.raises(RuntimeError, match="died one after the other"):
            supervisor.fault(case)
        assert supervisor.children == LOST
