"""``strip-metadata``: what goes, what stays."""

from __future__ import annotations

import onnx_ir as ir
import pytest

import modelexport_passes as mx
from modelexport_passes.builtin.strip_metadata import StripMetadata
from modelexport_passes.scopes.walk import all_nodes
from tests.scoped_models import scoped

TEXT = """g (bool c, float[N] x) => (float[N] y) <float[1] w = {1}> {
    a = Mul(x, w)
    y = If (c) <then_branch = t () => (float[N] p) { p = Relu(a) }, else_branch = e () => (float[N] q) { q = Neg(a) }>
}"""
SCOPES = {"a": "/Net/Scale.s", "y": "/Net", "p": "/Net", "q": "/Net"}


@pytest.fixture
def model() -> ir.Model:
    """Tagged, with a function, and debug metadata wherever there can be some."""
    made = scoped(TEXT, SCOPES)
    mx.InjectTags()(made)
    mx.Outline(modules=["*.Scale"])(made)
    for part in places(made):
        part.metadata_props["pkg.torch.onnx.stack_trace"] = "File"
        part.metadata_props["mine"] = "1"
    for node in all_nodes(made):
        node.doc_string = "line 24"
    made.metadata_props["tokenizer"] = "word"
    return made


def places(model: ir.Model) -> list[ir.Node | ir.Value | ir.Graph | ir.Function]:
    found: list[ir.Node | ir.Value | ir.Graph | ir.Function] = [model.graph, *model.graph.subgraphs()]
    for function in model.functions.values():
        found += [function, *function.inputs]
    found += [*model.graph.inputs, *model.graph.initializers.values()]
    for node in all_nodes(model):
        found += [node, *node.outputs]
    return found


def keys(model: ir.Model) -> set[str]:
    return {key for part in places(model) for key in part.metadata_props}


def test_scopes_tags_and_what_is_asked_for_stay(model):
    """On nodes, values, graphs, subgraphs and functions the rest goes; the model inlines and validates as before."""
    result = StripMetadata(keep=["mi*"])(model)
    assert isinstance(result, mx.Outcome)
    assert {key for key in keys(model) if not key.startswith("pkg.modelexport_passes.")} == {"mine", "hierarchy_tag"}
    assert result.figures["entries"] == len(places(model))
    assert not any(node.doc_string for node in all_nodes(model))
    assert not StripMetadata(keep=["mi*"])(model).modified
    mx.Inline()(model)
    mx.Validate(session=True)(model)
    assert [node.metadata_props["hierarchy_tag"] for node in all_nodes(model)] == [
        "/Net/Scale.s",
        "/Net",
        "/Net",
        "/Net",
    ]


def test_tags_alone_stay_without_scopes(model):
    """For a file that is not worked on any more: nothing of this project is left, also not on the model."""
    StripMetadata(scopes=False, doc_strings=True)(model)
    assert keys(model) == {"hierarchy_tag"}
    assert dict(model.metadata_props) == {"tokenizer": "word"}
    assert all(node.doc_string for node in all_nodes(model))
    mx.Validate(session=True)(model)


def test_scopes_alone_stay_without_tags(model):
    """Tags are no longer said to be there; they can be made again."""
    StripMetadata(tags=False)(model)
    assert "hierarchy_tag" not in keys(model)
    mx.Validate(session=True)(model)
    assert mx.InjectTags()(model).modified


def test_the_only_record_of_a_module_does_not_go_in_silence(model):
    """Torch's metadata on an operation that has no scope yet is noted."""
    model = scoped(TEXT, {})
    for node in model.graph:
        node.metadata_props["pkg.torch.onnx.name_scopes"] = "['', 's', 'mul']"
    result = StripMetadata()(model)
    assert isinstance(result, mx.Outcome)
    assert result.notes == ["2 operations lost the only record of their module: run recover-scopes before this step"]
