"""State in the signature of functions: the key-value cache of each layer under one name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import modelexport_passes as mx
from modelexport_passes.scopes.ledger import state_pairs
from tests.scoped_models import check, fingerprint, run, scoped, tags_in

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


def layer(n: int, x: str, y: str) -> str:
    """A layer with a cache of its own, whose next value is made before what the layer returns."""
    return f"""
        q{n} = MatMul({x}, layers.{n}.w)
        present.{n}.value = Add(past_key_values.{n}.value, q{n})
        present.{n}.key = Add(past_key_values.{n}.key, q{n})
        a{n} = Mul(present.{n}.key, mask)
        {y} = Mul(a{n}, present.{n}.value)
    """


TEXT = f"""
g (float[2,3] x, float[2,3] past_key_values.0.key, float[2,3] past_key_values.0.value,
   float[2,3] past_key_values.1.key, float[2,3] past_key_values.1.value, float[2,3] mask)
  => (float[2,3] y, float[2,3] present.0.key, float[2,3] present.0.value,
      float[2,3] present.1.key, float[2,3] present.1.value)
<float[3,3] layers.0.w = {{1,2,3,4,5,6,7,8,9}}, float[3,3] layers.1.w = {{9,8,7,6,5,4,3,2,1}}>
{{ {layer(0, "x", "h")} {layer(1, "h", "y")} }}
"""


def scopes(*, attention: str = "") -> dict[str, str]:
    """Scopes of `TEXT`, its caches in a module inside of the layers on request."""
    found: dict[str, str] = {}
    for n, y in ((0, "h"), (1, "y")):
        inner = f"/Net/Layer.layers.{n}{attention}"
        found |= {f"q{n}": inner, f"present.{n}.value": inner, f"present.{n}.key": inner, f"a{n}": inner}
        found[y] = f"/Net/Layer.layers.{n}"
    return found


def outlined(text: str, where: dict[str, str], **options: Any) -> ir.Model:
    """The outlined model, after it was shown to be valid, bit-equal and reversible with all names at its edge."""
    model = scoped(text, where)
    inputs = {str(value.name): X * (at + 1) for at, value in enumerate(model.graph.inputs)}
    before, kept, edge = run(model, inputs), fingerprint(model), names(*model.graph.inputs, *model.graph.outputs)
    values = sorted(names(*(value for node in model.graph for value in node.outputs)))
    mx.Outline(**options)(model)
    check(model)
    assert run(model, inputs) == before
    assert names(*model.graph.inputs, *model.graph.outputs) == edge
    back = model.clone()
    mx.Inline()(back)
    assert (run(back, inputs), fingerprint(back)) == (before, kept)
    assert names(*back.graph.inputs, *back.graph.outputs) == edge
    first = [name for name in names(*(value for node in back.graph for value in node.outputs)) if "/" not in name]
    assert set(first) <= set(values)
    return model


def names(*values: ir.Value | None) -> list[str]:
    return [str(value.name) for value in values if value is not None]


def signature(model: ir.Model, name: str) -> tuple[list[str], list[str]]:
    """Names of inputs and outputs of a function."""
    function = model.functions["pkg", name, ""]
    return names(*function.inputs), names(*function.outputs)


def test_the_cache_of_every_layer_has_one_name_behind_activations_and_before_weights() -> None:
    """Whatever the layer and the order of use; and the next value is named after its pair, behind what is returned."""
    model = outlined(TEXT, scopes())
    assert signature(model, "Layer") == (
        ["input_0", "input_1", "past_key_values.key", "past_key_values.value", "w"],
        ["h", "present.key", "present.value"],
    )
    assert [names(*node.inputs)[2:4] for node in model.graph] == [
        ["past_key_values.0.key", "past_key_values.0.value"],
        ["past_key_values.1.key", "past_key_values.1.value"],
    ]
    assert [names(*node.outputs)[1:] for node in model.graph] == [
        ["present.0.key", "present.0.value"],
        ["present.1.key", "present.1.value"],
    ]


def test_a_function_says_which_output_is_the_next_value_of_which_input() -> None:
    """In its metadata, for who compiles the block once."""
    function = outlined(TEXT, scopes()).functions["pkg", "Layer", ""]
    assert state_pairs(function) == {"past_key_values.key": "present.key", "past_key_values.value": "present.value"}


def test_state_goes_through_all_functions_under_the_same_names() -> None:
    """Also where the module that has the cache lies deep inside."""
    model = outlined(TEXT, scopes(attention="/Attention.attn"))
    state = (["past_key_values.key", "past_key_values.value"], ["present.key", "present.value"])
    for name in ("Layer", "Attention"):
        inputs, outputs = signature(model, name)
        assert (inputs[2:4], outputs[1:]) == state
    partly = model.clone()
    mx.Inline(modules=["*.Attention"])(partly)
    check(partly)
    assert signature(partly, "Layer") == signature(model, "Layer")


def test_names_without_a_rule_are_no_state() -> None:
    """With no rules at all, or with rules for other names, a cache is what any input is."""
    for rules in ({}, {"cache.{i}": "next.{i}"}):
        model = outlined(TEXT, scopes(), state=rules)
        inputs, outputs = signature(model, "Layer")
        assert inputs == ["input_0", "input_1", "input_2", "input_3", "w"]
        assert outputs == ["present.0.value", "present.0.key", "h"]
        assert not state_pairs(model.functions["pkg", "Layer", ""])


@pytest.mark.parametrize(
    ("given", "made", "rules", "local"),
    [
        ("past_key_values.{i}.decoder.key", "present.{i}.decoder.key", "auto", "past_key_values.decoder.key"),
        ("past_key_self_{i}", "present_key_self_{i}", "auto", "past_key_self"),
        ("past_{i}", "present_{i}", "auto", "past"),
        ("{i}_state", "{i}_next", {"{i}_{what}": "{i}_{what}"}, "state"),
        ("ssm{i}", "out.{i}", {"ssm{i}": "out.{i}"}, "ssm"),
    ],
)
def test_rules_for_names(given: str, made: str, rules: Any, local: str) -> None:
    """Those of Hugging Face's and onnxruntime's exports are known; others are given with placeholders."""
    text = """
    g (float[2,3] x, float[2,3] PAST0, float[2,3] PAST1) => (float[2,3] y, float[2,3] NEXT0, float[2,3] NEXT1)
    <float[3] w0 = {1, 2, 3}, float[3] w1 = {3, 2, 1}>
    {
        p0 = Mul(x, w0)  NEXT0 = Add(PAST0, p0)  a = Neg(NEXT0)
        p1 = Mul(a, w1)  NEXT1 = Add(PAST1, p1)  y = Neg(NEXT1)
    }
    """
    for n in (0, 1):
        text = text.replace(f"PAST{n}", f'"{given.format(i=n)}"').replace(f"NEXT{n}", f'"{made.format(i=n)}"')
    where = {"p0": "/Net/L.l.0", "a": "/Net/L.l.0", "p1": "/Net/L.l.1", "y": "/Net/L.l.1"}
    where |= {made.format(i=n): f"/Net/L.l.{n}" for n in (0, 1)}
    assert signature(outlined(text, where, state=rules), "L")[0] == ["input_0", local, "weight"]


def test_state_that_is_read_only_or_made_only_is_named_too() -> None:
    """What a decoder reads of an encoder has no next value; the cache of a first run no past one."""
    text = """
    g (float[2,3] x, float[2,3] past_key_values.0.encoder.key, float[2,3] past_key_values.1.encoder.key)
    => (float[2,3] y, float[2,3] present.0.decoder.key, float[2,3] present.1.decoder.key)
    <float[3] l.0.w = {1, 2, 3}, float[3] l.1.w = {3, 2, 1}>
    {
        a = Mul(x, l.0.w)  present.0.decoder.key = Identity(a)  b = Mul(a, past_key_values.0.encoder.key)
        c = Mul(b, l.1.w)  present.1.decoder.key = Identity(c)  y = Mul(c, past_key_values.1.encoder.key)
    }
    """
    where = {"a": "/Net/L.l.0", "b": "/Net/L.l.0", "c": "/Net/L.l.1", "y": "/Net/L.l.1"}
    model = outlined(text, where)
    assert signature(model, "L") == (["input_0", "past_key_values.encoder.key", "w"], ["b", "present.decoder.key"])
    assert state_pairs(model.functions["pkg", "L", ""]) == {"past_key_values.encoder.key": None}


def test_a_value_that_is_state_in_one_call_alone_is_an_activation() -> None:
    """A name has to be true at every call."""
    text = """
    g (float[2,3] x, float[2,3] past_0) => (float[2,3] y) { a = Add(x, past_0)  y = Add(a, x) }
    """
    assert signature(outlined(text, {"a": "/Net/L.l.0", "y": "/Net/L.l.1"}), "L")[0] == ["input_0", "input_1"]


def test_the_caches_of_two_layers_in_one_function_are_numbered() -> None:
    """A stage of two layers has two, whichever layers of the model they are."""
    text = TEXT.replace(".1.key", ".7.key").replace(".1.value", ".7.value")
    where = {key.replace(".1.", ".7."): tag.replace("/Net", "/Net/Stage.stage") for key, tag in scopes().items()}
    inputs, outputs = signature(outlined(text, where, paths=["stage"]), "Stage")
    assert [name for name in inputs if name.startswith("past")] == [
        "past_key_values.0.key",
        "past_key_values.0.value",
        "past_key_values.1.key",
        "past_key_values.1.value",
    ]
    assert outputs == ["y", "present.0.key", "present.0.value", "present.1.key", "present.1.value"]


def test_hoisted_inputs_come_before_state() -> None:
    """The order of inputs holds after other passes have worked on the function."""
    text = TEXT.replace("a0 = Mul(present.0.key, mask)", "m0 = Neg(mask) a0 = Mul(present.0.key, m0)")
    text = text.replace("a1 = Mul(present.1.key, mask)", "m1 = Neg(mask) a1 = Mul(present.1.key, m1)")
    where = scopes() | {"m0": "/Net/Layer.layers.0", "m1": "/Net/Layer.layers.1"}
    model = outlined(text, where)
    assert mx.HoistInvariants()(model).modified
    check(model)
    assert signature(model, "Layer")[0] == ["input_0", "m0", "past_key_values.key", "past_key_values.value", "w"]


def test_another_body_has_the_names_of_the_state() -> None:
    """What `replace` puts in place keeps the signature, names of outputs included."""
    model = outlined(TEXT, scopes())
    before = signature(model, "Layer")
    body = scoped(
        """g (float[2,3] a, float[2,3] b, float[2,3] c, float[2,3] d, float[3,3] w)
        => (float[2,3] p, float[2,3] q, float[2,3] r) { p = MatMul(a, w)  q = Mul(b, c)  r = Neg(d) }""",
        {},
    )
    mx.Replace(modules=["*.Layer"], function=body)(model)
    check(model)
    assert signature(model, "Layer") == before


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"past": "present"}, r"'past'; expected a name with \{i\} for the number of the layer"),
        ({"past.{i}": "present.{i}.{kind}"}, "'past.{i}' and 'present.{i}.{kind}' have not the same placeholders"),
        ({"{i}": "{i}"}, "nothing but a number"),
        ({"past.{i": "present.{i}"}, "no name with placeholders"),
        ({"past.{i}.{i}": "present.{i}"}, "at most one of each"),
        ({"past.{i:>3}": "present.{i}"}, "expected a name with"),
        ("cache", "expected 'auto' or a mapping of names"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(rules: Any, message: str) -> None:
    """When the pass is made, before any model is seen."""
    with pytest.raises(mx.ConfigError, match=message):
        mx.Outline(state=rules)
    assert tags_in(scoped(TEXT, scopes()).graph)
