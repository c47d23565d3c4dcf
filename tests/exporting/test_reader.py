"""The fast reader reads what it knows to the model that onnx_ir reads, and leaves alone what it does not know."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.backend.test.loader
import onnx_ir as ir
import pytest

from modelexport_passes.exporting.deserialize import deserialize
from modelexport_passes.exporting.losses import losses
from modelexport_passes.exporting.reader import Reader, Uncommon
from modelexport_passes.scopes.walk import all_nodes

FUNCTIONS = Path(__file__).parents[1] / "data" / "functions"


def models() -> Iterator[tuple[str, onnx.ModelProto]]:
    for case in onnx.backend.test.loader.load_model_tests(kind="node"):
        if case.model is not None:
            yield case.name, case.model
    for path in sorted(FUNCTIONS.glob("*.onnx")):
        yield path.name, onnx.load(path)


def test_both_readers_agree() -> None:
    """Over onnx's backend models and models with functions: the same model, or the file is left to onnx_ir."""
    left = 0
    for name, proto in models():
        try:
            model = Reader(Path()).model(proto)
        except Uncommon:
            left += 1
            continue
        expected = ir.from_proto(proto)
        assert ir.to_proto(model) == ir.to_proto(expected), name
        for ours, theirs in zip(all_nodes(model), all_nodes(expected), strict=True):
            assert [None if value is None else len(value.uses()) for value in ours.inputs] == [
                None if value is None else len(value.uses()) for value in theirs.inputs
            ], name
        assert not list(losses(proto)), name
    assert left < 200, "common files should not be left to the slow reader"


def small() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20, "d" : 1]>'
        "g (float[N] x, bool c) => (float[N] y) <float[1] w = {1.0}> {"
        "  a = Add(x, w)"
        "  b = If(c) <then_branch = t () => (float[N] p) { p = Relu(a) }, else_branch = e () => (float[N] q) {"
        "    q = Neg(x) }>"
        "  y = d.f(b)"
        '} <domain: "d", opset_import: ["" : 20]> f (u) => (v) { v = Abs(u) }'
    )


def test_values_from_around_are_seen_in_bodies() -> None:
    """A body reads values of the graph around it as the objects that they are there."""
    model = Reader(Path()).model(small())
    add = model.graph[0]
    (use,) = [use for use in add.outputs[0].uses() if use.node.op_type == "Relu"]
    assert use.node.graph is not model.graph
    assert ir.to_proto(model) == ir.to_proto(ir.from_proto(small()))


def _twice(proto: onnx.ModelProto) -> None:
    proto.graph.node.add(op_type="Neg", input=["x"], output=["a"], name="again")


def _metadata(proto: onnx.ModelProto) -> None:
    for value in ("1", "2"):
        proto.graph.node[0].metadata_props.add(key="k", value=value)


def _annotation(proto: onnx.ModelProto) -> None:
    proto.graph.quantization_annotation.add(tensor_name="a").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="w"
    )


def _sequence(proto: onnx.ModelProto) -> None:
    proto.graph.value_info.append(
        onnx.helper.make_tensor_sequence_value_info("a", onnx.TensorProto.FLOAT, None)  # type: ignore[arg-type]
    )


def _unknown_input(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[1] = "nowhere"


def _function_twice(proto: onnx.ModelProto) -> None:
    proto.functions.append(proto.functions[0])


def _device(proto: onnx.ModelProto) -> None:
    proto.configuration.add(name="two", num_devices=2)


def _old_functions(proto: onnx.ModelProto) -> None:
    proto.ir_version = 9


def _untyped(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.add(name="axis", i=1)


@pytest.mark.parametrize(
    "change",
    [
        _twice, _metadata, _annotation, _sequence, _unknown_input, _function_twice, _device, _old_functions, _untyped,
    ],
)  # fmt: skip
def test_what_is_uncommon_is_left_alone(change: object) -> None:
    """The fast reader does not guess: the whole file goes to the reader that knows all of the format."""
    proto = small()
    assert callable(change)
    change(proto)
    with pytest.raises(Uncommon):
        Reader(Path()).model(proto)


def test_an_uncommon_model_is_read_all_the_same() -> None:
    """A quantization annotation needs the slow reader, and is there afterwards."""
    proto = small()
    _annotation(proto)
    model, external = deserialize(proto, "load")
    assert ir.to_proto(model).graph.quantization_annotation == proto.graph.quantization_annotation
    assert external == []


def test_plain_attributes_are_shared_and_types_are_not() -> None:
    """Changing the type of one value changes no other: shapes are frozen, types are each value's own."""
    model = Reader(Path()).model(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 20]> g (float[N] x) => (float[N] y) <float[N] a, float[N] b> {'
            "  a = Elu<alpha = 2.0>(x)  b = Elu<alpha = 2.0>(a)  y = Neg(b) }"
        )
    )
    first, second, _ = model.graph
    assert first.attributes["alpha"] is second.attributes["alpha"]
    first.outputs[0].dtype = ir.DataType.FLOAT16
    assert second.outputs[0].dtype is ir.DataType.FLOAT
    assert first.outputs[0].shape is not None
    assert first.outputs[0].shape.frozen
