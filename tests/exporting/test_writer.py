"""What the fast writer writes are the bytes that onnx_ir writes; what it does not know it leaves alone."""

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

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


def _annotation(model: ir.Model) -> None:
    model.graph[0].outputs[0].meta["quant_parameter_tensor_names"] = {"SCALE_TENSOR": "w"}


def _annotated_input(model: ir.Model) -> None:
    model.graph.inputs[0].meta["quant_parameter_tensor_names"] = {"SCALE_TENSOR": "w"}


def _old_functions(model: ir.Model) -> None:
    model.ir_version = 9


def _nameless(model: ir.Model) -> None:
    model.graph[0].outputs[0].name = None


@pytest.mark.parametrize("change", [_annotation, _annotated_input, _old_functions, _nameless])
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
