"""What the fast writer writes are the bytes that onnx_ir writes; what it does not know it leaves alone."""

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from modelexport_passes import Inline
from modelexport_passes.exporting.reader import Uncommon
from modelexport_passes.exporting.saving import save, to_proto
from modelexport_passes.exporting.writer import model_bytes
from tests.exporting.test_reader import models, small


def expected(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def test_both_writers_agree() -> None:
    """Over onnx's backend models and models with functions: the same bytes, or the model is left to onnx_ir."""
    written = left = 0
    for name, proto in models():
        try:
            model = ir.from_proto(proto)
        except (NotImplementedError, ir.serde.SerdeError):
            continue
        wanted = expected(ir.from_proto(proto))
        try:
            assert b"".join(model_bytes(model)) == wanted, name
            written += 1
        except Uncommon:
            left += 1
        assert expected(model) == wanted, f"{name} was changed by being written"
    assert left < written / 10, "common models should not be left to the slow writer"


def rich() -> ir.Model:
    """A model with something in every field that a node and a value have."""
    model = ir.from_proto(small())
    add, branch, call = model.graph
    add.name, add.doc_string, add.overload = "ä" * 200, "why", "o"
    add.metadata_props.update({"z": "1", "a": "long " * 50, "é": ""})
    add.outputs[0].metadata_props["k"] = "v"
    add.outputs[0].doc_string = "sum"
    add.outputs[0].type, add.outputs[0].shape = ir.SequenceType(ir.TensorType(ir.DataType.FLOAT)), None
    branch.outputs[0].type = ir.TensorType(ir.DataType.FLOAT, denotation="IMAGE")
    branch.outputs[0].shape = ir.Shape(["N", 300, None])
    call.attributes["b"] = ir.AttrFloat32s("b", [1.0, -0.0])
    call.attributes["a"] = ir.AttrTensor("a", ir.tensor([1, 2, 3]))
    model.graph.metadata_props["m"] = "n"
    model.graph.doc_string, model.metadata_props["x"], model.producer_name = "g", "y", "p"
    return model


def test_every_field_is_written() -> None:
    """Names, texts, types, attributes, metadata, missing inputs, outputs that are left out, lengths of two bytes."""
    model = rich()
    split = ir.Node("d", "f", [model.graph.inputs[0], None], num_outputs=3, name="")
    model.graph.append(split)
    for value, name in zip(split.outputs, ("", "u", ""), strict=True):
        value.name = name
    assert b"".join(model_bytes(model)) == expected(model)
    assert to_proto(model) == ir.to_proto(model)


def test_every_field_of_a_function_is_written() -> None:
    """Signature, attributes with and without a default, texts, versions, metadata, types also of what it returns."""
    x, y = ir.val("x", ir.DataType.FLOAT, [2, "n"]), ir.val("y")
    relu = ir.node("Relu", [x], attributes={"a": ir.RefAttr("a", "slope", ir.AttributeType.FLOAT)}, name="é")
    wide = ir.Node("", "Sum", [relu.outputs[0], *[y, None] * 40], num_outputs=1, name="wide")
    relu.outputs[0].name, wide.outputs[0].name = "r" * 200, "sum"
    wide.outputs[0].type, wide.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, "n"])
    y.metadata_props["k"] = "v"
    opsets = {"": 20, "d": 1}
    graph = ir.Graph([x, y], [wide.outputs[0], wide.outputs[0]], nodes=[relu, wide], opset_imports=opsets, name="g")
    graph.doc_string = "why"
    attributes = [ir.AttrFloat32("alpha", 0.5), ir.Attr("slope", ir.AttributeType.FLOAT, None)]
    function = ir.Function("d", "f", "of", graph=graph, attributes=attributes)
    function.metadata_props.update({"z": "1", "a": "2"})
    empty = ir.Function("d", "nothing", graph=ir.Graph([], [], nodes=[]), attributes=[])
    model = ir.from_proto(small())
    for made in (function, empty):
        model.functions[made.identifier()] = made
    assert b"".join(model_bytes(model)) == expected(model)


def _annotation(model: ir.Model) -> None:
    model.graph[0].outputs[0].meta["quant_parameter_tensor_names"] = {"SCALE_TENSOR": "w"}


def _annotated_input(model: ir.Model) -> None:
    model.graph.inputs[0].meta["quant_parameter_tensor_names"] = {"SCALE_TENSOR": "w"}


def _annotated_weight(model: ir.Model) -> None:
    model.graph.initializers["w"].meta["quant_parameter_tensor_names"] = {"SCALE_TENSOR": "w"}


def _nameless_output(model: ir.Model) -> None:
    model.graph.append(ir.Node("", "Neg", [model.graph.inputs[0]], name="n"))
    model.graph[-1].outputs[0].name = None


def _old_functions(model: ir.Model) -> None:
    model.ir_version = 9


def _nameless(model: ir.Model) -> None:
    model.graph[0].outputs[0].name = None


def test_initializers_are_written_as_onnx_ir_writes_them(tmp_path: Path) -> None:
    """One that is also an input or an output, of other kinds of tensors, with metadata, with named sizes."""
    model = ir.from_proto(small())
    (tmp_path / "data").write_bytes(bytes(8))
    tensors: list[ir.TensorProtocol] = [
        ir.tensor([1.0, 2.0], name="another"),
        ir.tensor([3.0, 4.0]),
        ir.ExternalTensor("data", 0, 8, ir.DataType.FLOAT, shape=ir.Shape([2]), name="e", base_dir=tmp_path),
        ir.StringTensor([b"a"], shape=ir.Shape([1]), name="s"),
        ir.tensor(7, dtype=ir.DataType.INT64),
    ]
    values = [
        ir.Value(
            name=f"ä{at}", type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        for at, tensor in enumerate(tensors)
    ]
    values.append(ir.Value(name="untyped", const_value=ir.tensor([1.0])))
    assert values[1].shape is not None
    values[1].shape.set_denotation(0, "DATA_BATCH")
    values[2].metadata_props["k"], values[2].doc_string = "v", "why"
    for value in values:
        model.graph.register_initializer(value) if value.type else model.graph.initializers.add(value)
    model.graph.inputs.append(values[0])
    model.graph.outputs.append(values[4])
    assert b"".join(model_bytes(model)) == expected(model)


def test_what_was_changed_after_inlining_is_written() -> None:
    """Copies of a body share what nobody may change in place; a copy that was changed is written as it is now."""
    text = """<ir_version: 10, opset_import: ["": 20, "f": 1]>
    g (float[2] x) => (float[2] y) { a = f.Act(x)  y = f.Act(a) }
    <domain: "f", opset_import: ["": 20]> Act (x) => (y) { y = LeakyRelu <alpha = 0.5> (x) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    Inline()(model)
    assert b"".join(model_bytes(model)) == expected(model)
    first, second = model.graph
    first.attributes["alpha"] = ir.AttrFloat32("alpha", 0.25)
    first.metadata_props["k"], first.name = "v", "changed"
    second.outputs[0].type = ir.TensorType(ir.DataType.DOUBLE)
    assert b"".join(model_bytes(model)) == expected(model)
    assert [node.attributes["alpha"].value for node in model.graph] == [0.25, 0.5]


CHANGES = [_annotation, _annotated_input, _annotated_weight, _old_functions, _nameless, _nameless_output]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_uncommon_is_left_alone(change: object) -> None:
    """The fast writer does not guess: the whole model goes to the writer that knows all of the format."""
    model = rich()
    assert callable(change)
    change(model)
    with pytest.raises(Uncommon):
        model_bytes(model)


def test_an_uncommon_model_is_saved_all_the_same(tmp_path: Path) -> None:
    """A quantization annotation needs the slow writer, and is there afterwards."""
    model = rich()
    _annotation(model)
    save(model, tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx") == ir.to_proto(model)
