"""Nodes made by the hundred thousand: what ``onnx_ir.Node`` and ``Graph.extend`` make, without asking on the way.

The constructor checks and copies its arguments by way of the abstract classes of Python's collections: two thirds of
its time, and a good part of reading a file or of writing calls out. Here the same fields are set directly, for what is
right already. A version of onnx_ir whose fields are not those known here is served by its own
constructors; a test holds that both give the same.
"""

# This and `fast_copies` are the places that set fields which onnx_ir keeps private.
# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001

from __future__ import annotations

from collections import UserDict, UserList
from collections.abc import Callable, Container, Iterable, Sequence
from operator import attrgetter
from typing import Any, cast

import onnx_ir as ir
from onnx_ir import _core, _graph_containers, _linked_list

_FIELDS_ARE_KNOWN = (
    ir.Node.__slots__
    == (
        "_attributes", "_domain", "_graph", "_inputs", "_metadata", "_metadata_props", "_name", "_op_type", "_outputs",
        "_overload", "_version", "device_configurations", "doc_string",
    )
    and ir.Value.__slots__
    == (
        "_const_value", "_graph", "_index", "_is_graph_input", "_is_graph_output", "_is_initializer", "_metadata",
        "_metadata_props", "_name", "_producer", "_shape", "_type", "_uses", "doc_string",
    )
    and (_core._TensorTypeBase.__slots__, vars(ir.TensorType(ir.DataType.FLOAT))) == (("_dtype", "denotation"), {})
    and _core.Usage._fields == ("node", "idx")
    and _linked_list.DoublyLinkedSet.__slots__ == ("_length", "_root", "_value_ids_to_boxes")
    and _linked_list._LinkBox.__slots__ == ("next", "owning_list", "prev", "value")
    and set(vars(_graph_containers.Attributes((), owner=ir.Node("", "", ())))) == {"_owner", "data"}
)  # fmt: skip

_Node, _Value, _TensorType = ir.Node, ir.Value, ir.TensorType
_Attributes, _Usage, _LinkBox = _graph_containers.Attributes, _core.Usage, _linked_list._LinkBox
_new = object.__new__
_new_usage = cast("Callable[[type[_core.Usage], tuple[ir.Node, int]], _core.Usage]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]


NodeParts = tuple[str, str, str, tuple["ir.Value | None", ...], tuple[ir.Value, ...], dict[str, ir.Attr]]
"""Operator, domain, overload, inputs, outputs and attributes by name. Only to be looked at."""

node_parts: Callable[[ir.Node], NodeParts] = attrgetter(
    *(
        ("_op_type", "_domain", "_overload", "_inputs", "_outputs", "_attributes.data")
        if _FIELDS_ARE_KNOWN
        else ("op_type", "domain", "overload", "inputs", "outputs", "attributes.data")
    )
)
metadata_of: Callable[[ir.Node], dict[str, str] | None] = attrgetter(
    "_metadata_props" if _FIELDS_ARE_KNOWN else "metadata_props"
)
"""The metadata of a node; None if it has none."""
type_of: Callable[[ir.Value], ir.TypeProtocol | None] = attrgetter("_type" if _FIELDS_ARE_KNOWN else "type")
shape_of: Callable[[ir.Value], ir.Shape | None] = attrgetter("_shape" if _FIELDS_ARE_KNOWN else "shape")


attributes_of: Callable[[ir.Node], dict[str, ir.Attr]] = attrgetter(
    "_attributes.data" if _FIELDS_ARE_KNOWN else "attributes.data"
)
"""The attributes of a node by name. Only to be looked at."""


def nodes_of(graph: ir.Graph | ir.Function) -> list[ir.Node]:
    """The nodes of a graph, in order. Its own iterator asks of each whether it was taken out meanwhile."""
    nodes = graph.graph._nodes if isinstance(graph, ir.Function) else graph._nodes
    if not _FIELDS_ARE_KNOWN or type(nodes) is not _linked_list.DoublyLinkedSet:  # a view has a tuple
        return list(graph)
    found: list[ir.Node] = []
    root = cast(Any, nodes)._root  # its links are of no declared type
    box = root.next
    while box is not root:
        found.append(box.value)
        box = box.next
    return found


def inputs_of(graph: ir.Graph) -> list[ir.Value]:
    """The inputs of a graph. Python's ``UserList``, which they are, looks up each of them where it is gone through."""
    inputs = cast("UserList[ir.Value] | Sequence[ir.Value]", graph.inputs)
    return list(inputs.data if isinstance(inputs, UserList) else inputs)


def initializers_of(graph: ir.Graph) -> list[ir.Value]:
    """The initializers of a graph, of whose ``UserDict`` the same is true."""
    initializers = cast("UserDict[str, ir.Value] | dict[str, ir.Value]", graph.initializers)
    return list((initializers.data if isinstance(initializers, UserDict) else initializers).values())


def make_node(
    domain: str,
    op_type: str,
    inputs: tuple[ir.Value | None, ...],
    attributes: dict[str, ir.Attr],
    outputs: tuple[ir.Value, ...],
    *,
    name: str | None,
    overload: str = "",
    version: int | None = None,
    doc_string: str | None = None,
    metadata_props: dict[str, str] | None = None,
) -> ir.Node:
    """A node.

    Args:
        domain: by its short name: not ``ai.onnx``.
        op_type: the operator.
        inputs: what it reads.
        attributes: by their names. The node's own from now on.
        outputs: what it makes; nothing makes them yet.
        name: its name.
        overload: of the function that it calls.
        version: of the operator.
        doc_string: anything.
        metadata_props: the node's own from now on.
    """
    if not _FIELDS_ARE_KNOWN:
        return ir.Node(
            domain, op_type, inputs, attributes, overload=overload, outputs=outputs, version=version, name=name,
            doc_string=doc_string, metadata_props=metadata_props,
        )  # fmt: skip
    node = _new(_Node)
    held = _new(_Attributes)
    held._owner = node
    held.data = attributes
    node._attributes = held
    node._domain = domain
    node._op_type = op_type
    node._overload = overload
    node._version = version
    node._name = name
    node._inputs = inputs
    node._outputs = outputs
    node._metadata = None
    node._metadata_props = metadata_props
    node._graph = None
    node.device_configurations = ()
    node.doc_string = doc_string
    for at, value in enumerate(outputs):
        value._producer = node
        value._index = at
    for at, value in enumerate(inputs):
        if value is not None:
            value._uses[_new_usage(_Usage, (node, at))] = None
    return node


def make_value(name: str) -> ir.Value:
    """A value that nothing makes yet, of which nothing is known."""
    if not _FIELDS_ARE_KNOWN:
        return ir.Value(name=name)
    value = _new(_Value)
    value._producer = value._index = value._metadata = value._metadata_props = None
    value._shape = value._type = value._const_value = value._graph = value.doc_string = None
    value._is_graph_input = value._is_graph_output = value._is_initializer = False
    value._name = name
    value._uses = {}
    return value


def set_type(value: ir.Value, dtype: ir.DataType, shape: ir.Shape | None) -> None:
    """Give a value the type of a tensor, one of its own, and a shape."""
    if not _FIELDS_ARE_KNOWN:
        value.type = ir.TensorType(dtype)
        value.shape = shape
        return
    value._type = kind = _new(_TensorType)
    kind._dtype = dtype
    kind.denotation = None
    value._shape = shape


def copy_node(
    node: ir.Node,
    inputs: tuple[ir.Value | None, ...],
    attributes: dict[str, ir.Attr],
    outputs: tuple[ir.Value, ...],
    *,
    name: str,
    metadata_props: dict[str, str],
) -> ir.Node:
    """A node of the same operator. The other arguments are those of `make_node`."""
    return make_node(
        node._domain,
        node._op_type,
        inputs,
        attributes,
        outputs,
        name=name,
        overload=node._overload,
        version=node._version,
        doc_string=node.doc_string,
        metadata_props=metadata_props,
    )


def copy_value(value: ir.Value, name: str | None) -> ir.Value:
    """A value of the same type, shape and metadata that nothing makes yet."""
    kind, shape, metadata = own_type(value._type), own_shape(value._shape), value._metadata_props
    if metadata:
        metadata = metadata.copy()
    if not _FIELDS_ARE_KNOWN:
        return ir.Value(name=name, type=kind, shape=shape, doc_string=value.doc_string, metadata_props=metadata)
    copy = _new(_Value)
    copy._producer = copy._index = copy._metadata = copy._const_value = copy._graph = None
    copy._is_graph_input = copy._is_graph_output = copy._is_initializer = False
    copy._metadata_props = metadata
    copy._name = name
    copy._shape = shape
    copy._type = kind
    copy._uses = {}
    copy.doc_string = value.doc_string
    return copy


def own_type(kind: ir.TypeProtocol | None) -> ir.TypeProtocol | None:
    """A type for one more value: it can be changed in place, so of the common kind each value has its own."""
    if type(kind) is not _TensorType:
        return kind
    if not _FIELDS_ARE_KNOWN:
        return ir.TensorType(kind.dtype, denotation=kind.denotation)
    copy = _new(_TensorType)
    copy._dtype = kind._dtype
    copy.denotation = kind.denotation
    return copy


def own_shape(shape: ir.Shape | None) -> ir.Shape | None:
    """A shape for one more value: one that is frozen may be shared (onnx_ir.Shape)."""
    return shape if shape is None or shape.frozen else shape.copy()


def insert_nodes(graph: ir.Graph, nodes: Sequence[ir.Node], *, before: ir.Node | None = None) -> None:
    """Let nodes that are in no graph stand in this one: in front of a node of it, or at the end."""
    if not (_FIELDS_ARE_KNOWN and _register_names(graph, nodes)):
        # This gives names to those that have none.
        if before is None:
            graph.extend(nodes)
        else:
            graph.insert_before(before, nodes)
        return
    chain = cast(Any, graph._nodes)  # its links are of no declared type
    boxes = chain._value_ids_to_boxes
    behind = chain._root if before is None else boxes[id(before)]
    last = behind.prev
    for node in nodes:
        node._graph = graph
        box = cast(Any, _new(_LinkBox))
        box.owning_list = chain
        box.value = node
        box.prev = last
        last.next = box
        boxes[id(node)] = last = box
    last.next = behind
    behind.prev = last
    chain._length = len(boxes)


def _register_names(graph: ir.Graph, nodes: Sequence[ir.Node]) -> bool:
    """Let a graph know the names of nodes and of what they make; False, and nothing is done, if one has none."""
    node_names = [node._name for node in nodes]
    value_names = [value._name for node in nodes for value in node._outputs]
    if None in node_names or None in value_names:
        return False
    graph._name_authority._node_names.update(cast("list[str]", node_names))
    graph._name_authority._value_names.update(cast("list[str]", value_names))
    return True


def drop_users(values: Iterable[ir.Value], nodes: Container[ir.Node]) -> None:
    """Let values no longer be used by these nodes, which are to go: the nodes themselves still name them."""
    for value in values:
        if _FIELDS_ARE_KNOWN:
            value._uses = {use: None for use in value._uses if use.node not in nodes}
            continue
        for use in [use for use in value.uses() if use.node in nodes]:
            use.node.replace_input_with(use.idx, None)


def set_inputs(node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
    """Let a node read these values, as many as it read: all of them at once."""
    if not _FIELDS_ARE_KNOWN or node.device_configurations:
        for at, (old, value) in enumerate(zip(node.inputs, inputs, strict=True)):
            if old is not value:
                node.replace_input_with(at, value)
        return
    for at, (old, value) in enumerate(zip(node._inputs, inputs, strict=True)):
        if old is not value:
            usage = _new_usage(_Usage, (node, at))
            if old is not None:
                del old._uses[usage]
            if value is not None:
                value._uses[usage] = None
    node._inputs = tuple(inputs)


def remove_node(graph: ir.Graph, node: ir.Node) -> None:
    """Let a node whose outputs nothing uses be in no graph, and read nothing."""
    if not _FIELDS_ARE_KNOWN or any(value._uses or value._is_graph_output for value in node._outputs):
        graph.remove(node, safe=True)  # which says what is wrong
        return
    set_inputs(node, [None] * len(node._inputs))
    node._graph = None
    graph._nodes.remove(node)


def remove_nodes(graph: ir.Graph) -> None:
    """Let all nodes of a graph be in none."""
    if not _FIELDS_ARE_KNOWN:
        graph.remove(list(graph))
        return
    for node in nodes_of(graph):
        node._graph = None
    graph._nodes = _linked_list.DoublyLinkedSet()
