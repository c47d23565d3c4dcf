"""A file read in pieces is the model that it is as a whole; what cannot be taken apart is left whole."""

import time
from pathlib import Path
from typing import cast

import onnx
import onnx_ir as ir
import pytest
from google.protobuf.message import Message

import modelexport_passes as mx
from modelexport_passes.exporting import pieces
from modelexport_passes.exporting.loading import load
from modelexport_passes.exporting.pieces import split
from modelexport_passes.exporting.reader import Reader, Uncommon
from modelexport_passes.scopes.walk import all_nodes
from tests.exporting.test_reader import models, small


def _bytes(message: object) -> bytes:
    return cast(Message, message).SerializeToString()


def _nodes(parts: pieces.Pieces) -> list[onnx.NodeProto]:
    return [onnx.NodeProto.FromString(_bytes(node)) for node in parts.nodes]


@pytest.mark.parametrize("size", [1, 1 << 22])
def test_pieces_are_the_whole(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over onnx's backend models and models with functions, in the smallest pieces and in large ones."""
    monkeypatch.setattr(pieces, "_PIECE", size)
    read = in_order = 0
    for name, proto in models():
        parts = split(proto.SerializeToString())
        assert parts is not None, name
        assert not parts.rest.graph.node, name
        assert _nodes(parts) == _nodes(parts) == list(proto.graph.node), name
        assert [onnx.ValueInfoProto.FromString(_bytes(info)) for info in parts.infos] == list(proto.graph.value_info)
        try:
            model = Reader(Path()).model(parts.rest, parts)
        except Uncommon:
            continue
        read += 1
        assert ir.to_proto(model) == ir.to_proto(ir.from_proto(proto)), name
        try:
            model = Reader(Path(), in_order=True).model(parts.rest, parts)
        except Uncommon:
            continue
        in_order += 1
        assert ir.to_proto(model) == ir.to_proto(ir.from_proto(proto)), name
    assert read > 1000
    assert in_order > 1000


def test_a_graph_out_of_order_in_any_order_of_fields() -> None:
    """Nodes may stand before what they read, and in the file what is known of values before the nodes."""
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N] x) => (float[N] y) <float[N] a, float[1] w = {1.0}> {'
        "  a = Add(x, w)  y = Neg(a) }"
    )
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    graph = onnx.GraphProto(value_info=proto.graph.value_info).SerializeToString()
    del proto.graph.value_info[:]
    graph += proto.graph.SerializeToString()
    proto.ClearField("graph")
    data = proto.SerializeToString() + b"\x3a" + bytes([len(graph) & 127 | 128, len(graph) >> 7]) + graph
    parts = split(data)
    assert parts is not None
    expected = onnx.ModelProto.FromString(data)
    assert [node.op_type for node in parts.nodes] == ["Neg", "Add"]
    assert ir.to_proto(Reader(Path()).model(parts.rest, parts)) == ir.to_proto(ir.from_proto(expected))


def test_what_is_no_model_is_not_taken_apart() -> None:
    """Other bytes, a file cut short at any place, no graph, and a graph in two parts, which protobuf would join."""
    data = small().SerializeToString()
    assert split(b"no model at all") is None
    assert split(b"") is None
    for end in range(len(data)):
        parts = split(data[:end])
        assert parts is None or onnx.ModelProto.FromString(data[:end]) is not None
    assert split(data + onnx.ModelProto(graph=onnx.GraphProto(name="more")).SerializeToString()) is None
    assert split(onnx.ModelProto(ir_version=10).SerializeToString()) is None


def test_a_model_keeps_no_piece_of_its_file(tmp_path: Path) -> None:
    """The tensor of a Constant is a message of its own: one within the file's would keep all of that in memory."""
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    node = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    output = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [2])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [output])), tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    (constant,) = all_nodes(model)
    held = constant.attributes["value"].as_tensor()
    assert isinstance(held, ir.serde.TensorProtoTensor)
    assert held.raw == tensor
    proto = onnx.load(tmp_path / "m.onnx")
    made = Reader(Path()).model(proto).graph[0].attributes["value"].as_tensor()
    assert isinstance(made, ir.serde.TensorProtoTensor)
    proto.graph.node[0].attribute[0].t.name = "changed"
    assert made.name == "t"


def test_a_type_in_two_parts_is_their_sum() -> None:
    """Protobuf joins a message whose parts stand apart; so does the reader, which has types as bytes."""
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N] x) => (float[N] y) { a = Neg(x)  y = Neg(a) }'
    )
    first, second = onnx.TypeProto(), onnx.TypeProto()
    first.tensor_type.elem_type = onnx.TensorProto.FLOAT
    second.tensor_type.shape.dim.add(dim_value=3)
    info = onnx.ValueInfoProto(name="a", type=first).SerializeToString()
    info += onnx.ValueInfoProto(type=second).SerializeToString()
    graph = proto.graph.SerializeToString() + b"\x6a" + bytes([len(info)]) + info
    proto.ClearField("graph")
    parts = split(proto.SerializeToString() + b"\x3a" + bytes([len(graph)]) + graph)
    assert parts is not None
    value = Reader(Path()).model(parts.rest, parts).graph[0].outputs[0]
    assert value.dtype is ir.DataType.FLOAT
    assert value.shape == [3]


@pytest.mark.parametrize("byte", [0xFF, 0x80, 0xFA])
def test_a_number_without_an_end_is_found_out_in_linear_time(tmp_path: Path, byte: int) -> None:
    """A file of such bytes alone is no model, and is told so at once: a number ends after ten bytes."""
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes([byte]) * (1 << 22))
    started = time.process_time()
    with pytest.raises(mx.ModelExportError, match="not an ONNX model"):
        mx.load(path)
    assert time.process_time() - started < 2
