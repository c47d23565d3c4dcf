"""BERT, Llama, GPT-2, ViT and T5, plain and optimised: scopes against torch's own stack, functions, numbers."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from typing import Any
from unittest import mock

import onnx
import onnx_ir as ir
import pytest
import torch

import modelexport_passes as mx
from modelexport_passes.exporting.record import ExportRecord, record_of
from tests.round_trip import RoundTrip, chain, differences, function_counts, operations, round_trip, tags
from tests.zoo import CORE, build, zoo_cases

BLOCKS = {
    "bert": {"BertLayer": 1},
    "llama": {"LlamaDecoderLayer": 1},
    "gpt2": {"GPT2Block": 1},
    "vit": {"ViTLayer": 1},
    # Encoder and decoder. In each the first block owns the table of relative positions and looks it up for all blocks:
    # work for its siblings, placed above them.
    "t5": {"T5Block": 2},
}
"""Block class -> distinct bodies, read from the models' code."""

every_model = pytest.mark.parametrize(
    ("arch", "optimised"),
    [pytest.param(arch, opt, id=f"{arch}-{'optimised' if opt else 'plain'}") for arch in CORE for opt in (False, True)],
)


@dataclass(frozen=True)
class Proven:
    """A model at every stage, and what torch itself says of its operations.

    Attributes:
        stages: plain, outlined, inlined.
        record: example inputs and torch's outputs.
        truth: first output name of each node of the plain model -> its chain of calls; None where torch says nothing.
    """

    stages: RoundTrip
    record: ExportRecord
    truth: dict[str, str | None]


@functools.cache
def proven(arch: str, *, optimised: bool) -> Proven:
    """Export once, keeping the program that the exporter hands out; once per test process."""
    (case,) = zoo_cases((arch,))
    model, inputs = build(case)
    programs: list[torch.onnx.ONNXProgram] = []
    exporter = torch.onnx.export

    def keep(*args: Any, **kwargs: Any) -> torch.onnx.ONNXProgram | None:
        program = exporter(*args, **kwargs)
        assert program is not None
        programs.append(program)
        return program

    with mock.patch.object(torch.onnx, "export", keep):
        exported = mx.export(model, kwargs=inputs, optimize=optimised)
    record = record_of(exported)
    assert record is not None
    truth = torch_truth(programs[0])
    return Proven(round_trip(exported), record, truth)


def torch_truth(program: torch.onnx.ONNXProgram) -> dict[str, str | None]:
    """Read ``nn_module_stack`` by the name of the fx node; written apart from the package's own reading of it."""
    assert program.exported_program is not None
    stacks = {node.name: node.meta.get("nn_module_stack", {}) for node in program.exported_program.graph.nodes}
    truth: dict[str, str | None] = {}
    for node in program.model.graph:
        names = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        calls = [
            path + ("@" + key.rpartition("@")[2] if "@" in key else "")
            for key, (path, _) in stacks.get(names[-1] if names else "", {}).items()
        ]
        truth[str(node.outputs[0].name)] = " > ".join(calls[1:]) if calls and calls[0] == "" else None
    return truth


@every_model
def test_no_scope_differs_from_torchs_own_stack(arch: str, optimised: bool) -> None:
    """Where torch recorded a module stack, the scope is that stack, call index included."""
    result = proven(arch, optimised=optimised)
    wrong = [
        f"{node.name}: {chain(scope) if scope else None}, torch says {expected}"
        for node in ir.from_proto(result.stages.plain).graph
        if (expected := result.truth[str(node.outputs[0].name)]) is not None
        and ((scope := mx.scope_of(node)) is None or chain(scope) != expected)
    ]
    assert wrong == []


@every_model
def test_only_operations_that_torch_says_nothing_about_are_inferred(arch: str, optimised: bool) -> None:
    """None is unknown; a plain export infers none; the optimizer's own operations are marked as inferred."""
    result = proven(arch, optimised=optimised)
    nodes = list(ir.from_proto(result.stages.plain).graph)
    unknown = [node.name for node in nodes if mx.scope_of(node) is None]
    inferred = {str(node.outputs[0].name) for node in nodes if (scope := mx.scope_of(node)) and not scope.source.exact}
    assert unknown == []
    assert inferred == {name for name, expected in result.truth.items() if expected is None}
    assert optimised or not inferred


@every_model
def test_each_block_class_becomes_one_function_per_distinct_body(arch: str, optimised: bool) -> None:
    """Layers that are the same share a function; shared masks and tables are placed outside."""
    counts = function_counts(proven(arch, optimised=optimised).stages.outlined)
    expected = BLOCKS[arch]
    assert {name: counts.get(name, 0) for name in expected} == expected


@every_model
def test_outlined_model_is_valid_and_small(arch: str, optimised: bool) -> None:
    """The checker accepts both results; the main graph of an outlined model keeps a third of the nodes at most."""
    stages = proven(arch, optimised=optimised).stages
    onnx.checker.check_model(stages.outlined, full_check=True)
    onnx.checker.check_model(stages.inlined, full_check=True)
    assert len(stages.outlined.graph.node) <= len(stages.plain.graph.node) / 3


@every_model
def test_results_are_bit_equal_through_outline_and_inline(arch: str, optimised: bool) -> None:
    """The same bits from the plain, the outlined and the inlined model."""
    result = proven(arch, optimised=optimised)
    assert differences(result.stages.plain, result.stages.outlined, result.record.inputs) == []
    assert differences(result.stages.plain, result.stages.inlined, result.record.inputs) == []


@every_model
def test_inline_gives_every_operation_its_scope_back(arch: str, optimised: bool) -> None:
    """The multiset of (op type, scope) after inlining is the one before outlining; so is that of (op type, tag)."""
    stages = proven(arch, optimised=optimised).stages
    assert operations(stages.inlined) == operations(stages.plain)
    assert tags(stages.inlined) == tags(stages.plain)
    assert (stages.outlined_twice, stages.inlined_twice) == (False, False)
