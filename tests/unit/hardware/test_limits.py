"""Claims about hardware limits and energy models."""

from __future__ import annotations

from pathlib import Path

import pytest

import targets
from compilers.hardware.limits import HardwareLimits, load_hardware
from ep_neuro.errors import ConfigError

LOIHI = Path(targets.__file__).parent / "hardware" / "loihi.yaml"


@pytest.fixture(scope="module")
def loihi() -> HardwareLimits:
    return load_hardware(LOIHI)


def test_each_number_of_the_hardware_files_has_a_source() -> None:
    for path in LOIHI.parent.glob("*.yaml"):
        hardware = load_hardware(path)
        quantities = [*hardware.limits.values()]
        quantities += vars(hardware.energy).values() if hardware.energy else []
        assert quantities
        assert all(q.source and q.unit for q in quantities)


def test_a_violation_gives_object_value_limit_and_remedy(loihi: HardwareLimits) -> None:
    violation = loihi.violation("cores", "graph 'g'", 1300, "narrow the layers")
    assert str(violation) == "graph 'g': 1,300 cores exceed the limit of 128; narrow the layers"
    assert loihi.violation("cores", "graph 'g'", 128, "narrow the layers") is None
    assert HardwareLimits("cpu").violation("cores", "graph 'g'", 1e9, "") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("limits: {}", "'name' is missing"),
        ("name: x\nlimit: {}", "unknown key 'limit'"),
        ("name: x\nlimits: {cores: 3}", "limits.cores: is not {value, unit, source}"),
        ("name: x\nlimits: {cores: {value: -1, unit: c, source: s}}", "no finite number"),
        ("name: x\nlimits: {cores: {value: 1, unit: c, source: ''}}", "has no source"),
        ("name: x\nenergy: {event: {value: 1, unit: J, source: s}}", "missing constant"),
        ("name: x\nenergy: {evnt: {value: 1, unit: J, source: s}}", "unknown constant 'evnt'"),
    ],
)
def test_a_bad_hardware_file_is_one_line(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "h.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_hardware(tmp_path / "h.yaml")
    assert complaint in str(caught.value)
