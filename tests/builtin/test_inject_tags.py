"""``inject-tags``: keys, presets, splits."""

from __future__ import annotations

import onnx_ir as ir
import pytest

import modelexport_passes as mx
from modelexport_passes.errors import ConfigError, ModelExportError
from modelexport_passes.scopes.scope import Frame, Scope, set_scope
from modelexport_passes.testing import model_of
from tests.scoped_models import scoped

BLOCKS = "  ".join(f"v{i + 1} = Relu(v{i})" for i in range(6))
TEXT = f"g (float[N] v0) => (float[N] y) {{ {BLOCKS}  y = Neg(v6) }}"


@pytest.fixture
def model() -> ir.Model:
    """Five blocks of one or two operations, and one of the root."""
    paths = ["layers.0", "layers.1", "layers.1", "layers.2", "layers.10", "layers.11"]
    made = scoped(TEXT, {f"v{i + 1}": f"/Net/Block.{path}" for i, path in enumerate(paths)} | {"y": "/Net"})
    for number, node in enumerate(made.graph):
        node.name = f"n{number}"
    return made


def test_several_readers_are_served_at_once(model):
    """Every preset under its own keys, templates besides; a second run changes nothing."""
    tags = mx.InjectTags(presets=["default", "winml", "layer_ann", "namespace"], templates={"at": "{depth}:{op}"})
    result = tags(model)
    assert isinstance(result, mx.Outcome)
    assert dict(list(model.graph)[1].metadata_props) == {
        "pkg.modelexport_passes.scope": "export|pkg.Net:/pkg.Block:layers.1",
        "hierarchy_tag": "/Net/Block.layers.1",
        "winml.hierarchy.tag": "/Net/Block.1",
        "winml.hierarchy.depth": "2",
        "layer_ann": "layers.1",
        "namespace": ": pkg.Net/layers.1: pkg.Block/n1: Relu",
        "at": "2:Relu",
    }
    assert result.figures["tagged"] == 7
    # the root has no path to annotate
    assert result.figures["keys"] == {
        "hierarchy_tag": 7,
        "winml.hierarchy.tag": 7,
        "winml.hierarchy.depth": 7,
        "layer_ann": 6,
        "namespace": 7,
        "at": 7,
    }
    assert not tags(model).modified
    mx.Validate(session=True)(model)


def test_all_tags_follow_through_outline_and_inline(model):
    """Whatever their form; one that names the node says its new name."""
    mx.InjectTags(presets=["htp", "layer_ann"], templates={"at": "{path} {node}"})(model)
    before = [{**node.metadata_props, "at": ""} for node in model.graph]
    mx.Outline(modules=["*.Block"])(model)
    mx.Validate(session=True)(model)
    mx.Inline()(model)
    assert [{**node.metadata_props, "at": ""} for node in model.graph] == before
    assert [node.metadata_props["at"].split()[-1] for node in model.graph] == [node.name for node in model.graph]


def test_an_operation_of_unknown_module_gets_no_tag_of_any_kind():
    """And an old tag is taken away."""
    model = model_of("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    model.graph[0].metadata_props["hierarchy_tag"] = "/Old"
    result = mx.InjectTags(presets=["default", "layer_ann", "winml"])(model)
    assert isinstance(result, mx.Outcome)
    assert (dict(model.graph[0].metadata_props), result.figures["untagged"]) == ({}, 1)


def test_old_models_are_raised_to_the_version_that_has_metadata():
    """IR version 10."""
    model = model_of('<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y) { y = Neg(x) }')
    set_scope(model.graph[0], Scope((Frame("", "m.Net"),)))
    assert mx.InjectTags()(model).modified
    assert model.ir_version == 10


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (2, "layers.0=0;layers.1=0;layers.2=0;layers.10=1;layers.11=1"),
        (3, "layers.0=0;layers.1=0;layers.2=1;layers.10=1;layers.11=2"),
        ({"layers.0": 0, "layers.11": 1}, "layers.0=0;layers.11=1"),
    ],
)
def test_blocks_are_divided_in_their_order(model, splits, expected):
    """Equal parts, the larger first; layer 10 comes after layer 2. Or as told."""
    tags = mx.InjectTags(presets=["split_assignments"], splits=splits)
    tags(model)
    assert model.metadata_props["split_assignments"] == expected
    assert not tags(model).modified


def test_node_names_say_the_module_as_olive_reads_them(model):
    """With / read as . they begin with the path; names stay unique."""
    mx.InjectTags(presets=["split_assignments"], splits=2)(model)
    names = [str(node.name) for node in model.graph]
    assert names[:3] == ["/layers.0/Relu", "/layers.1/Relu", "/layers.1/Relu_1"]
    assert names[-1] == "/Neg"
    read = [".".join(name.replace("/", ".").lstrip(".").split(".")[:2]) for name in names]
    assert read[:-1] == ["layers.0", "layers.1", "layers.1", "layers.2", "layers.10", "layers.11"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"presets": ["default", "htp"]}, r"'\{tag\}' and '\{htp\}' are both to be written under 'hierarchy_tag'"),
        ({"presets": ["olive"]}, r"preset 'olive'; expected one of default, htp, "),
        ({"presets": ["split_assignments"]}, r"splits and the preset split_assignments go together"),
        ({"splits": 2}, r"splits and the preset split_assignments go together"),
        ({"presets": ["split_assignments"], "splits": 1}, r"splits 1; expected at least 2"),
        ({"presets": ["split_assignments"], "splits": {"a": 0, "b": 2}}, r"the parts are \[0, 2\]; expected 0, 1"),
        ({"presets": ["split_assignments"], "splits": {"a": 0, "b.c": 1}}, r"the same number of parts"),
        ({"key": "pkg.modelexport_passes.scope"}, r"expected a metadata key other than"),
        ({"templates": {"k": "{nope}"}}, r"no field 'nope'"),
    ],
)
def test_options_that_contradict_are_refused(options, message):
    """When the pass is made, not when it runs."""
    with pytest.raises(ConfigError, match=message):
        mx.InjectTags(**options)


def test_splits_that_the_model_has_not_are_refused(model):
    """A path that no operation is in, and more parts than blocks."""
    with pytest.raises(ModelExportError, match=r"no operation is in 'layers\.7'"):
        mx.InjectTags(presets=["split_assignments"], splits={"layers.0": 0, "layers.7": 1})(model)
    with pytest.raises(ModelExportError, match=r"5 repeated blocks for 6 splits"):
        mx.InjectTags(presets=["split_assignments"], splits=6)(model)
