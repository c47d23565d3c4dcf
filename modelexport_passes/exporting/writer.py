"""``onnx_ir`` to the bytes of a file: in a third of the time that it takes by way of protobuf's objects.

Only the nodes of the main graph and of functions, initializers, and what is known of values are written here, which is
nearly all of a large file. Everything else (attributes, types, tensors, the model itself) is onnx_ir's own
serialization, put in its place; each attribute and each type that several share is serialized once. What is out of the
common is not written here at all: `Uncommon` is raised, and the model is left to ``onnx_ir.to_proto``.

Fields stand in the order of their numbers, as protobuf writes them, so the bytes are those of ``onnx_ir.to_proto``.
"""

# Fields are read, which onnx_ir keeps private: where it has others, the models are left to it (AttributeError).
# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import cast

import onnx
import onnx_ir as ir
from onnx_ir import serde

from modelexport_passes.exporting.reader import Uncommon
from modelexport_passes.exporting.tensor_piece import Piece, piece_of
from modelexport_passes.exporting.wire_format import (
    LENGTHS,
    Metadata,
    Names,
    as_bytes,
    characters,
    sized,
    start_of,
    text_field,
    to_bytes,
)
from modelexport_passes.fast_nodes import initializers_of, inputs_of, nodes_of

_TensorType = ir.TensorType
_FUNCTION_TYPES_VERSION = 10
"""Before this IR version the types of values in functions are written, by custom, into the main graph."""

# One call for all that is read of an object. What nobody has looked at is None here, where the properties would make an
# empty one for each of a million values.
_of_node = attrgetter(
    "_inputs", "_outputs", "_name", "_op_type", "_attributes", "doc_string", "_domain", "_overload", "_metadata_props",
    "device_configurations",
)  # fmt: skip
_of_value = attrgetter("_name", "_type", "_shape", "doc_string", "_metadata_props", "_metadata", "_is_graph_output")

# Each field by what stands before it.
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _OP_TYPE, _ATTRIBUTE, _NODE_DOC, _DOMAIN, _OVERLOAD, _NODE_METADATA = (
    start_of(at) for at in range(1, 10)
)
_VALUE_NAME, _VALUE_TYPE, _VALUE_DOC, _VALUE_METADATA = (start_of(at) for at in range(1, 5))
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_VALUE = (start_of(at) for at in (1, 5, 13))
_FUNCTION_INPUT, _FUNCTION_OUTPUT, _FUNCTION_NODE, _FUNCTION_VALUE = (start_of(at) for at in (4, 5, 7, 12))
_MODEL_GRAPH, _MODEL_FUNCTION = start_of(7), start_of(25)
_INT = frozenset({int})
_CHECKED = frozenset({onnx.TensorProto.FLOAT6E2M3, onnx.TensorProto.FLOAT6E3M2})
"""Types of tensors whose bytes onnx_ir looks at before it writes them."""
_QUANTIZATION = "quant_parameter_tensor_names"
"""Where onnx_ir keeps a quantization annotation: all that it writes of what is noted of a value."""
_WIDE = 32
"""Inputs of a node from which on joining them at once is faster; what is added one by one is copied each time."""
_TOGETHER = 256
"""How many nodes are made bytes at once: what they need meanwhile fits the processor's caches."""


def model_bytes(model: ir.Model) -> list[bytes]:
    """`model_pieces` in memory."""
    return [bytes(piece) for piece in model_pieces(model)]


def model_pieces(model: ir.Model) -> list[Piece]:
    """What ``onnx_ir.to_proto(model).SerializeToString(deterministic=True)`` gives, in pieces.

    Large tensors are not copied: their bytes are made when they are asked for.

    Raises:
        Uncommon: the model holds something that only onnx_ir writes, or is not valid.
    """
    if model.ir_version < _FUNCTION_TYPES_VERSION and model.functions:
        raise Uncommon
    rest = serde.serialize_model(_without_contents(model))
    if rest.graph.quantization_annotation:
        raise Uncommon
    writer = _Writer()
    try:
        nodes, infos = writer.nodes(model.graph, _IN_GRAPH)
        weights, of_weights = writer.initializers(model.graph)
        functions = [part for function in model.functions.values() for part in writer.function(function)]
    except (AttributeError, TypeError, ValueError, serde.SerdeError) as error:
        raise Uncommon from error  # not a valid model: onnx_ir says why
    head = onnx.GraphProto(name=rest.graph.name) if rest.graph.name else onnx.GraphProto()
    tail = onnx.GraphProto(metadata_props=rest.graph.metadata_props)
    for field in ("name", "metadata_props"):
        rest.graph.ClearField(field)
    behind = onnx.ModelProto(opset_import=rest.opset_import, metadata_props=rest.metadata_props)
    last = onnx.ModelProto(configuration=rest.configuration)
    parts: list[Piece] = [*nodes, to_bytes(head), *weights, to_bytes(rest.graph), of_weights, *infos, to_bytes(tail)]
    for field in ("graph", "opset_import", "metadata_props", "configuration"):
        rest.ClearField(field)
    length = sum(map(len, parts))
    return [
        to_bytes(rest),
        as_bytes([_MODEL_GRAPH, LENGTHS[length]]),
        *parts,
        to_bytes(behind),
        *functions,
        to_bytes(last),
    ]


def _without_contents(model: ir.Model) -> ir.Model:
    """The model's all, but for functions and for the nodes and the initializers of its main graph."""
    return ir.Model(
        _without_nodes(model.graph, model.graph.inputs, model.graph.outputs),
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        metadata_props=model.metadata_props,
        device_configurations=model.device_configurations,
    )


def _without_nodes(graph: ir.Graph, inputs: Sequence[ir.Value] = (), outputs: Sequence[ir.Value] = ()) -> ir.Graph:
    view = ir.GraphView(
        inputs,
        outputs,
        nodes=(),
        doc_string=graph.doc_string,
        opset_imports=graph.opset_imports,
        name=graph.name,
        metadata_props=graph.metadata_props,
    )
    # onnx_ir documents that a view can be a model's graph; a function's, too, as far as it is serialized here.
    return cast("ir.Graph", view)


@dataclass(frozen=True)
class _Home:
    """Where nodes and values are written.

    Attributes:
        node: the start of the field of a node.
        value: the start of the field of what is known of a value.
        declares_outputs: what is known of outputs is told elsewhere.
    """

    node: str
    value: str
    declares_outputs: bool


_IN_GRAPH = _Home(_GRAPH_NODE, _GRAPH_VALUE, declares_outputs=True)
_IN_FUNCTION = _Home(_FUNCTION_NODE, _FUNCTION_VALUE, declares_outputs=False)


class _Writer:
    """Writes nodes and values; what it has written once it knows.

    Objects are known by their identity: they live as long as the model, and nothing changes them while it is written.
    """

    def __init__(self) -> None:
        self._operators: dict[object, str] = {}
        self._types: dict[tuple[int, int], str] = {}
        self._sized: dict[tuple[ir.DataType, tuple[int | ir.SymbolicDim, ...]], str] = {}
        self._of_nodes = Metadata(_NODE_METADATA)
        self._of_values = Metadata(_VALUE_METADATA)

    def nodes(self, graph: ir.Graph | ir.Function, home: _Home) -> tuple[list[bytes], list[bytes]]:
        """The fields that hold the nodes of a graph, and those that hold what is known of their outputs."""
        nodes: list[bytes] = []
        infos: list[bytes] = []
        every = nodes_of(graph)
        for start in range(0, len(every), _TOGETHER):
            written, known = self._batch(every[start : start + _TOGETHER], home)
            nodes.append(as_bytes(written))
            infos.append(as_bytes(known))
        return nodes, infos

    def _batch(self, batch: Iterable[ir.Node], home: _Home) -> tuple[list[str], list[str]]:
        """The fields of some nodes, and of what is known of their outputs."""
        names = Names()  # most are read soon after they are made
        lengths, types, operators = LENGTHS, self._types, self._operators
        of_node, of_value, declares_outputs = home.node, home.value, home.declares_outputs
        written: list[str] = []
        infos: list[str] = []
        before: Mapping[str, str] | None = None
        described = ""
        for node in batch:
            inputs, outputs, name, op_type, attributes, doc_string, domain, overload, metadata, devices = _of_node(node)
            if devices:
                raise Uncommon
            fields = _many(_NODE_INPUT, inputs) if len(inputs) > _WIDE else ""
            for value in () if fields else inputs:
                fields = f"{fields}{_NODE_INPUT}{names['' if value is None else value._name]}"
            for value in _given(outputs) if outputs and outputs[-1]._name == "" else outputs:
                made, kind, shape, description, props, notes, is_graph_output = _of_value(value)
                text = names[made] = f"{lengths[len(made)]}{made}" if made.isascii() else sized(made)
                fields = f"{fields}{_NODE_OUTPUT}{text}"
                if type(kind) is not _TensorType or description or props or notes or not made:
                    if kind is not None or shape is not None or description or props or notes:
                        infos.append(self._info(value, home))
                elif not (is_graph_output and declares_outputs):
                    kind = types.get((id(kind._dtype), id(shape))) or self._type(value, kind, shape)
                    infos.append(f"{of_value}{lengths[1 + len(text) + len(kind)]}{_VALUE_NAME}{text}{kind}")
            if name:
                text = f"{lengths[len(name)]}{name}" if name.isascii() else sized(name)
                fields = f"{fields}{_NODE_NAME}{text}"
            held = attributes.data
            key = op_type if not held else (op_type, *map(id, held.values()))
            if domain or overload or doc_string:
                key = (key, doc_string, domain, overload)
            rest = operators.get(key)
            if rest is None:
                rest = operators[key] = self._operator(node)
            if metadata != before:  # those of one module stand together
                before = metadata
                described = self._of_nodes.fields(metadata) if metadata else ""
            fields = f"{of_node}{lengths[len(fields) + len(rest) + len(described)]}{fields}{rest}"
            written += (fields, described)
        return written, infos

    def initializers(self, graph: ir.Graph) -> tuple[list[Piece], bytes]:
        """The fields of a graph that hold its initializers, and those that hold what is known of them."""
        tensors: list[Piece] = []
        declared = {value.name for value in graph.inputs}
        values = initializers_of(graph)
        for value in values:
            tensor = value.const_value
            if tensor is None:
                raise Uncommon
            tensor.name = value.name
            unchecked = type(tensor) is not ir.TensorProtoTensor or _is_as_read(tensor)
            data = (piece_of(tensor, str(value.name)) if unchecked else None) or _tensor_bytes(tensor)
            tensors += (as_bytes([_GRAPH_INITIALIZER, LENGTHS[len(data)]]), data)
        return tensors, as_bytes(self._infos([value for value in values if value.name not in declared], _IN_GRAPH))

    def function(self, function: ir.Function) -> list[bytes]:
        """The field of a model that holds a function, in pieces."""
        nodes, infos = self.nodes(function, _IN_FUNCTION)
        bare = _without_nodes(function.graph)
        attributes = tuple(function.attributes.values())
        rest = serde.serialize_function(
            ir.Function(function.domain, function.name, function.overload, graph=bare, attributes=attributes)
        )
        head = onnx.FunctionProto(name=rest.name) if rest.name else onnx.FunctionProto()
        names = onnx.FunctionProto(attribute=rest.attribute)
        tail = onnx.FunctionProto(metadata_props=rest.metadata_props)
        if rest.overload:
            tail.overload = rest.overload
        for field in ("name", "attribute", "overload", "metadata_props"):
            rest.ClearField(field)
        inputs = inputs_of(function.graph)
        signature = [_many(_FUNCTION_INPUT, inputs), _many(_FUNCTION_OUTPUT, function.outputs)]
        known = self._infos(inputs, _IN_FUNCTION)
        parts = [to_bytes(head), as_bytes(signature), to_bytes(names), *nodes, to_bytes(rest), as_bytes(known), *infos]
        parts.append(to_bytes(tail))
        return [as_bytes([_MODEL_FUNCTION, LENGTHS[sum(map(len, parts))]]), *parts]

    def _operator(self, node: ir.Node) -> str:
        """The fields of a node from its operator to its overload."""
        fields = [text_field(_OP_TYPE, node.op_type)]
        for attribute in node.attributes.values():
            # Not `to_proto`, which asks of all of onnx_ir's protocols whether it is one.
            is_ref = attribute.is_ref()
            to_proto = serde.serialize_reference_attribute if is_ref else serde.serialize_attribute
            data = characters(to_proto(attribute))
            fields.append(f"{_ATTRIBUTE}{LENGTHS[len(data)]}{data}")
        for start, text in ((_NODE_DOC, node.doc_string), (_DOMAIN, node.domain), (_OVERLOAD, node.overload)):
            if text:
                fields.append(text_field(start, text))
        return "".join(fields)

    def _infos(self, values: Iterable[ir.Value], home: _Home) -> list[str]:
        """What is said of values that are there before any node; there may be as many weights as nodes."""
        lengths, types, of_value = LENGTHS, self._types, home.value
        infos: list[str] = []
        for value in values:
            name, kind, shape, description, props, notes, _ = _of_value(value)
            if type(kind) is not _TensorType or description or props or notes or not name:
                infos.append(self._info(value, home, is_made=False))
                continue
            text = f"{lengths[len(name)]}{name}" if name.isascii() else sized(name)
            kind = types.get((id(kind._dtype), id(shape))) or self._type(value, kind, shape)
            infos.append(f"{of_value}{lengths[1 + len(text) + len(kind)]}{_VALUE_NAME}{text}{kind}")
        return infos

    def _info(self, value: ir.Value, home: _Home, *, is_made: bool = True) -> str:
        """What is said of a value that a node makes, or of one that is there before; empty if nothing."""
        name, kind, shape, doc_string, metadata, notes, is_graph_output = _of_value(value)
        if notes and _QUANTIZATION in notes:
            raise Uncommon
        if (is_graph_output and is_made and home.declares_outputs) or not name:
            return ""
        if kind is None and shape is None and not metadata and not doc_string:
            return ""
        fields = text_field(_VALUE_NAME, name)
        if kind is not None:
            fields += self._type(value, kind, shape)
        if doc_string:
            fields += text_field(_VALUE_DOC, doc_string)
        if metadata:
            fields += self._of_values.fields(metadata)
        return f"{home.value}{LENGTHS[len(fields)]}{fields}"

    def _type(self, value: ir.Value, kind: ir.TypeProtocol, shape: ir.Shape | None) -> str:
        if type(kind) is not ir.TensorType or kind.denotation:
            return _type_field(value)
        key = id(kind.dtype), id(shape)
        known = self._types.get(key)
        if known is None:
            sizes = _sizes(shape)
            if sizes is None:
                known = _type_field(value)
            else:  # another shape may say the same: each weight has its own
                known = self._sized.get((kind.dtype, sizes)) or _type_field(value)
                self._sized[kind.dtype, sizes] = known
            self._types[key] = known
        return known


def _many(start: str, values: Iterable[ir.Value | None]) -> str:
    """The names of values, each as a field of its own."""
    lengths = LENGTHS
    names = ["" if value is None else cast("str", value._name) for value in values]
    return "".join(
        [f"{start}{lengths[len(name)]}{name}" if name.isascii() else text_field(start, name) for name in names]
    )


def _tensor_bytes(tensor: ir.TensorProtocol) -> bytes:
    if type(tensor) is ir.TensorProtoTensor and _is_as_read(tensor):
        return to_bytes(tensor.raw)  # onnx_ir copies it first
    return to_bytes(serde.serialize_tensor(tensor))


def _is_as_read(tensor: ir.TensorProtoTensor) -> bool:
    """Whether the protobuf that a tensor was read from is what onnx_ir writes for it."""
    return not tensor._metadata_props and tensor.raw.data_type not in _CHECKED


def _sizes(shape: ir.Shape | None) -> tuple[int | ir.SymbolicDim, ...] | None:
    """The sizes that are all that there is to a shape; None if there is more."""
    if shape is None or any(shape._denotations) or not _INT.issuperset(map(type, shape._dims)):
        return None
    return shape.dims


def _type_field(value: ir.Value) -> str:
    data = characters(serde.serialize_value(value).type)
    return f"{_VALUE_TYPE}{LENGTHS[len(data)]}{data}"


def _given(outputs: Sequence[ir.Value]) -> Sequence[ir.Value]:
    """Outputs without those at the end that are left out."""
    count = len(outputs)
    while count and outputs[count - 1].name == "":
        count -= 1
    return outputs[:count]
