"""Scopes, functions and tags that disagree are found."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_ir as ir
import pytest

from modelexport_passes.builtin.inject_tags import InjectTags
from modelexport_passes.scopes.ledger import MODULE_KEY
from modelexport_passes.scopes.scope import SCOPE_KEY, Frame, Scope, Source, set_scope
from modelexport_passes.validation.hierarchy import check_hierarchy

TEXT = """
<ir_version: 10, opset_import: ["" : 20, "m" : 1]> g (float[4] x) => (float[4] y)
{ a = m.Block (x)  b = m.Block (a)  c = Relu (b)  d = Neg (c)  y = Abs (d) }
<domain: "m", opset_import: ["" : 20, "m" : 1]> Block (u) => (v) { t = Neg (u)  v = Relu (t) }
"""
ROOT = Frame("", "m.Net")


def outlined() -> ir.Model:
    """Two calls of one block; an operation of the root, one inferred, one unknown."""
    model = ir.from_proto(onnx.parser.parse_model(TEXT))
    block = model.functions["m", "Block", ""]
    block.metadata_props[MODULE_KEY] = "m.Block"
    for index in (0, 1):
        set_scope(model.graph[index], Scope((ROOT, Frame(f"layers.{index}", "m.Block"))))
    set_scope(model.graph[2], Scope((ROOT,)))
    set_scope(model.graph[3], Scope((ROOT,), Source.DATAFLOW))
    set_scope(block[0], Scope((), relative=True))
    set_scope(block[1], Scope((Frame("act", "t.ReLU"),), relative=True))
    for number, node in enumerate([*model.graph, *block]):
        node.name = f"n{number}"
    InjectTags()(model)
    return model


def test_counts_tell_exact_from_inferred_from_unknown() -> None:
    """A shared body counts once; unknown is neither tagged nor counted as known."""
    counts, problems = check_hierarchy(outlined())
    assert problems == []
    assert vars(counts) == {"nodes": 7, "exact": 5, "inferred": 1, "unknown": 1, "tagged": 6, "calls": 2}


def unreadable_scope(model: ir.Model) -> None:
    model.graph[2].metadata_props[SCOPE_KEY] = "nonsense"


def relative_in_the_main_graph(model: ir.Model) -> None:
    set_scope(model.graph[2], Scope((), relative=True))
    InjectTags()(model)


def absolute_in_a_body(model: ir.Model) -> None:
    set_scope(model.functions["m", "Block", ""][0], Scope((ROOT,)))
    InjectTags()(model)


def call_of_another_class(model: ir.Model) -> None:
    set_scope(model.graph[1], Scope((ROOT, Frame("layers.1", "m.Other"))))
    InjectTags()(model)


def call_without_scope(model: ir.Model) -> None:
    set_scope(model.graph[1], None)
    InjectTags()(model)


def stale_tag(model: ir.Model) -> None:
    model.graph[1].metadata_props["hierarchy_tag"] = "/Net/Block.layers.0"


def tag_without_scope(model: ir.Model) -> None:
    model.graph[4].metadata_props["hierarchy_tag"] = "/Net"


def lost_tag(model: ir.Model) -> None:
    del model.graph[2].metadata_props["hierarchy_tag"]


def shared_tag(model: ir.Model) -> None:
    set_scope(model.graph[3], Scope((Frame("", "other.Net"),)))
    InjectTags()(model)


@pytest.mark.parametrize(
    ("break_it", "check", "said"),
    [
        (unreadable_scope, "scope", "not a scope: 'nonsense'"),
        (relative_in_the_main_graph, "scope", "n2 (Relu) has a relative scope, expected an absolute one"),
        (absolute_in_a_body, "scope", "n5 (Neg) has an absolute scope, expected a relative one"),
        (call_of_another_class, "call-scope", "has the scope of a m.Other and calls function m::Block, a m.Block"),
        (call_without_scope, "call-scope", "n1 (Block) calls the module m.Block and has no scope"),
        (stale_tag, "tag", "'/Net/Block.layers.0'; its scope says '/Net/Block.layers.1'"),
        (tag_without_scope, "tag", "'/Net'; its scope says None"),
        (lost_tag, "tag", "has the hierarchy_tag None; its scope says '/Net'"),
        (shared_tag, "tag", "two module calls share the hierarchy_tag '/Net': m.Net 'root' and other.Net 'root'"),
    ],
)
def test_disagreement_is_found(break_it: Callable[[ir.Model], None], check: str, said: str) -> None:
    """Each kind is found, alone, in words that name the node."""
    model = outlined()
    break_it(model)
    _, [problem] = check_hierarchy(model)
    assert problem.check == check
    assert said in str(problem)


def test_templates_that_repeat_by_design_are_no_fault() -> None:
    """A tag of class names only is the same for two blocks, as was asked for."""
    model = outlined()
    InjectTags(key="classes", template="{classes}")(model)
    assert check_hierarchy(model)[1] == []
