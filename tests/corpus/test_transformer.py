"""The hierarchical transformer of the examples, dynamic in batch and sequence."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import torch

import modelexport_passes as mx
from examples.hierarchical_transformer import factory
from tests.round_trip import differences, function_counts, operations, round_trip, run, tags

SELECTED = ["*.AttentionHead", "*.FeedForward"]


@functools.cache
def plain() -> onnx.ModelProto:
    """The plain export, once per test process."""
    model, args = factory()
    return ir.to_proto(mx.export(model, args, dynamic_shapes={"input_ids": {0: "batch", 1: "sequence"}}))


def batches() -> list[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]]:
    """Token ids of two sizes."""
    generator = np.random.default_rng(0)
    return [{"input_ids": generator.integers(0, 100, shape)} for shape in ((2, 8), (3, 5))]


def test_the_export_computes_what_torch_computes() -> None:
    """Also for a batch and a sequence of sizes that the exporter did not see."""
    model, _ = factory()
    for feeds in batches():
        with torch.no_grad():
            expected = model(torch.from_numpy(feeds["input_ids"])).numpy()
        np.testing.assert_allclose(run(plain(), feeds)[0], expected, rtol=0, atol=1e-5)


def test_all_modules_leave_a_main_graph_of_at_most_ten_nodes() -> None:
    """Every operation is tagged, each distinct body is one function, and inlining gives everything back."""
    stages = round_trip(ir.from_proto(plain()))
    assert not [key for key in tags(stages.plain) if key[1] is None]
    assert len(stages.outlined.graph.node) <= 10
    assert function_counts(stages.outlined) == {
        "Embedding": 1,
        "TransformerBlock": 1,
        "AttentionHead": 1,
        "FeedForward": 1,
        "LayerNorm": 1,
        "ReLU": 1,
        "Linear": 2,  # ten projections of three-dimensional values, and the classifier's matrix
    }
    assert (operations(stages.inlined), tags(stages.inlined)) == (operations(stages.plain), tags(stages.plain))
    for feeds in batches():
        assert differences(stages.plain, stages.outlined, feeds) == []
        assert differences(stages.plain, stages.inlined, feeds) == []


def test_two_selected_classes_are_two_functions_with_two_call_sites_each() -> None:
    """Only attention heads and feed-forwards; all else stays in the main graph."""
    stages = round_trip(ir.from_proto(plain()), modules=SELECTED)
    assert function_counts(stages.outlined) == {"AttentionHead": 1, "FeedForward": 1}
    names = {function.name for function in stages.outlined.functions}
    calls = Counter(node.op_type for node in stages.outlined.graph.node if node.op_type in names)
    assert calls == {"AttentionHead": 2, "FeedForward": 2}
    assert operations(stages.inlined) == operations(stages.plain)
    for feeds in batches():
        assert differences(stages.plain, stages.outlined, feeds) == []


def test_tag_of_a_call_and_tag_in_its_body_make_the_tag_of_the_operation() -> None:
    """A call says ``/TestTransformer/TransformerBlock.layers.1``, its body ``AttentionHead.attention``."""
    stages = round_trip(ir.from_proto(plain()))
    bodies = {(function.domain, function.name): function.node for function in stages.outlined.functions}

    def expand(nodes: Sequence[onnx.NodeProto], prefix: str) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for node in nodes:
            own = next(entry.value for entry in node.metadata_props if entry.key == "hierarchy_tag")
            full = own if not prefix else prefix if own == "." else f"{prefix}/{own}"
            body = bodies.get((node.domain, node.op_type))
            found += Counter({(node.op_type, full): 1}) if body is None else expand(body, full)
        return found

    joined, expected = expand(stages.outlined.graph.node, ""), tags(stages.plain)
    # each block has its own copy of a constant that the exporter shared between them
    assert {key: n for key, n in joined.items() if key[0] != "Constant"} == {
        key: n for key, n in expected.items() if key[0] != "Constant"
    }
