"""What a file says twice: read once if it is the same, refused if it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, compose, helper, numpy_helper

import modelexport_passes as mx
from modelexport_passes.exporting.deserialize import deserialize
from modelexport_passes.exporting.reading_notes import reading_notes
from tests.exporting.test_reader import small

MARK = {"key": "k", "value": "1"}


def told() -> onnx.ModelProto:
    """A model with metadata on everything that can have some."""
    proto = small()
    graph, function = proto.graph, proto.functions[0]
    info = helper.make_tensor_value_info("a", TensorProto.FLOAT, None)
    if not any(value.name == "a" for value in graph.value_info):
        graph.value_info.append(info)
    holders = [proto, graph, graph.node[0], graph.input[0], graph.output[0], graph.value_info[0]]
    for holder in [*holders, function, function.node[0]]:
        holder.metadata_props.add(**MARK)
    return proto


FIELDS: list[Callable[[onnx.ModelProto], Any]] = [
    lambda proto: proto.opset_import,
    lambda proto: proto.metadata_props,
    lambda proto: proto.functions,
    lambda proto: proto.functions[0].opset_import,
    lambda proto: proto.functions[0].metadata_props,
    lambda proto: proto.functions[0].node[0].metadata_props,
    lambda proto: proto.graph.metadata_props,
    lambda proto: proto.graph.initializer,
    lambda proto: proto.graph.node[0].metadata_props,
    lambda proto: proto.graph.input[0].metadata_props,
    lambda proto: proto.graph.output[0].metadata_props,
    lambda proto: proto.graph.value_info,
    lambda proto: proto.graph.value_info[0].metadata_props,
]
"""All that a file can repeat."""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(range(len(FIELDS))), st.integers(0, 5), st.integers(1, 3)), min_size=1))
def test_a_model_that_repeats_itself_is_the_model_that_does_not(repeats: list[tuple[int, int, int]]) -> None:
    """Whatever is repeated, wherever, however often; a note tells each, and the given protobuf stays as it was."""
    plain, proto = told(), told()
    for which, entry, times in repeats:
        field = FIELDS[which](proto)
        for _ in range(times):
            field.append(field[entry % len(field)])
    before = proto.SerializeToString(deterministic=True)
    model, _ = deserialize(proto, "load")
    assert ir.to_proto(model) == ir.to_proto(deserialize(plain, "load")[0])
    assert reading_notes(model)
    assert proto.SerializeToString(deterministic=True) == before


def test_the_default_domain_has_two_names() -> None:
    """The ONNX specification takes "" and "ai.onnx" for one operator set."""
    proto = small()
    (version,) = [entry.version for entry in proto.opset_import if not entry.domain]
    proto.opset_import.add(domain="ai.onnx", version=version)
    assert reading_notes(deserialize(proto, "load")[0]) == [
        "opset import 'ai.onnx' is there twice with the same content: read once"
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: p.opset_import.add(domain="", version=7), r"opset import 'ai.onnx' is there twice, as \d+ and as 7"),
        (
            lambda p: p.metadata_props.add(key="k", value="2"),
            "model metadata key 'k' is there twice, as '1' and",
        ),
        (lambda p: p.graph.node[0].metadata_props.add(key="k", value="2"), "'k' is there twice, as '1' and as '2'"),
        (lambda p: p.graph.input[0].metadata_props.add(key="k", value="2"), "value .*'k' is there twice, as '1' and"),
        (lambda p: p.functions[0].metadata_props.add(key="k", value="2"), "metadata key of function .*'k' is there"),
        (
            lambda p: p.functions[0].opset_import.add(domain="", version=7),
            r"opset import of function .*'ai.onnx' is there twice, as \d+ and as 7",
        ),
        (lambda p: p.graph.initializer.add(name=p.graph.initializer[0].name), "initializer .* is there twice"),
        (
            lambda p: p.functions.add(domain=p.functions[0].domain, name=p.functions[0].name),
            "function .* is there twice",
        ),
    ],
)
def test_a_contradiction_is_refused_and_names_both_values(change: Callable[[Any], Any], expected: str) -> None:
    """Only one of the two would survive loading."""
    proto = told()
    change(proto)
    with pytest.raises(mx.ModelExportError, match=expected):
        deserialize(proto, "load")


def test_a_merged_model_runs_through_a_pipeline_with_a_note(tmp_path: Path) -> None:
    """`onnx.compose.merge_models` writes the opset imports of both; what is saved has each once."""

    def part(prefix: str) -> onnx.ModelProto:
        weight = numpy_helper.from_array(np.ones((4, 4), np.float32), f"{prefix}.weight")
        values = [helper.make_tensor_value_info(f"{prefix}_{end}", TensorProto.FLOAT, [2, 4]) for end in "xy"]
        node = helper.make_node("MatMul", [f"{prefix}_x", weight.name], [f"{prefix}_y"], name=f"/{prefix}/MatMul")
        graph = helper.make_graph([node], prefix, values[:1], values[1:], [weight])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    onnx.save(compose.merge_models(part("a"), part("b"), io_map=[("a_y", "b_x")]), tmp_path / "merged.onnx")
    result = mx.Pipeline([mx.Validate()]).run(tmp_path / "merged.onnx")
    assert result.report.input.notes == ["opset import 'ai.onnx' is there twice with the same content: read once"]
    mx.save(result.model, tmp_path / "out.onnx")
    assert [(entry.domain, entry.version) for entry in onnx.load(tmp_path / "out.onnx").opset_import] == [("", 20)]
