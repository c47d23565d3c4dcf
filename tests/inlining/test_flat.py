"""Calls written out in one go are what they are written out one by one: the same nodes, names, scopes, tags, order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest

import modelexport_passes as mx
from modelexport_passes import fast_nodes
from modelexport_passes.inlining import flat
from modelexport_passes.inlining.bodies import Bodies
from modelexport_passes.inlining.flat_copy import FlatCopies
from modelexport_passes.testing import model_of
from tests.scoped_models import check, scoped

HEADER = '<ir_version: 10, opset_import: ["": 20, "f": 1]>'


def blocks(count: int) -> ir.Model:
    """Blocks of two like modules each, and constants that all of them have a copy of; outlined, with tags."""
    lines, scopes, before = ["c = Constant<value = float {2}>()"], {"c": "/Net"}, "x"
    for at in range(count):
        lines += [f"a{at} = Mul({before}, w{at})", f"b{at} = Mul(a{at}, c)", f"r{at} = Neg(b{at})"]
        lines += [f"d{at} = Mul(r{at}, v{at})", f"e{at} = Mul(d{at}, c)"]
        block = f"/Net/Block.blocks.{at}"
        scopes |= dict.fromkeys((f"a{at}", f"b{at}"), f"{block}/Scale.first") | {f"r{at}": block}
        scopes |= dict.fromkeys((f"d{at}", f"e{at}"), f"{block}/Scale.second")
        before = f"e{at}"
    weights = ", ".join(f"float w{at}, float v{at}" for at in range(count))
    body = "\n".join([*lines, f"y = Identity({before})"])
    return scoped(f"{HEADER} g (float[2] x, {weights}) => (float[2] y) {{ {body} }}", {**scopes, "y": "/Net"})


def outlined(model: ir.Model, **tags: str) -> ir.Model:
    mx.InjectTags()(model)
    for key, template in tags.items():
        mx.InjectTags(key=key, template=template)(model)
    mx.Outline()(model)
    return model


def called_again() -> ir.Model:
    """One module of which the second call of each block is another: the ledger tells them."""
    text = """g (float[2] x) => (float[2] y) {
        a = Neg(x) b = Neg(a) c = Relu(b)  d = Neg(c) e = Neg(d) f = Relu(e)  h = Neg(f) i = Neg(h) y = Relu(i) }"""
    scopes: dict[str, str] = {}
    for at, names in enumerate(("abc", "def", "hiy")):
        first, second, own = names
        scopes[first] = f"/Net/Block.blocks.{at}/Neg.^neg" + (f"@{2 * at}" if at else "")
        scopes[second] = f"/Net/Block.blocks.{at}/Neg.^neg@{2 * at + 1}"
        scopes[own] = f"/Net/Block.blocks.{at}"
    return outlined(scoped(f"{HEADER} {text}", scopes))


def foreign(*, passthrough: bool = False) -> ir.Model:
    """Functions of others: no scopes in them; what the calls say holds for what is in them."""
    second, made = ("x", "") if passthrough else ("u", "u = Neg(t)")
    text = f"""{HEADER}
    g (float[2] x) => (float[2] y) {{
        a, p = f.Twice(x) b, q = f.Twice(a) c, r = f.Twice(b) d, s = f.Twice(p) e = Add(q, r) h = Add(e, s)
        y = Add(h, d) }}
    <domain: "f", opset_import: ["": 20, "f": 1]>
    Twice (x) => (z, {second}) {{ t = f.Once(x) z = f.Once(t) {made} }}
    <domain: "f", opset_import: ["": 20]> Once (x) => (y) {{ t = Neg(x) y = Abs(t) }}
    """
    model = model_of(text)
    for at, node in enumerate([*model.graph, *(node for function in model.functions.values() for node in function)]):
        node.name, node.metadata_props["said"] = f"node{at}", str(at)
    return model


def names_taken() -> ir.Model:
    """Something is named as a copy would be."""
    model = foreign()
    node = next(node for node in model.graph if node.op_type == "Add")
    node.outputs[0].name = f"{list(model.graph)[2].name}/node8/t"
    return model


MODELS: dict[str, Callable[[], ir.Model]] = {
    "modules": lambda: outlined(blocks(4)),
    "tags of other forms": lambda: outlined(blocks(4), htp="{htp}", each="{path}: {node} {op}"),
    "no tags": lambda: (model := blocks(4), mx.Outline()(model))[0],
    "calls that differ": called_again,
    "foreign functions": foreign,
    "a function that returns what it takes": lambda: foreign(passthrough=True),
    "names that are taken": names_taken,
}


def text_of(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_copies_of_flat_bodies_are_those_made_call_by_call(
    make: Callable[[], ir.Model], known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte by byte, also where onnx_ir's fields are not known; and the calls are counted alike."""
    monkeypatch.setattr(fast_nodes, "_FIELDS_ARE_KNOWN", known)
    model = make()
    figures = mx.Inline()(model).figures  # type: ignore[attr-defined]
    check(model)
    with monkeypatch.context() as one_by_one:
        one_by_one.setattr(Bodies, "copies", lambda *_: None)
        other = make()
        assert figures == mx.Inline()(other).figures  # type: ignore[attr-defined]
    assert text_of(model) == text_of(other)


@pytest.mark.parametrize(
    ("model", "made"),
    [
        ("modules", [True, True, True, True]),  # the second Scale in the first block, then three blocks
        ("calls that differ", [True, False, True, True, False, True, True]),  # no block, but what is in it
        ("foreign functions", [True, True, True, True]),
        ("names that are taken", [True, True, False, True, False, True]),  # the third call, and a call in it
    ],
)
def test_calls_of_which_nothing_particular_is_known_are_copied_in_one_go(
    model: str, made: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second call of each function on: those inside of it are not looked at one by one any more."""
    found: list[bool] = []
    copy = FlatCopies.copy

    def copied(self: FlatCopies, *arguments: Any) -> Any:
        instance = copy(self, *arguments)
        found.append(instance is not None)
        return instance

    monkeypatch.setattr(FlatCopies, "copy", copied)
    mx.Inline()(MODELS[model]())
    assert found == made


def test_a_body_that_becomes_large_is_not_made_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its inner calls are, and what comes out is the same."""
    whole, parts = outlined(blocks(4)), outlined(blocks(4))
    mx.Inline()(whole)
    monkeypatch.setattr(flat, "_MOST", 2)
    found: list[ir.Node] = []
    copy = FlatCopies.copy
    monkeypatch.setattr(FlatCopies, "copy", lambda self, call, site: found.append(call.node) or copy(self, call, site))
    mx.Inline()(parts)
    assert {node.op_type for node in found} == {"Scale"}
    assert text_of(whole) == text_of(parts)


def test_copies_share_nothing_that_can_be_changed_in_place() -> None:
    """Metadata, attributes and types belong to each node and each value; the values know who uses them."""
    model = outlined(blocks(4))
    mx.Inline()(model)
    nodes = list(model.graph)
    for shared in (
        [id(node.metadata_props) for node in nodes],
        [id(node.attributes) for node in nodes],
        [id(value.type) for node in nodes for value in node.outputs if value.type is not None],
    ):
        assert len(set(shared)) == len(shared)
    for node in nodes:
        for at, value in enumerate(node.inputs):
            assert value is not None
            assert (node, at) in value.uses()
        assert [(value.producer(), value.index()) for value in node.outputs] == [
            (node, at) for at in range(len(node.outputs))
        ]
        assert node.attributes._owner is node  # type: ignore[attr-defined]
