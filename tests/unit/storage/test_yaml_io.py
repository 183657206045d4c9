"""Claims about YAML in and out, and about pydantic's errors in one line."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ep_neuro.errors import ConfigError
from ep_neuro.storage.yaml_io import dump_yaml, first_problem, load_yaml, parse_value, parse_yaml

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc_", min_size=1), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abcdef_", min_size=1, max_size=5), PLAIN))
@example({"a": {"b": ":0"}})
def test_plain_data_is_the_same_after_yaml(data: dict[str, Any]) -> None:
    assert parse_yaml(dump_yaml(data) or "{}", "text") == data


def test_keys_keep_their_order() -> None:
    assert list(parse_yaml(dump_yaml({"b": 1, "a": 2}), "text")) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a: 1\na: 2\n", ["f line 2", 'duplicate key "a"']),
        ("a: [1\n", ["f line", "not YAML"]),
        ("- 1\n", ["f: holds a list, not a mapping", "`key: value`"]),
        ("", ["f: is empty", "`key: value`"]),
        ("a: 2001-99-99\n", ["not YAML: month must be in 1..12"]),
        ("a: !!int x\n", ["not YAML", "'x'"]),
        ("a: \x00\n", ["not YAML: special characters"]),
        ("a: !danger x\n", ["not YAML", "'!danger'"]),
        ("--- {a: 1}\n--- {b: 1}\n", ["f line 2", "another document"]),
        ("a: " + "[" * 300, ["not YAML"]),
    ],
)
def test_what_is_no_mapping_is_refused_with_its_line(text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f")
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@given(st.text(max_size=60))
def test_no_text_whatever_raises_anything_but_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_yaml(text, "f"), dict)


@given(st.text(max_size=60))
def test_any_text_is_some_value(text: str) -> None:
    parse_value(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.01", 0.01), ("1e-3", 0.001), ("true", True), ("null", None), ("[1, 2]", [1, 2]),
     ("{a: 1}", {"a": 1}), ("zoo:x", "zoo:x"), ("[1,", "[1,"), ("2001-99-99", "2001-99-99"),
     ("on", "on"), ("no", "no"), ("1_000", "1_000"), ("010", 10), ("0o17", 15), ("0xff", 255),
     ("12:30", "12:30"), ("-.inf", float("-inf")), ("~", None), (".5", 0.5), ("-3", -3)],
)  # fmt: skip
def test_a_value_on_the_command_line_is_yaml_1_2_or_text(text: str, value: Any) -> None:
    assert parse_value(text) == value


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")
    cases = [
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (binary, "not UTF-8"),
    ]
    for path, reason in cases:
        with pytest.raises(ConfigError, match=reason) as caught:
            load_yaml(path)
        assert str(path) in str(caught.value)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Fast(_Record):
    kind: Literal["fast"] = "fast"
    speed: int = 1


class Slow(_Record):
    kind: Literal["slow"] = "slow"
    patience: int = 1


class Whole(_Record):
    name: str | dict[str, int] = ""
    numbers: tuple[int, ...] = ()
    mode: Fast | Slow = Field(default=Fast(), discriminator="kind")


@pytest.mark.parametrize(
    ("data", "problem", "remedy"),
    [
        ({"nam": 1}, "unknown key 'nam'", "did you mean 'name'?"),
        ({"zzz": 1}, "unknown key 'zzz'", "known keys: name, numbers, mode"),
        ({"mode": {"kind": "slow", "speed": 2}}, "unknown key 'mode.speed'", "kind, patience"),
        ({"mode": {"kind": "slow", "patince": 2}}, "'mode.patince'", "did you mean 'patience'?"),
        ({"mode": {"kind": "slow", "patience": "x"}}, "mode.patience = x:", "correct the value"),
        ({"name": 5}, "name = 5:", "correct the value"),
        ({"numbers": [1, "x"]}, "numbers.1 = x:", "correct the value"),
        ({"numbers": "y" * 200}, "numbers = " + "y" * 57 + "...:", "correct the value"),
    ],
)
def test_a_complaint_names_the_keys_as_the_user_wrote_them(
    data: dict[str, Any], problem: str, remedy: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(data)
    found = first_problem(caught.value, Whole)
    assert problem in found[0]
    assert remedy in found[1]
