"""Nodes made fast are the nodes that onnx_ir's constructors make, field by field."""

import subprocess
import sys
from typing import Any

import onnx_ir as ir
import pytest

from modelexport_passes import fast_nodes
from modelexport_passes.fast_nodes import (
    copy_node,
    copy_value,
    drop_users,
    initializers_of,
    inputs_of,
    insert_nodes,
    make_node,
    make_value,
    nodes_of,
    remove_node,
    remove_nodes,
    set_inputs,
    set_type,
)


def fields(node: ir.Node) -> dict[str, Any]:
    return {name: getattr(node, name) for name in ir.Node.__slots__}


def arguments() -> tuple[tuple[ir.Value | None, ...], dict[str, ir.Attr], tuple[ir.Value, ...]]:
    value = ir.Value(name="x")
    return (value, None, value), {"axis": ir.AttrInt64("axis", 1)}, (ir.Value(name="y"), ir.Value(name=""))


@pytest.mark.parametrize("view", [True, False])
def test_inputs_and_initializers_are_those_of_the_graph(view: bool) -> None:
    """In its order, in a list of one's own; of a view as well, which has others containers for them."""
    first, second, weight = ir.Value(name="a"), ir.Value(name="b"), ir.Value(name="w")
    kind = ir.GraphView if view else ir.Graph
    graph = kind([first, second], [], nodes=[], initializers=[weight])
    assert inputs_of(graph) == [first, second]  # type: ignore[arg-type]
    assert initializers_of(graph) == [weight]  # type: ignore[arg-type]
    inputs_of(graph).clear()  # type: ignore[arg-type]
    assert len(graph.inputs) == 2


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", ["graph", "view", "function"])
def test_nodes_are_those_of_the_graph(kind: str, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its order, also where some were taken out or put in between; in a list of one's own."""
    monkeypatch.setattr(fast_nodes, "_FIELDS_ARE_KNOWN", known)
    nodes = [ir.node("Op", [], name=name) for name in "abcd"]
    if kind == "view":
        graph = ir.GraphView([], [], nodes=nodes)
    else:
        graph = ir.Graph([], [], nodes=nodes[:3])
        graph.insert_before(nodes[1], nodes[3])
        graph.remove(nodes[0])
        nodes = [nodes[3], nodes[1], nodes[2]]
    held = ir.Function("d", "F", graph=graph, attributes=[]) if kind == "function" else graph  # type: ignore[arg-type]
    assert nodes_of(held) == nodes  # type: ignore[arg-type]
    nodes_of(held).clear()  # type: ignore[arg-type]
    assert len(list(graph)) == len(nodes)


def test_the_fields_are_known() -> None:
    """The version of onnx_ir that this project is tested with is served fast."""
    assert fast_nodes._FIELDS_ARE_KNOWN


@pytest.mark.parametrize("known", [True, False])
def test_a_node_has_the_fields_that_the_constructor_sets(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All fields of the node, of what it reads and of what it makes; also where onnx_ir's own constructor is used."""
    monkeypatch.setattr(fast_nodes, "_FIELDS_ARE_KNOWN", known)
    inputs, attributes, outputs = arguments()
    ours = make_node(
        "d",
        "Op",
        inputs,
        attributes,
        outputs,
        name="n",
        overload="o",
        version=3,
        doc_string="w",
        metadata_props={"a": "b"},
    )
    others, their_attributes, their_outputs = arguments()
    theirs = ir.Node(
        "d", "Op", others, their_attributes, outputs=their_outputs, name="n", overload="o", version=3, doc_string="w",
        metadata_props={"a": "b"},
    )  # fmt: skip
    ours_set, theirs_set = fields(ours), fields(theirs)
    for one, node in ((ours_set, ours), (theirs_set, theirs)):
        held = one.pop("_attributes")
        assert isinstance(held, type(theirs.attributes))
        assert held._owner is node
        assert [*held] == ["axis"]
        values = (*one.pop("_inputs"), *one.pop("_outputs"))  # type: ignore[misc]
        assert [None if v is None else v.name for v in values] == ["x", None, "x", "y", ""]
        assert [(use.node, use.idx) for use in values[0].uses()] == [(node, 0), (node, 2)]
        assert [(v.producer(), v.index()) for v in values[3:]] == [(node, 0), (node, 1)]
    assert ours_set == theirs_set
    ours.attributes.add(ir.AttrInt64("more", 2))
    ours.replace_input_with(0, None)
    assert [(use.node, use.idx) for use in values[0].uses()] == [(theirs, 0), (theirs, 2)]
    assert [use.idx for use in inputs[0].uses()] == [2]  # type: ignore[union-attr]


@pytest.mark.parametrize("known", [True, False])
def test_a_value_has_the_fields_that_the_constructor_sets(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a value of which but the name is known, and of one that was given a type, which is its own, and a shape."""
    monkeypatch.setattr(fast_nodes, "_FIELDS_ARE_KNOWN", known)
    ours, theirs = make_value("v"), ir.Value(name="v")
    assert [getattr(ours, name) for name in ir.Value.__slots__] == [
        getattr(theirs, name) for name in ir.Value.__slots__
    ]
    other, shape = make_value("w"), ir.Shape([1, "n"])
    for value in (ours, other):
        set_type(value, ir.DataType.INT64, shape)
    assert ours.type == ir.TensorType(ir.DataType.INT64)
    assert ours.type is not other.type
    assert ours.type.denotation is None  # type: ignore[union-attr]
    assert ours.shape is shape


def test_a_copied_node_has_the_operator_and_nothing_else() -> None:
    """Names, values, attributes and metadata are those that it is given."""
    inputs, attributes, outputs = arguments()
    node = ir.Node("d", "Op", inputs, attributes.values(), overload="o", version=3, name="n", doc_string="w")
    node.metadata_props["a"] = "b"
    copy = copy_node(node, (None,), {}, outputs, name="m", metadata_props={"c": "d"})
    assert (copy.op_identifier(), copy.version, copy.doc_string) == (("d", "Op", "o"), 3, "w")
    assert (copy.name, copy.inputs, copy.outputs, copy.metadata_props) == ("m", (None,), outputs, {"c": "d"})
    assert not copy.attributes
    assert copy.graph is None


@pytest.mark.parametrize("known", [True, False])
def test_a_node_taken_out_reads_nothing(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it read knows that; one whose result is used stays."""
    monkeypatch.setattr(fast_nodes, "_FIELDS_ARE_KNOWN", known)
    graph, nodes = chain(["a", "b"])
    insert_nodes(graph, nodes)
    with pytest.raises(ValueError, match="still being used"):
        remove_node(graph, nodes[0])
    remove_node(graph, nodes[1])
    assert [node.name for node in graph] == ["first", "a"]
    assert (nodes[1].graph, nodes[1].inputs) == (None, (None,))
    assert not nodes[0].outputs[0].uses()
    graph.outputs.append(nodes[0].outputs[0])
    with pytest.raises(ValueError, match="output"):
        remove_node(graph, nodes[0])


def chain(names: list[str | None]) -> tuple[ir.Graph, list[ir.Node]]:
    value = ir.Value(name="x")
    nodes: list[ir.Node] = []
    for name in names:
        nodes.append(make_node("", "Neg", (value,), {}, (ir.Value(name=name),), name=name))
        value = nodes[-1].outputs[0]
    return ir.Graph([], [], nodes=[ir.Node("", "Zero", [], name="first")]), nodes


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("names", [["a", "b", "c"], ["a", None, "c"], []])
def test_inserted_nodes_stand_in_the_graph_as_onnx_ir_puts_them(names: list[str | None], at_end: bool) -> None:
    """The chain of the graph is whole in both directions and can be changed; names are given, and known as taken."""
    graph, nodes = chain(names)
    insert_nodes(graph, nodes, before=None if at_end else graph[0])
    expected, others = chain(names)
    if at_end:
        expected.extend(others)
    else:
        expected.insert_before(expected[0], others)
    for ours, theirs in ((list(graph), list(expected)), (list(reversed(graph)), list(reversed(expected)))):
        assert [node.name for node in ours] == [node.name for node in theirs]
        assert [node.outputs[0].name for node in ours] == [node.outputs[0].name for node in theirs]
    assert all(node.graph is graph for node in nodes)
    assert len(graph) == len(expected)
    assert graph._name_authority._node_names == expected._name_authority._node_names
    assert graph._name_authority._value_names == expected._name_authority._value_names
    for node in nodes[1:2]:
        graph.remove(node)
        graph.insert_before(graph[0], node)
        assert graph[0] is node
    graph.append(ir.Node("", "Zero", [], name="last"))
    assert graph[-1].name == "last"


@pytest.mark.parametrize("known", [True, False])
def test_a_copied_value_is_independent(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changing the copy's type, shape or metadata changes no other value; a frozen shape is shared."""
    monkeypatch.setattr(fast_nodes, "_FIELDS_ARE_KNOWN", known)
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT, denotation="d"), shape=ir.Shape([1, "N"]))
    value.metadata_props["k"] = "v"
    copy = copy_value(value, "y")
    fresh = ir.Value(name="y", type=value.type, shape=value.shape, metadata_props={"k": "v"})
    assert all(getattr(copy, name) == getattr(fresh, name) for name in ir.Value.__slots__)
    assert isinstance(copy.type, ir.TensorType)
    assert copy.type.denotation == "d"
    assert (copy.name, copy.type, copy.shape, copy.metadata_props) == ("y", value.type, value.shape, {"k": "v"})
    copy.dtype = ir.DataType.INT64
    copy.metadata_props["k"] = "w"
    assert copy.shape is not None
    copy.shape[0] = 2
    assert (value.dtype, value.shape, value.metadata_props) == (ir.DataType.FLOAT, [1, "N"], {"k": "v"})
    assert value.shape is not None
    value.shape.freeze()
    assert copy_value(value, "z").shape is value.shape


@pytest.mark.parametrize("known", [True, False])
def test_removed_nodes_are_in_no_graph(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep what they read and can be put into a graph again; the graph is empty and can be filled again."""
    monkeypatch.setattr(fast_nodes, "_FIELDS_ARE_KNOWN", known)
    graph, nodes = chain(["a", "b", "c"])
    insert_nodes(graph, nodes)
    remove_nodes(graph)
    assert (list(graph), list(reversed(graph)), len(graph)) == ([], [], 0)
    assert all(node.graph is None for node in nodes)
    assert nodes[1].inputs[0] is nodes[0].outputs[0]
    assert [use.node for use in nodes[0].outputs[0].uses()] == [nodes[1]]
    graph.extend(nodes[:2])
    other = ir.Graph([], [], nodes=nodes[2:])
    assert [node.name for node in [*graph, *other]] == ["a", "b", "c"]


@pytest.mark.parametrize("known", [True, False])
def test_nodes_that_go_are_no_users(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what uses a value, the nodes that go are left out, and the others stay in order."""
    monkeypatch.setattr(fast_nodes, "_FIELDS_ARE_KNOWN", known)
    value, other = ir.Value(name="x"), ir.Value(name="y")
    first = ir.Node("", "Add", [value, value])
    gone = ir.Node("", "Mul", [value, other])
    last = ir.Node("", "Sub", [other, value])
    drop_users([value, other], {gone})
    assert [(use.node, use.idx) for use in value.uses()] == [(first, 0), (first, 1), (last, 1)]
    assert [(use.node, use.idx) for use in other.uses()] == [(last, 0)]


@pytest.mark.parametrize("known", [True, False])
def test_what_is_looked_at_is_what_properties_tell(known: bool) -> None:
    """Whichever fields onnx_ir has: in a process of its own, with those known, and with one more."""
    script = f"""
import onnx_ir as ir
if not {known}:
    ir.Node.__slots__ = (*ir.Node.__slots__, "new")
from modelexport_passes import fast_nodes
assert fast_nodes._FIELDS_ARE_KNOWN is {known}
x, y = ir.Value(name="x"), ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2]))
node = ir.Node("d", "Op", [x, None], [ir.AttrInt64("a", 1)], overload="o", outputs=[y], metadata_props={{"k": "v"}})
parts = ("Op", "d", "o", (x, None), (y,), {{"a": node.attributes["a"]}})
assert fast_nodes.node_parts(node) == parts
assert fast_nodes.metadata_of(node) == {{"k": "v"}}
assert not fast_nodes.metadata_of(ir.Node("d", "Op", []))
assert (fast_nodes.type_of(y), fast_nodes.shape_of(y)) == (y.type, y.shape)
assert (fast_nodes.type_of(x), fast_nodes.shape_of(x)) == (None, None)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("known", [True, False])
def test_new_inputs_are_used_and_old_ones_are_not(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays is used as before, in its place among the users; what is left out may come and go."""
    monkeypatch.setattr(fast_nodes, "_FIELDS_ARE_KNOWN", known)
    x, y = ir.Value(name="x"), ir.Value(name="y")
    node = ir.Node("", "Op", [x, y, None, x])
    other = ir.Node("", "Other", [x])
    set_inputs(node, [x, x, y, None])
    assert node.inputs == (x, x, y, None)
    assert [(use.node, use.idx) for use in x.uses()] == [(node, 0), (other, 0), (node, 1)]
    assert [(use.node, use.idx) for use in y.uses()] == [(node, 2)]
