"""What apply-inside does to bodies and what it keeps: signatures, scopes, results."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, IdentityEliminationPass

import modelexport_passes as mx
from modelexport_passes.builtin.optimizers import OnnxSlim
from modelexport_passes.config.json_schema import json_schema
from modelexport_passes.scopes.ledger import read_ledger
from modelexport_passes.testing import model_of
from tests.scoped_models import check, fingerprint, run, scoped, tags_in

X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) - 2}

NET = """
g (float[2,3] x) => (float[2,3] y)
<float[3,3] layers.0.fc.weight = {1,2,3,4,5,6,7,8,9}, float[3,3] layers.1.fc.weight = {9,8,7,6,5,4,3,2,1}>
{
    a0 = MatMul(x, layers.0.fc.weight)
    i0 = Identity(a0)
    n0 = Neg(i0)
    m0 = Neg(i0)
    b0 = Add(n0, m0)
    a1 = MatMul(b0, layers.1.fc.weight)
    i1 = Identity(a1)
    n1 = Neg(i1)
    m1 = Neg(i1)
    y = Add(n1, m1)
}
"""
SCOPES = {
    name: f"/Net/Block.layers.{at}{'/Linear.fc' if name[0] == 'a' else ''}"
    for at in (0, 1)
    for name in (f"a{at}", f"i{at}", f"n{at}", f"m{at}", "b0" if at == 0 else "y")
}


def outlined(**options: Any) -> ir.Model:
    model = scoped(NET, SCOPES)
    mx.InjectTags()(model)
    mx.Outline(**options)(model)
    return model


def apply(model: ir.Model, pass_: ir.passes.PassBase, **options: Any) -> mx.Outcome:
    """Apply, and check what holds for every pass that keeps results: valid, the same bits, idle the second time."""
    expected = run(model, X)
    result = mx.ApplyInside(apply=pass_, **options)(model)
    check(model)
    assert run(model, X) == expected
    assert not mx.ApplyInside(apply=pass_, **options)(model).modified
    assert isinstance(result, mx.Outcome)
    return result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Does(mx.ModelPass):
    """Runs a Python function on the model."""

    name = "does"
    what: Any

    def call(self, model: ir.Model) -> mx.Outcome:
        self.what(model)
        return mx.Outcome(model, True, notes=["done"])


def test_a_shared_body_is_worked_on_once_and_tags_stay() -> None:
    """The pass sees each body as a model; inlined again, all calls have the result."""
    model = outlined()
    result = apply(model, ir.passes.Sequential(CommonSubexpressionEliminationPass(), IdentityEliminationPass()))
    assert result.figures == {"functions": 2, "changed": 1, "operations": "6 -> 4"}
    assert tags_in(model.functions["pkg", "Block", ""]) == [("Linear", "Linear.fc"), ("Neg", "."), ("Add", ".")]
    mx.Inline()(model)
    assert {node.metadata_props["hierarchy_tag"] for node in model.graph} == set(SCOPES.values())
    assert len(model.graph) == 6


def test_only_selected_functions_are_visited() -> None:
    """By class, or by domain and name."""
    assert not mx.ApplyInside(apply=CommonSubexpressionEliminationPass(), modules=["*.Linear"])(outlined()).modified
    assert mx.ApplyInside(apply=CommonSubexpressionEliminationPass(), modules=["pkg.B*"])(outlined()).modified


def test_inside_the_module_is_the_root_and_what_it_calls_is_there() -> None:
    """The pass sees absolute scopes, typed inputs, weights as inputs, callees as functions, and no ledger."""
    seen: list[Any] = []

    def look(model: ir.Model) -> None:
        paths = [str(mx.scope_of(node)) for node in model.graph]
        inputs = [(value.name, str(value.dtype)) for value in model.graph.inputs]
        seen.append((paths[:2], inputs, sorted(name for _, name, _ in model.functions)))

    model = outlined()
    before = fingerprint(model)
    result = mx.ApplyInside(apply=Does(what=look), modules=["*.Block"])(model)
    assert seen == [
        (
            ["export|pkg.Block:/pkg.Linear:fc", "export|pkg.Block:"],
            [("input_0", "FLOAT"), ("fc.weight", "FLOAT")],
            ["Linear"],
        )
    ]
    assert not result.modified, "a pass that changed nothing is not believed"
    assert isinstance(result, mx.Outcome)
    assert result.notes == ["pkg::Block: done"]
    assert fingerprint(model) == before


def test_a_whole_model_tool_works_on_bodies() -> None:
    """The tool reads and writes files; scopes are carried across and become relative again."""
    pytest.importorskip("onnxslim")
    model = outlined(modules=["*.Block"])
    mx.ApplyInside(apply=OnnxSlim(), modules=["*.Block"])(model)
    check(model)
    tags = tags_in(model.functions["pkg", "Block", ""])
    assert ("MatMul", "Linear.fc") in tags
    assert len(tags) < 5
    np.testing.assert_array_equal(run(model, X), run(scoped(NET, SCOPES), X))


def test_initializers_that_a_pass_makes_become_constants_and_outputs_stay_apart() -> None:
    """A function has no initializers and returns no input; new functions and opsets come along."""

    def rewrite(model: ir.Model) -> None:
        graph = model.graph
        weight = ir.Value(name="w", const_value=ir.tensor(np.ones(3, np.float32), name="w"))
        graph.register_initializer(weight)
        node = ir.Node("com.microsoft", "QuickGelu", [weight], num_outputs=1, name="gelu")
        graph.append(node)
        graph.opset_imports["com.microsoft"] = 1
        graph.outputs[0] = graph.inputs[0]

    model = scoped("g (float[2,3] x) => (float[2,3] y) { y = Neg(x) }", {"y": "/Net/Act.act"})
    mx.Outline()(model)
    mx.ApplyInside(apply=Does(what=rewrite))(model)
    check(model)
    function = model.functions["pkg", "Act", ""]
    assert [node.op_type for node in function] == ["Constant", "Neg", "QuickGelu", "Identity"]
    assert dict(function.opset_imports) == {"": 20, "com.microsoft": 1}
    assert model.opset_imports["com.microsoft"] == 1
    assert run(model, X) == [X["x"].tobytes()]


def test_the_ledger_follows_renamed_nodes() -> None:
    """A scope that one call has otherwise is kept by the node's name, so it moves with the name."""
    text = "g (float[2,3] x) => (float[2,3] y) { a = Relu(x)  b = Neg(a)  c = Relu(b)  y = Neg(c) }"
    scopes = {"a": "/Net/B.b/C.c", "b": "/Net/B.b", "c": "/Net/B.b@1/C.other", "y": "/Net/B.b@1"}
    model = scoped(text, scopes)
    kept = fingerprint(model)
    mx.Outline(modules=["*.B"])(model)
    assert any(call.scopes for call in read_ledger(model).calls.values())

    def rename(inner: ir.Model) -> None:
        assert not read_ledger(inner).calls, "it speaks of calls that are not there"
        for at, node in enumerate(inner.graph):
            node.name = f"renamed_{at}"

    mx.ApplyInside(apply=Does(what=rename))(model)
    mx.Inline()(model)
    assert fingerprint(model) == kept


def test_functions_that_take_attributes_are_left_alone() -> None:
    """A body with references to them is no model."""
    model = model_of("""
    <ir_version: 10, opset_import: ["": 20, "lib": 1]>
    g (float[2,3] x) => (float[2,3] y) { y = lib.Act <alpha = 0.5> (x) }
    <opset_import: ["": 20], domain: "lib">
    Act <alpha> (h) => (z) { z = LeakyRelu <alpha: float = @alpha> (h) }
    """)
    result = mx.ApplyInside(apply=CommonSubexpressionEliminationPass())(model)
    assert isinstance(result, mx.Outcome)
    assert result.notes == ["left alone, as it takes attributes: lib::Act"]


def test_a_pass_that_fails_or_changes_the_signature_leaves_the_model_as_it_was() -> None:
    """The message names the function."""

    def drop_input(model: ir.Model) -> None:
        if len(model.graph.inputs) == 2 and model.functions:
            raise ValueError("no")
        model.graph.outputs.append(model.graph[0].outputs[0])

    model = outlined()
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(mx.ModelExportError, match=r"failed in the body of pkg::Block: no"):
        mx.ApplyInside(apply=Does(what=drop_input), modules=["*.Block"])(model)
    with pytest.raises(mx.ModelExportError, match=r"what the pass left does not fit pkg::Linear: it has 2 outputs"):
        mx.ApplyInside(apply=Does(what=drop_input), modules=["*.Linear"])(model)
    assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize("inner", [mx.Outline(), ir.passes.Sequential(mx.Inline())])
def test_passes_that_work_on_functions_themselves_are_refused(inner: ir.passes.PassBase) -> None:
    """They need the whole model."""
    with pytest.raises(mx.ConfigError, match=r"(in|out)line works on functions itself"):
        mx.ApplyInside(apply=inner)


# --- in a pipeline file ----------------------------------------------------------------------------------------------


def pipeline(folder: Path, step: str) -> mx.Pipeline:
    """A pipeline file of this one step."""
    mx.save(outlined(), folder / "in.onnx")
    path = folder / "pipeline.yaml"
    path.write_text(f"version: 1\ninput: {{model: in.onnx}}\noutput: {{path: out.onnx}}\nsteps:\n{step}")
    return mx.Pipeline.from_yaml(path)


def test_a_pass_inside_is_written_as_a_step_is(tmp_path: Path) -> None:
    """Name and options; paths in them are relative to the file."""
    step = "  - pass: apply-inside\n    with:\n      apply: {pass: inject-tags, with: {key: mine}}\n"
    result = pipeline(tmp_path, step).run()
    (block,) = (function for function in result.model.functions.values() if function.name == "Block")
    assert [node.metadata_props["mine"] for node in block][:2] == ["Linear.fc", "."]


@pytest.mark.parametrize(
    ("inner", "problem"),
    [
        ("{pass: inject-tag}", "6:26: steps[0].with.apply.pass: unknown pass 'inject-tag'"),
        ("{pass: inject-tags, with: {ky: a}}", "6:46: steps[0].with.apply.with: unknown key 'ky'"),
        ("{with: {key: a}}", "steps[0].with.apply.pass: missing; expected text"),
        ("inject-tags", "expected a mapping with the keys pass, with"),
        ("{pass: outline}", "outline works on functions itself"),
    ],
)
def test_what_is_wrong_inside_is_told_at_its_place(tmp_path: Path, inner: str, problem: str) -> None:
    """File, line, column and path, as for any step."""
    with pytest.raises(mx.ConfigError) as error:
        pipeline(tmp_path, f"  - pass: apply-inside\n    with: {{apply: {inner}}}\n")
    assert problem in str(error.value)


def test_the_json_schema_knows_a_pass_inside() -> None:
    """Editors complete it."""
    steps = json_schema()["$defs"]["StepSection"]["allOf"]
    (options,) = (step["then"]["properties"]["with"] for step in steps if "apply" in str(step["if"]))
    assert set(options["properties"]["apply"]["properties"]) == {"pass", "with"}
    assert options["required"] == ["apply"]
