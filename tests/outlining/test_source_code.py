"""Functions say where the code of their module is, where the exporter told."""

from __future__ import annotations

import inspect

import onnx_ir as ir
import torch
from torch import nn

import modelexport_passes as mx
from modelexport_passes.report.tables import function_table
from modelexport_passes.report.tree import module_tree
from modelexport_passes.scopes.ledger import SOURCE_KEY, SOURCES_KEY
from modelexport_passes.scopes.torch_metadata import CLASS_HIERARCHY, NAME_SCOPES
from tests.scoped_models import scoped

TEXT = "g (float[2,3] x) => (float[2,3] y) { a = Neg(x)  b = Relu(a)  c = Neg(b)  y = Relu(c) }"
SCOPES = {
    "a": "/Net/Block.layers.0/Neg.neg",
    "b": "/Net/Block.layers.0",
    "c": "/Net/Block.layers.1/Neg.neg",
    "y": "/Net/Block.layers.1",
}


class Block(nn.Module):
    """Has an operation of its own, made by a method that it calls."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A module, then the method."""
        return self.twice(self.fc(x))

    def twice(self, x: torch.Tensor) -> torch.Tensor:
        """Not in ``forward``."""
        return x + x


class Net(nn.Module):
    """Two blocks and an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.act = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One after the other."""
        for layer in self.layers:
            x = layer(x)
        return self.act(x)


def told(lines: dict[str, list[str]]) -> ir.Model:
    """The model above with torch's metadata: for each node, by its output, the traces' (file:line, function)."""
    model = scoped(TEXT, SCOPES)
    for node in model.graph:
        scope = mx.scope_of(node)
        assert scope is not None
        node.metadata_props[NAME_SCOPES] = repr([frame.path for frame in scope.frames] + ["op"])
        node.metadata_props[CLASS_HIERARCHY] = repr([frame.class_name for frame in scope.frames] + ["aten.op"])
        trace = [line.split(":") for line in lines.get(str(node.outputs[0].name), ())]
        text = "\n".join(f'  File "{file}", line {at}, in {where}\n    code(x)' for file, at, where in trace)
        if text:
            node.metadata_props["pkg.torch.onnx.stack_trace"] = text.strip()
    return model


def sources(model: ir.Model) -> dict[str, str | None]:
    return {function.name: function.metadata_props.get(SOURCE_KEY) for function in model.functions.values()}


def test_the_forward_of_a_module_is_found_among_the_calls_that_led_to_an_operation() -> None:
    """As many as modules: each is one's. What a module calls besides (a function) is no module's forward."""
    model = told({"b": ["net.py:5:forward", "net.py:9:forward", "nn.py:7:relu"]})
    mx.Outline()(model)
    assert sources(model) == {"Block": "net.py:9", "Neg": None}


def test_a_module_without_operations_that_tell_is_told_by_those_of_modules_in_it() -> None:
    """The line is that of the call in its forward."""
    model = told({"a": ["net.py:5:forward", "net.py:8:forward", "neg.py:3:forward"]})
    mx.Outline()(model)
    assert sources(model) == {"Block": "net.py:8", "Neg": "neg.py:3"}


def test_traces_that_do_not_fit_the_modules_tell_nothing() -> None:
    """A hook's operation was made by no forward of its module; a parent's forward that it calls is one too many."""
    model = told(
        {
            "a": ["net.py:5:forward", "net.py:8:forward", "hooks.py:3:hook"],
            "b": ["net.py:5:forward", "net.py:9:forward", "base.py:4:forward"],
        }
    )
    mx.Outline()(model)
    assert sources(model) == {"Block": None, "Neg": None}
    assert SOURCES_KEY not in model.metadata_props


def test_sources_stay_known_when_functions_go_and_come_back() -> None:
    """Traces that differ by call do not stay in a shared body; what they told does."""
    lines = {name: ["net.py:5:forward", f"net.py:{at}:forward"] for name, at in (("b", 9), ("y", 10))}
    model = told(lines)
    mx.Outline()(model)
    assert sources(model) == {"Block": "net.py:9", "Neg": None}
    mx.Inline()(model)
    assert not any("pkg.torch.onnx.stack_trace" in node.metadata_props for node in model.graph)
    mx.Outline()(model)
    assert sources(model) == {"Block": "net.py:9", "Neg": None}


def test_the_line_of_an_export_lies_in_the_forward_of_the_class() -> None:
    """Of modules of torch, too; the report shows it. Files are named relative to their package or project."""
    model = mx.export(Net(), (torch.ones(2, 3),))
    mx.Outline()(model)
    found = sources(model)
    for name, module in (("Block", Block), ("Linear", nn.Linear), ("Sigmoid", nn.Sigmoid)):
        file, _, line = str(found[name]).rpartition(":")
        lines, start = inspect.getsourcelines(module.forward)
        assert str(inspect.getsourcefile(module)).endswith(f"/{file}")
        assert file.count("/") >= 2  # torch/nn/modules/linear.py, tests/outlining/test_source_code.py
        assert start < int(line) < start + len(lines)
    functions = module_tree(model).functions
    assert [function.source for function in functions] == [found[f.name.rpartition("::")[2]] for f in functions]
    assert [column.header for column in function_table(functions).columns][-1] == "source"
