"""Reading YAML strictly."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelexport_passes.config.document import parse_document
from modelexport_passes.config.problems import ConfigFileError, Place


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.", 1.0),
        ("-.5", -0.5),
        ("on", "on"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("1_000", "1_000"),
        ("2026-11-22", "2026-11-22"),
        ("~", None),
        ("'null'", "null"),
        ('"1"', "1"),
        ("!!str 1", "1"),
        ("True", True),
        ("-.inf", -math.inf),
        ("=", "="),
    ],
)
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text, value):
    """What YAML 1.1 reads as something surprising is read as it looks."""
    read = parse_document(f"key: {text}", "f").value["key"]
    assert (read, type(read)) == (value, type(value))


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="\ufeff"), max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(_JSON)
def test_json_is_read_as_json(value):
    """Every JSON value is YAML 1.2 and means the same."""
    assert parse_document(json.dumps(value, ensure_ascii=False), "f").value == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1: a: key 'a' is already given in line 1; remove one"),
        ("a:\n  - {b: 1, b: 2}\n", "f:2:12: a[0].b: key 'b' is already given in line 2; remove one"),
        ("a: !!python/name:os.system x\n", "f:1:4: a: tag 'tag:yaml.org,2002:python/name:os.system'; tags are not"),
        ("? [a, b]\n: 1\n", "f:1:3: key 'a collection'; expected text or a whole number"),
        ("true: 1\n", "f:1:1: key 'true'; expected text or a whole number"),
        ("a: &x [*x]\n", "an alias that repeats itself"),
        ("a: [1\n", "f:2:1: not YAML: while parsing a flow sequence"),
        ("a: 1\n---\nb: 2\n", "f:2:1: not YAML: expected a single document"),
        ("a: \x07\n", "f: not YAML: unacceptable character"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_what_a_configuration_has_no_use_for_is_an_error(text, message):
    """Equal keys, tags, odd keys, self-reference, broken YAML: one line with the place."""
    with pytest.raises(ConfigFileError) as caught:
        parse_document(text, "f")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_cannot_multiply_without_end():
    """Nine levels of nine aliases stop at the limit, not at the end of memory."""
    levels = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(ConfigFileError, match="repeats itself or too much"):
        parse_document("\n".join(levels), "f")


def test_every_value_has_its_place():
    """The place of a value and of its key are known, by line and column from 1."""
    document = parse_document("steps:\n  - pass: a\n    with:\n      key: value\n", "f")
    path = ("steps", 0, "with", "key")
    assert document.place_of(path) == Place("f", 4, 12)
    assert document.place_of(path, key=True) == Place("f", 4, 7)
    assert document.place_of((*path, "deeper")) == Place("f", 4, 12)
