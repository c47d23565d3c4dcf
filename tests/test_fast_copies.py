"""Nodes copied many at once are those that are copied one by one, field by field."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from modelexport_passes import fast_nodes
from modelexport_passes.fast_copies import copy_nodes, template_of


def described(value: ir.Value) -> dict[str, Any]:
    fields = {name: getattr(value, name) for name in ir.Value.__slots__}
    kind: Any = fields.pop("_type")
    uses = [(use.node.name, use.idx) for use in fields.pop("_uses")]
    producer: Any = fields.pop("_producer")
    fields["_metadata_props"] = fields["_metadata_props"] or None  # one that was looked at has an empty one
    return {
        **fields,
        "type": (type(kind), kind, getattr(kind, "denotation", None)),
        "uses": uses,
        "producer": producer and producer.name,
    }


def copies() -> tuple[list[ir.Node], list[ir.Value | None], ir.Node]:
    """Two copies: one of a node with all that a node can have, which reads nothing twice over; one that reads it."""
    free, fixed = ir.Shape([1, "n"]), ir.Shape([2], frozen=True)
    outputs = [
        ir.Value(name="a", type=ir.TensorType(ir.DataType.FLOAT, denotation="d"), shape=free, doc_string="w"),
        ir.Value(name="b", type=ir.SequenceType(ir.TensorType(ir.DataType.INT64)), metadata_props={"k": "v"}),
        ir.Value(name="c", type=ir.TensorType(ir.DataType.BOOL), shape=fixed),
    ]
    node = ir.Node(
        "d", "Op", [], [ir.AttrInt64("axis", 1)], overload="o", outputs=outputs, version=3, name="n", doc_string="w"
    )
    reader = ir.Node("", "Neg", [], name="m")
    values: list[ir.Value | None] = [None, ir.Value(name="x")]
    templates = [
        template_of(node, dict(node.attributes), 1).reading([1, 0, 1]),
        template_of(reader, {}, 0).reading([3]),
    ]
    nodes = copy_nodes(
        templates, values, node_names=["n1", "m1"], value_names=list("abcd"), metadata=[{}, {"said": "so"}]
    )
    return nodes, values, node


def test_copies_made_fast_are_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """All fields of nodes and of values, and who uses them; what can be changed in place is the copy's own."""
    fast, values, node = copies()
    monkeypatch.setattr(fast_nodes, "_FIELDS_ARE_KNOWN", False)
    slow, others, _ = copies()
    assert [value and described(value) for value in values] == [value and described(value) for value in others]
    for ours, theirs in zip(fast, slow, strict=True):
        for name in set(ir.Node.__slots__) - {"_attributes", "_inputs", "_outputs"}:
            assert getattr(ours, name) == getattr(theirs, name), name
        assert dict(ours.attributes) == dict(theirs.attributes)
        assert ours.attributes._owner is ours  # type: ignore[attr-defined]
        assert [value and value.name for value in ours.inputs] == [value and value.name for value in theirs.inputs]
    first = fast[0]
    assert first.outputs == tuple(values[2:5])
    assert first.attributes.data is not node.attributes.data
    for copied, original in zip(first.outputs, node.outputs, strict=True):
        assert (copied.shape is original.shape) == (original.shape is None or original.shape.frozen)
        assert copied.type is not original.type or isinstance(copied.type, ir.SequenceType)
