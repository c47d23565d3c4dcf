"""The module tree and the comparison tell the same of a flat model and of its outlined form."""

from __future__ import annotations

import io
import json
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from modelexport_passes.cli.diff import diff
from modelexport_passes.cli.inspect import inspect
from modelexport_passes.exporting.files import save
from modelexport_passes.report.diff import diff_models
from modelexport_passes.report.tables import bytes_text, diff_table, module_tree_view
from modelexport_passes.report.tree import module_tree
from modelexport_passes.scopes.ledger import MODULE_KEY, Call, Ledger, write_ledger
from modelexport_passes.scopes.scope import Frame, Scope, format_frames, set_scope

ROOT = Frame("", "m.Net")
HEAD = '<ir_version: 10, opset_import: ["" : 20, "m" : 1]> g (float[2] x) => (float[2] y) '
WEIGHTS = "<float[2] w0 = {1, 2}, float[2] w1 = {3, 4}, float[2] shared = {5, 6}> "
FLAT = """{ a = Mul (x, w0)  b = Add (a, shared)  c = Relu (b)
  d = Mul (c, w1)  e = Add (d, shared)  f = Relu (e)  y = Neg (f) }"""
OUTLINED = """{ c = m.Block (x, w0, shared)  f = m.Block (c, w1, shared)  y = Neg (f) }
<domain: "m", opset_import: ["" : 20, "m" : 1]> Block (u, w, s) => (v)
{ p = m.Scale (u, w)  q = Add (p, s)  v = Relu (q) }
<domain: "m", opset_import: ["" : 20]> Scale (u, w) => (v) { v = Mul (u, w) }
"""


def block(index: int) -> Frame:
    return Frame(f"layers.{index}", "m.Block")


def flat() -> ir.Model:
    """Two blocks, each with a scale below it; ``act`` is one module that both call."""
    model = ir.from_proto(onnx.parser.parse_model(HEAD + WEIGHTS + FLAT))
    for index in (0, 1):
        mul, add, relu = (model.graph[3 * index + step] for step in range(3))
        frames = (ROOT, block(index))
        set_scope(mul, Scope((*frames, Frame(f"layers.{index}.scale", "m.Scale"))))
        set_scope(add, Scope(frames))
        set_scope(relu, Scope((*frames, Frame("act", "t.ReLU", index))))
    return model


def outlined() -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(HEAD + WEIGHTS + OUTLINED))
    for index in (0, 1):
        set_scope(model.graph[index], Scope((ROOT, block(index))))
    body = model.functions["m", "Block", ""]
    body.metadata_props[MODULE_KEY] = "m.Block"
    set_scope(body[0], Scope((Frame("scale", "m.Scale"),), relative=True))
    set_scope(body[1], Scope((), relative=True))
    set_scope(body[2], Scope((Frame("^act", "t.ReLU"),), relative=True))
    scale = model.functions["m", "Scale", ""]
    scale.metadata_props[MODULE_KEY] = "m.Scale"
    set_scope(scale[0], Scope((), relative=True))
    second = format_frames((ROOT, block(1)))
    write_ledger(model, Ledger({second: Call(bases={"act": 1})}))
    return model


def rows(model: ir.Model) -> list[tuple[str, str, int, int, int]]:
    return [
        (str(call.frame), call.frame.short_class, call.own_operations, call.total_operations, len(call.all_weights()))
        for root in module_tree(model).roots
        for call in root.walk()
    ]


def test_the_tree_of_a_flat_model() -> None:
    """Own and total operations, weights of a subtree (one that two modules read is one), unknown apart."""
    assert rows(flat()) == [
        ("", "Net", 0, 6, 3),
        ("layers.0", "Block", 1, 3, 2),
        ("layers.0.scale", "Scale", 1, 1, 1),
        ("act", "ReLU", 1, 1, 0),
        ("layers.1", "Block", 1, 3, 2),
        ("layers.1.scale", "Scale", 1, 1, 1),
        ("act@1", "ReLU", 1, 1, 0),
    ]
    assert dict(module_tree(flat()).unknown) == {"Neg": 1}


def test_outlining_changes_nothing_but_the_functions() -> None:
    """Seen through nested functions, scopes, weights and call indices are those of the flat model."""
    assert sorted(rows(outlined())) == sorted(rows(flat()))
    tree = module_tree(outlined())
    assert [vars(function) for function in tree.functions] == [
        {"name": "m::Block", "module": "m.Block", "nodes": 3, "call_sites": 2, "calls": 2, "source": None},
        {"name": "m::Scale", "module": "m.Scale", "nodes": 1, "call_sites": 1, "calls": 2, "source": None},
    ]
    assert [call.function for call in tree.roots[0].walk() if call.function] == ["m::Block", "m::Scale"] * 2


def test_json_is_cut_at_the_depth_asked_for() -> None:
    """Deeper levels are left out; their operations stay in the totals."""
    [root] = module_tree(flat()).to_json(depth=1, nodes=True)["modules"]
    assert [child["total_operations"] for child in root["children"]] == [3, 3]
    assert all("children" not in child for child in root["children"])
    assert [node["op_type"] for node in root["children"][0]["nodes"]] == ["Add"]
    assert (root["parameters"], root["parameter_bytes"]) == (6, 24)


def test_diff_of_two_forms() -> None:
    """The main graph shrinks; what runs, the weights and the interface are the same."""
    found = diff_models([("flat", flat()), ("outlined", outlined())])
    plain, outer = found.models
    assert (plain.main_nodes, outer.main_nodes) == (7, 3)
    assert found.reductions == [0.0, pytest.approx(100 * 4 / 7)]
    assert (plain.expanded_nodes, outer.expanded_nodes, outer.stored_nodes) == (7, 7, 7)
    assert (outer.functions, outer.call_sites) == (2, 3)
    assert (plain.scoped, outer.scoped) == (6, 6)
    assert found.op_types == {}
    assert found.same_interface == [True, True]


def test_diff_tells_what_differs() -> None:
    """Op types are listed where their number differs; a renamed output is another interface."""
    other = flat()
    other.graph[-1].op_type = "Abs"
    other.graph.outputs[0].name = "z"
    found = diff_models([("a", flat()), ("b", other)])
    assert found.op_types == {"Abs": [0, 1], "Neg": [1, 0]}
    assert found.same_interface == [True, False]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(diff_table(found))
    shown = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()]
    assert ["inputs and outputs", "same", "other"] in shown
    assert ["Neg", "1", "0"] in shown


def test_the_tree_on_a_terminal_escapes_names() -> None:
    """A class named like markup is shown as it is."""
    model = flat()
    set_scope(model.graph[6], Scope((Frame("", "m.Net"), Frame("x", "[bold]Odd"))))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(module_tree_view(module_tree(model)))
    shown = console.export_text()
    assert "[bold]Odd  x  1 / 1" in shown
    assert "Scale  scale  1 / 1  2 parameters, 8 B" in shown


def test_sizes_for_people() -> None:
    """One digit behind the point, decimal units."""
    assert [bytes_text(n) for n in (0, 999, 1000, 4_300_000_000)] == ["0 B", "999 B", "1.0 kB", "4.3 GB"]


def test_the_verbs(tmp_path: Path) -> None:
    """``inspect`` and ``diff`` print JSON that says what the tree and the comparison say."""
    save(flat(), tmp_path / "flat.onnx")
    save(outlined(), tmp_path / "outlined.onnx")
    app = typer.Typer()
    app.command()(inspect)
    app.command()(diff)
    run = CliRunner().invoke
    shown = run(app, ["inspect", str(tmp_path / "outlined.onnx"), "--json", "--depth", "0"])
    assert json.loads(shown.stdout) == module_tree(outlined()).to_json(depth=0)
    shown = run(app, ["diff", str(tmp_path / "flat.onnx"), str(tmp_path / "outlined.onnx"), "--json"])
    models = json.loads(shown.stdout)["models"]
    assert [(model["name"], model["main_nodes"]) for model in models] == [("flat.onnx", 7), ("outlined.onnx", 3)]
    assert run(app, ["diff", str(tmp_path / "flat.onnx")]).exit_code == 2
    assert "m::Block" in run(app, ["inspect", str(tmp_path / "outlined.onnx")]).stdout
