"""Protobuf to ``onnx_ir``, for the files that nearly all are: in half of the time that ``onnx_ir.from_proto`` takes.

What is out of the common (types other than tensors, quantization annotations, device configurations, a name declared
twice, ...) is not read here at all: `Uncommon` is raised and the whole file is left to ``from_proto``. So there is one
reader that knows everything, and this one, which reads what it knows to the same model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from sys import intern

import onnx
import onnx_ir as ir
from onnx_ir import serde

from modelexport_passes.exporting.coarse import CoarseInfo, CoarseNode, coarse_entries, coarse_infos, coarse_nodes
from modelexport_passes.exporting.pieces import Pieces
from modelexport_passes.exporting.weights import is_external
from modelexport_passes.fast_nodes import copy_value, insert_nodes, make_node, make_value, set_type

_Values = dict[str, ir.Value]
_Scopes = tuple[_Values, ...]
_Nodes = Iterable[CoarseNode]
"""Nodes in order, which can be gone through twice."""

_STRING = onnx.TensorProto.STRING
_FUNCTION_TYPES_VERSION = 10
"""Before this IR version the types of values in functions stood, by custom, in the main graph."""


class Uncommon(Exception):  # noqa: N818 - no fault of the file's: who catches it reads the file another way
    """The file holds something that this reader does not know."""


class Unsorted(Uncommon):
    """A name is read that nothing is known by so far: of a graph that is not sorted, it may come later."""


class Reader:
    """Reads one model.

    Args:
        directory: where external data lies.
        in_order: the main graph is taken to be sorted; where it is not, it is found to be `Unsorted`.

    Attributes:
        external: the tensors whose data lies outside of the file.
    """

    def __init__(self, directory: Path, *, in_order: bool = False) -> None:
        self.external: list[ir.ExternalTensor] = []
        self._directory = directory
        # A frozen shape may be shared (onnx_ir.Shape), and models have few different ones.
        self._types: dict[bytes, tuple[ir.DataType, ir.Shape | None]] = {}
        self._weights: dict[tuple[int, ...], ir.Value] = {}
        # So may an attribute without a tensor or a graph: nothing in it can be changed in place.
        self._plain: dict[bytes, ir.Attr] = {}
        # Protobuf gives new texts each time, and a model says the same of many nodes.
        self._entries: dict[bytes, tuple[str, str]] = {}
        self._before: tuple[Sequence[bytes], dict[str, str]] = ((), {})
        self._in_order = in_order

    def model(self, proto: onnx.ModelProto, pieces: Pieces | None = None) -> ir.Model:
        """The model that ``onnx_ir.from_proto`` would make.

        Args:
            proto: the model.
            pieces: it again, where its nodes are not in ``proto`` but are read a piece at a time.

        Raises:
            Uncommon: it has to.
        """
        graph = proto.graph
        nodes = coarse_nodes(graph.node) if pieces is None else pieces.nodes
        infos = coarse_infos(graph.value_info) if pieces is None else pieces.infos
        try:
            return self._model(proto, nodes, infos)
        except (serde.SerdeError, ValueError) as error:
            raise Uncommon from error  # not a valid model: the other reader says why

    def _model(self, proto: onnx.ModelProto, nodes: _Nodes, infos: Iterable[CoarseInfo]) -> ir.Model:
        _require(not proto.training_info and not proto.configuration)
        _require(not proto.functions or proto.ir_version >= _FUNCTION_TYPES_VERSION)
        graph = self._graph(proto.graph, nodes, infos, ())
        graph.opset_imports.update(_opsets(proto.opset_import))
        functions = [self._function(function) for function in proto.functions]
        _require(len({function.identifier() for function in functions}) == len(functions))
        return ir.Model(
            graph,
            ir_version=proto.ir_version,
            producer_name=proto.producer_name if proto.HasField("producer_name") else None,
            producer_version=proto.producer_version if proto.HasField("producer_version") else None,
            domain=proto.domain if proto.HasField("domain") else None,
            model_version=proto.model_version if proto.HasField("model_version") else None,
            doc_string=proto.doc_string if proto.HasField("doc_string") else None,
            functions=functions,
            metadata_props=self._metadata(coarse_entries(proto.metadata_props)),
        )

    def _function(self, proto: onnx.FunctionProto) -> ir.Function:
        inputs = [ir.Value(name=name) for name in proto.input]
        values: _Values = {str(value.name): value for value in inputs}
        _require(len(values) == len(inputs))
        nodes = self._nodes(coarse_nodes(proto.node), values, (values,))
        self._inform(coarse_infos(proto.value_info), values, set())
        _require(all(name in values for name in proto.output))
        graph = ir.Graph(
            inputs,
            [values[name] for name in proto.output],
            nodes=(),
            doc_string=proto.doc_string if proto.HasField("doc_string") else None,
            opset_imports=_opsets(proto.opset_import),
            name=f"{proto.name}_{proto.domain}__{proto.overload}" if proto.overload else "",
            metadata_props=self._metadata(coarse_entries(proto.metadata_props)),
        )
        insert_nodes(graph, nodes)
        attributes = [self._attribute(attribute.SerializeToString(), ()) for attribute in proto.attribute_proto]
        attributes += [ir.Attr(name, ir.AttributeType.UNDEFINED, None) for name in proto.attribute]
        return ir.Function(proto.domain, proto.name, proto.overload, graph=graph, attributes=attributes)

    def _inner(self, proto: onnx.GraphProto, around: _Scopes) -> ir.Graph:
        return self._graph(proto, coarse_nodes(proto.node), coarse_infos(proto.value_info), around)

    def _graph(self, proto: onnx.GraphProto, protos: _Nodes, infos: Iterable[CoarseInfo], around: _Scopes) -> ir.Graph:
        _require(not proto.quantization_annotation and not proto.sparse_initializer)
        inputs = [ir.Value(name=info.name) for info in proto.input]
        for info, value in zip(coarse_infos(proto.input), inputs, strict=True):
            self._describe(value, info)
        values: _Values = {str(value.name): value for value in inputs}
        initializers = [self._initializer(tensor, values) for tensor in proto.initializer]
        _require(len({value.name for value in initializers}) == len(initializers))
        nodes = self._nodes(protos, values, (values, *around), in_order=self._in_order and not around)
        self._inform(infos, values, {str(value.name) for value in initializers} - {info.name for info in proto.input})
        _require(all(info.name in values for info in proto.output))
        outputs = [values[info.name] for info in proto.output]
        for info, value in zip(coarse_infos(proto.output), outputs, strict=True):
            self._describe(value, info)
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=(),
            initializers=initializers,
            doc_string=proto.doc_string if proto.HasField("doc_string") else None,
            name=proto.name if proto.HasField("name") else None,
            metadata_props=self._metadata(coarse_entries(proto.metadata_props)),
        )
        insert_nodes(graph, nodes)
        return graph

    # --- values ------------------------------------------------------------------------------------------------------

    def _initializer(self, proto: onnx.TensorProto, values: _Values) -> ir.Value:
        name = proto.name
        _require(bool(name))
        tensor = self._tensor(proto)
        known = values.get(name)
        if known is not None:
            known.const_value = tensor
            return known
        alike = (proto.data_type, *proto.dims)  # the shapes of tensors are frozen
        like = self._weights.get(alike)
        if like is None:
            like = self._weights[alike] = ir.Value(type=ir.TensorType(tensor.dtype), shape=_shape(tensor))
        value = copy_value(like, name)
        value.const_value = tensor
        values[name] = value
        return value

    def _inform(self, infos: Iterable[CoarseInfo], values: _Values, initializers: set[str]) -> None:
        """Give values what is known of them: those that nodes make, and these initializers."""
        seen: set[str] = set()
        for info in infos:
            name = info.name
            seen_before = len(seen)
            seen.add(name)
            if len(seen) == seen_before:
                raise Uncommon
            value = values.get(name)
            if value is not None and (value.producer() is not None or name in initializers):
                self._describe(value, info)

    def _describe(self, value: ir.Value, info: CoarseInfo) -> None:
        """Give a value the type, the shape and the metadata that a file declares for it."""
        parts = info.type[:]
        key = parts[0] if len(parts) == 1 else b"".join(parts)
        known = self._types.get(key)
        if known is None:
            known = self._types[key] = _tensor_type(onnx.TypeProto.FromString(key))
        set_type(value, *known)
        metadata = info.metadata_props[:]
        if metadata:
            value.metadata_props.update(self._metadata(metadata) or {})
        doc_string = info.doc_string
        if doc_string:
            value.doc_string = doc_string

    def _tensor(self, proto: onnx.TensorProto) -> ir.TensorProtocol:
        if not proto.data_location and proto.data_type != _STRING:  # nearly all; what else there is, onnx_ir knows
            return ir.TensorProtoTensor(proto)
        # onnx_ir leaves the type argument of its PathLike open.
        tensor = serde.deserialize_tensor(proto, self._directory)  # pyright: ignore[reportUnknownMemberType]
        if is_external(tensor):
            self.external.append(tensor)
        return tensor

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _nodes(self, protos: _Nodes, values: _Values, scopes: _Scopes, *, in_order: bool = False) -> list[ir.Node]:
        """Nodes in order. Their outputs are declared first unless the graph is known to be sorted: it need not be."""
        if in_order:
            return [self._node(proto, None, scopes) for proto in protos]
        declared = [_declare(proto.output[:], values) for proto in protos]
        return [self._node(proto, made, scopes) for proto, made in zip(protos, declared, strict=True)]

    def _node(self, proto: CoarseNode, outputs: tuple[ir.Value, ...] | None, scopes: _Scopes) -> ir.Node:
        values = scopes[0]
        names = proto.input[:]
        inputs = tuple(map(values.get, names))
        if not all(inputs):  # seldom
            inputs = tuple([values.get(name) or _outer(name, scopes) for name in names])
        attributes: dict[str, ir.Attr] = {}
        data = proto.attribute[:]
        if data:
            known = self._plain
            for entry in data:
                attribute = known.get(entry) or self._attribute(entry, scopes)
                attributes[attribute.name] = attribute
        if proto.HasField("device_configurations"):
            raise Uncommon
        domain = proto.domain
        return make_node(
            "" if not domain or domain == "ai.onnx" else intern(domain),
            intern(proto.op_type),
            inputs,
            attributes,
            _declare(proto.output[:], values) if outputs is None else outputs,
            overload=proto.overload,
            name=proto.name,
            doc_string=proto.doc_string or None,
            metadata_props=self._metadata(proto.metadata_props[:]),
        )

    def _metadata(self, entries: Sequence[bytes]) -> dict[str, str] | None:
        if not entries:
            return None
        if entries == self._before[0]:
            return self._before[1].copy()  # as with most nodes of one fx node, which follow each other
        known = self._entries
        metadata = dict([known.get(entry) or self._entry(entry) for entry in entries])
        _require(len(metadata) == len(entries))
        self._before = entries, metadata
        return metadata

    def _entry(self, data: bytes) -> tuple[str, str]:
        proto = onnx.StringStringEntryProto.FromString(data)
        entry = self._entries[data] = (intern(proto.key), proto.value)
        return entry

    def _attribute(self, data: bytes, scopes: _Scopes) -> ir.Attr:
        """An attribute that has not been read, or that must not be shared."""
        # A message of its own: as a part of the file's, what it holds would keep the whole of that in memory.
        proto = onnx.AttributeProto.FromString(data)
        kind = proto.type
        if kind in _PLAIN or proto.ref_attr_name:
            known = self._plain[data] = serde.deserialize_attribute(proto)
            return known
        doc_string = proto.doc_string or None
        if kind == onnx.AttributeProto.TENSOR:
            return ir.Attr(proto.name, ir.AttributeType.TENSOR, self._tensor(proto.t), doc_string=doc_string)
        if kind == onnx.AttributeProto.TENSORS:
            tensors = [self._tensor(tensor) for tensor in proto.tensors]
            return ir.Attr(proto.name, ir.AttributeType.TENSORS, tensors, doc_string=doc_string)
        if kind == onnx.AttributeProto.GRAPH:
            return ir.Attr(proto.name, ir.AttributeType.GRAPH, self._inner(proto.g, scopes), doc_string=doc_string)
        if kind == onnx.AttributeProto.GRAPHS:
            graphs = [self._inner(graph, scopes) for graph in proto.graphs]
            return ir.Attr(proto.name, ir.AttributeType.GRAPHS, graphs, doc_string=doc_string)
        raise Uncommon


_PLAIN = frozenset(
    {
        onnx.AttributeProto.INT,
        onnx.AttributeProto.INTS,
        onnx.AttributeProto.FLOAT,
        onnx.AttributeProto.FLOATS,
        onnx.AttributeProto.STRING,
        onnx.AttributeProto.STRINGS,
    }
)


def _require(common: bool) -> None:
    if not common:
        raise Uncommon


def _declare(names: Sequence[str], values: _Values) -> tuple[ir.Value, ...]:
    """Values of these names that nothing makes yet, to be found by them; one without a name is found by none."""
    if len(names) == 1 and names[0]:  # nearly all
        name = names[0]
        value = make_value(name)
        if values.setdefault(name, value) is not value:
            raise Uncommon
        return (value,)
    made = [make_value(name) for name in names]
    for value in made:
        if value.name and values.setdefault(value.name, value) is not value:
            raise Uncommon
    return tuple(made)


def _outer(name: str, scopes: _Scopes) -> ir.Value | None:
    """A value of the graphs around; None for an input that is left out."""
    if not name:
        return None
    for values in scopes[1:]:
        if name in values:
            return values[name]
    raise Unsorted


def _opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    versions = [(entry.domain, entry.version) for entry in imports]
    _require(len({domain or "ai.onnx" for domain, _ in versions}) == len(versions))
    return serde.deserialize_opset_import(list(imports))


def _tensor_type(proto: onnx.TypeProto) -> tuple[ir.DataType, ir.Shape | None]:
    _require(proto.WhichOneof("value") == "tensor_type" and not proto.denotation)
    shape = serde.deserialize_type_proto_for_shape(proto)
    return ir.DataType(proto.tensor_type.elem_type), shape


def _shape(tensor: ir.TensorProtocol) -> ir.Shape:
    shape = tensor.shape
    assert isinstance(shape, ir.Shape)
    return shape
