"""Copies of many nodes at once: what `fast_nodes.copy_node` and `copy_value` make one by one, in one loop.

What is the same in all copies of a node is looked up once (`Template`); what its copies read is told by the numbers of
values in a list, and so is where they go.
"""

# Fields are set, which onnx_ir keeps private: `fast_nodes` says whether they are those known here.
# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import onnx_ir as ir
from onnx_ir import _core, _graph_containers

from modelexport_passes import fast_nodes

_Node, _Value, _TensorType = ir.Node, ir.Value, ir.TensorType
_Attributes, _Usage = _graph_containers.Attributes, _core.Usage
_new: Any = object.__new__
_new_usage: Any = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

Slots = list["ir.Value | None"]
_Take = Callable[[Sequence["ir.Value | None"]], "tuple[ir.Value | None, ...]"]


class _Output(NamedTuple):
    """What a node makes: the value; if its type is the common one, dtype and denotation; else the type as it is."""

    value: ir.Value
    plain: tuple[ir.DataType, str | None] | None
    kind: ir.TypeProtocol | None
    shape: ir.Shape | None
    doc_string: str | None
    metadata_props: dict[str, str] | None


class Template(NamedTuple):
    """A node of which there will be copies. Make one with `template_of`.

    Attributes:
        node: the node.
        fields: what it is beside the values: operator, domain, overload, version, description.
        attributes: that each copy shares; each has a mapping of its own.
        reads: numbers of the values that it reads.
        take: takes these from a list of all; None where it is one value or none, of which no tuple comes out.
        makes: its outputs.
        place: anything: the number of the metadata that it has.
    """

    node: ir.Node
    fields: tuple[str, str, str, int | None, str | None]
    attributes: dict[str, ir.Attr]
    reads: tuple[int, ...]
    take: _Take | None
    makes: tuple[_Output, ...]
    place: int

    def reading(self, reads: Sequence[int]) -> Template:
        """The same that reads other values."""
        return self._replace(reads=tuple(reads), take=itemgetter(*reads) if len(reads) > 1 else None)


def template_of(node: ir.Node, attributes: dict[str, ir.Attr], place: int) -> Template:
    """The template of a node that reads nothing yet (`Template.reading`). It is good until the node changes."""
    fields = (node.op_type, node.domain, node.overload, node.version, node.doc_string)
    return Template(node, fields, attributes, (), None, tuple(map(_output, node.outputs)), place)


def _output(value: ir.Value) -> _Output:
    kind = value.type
    plain = (kind.dtype, kind.denotation) if type(kind) is ir.TensorType else None
    return _Output(value, plain, kind, value.shape, value.doc_string, dict(value.metadata_props) or None)


def copy_nodes(
    templates: Iterable[Template],
    values: Slots,
    *,
    node_names: Iterable[str],
    value_names: Iterable[str],
    metadata: Sequence[dict[str, str]],
) -> list[ir.Node]:
    """Copies of nodes that read each other's results.

    Args:
        templates: of the nodes, in order.
        values: what they read, by number; each value that is made is put behind.
        node_names: the names of the copies.
        value_names: the names of all that they make.
        metadata: by number of the place. Each copy has its own.
    """
    rows, names = zip(templates, node_names, strict=True), iter(value_names)
    if not fast_nodes._FIELDS_ARE_KNOWN:
        return [_copy(template, values, name, names, metadata) for template, name in rows]
    nodes: list[ir.Node] = []
    for template, node_name in rows:
        _, (op_type, domain, overload, version, doc_string), attributes, reads, take, makes, place = template
        node: Any = _new(_Node)
        held: Any = _new(_Attributes)
        held._owner, held.data = node, attributes.copy() if attributes else {}
        node._attributes = held
        node._domain, node._op_type, node._overload, node._version = domain, op_type, overload, version
        inputs = take(values) if take is not None else tuple([values[at] for at in reads])
        node._inputs = inputs
        node._metadata = node._graph = None
        node._name, node._metadata_props = node_name, metadata[place].copy()
        node.device_configurations, node.doc_string = (), doc_string
        outputs: list[ir.Value] = []
        for _, plain, kind, shape, description, props in makes:
            value: Any = _new(_Value)
            if plain is not None:
                own: Any = _new(_TensorType)
                own._dtype, own.denotation = plain
                value._type = own
            else:
                value._type = kind
            if shape is not None and not shape._frozen:
                shape = shape.copy()  # noqa: PLW2901 - one that is frozen may be shared (onnx_ir.Shape)
            value._producer, value._index = node, len(outputs)
            value._metadata = value._const_value = value._graph = None
            value._is_graph_input = value._is_graph_output = value._is_initializer = False
            value._metadata_props = props.copy() if props else None
            value._name = next(names)
            value._shape, value._uses, value.doc_string = shape, {}, description
            outputs.append(value)
        node._outputs = tuple(outputs)
        values += outputs
        at = 0
        for read in inputs:
            if read is not None:
                read._uses[_new_usage(_Usage, (node, at))] = None
            at += 1  # noqa: SIM113 - half of the time of enumerate, for one or two
        nodes.append(node)
    return nodes


def _copy(
    template: Template, values: Slots, name: str, names: Iterator[str], metadata: Sequence[dict[str, str]]
) -> ir.Node:
    """One of `copy_nodes`, without knowing fields; ``names`` are those of what it makes, and more."""
    inputs = tuple(values[at] for at in template.reads)
    outputs = tuple(fast_nodes.copy_value(made.value, next(names)) for made in template.makes)
    attributes, props = template.attributes.copy(), metadata[template.place].copy()
    values += outputs
    return fast_nodes.copy_node(template.node, inputs, attributes, outputs, name=name, metadata_props=props)
