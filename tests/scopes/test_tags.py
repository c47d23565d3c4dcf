"""Tags: scopes as text for their readers, and back."""

from __future__ import annotations

import json

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modelexport_passes as mx
from modelexport_passes.errors import ConfigError
from modelexport_passes.scopes.scope import Frame, Scope, format_scope
from modelexport_passes.scopes.tags import (
    PRESETS,
    TAGS_KEY,
    check_template,
    parse_tag,
    render,
    render_tag,
    tag_templates,
)

BERT = Scope(
    (
        Frame("", "bert.BertModel"),
        Frame("encoder", "bert.BertEncoder"),
        Frame("encoder.layer.0", "bert.BertLayer"),
        Frame("encoder.layer.0.attention", "bert.BertAttention"),
        Frame("encoder.layer.0.attention.query", "torch.nn.modules.linear.Linear", 1),
    )
)

atoms = st.text(alphabet="ab0_/@|%é.^ ", min_size=1, max_size=4).filter(lambda atom: atom.strip(".") == atom)
paths = st.lists(atoms, min_size=1, max_size=3).map(".".join).filter(lambda path: not path.startswith("^"))
classes = st.text(alphabet="AB_/@%é", min_size=1, max_size=3)
frames = st.builds(Frame, paths, classes, st.integers(0, 3))


@st.composite
def stacks(draw: st.DrawFn, *, relative: bool = False) -> Scope:
    """A root and frames below each other or not; relative ones without the root, some outside of the module."""
    found: list[Frame] = [] if relative else [Frame("", draw(classes), draw(st.integers(0, 2)))]
    for frame in draw(st.lists(frames, max_size=4)):
        where = draw(st.sampled_from(["below", "elsewhere", "outside", "same"]))
        path, before = frame.path, found[-1].path if found else ""
        if where == "below" and before:
            path = f"{before}.{path}"
        elif where == "outside" and relative:
            path = f"^{path}"
        elif where == "same" and found:
            path = before
        found.append(frame._replace(path=path))
    return Scope(tuple(found), relative=relative)


@given(stacks() | stacks(relative=True))
def test_a_tag_parses_back_to_its_scope(scope: Scope):
    """Paths, calls and short classes; whatever characters are in them, and whoever called whom."""
    assert parse_tag(render_tag(scope)) == scope


@given(stacks(), stacks())
@settings(max_examples=300)
def test_two_module_calls_never_share_a_tag(one: Scope, other: Scope):
    """The default form is injective."""
    assert (render_tag(one) == render_tag(other)) == (one == other)


def test_the_default_form():
    """As documented."""
    assert render_tag(BERT) == "/BertModel/BertEncoder.encoder/BertLayer.layer.0/BertAttention.attention/Linear.query@1"
    assert render_tag(Scope((), relative=True)) == "."
    body = Scope((Frame("^rotary", "m.Rotary"), Frame("attention", "m.Attention")), relative=True)
    assert render_tag(body) == "Rotary.^rotary/Attention.^.attention"


@pytest.mark.parametrize("text", ["/Net//Linear.x", "/Net@x", "//", "/.x"])
def test_what_is_no_tag_is_refused(text: str):
    """With the segment at fault."""
    with pytest.raises(ValueError, match=r"not a tag: .*expected Class\.attribute_path@call"):
        parse_tag(text)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("htp", {"hierarchy_tag": "/BertModel/BertEncoder/BertLayer.0/BertAttention"}),
        (
            "winml",
            {
                "winml.hierarchy.tag": "/BertModel/BertEncoder/BertLayer.0/BertAttention",
                "winml.hierarchy.depth": "4",
            },
        ),
        ("layer_ann", {"layer_ann": "encoder.layer.0.attention.query"}),
        (
            "namespace",
            {
                "namespace": ": bert.BertModel/encoder: bert.BertEncoder/encoder.layer.0: bert.BertLayer/"
                "encoder.layer.0.attention: bert.BertAttention/"
                "encoder.layer.0.attention.query: torch.nn.modules.linear.Linear/n1: MatMul"
            },
        ),
    ],
)
def test_presets_have_the_forms_that_their_readers_read(preset: str, expected: dict[str, str]):
    """Each key, each value."""
    text = format_scope(BERT)
    assert {key: render(text, template, "n1", "MatMul") for key, template in PRESETS[preset].items()} == expected


def test_the_root_is_in_htp_tags_even_if_torch_ships_it():
    """A Sequential as the model; its parts, which torch ships too, are not."""
    scope = Scope((Frame("", "torch.nn.modules.container.Sequential"), Frame("0", "torch.nn.modules.linear.Linear")))
    assert render(format_scope(scope), "{htp} {htp_depth}") == "/Sequential 1"


def test_a_template_with_an_unknown_field_names_those_there_are():
    """Before anything runs."""
    with pytest.raises(ConfigError, match=r"no field 'pth'; there are tag, path, class, "):
        check_template("{pth}")
    with pytest.raises(ConfigError, match=r"tag template '\{': "):
        check_template("{")


NEG = '<ir_version: 10, opset_import: ["" : 20]> g (float[1] x) => (float[1] y) { y = Neg(x) }'


@pytest.mark.parametrize(
    "template", ["{depth:1000000000d}", "{path.__class__}", "{path!r}", "{depth:{call}}", "{0}", "{"]
)
def test_a_template_has_fields_and_nothing_else(template: str) -> None:
    """What a file says is data: a template that it carries is no format string of Python's."""
    with pytest.raises(mx.ConfigError, match="tag template"):
        check_template(template)
    model = ir.from_onnx_text(NEG)
    model.metadata_props[TAGS_KEY] = json.dumps({"k": template})
    with pytest.raises(mx.ModelExportError, match=r"model metadata 'pkg.modelexport_passes.tags': tag template"):
        tag_templates(model)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"k": 1}', "7", "[" * 100_000])
def test_an_entry_that_is_no_table_of_templates_is_an_error_with_its_key(text: str) -> None:
    """No traceback comes of metadata."""
    model = ir.from_onnx_text(NEG)
    model.metadata_props[TAGS_KEY] = text
    if not text:
        assert tag_templates(model) == {}
        return
    with pytest.raises(mx.ModelExportError, match=r"model metadata 'pkg.modelexport_passes.tags': expected JSON"):
        tag_templates(model)
