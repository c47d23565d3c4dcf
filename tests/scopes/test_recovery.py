"""Recovery when names are gone: from parameters, from weights of the torch model, and from a reference export."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

import modelexport_passes as mx
from modelexport_passes.errors import ConfigError, MissingDependencyError, VerificationError
from modelexport_passes.scopes.scope import Frame, Scope, Source, set_scope
from tests.zoo import TensorsOut, build, zoo_cases


@functools.cache
def exported(optimise: bool) -> onnx.ModelProto:
    """A BERT with the scopes that its export recorded."""
    (case,) = zoo_cases(("bert",))
    model, inputs = build(case)
    return ir.to_proto(mx.export(model, kwargs=inputs, optimize=optimise))


def fresh(optimise: bool = False) -> ir.Model:
    return ir.from_proto(onnx.ModelProto.FromString(exported(optimise).SerializeToString()))


def forget(model: ir.Model, *, parameters: bool) -> dict[ir.Node, Scope]:
    """Take away every name and all metadata; returns the true scopes."""
    true: dict[ir.Node, Scope] = {}
    for number, node in enumerate(model.graph):
        scope = mx.scope_of(node)
        assert scope is not None
        true[node] = scope
        node.name = f"node_{number}"
        node.metadata_props.clear()
        for place, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"value_{number}_{place}"
    if parameters:
        for number, value in enumerate(list(model.graph.initializers.values())):
            value.name = f"weight_{number}"
    return true


def names(node: ir.Node) -> list[str]:
    return [str(value.name) for value in node.inputs if value is not None]


def verdicts(true: dict[ir.Node, Scope]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for node, scope in true.items():
        given = mx.scope_of(node)
        if given is None:
            counts["unknown"] += 1
        elif (given.path, given.call) == (scope.path, scope.call):
            counts["right"] += 1
        else:
            counts["ancestor" if given.path in {frame.path for frame in scope.frames} else "wrong"] += 1
    return counts


def test_parameters_alone_tell_the_module_or_one_around_it() -> None:
    """At least nine in ten operations get their module or one that called it, and next to none another."""
    model = fresh()
    true = forget(model, parameters=False)
    result = mx.RecoverScopes()(model)
    counts = verdicts(true)
    assert counts["right"] + counts["ancestor"] >= 0.9 * len(true)
    assert counts["wrong"] <= 0.01 * len(true)
    assert isinstance(result, mx.Outcome)
    assert result.figures["exact"] == 0
    assert result.figures["unknown"] == counts["unknown"]


@pytest.mark.parametrize("optimise", [False, True])
def test_a_reference_tells_a_file_without_any_name(optimise: bool) -> None:
    """A plain export lends its scopes and classes to the same model whose names and metadata are gone."""
    model = fresh(optimise)
    true = forget(model, parameters=True)
    mx.RecoverScopes(reference=fresh())(model)
    assert verdicts(true)["right"] >= 0.99 * len(true)
    classes = {scope.class_name for node in true if (scope := mx.scope_of(node)) is not None}
    assert "torch.nn.modules.linear.Linear" in classes


def test_another_model_as_reference_is_refused() -> None:
    """None of its weights is in the file: what its operations say would be of another model. Nothing is written."""

    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x)

    model = fresh()
    true = forget(model, parameters=True)
    with pytest.raises(mx.ModelExportError, match="the reference does not fit the file"):
        mx.RecoverScopes(reference=mx.export(Other().eval(), (torch.randn(2, 3),)))(model)
    assert all(mx.scope_of(node) is None for node in true)


class TwoLinears(nn.Module):
    """Two layers without biases: their folded weights have no names in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.heads["b"](self.heads["a"](x).relu())


def test_the_torch_model_tells_whose_a_folded_weight_is() -> None:
    """A transposed weight of no name equals a parameter of the torch model, and no container makes a frame."""
    torch.manual_seed(0)
    module = TwoLinears().eval()
    model = mx.export(module, (torch.randn(2, 4),), optimize=True)
    true = forget(model, parameters=True)
    mx.RecoverScopes(module=module)(model)
    assert verdicts(true) == {"right": len(true)}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"min_coverage": 1.0}, "min_coverage asks for 100.00 %"),
        ({"max_unknown": 0}, "max_unknown allows 0"),
    ],
)
def test_too_little_known_fails_the_step(options: dict[str, Any], text: str) -> None:
    """A file that tells nothing cannot pass a demand, and the error names operations and what would help."""
    model = fresh()
    forget(model, parameters=True)
    with pytest.raises(VerificationError, match=text) as caught:
        mx.RecoverScopes(**options)(model)
    assert "node_0" in str(caught.value)
    assert "reference" in str(caught.value)


def test_conflicts_are_listed_per_module_and_source() -> None:
    """An operation that alone reads another module's parameter is reported, and fails the step if asked for."""
    model = fresh()
    wrong = next(node for node in model.graph if "encoder.layer.0.intermediate.dense.bias" in names(node))
    scope = mx.scope_of(wrong)
    assert scope is not None
    frames = (*scope.frames[:-1], Frame("encoder.layer.1.output", "m.Other"))
    set_scope(wrong, Scope(frames, Source.METADATA))
    result = mx.RecoverScopes()(model)
    assert isinstance(result, mx.Outcome)
    conflicts = result.figures["conflicts_by_module"]
    assert isinstance(conflicts, list)
    assert {str(conflict["owner"]) for conflict in conflicts if isinstance(conflict, dict)} == {
        "encoder.layer.0.intermediate.dense"
    }
    with pytest.raises(VerificationError, match=r"encoder\.layer\.1\.output by metadata"):
        mx.RecoverScopes(on_conflict="error")(model)


def test_a_plain_export_has_no_conflicts() -> None:
    """The exporter's own stack and the names of parameters agree, so a conflict means something."""
    result = mx.RecoverScopes(on_conflict="error", min_coverage=1.0, max_unknown=0)(fresh())
    assert isinstance(result, mx.Outcome)
    assert result.figures["conflicts"] == 0


def test_the_torch_model_can_be_named_by_a_factory(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """``package.module:function`` in the working directory; what is wrong with it is said."""
    monkeypatch.chdir(str(tmp_path))
    with open("my_models.py", "w", encoding="utf-8") as file:
        file.write("import torch\n\ndef make():\n    return torch.nn.Linear(4, 4), (torch.ones(1, 4),)\n")
    model = mx.export(nn.Linear(4, 4), (torch.ones(1, 4),), exporter="torchscript")
    for node in model.graph:
        set_scope(node, None)
    mx.RecoverScopes(module="my_models:make", max_unknown=0)(model)
    assert {scope.class_name for node in model.graph if (scope := mx.scope_of(node))} == {
        "torch.nn.modules.linear.Linear"
    }
    for factory, error in {
        "my_models:other": ConfigError,
        "my_models": ConfigError,
        "json:dumps": mx.ModelExportError,
        "os:getcwd": ConfigError,
        "no_such_module:make": MissingDependencyError,
    }.items():
        with pytest.raises(Exception, match=factory.partition(":")[0]) as caught:
            mx.RecoverScopes(module=factory)(model)
        assert isinstance(caught.value, error), factory


@pytest.mark.parametrize("options", [{"min_coverage": 1.5}, {"min_coverage": -0.1}, {"max_unknown": -1}])
def test_demands_that_no_model_meets_are_refused(options: dict[str, Any]) -> None:
    """A share is from 0 to 1 and a number is not negative."""
    with pytest.raises(ConfigError, match="expected"):
        mx.RecoverScopes(**options)


def test_a_wrapped_model_with_a_module_is_resolved_by_its_paths() -> None:
    """The torch model given is the one that was exported, wrapper included."""
    (case,) = zoo_cases(("bert",))
    model, inputs = build(case)
    wrapped = TensorsOut(model, list(inputs)).eval()
    found = mx.export(wrapped, tuple(inputs.values()), exporter="torchscript", optimize=True)
    true = {node: scope for node in found.graph if (scope := mx.scope_of(node)) is not None}
    for node in true:
        set_scope(node, None)
    mx.RecoverScopes(module=wrapped)(found)
    assert {node: mx.scope_of(node) for node in true} == true
