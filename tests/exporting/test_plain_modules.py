"""Graph modules and compiled modules are modules like others: one root, the path of each in the model, proven."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.fx
from torch import nn

import modelexport_passes as mx
from modelexport_passes.errors import first_line


class Block(nn.Module):
    """A convolution and an operation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One after the other."""
        return torch.relu(self.conv(x))


class Net(nn.Module):
    """Two blocks, an operation of its own, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Sequential(Block(), Block()), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One after the other."""
        return self.head(self.features(x).mean((2, 3)))


class Outer(nn.Module):
    """Calls a module twice."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two calls, whose results are added."""
        return self.inner(x) + self.inner(x * 2)


def compiled_in_place() -> nn.Module:
    net = Net()
    net.compile()
    return net


def part_compiled() -> nn.Module:
    net = Net()
    net.features[0] = torch.compile(net.features[0])  # type: ignore[assignment]
    return net


def handmade() -> nn.Module:
    graph = torch.fx.Graph()
    graph.output(graph.call_module("features", (graph.placeholder("x"),)))
    return torch.fx.GraphModule(Net(), graph)


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "traced": (lambda: torch.fx.symbolic_trace(Net()), "torch.fx.graph_module.Net"),
    "made by hand": (handmade, "torch.fx.graph_module.GraphModule"),
    "compiled": (lambda: torch.compile(Net()), f"{__name__}.Net"),  # type: ignore[dict-item,return-value]
    "compiled in place": (compiled_in_place, f"{__name__}.Net"),
    "compiled in part": (part_compiled, f"{__name__}.Net"),
    "traced within another": (lambda: Outer(torch.fx.symbolic_trace(Net())), f"{__name__}.Outer"),
    "compiled within another": (lambda: Outer(torch.compile(Net())), f"{__name__}.Outer"),  # type: ignore[arg-type]
}
X = torch.randn(1, 3, 4, 4)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", MODELS)
def test_there_is_one_root_of_the_users_class_and_each_call_is_proven(name: str, exporter: str) -> None:
    """No class of torch's own export stands in a scope, and the model has its classes and compiled code back."""
    make, root = MODELS[name]
    net = make().eval()
    classes = [type(module) for module in net.modules()]
    model = mx.export(net, (X,), exporter=exporter)  # type: ignore[arg-type]
    scopes = [scope for node in model.graph if (scope := mx.scope_of(node)) is not None]
    assert len(scopes) == len(model.graph)
    assert {(scope.frames[0].path, scope.frames[0].class_name) for scope in scopes} == {("", root)}
    assert not any("<locals>" in frame.class_name or "_orig_mod" in frame.path for s in scopes for frame in s.frames)
    mx.Validate(modules=True)(model)
    assert [type(module) for module in net.modules()] == classes


def test_a_traced_model_has_the_scopes_of_the_model() -> None:
    """Operation by operation, but for the class of the root."""

    def told(net: nn.Module) -> list[str]:
        model = mx.export(net.eval(), (X,))
        return [str(mx.scope_of(node)).partition("/")[2] for node in model.graph]

    assert told(torch.fx.symbolic_trace(Net())) == told(Net())


def test_an_exported_program_keeps_the_modules_that_it_was_exported_from() -> None:
    """The module of an exported program is a graph module that knows them."""
    program = torch.export.export(Net().eval(), (X,), strict=False)
    model = mx.export(program.module(), (X,))
    scopes = {str(scope).partition("|")[2] for node in model.graph if (scope := mx.scope_of(node)) is not None}
    assert all(scope.startswith(f"{__name__}.Net:") for scope in scopes)
    assert any(scope.endswith("Conv2d:features.0.conv") for scope in scopes)


class Failing(nn.Module):
    """Runs while it is exported, and never again."""

    fails = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Fails when it is told to."""
        assert not self.fails, "broken:\n  by now"
        return x + 1


def test_the_proof_says_in_a_line_that_a_model_does_not_run() -> None:
    """Never an AssertionError of somebody else's."""
    net = Failing()
    model = mx.export(net, (X,))
    net.fails = True
    said = r"the torch model Failing does not run on its example inputs: AssertionError: broken: by now"
    with pytest.raises(mx.ModelExportError, match=said):
        mx.Validate(modules=True)(model)


class Printing(nn.Module):
    """Prints while it runs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """With a word on each stream."""
        print("running")
        return torch.ops.aten.nonzero_static(x, size=3) if x.numpy().size else x


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_failed_export_prints_nothing(exporter: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What matters is raised: the cause in a line."""
    with pytest.raises(mx.ModelExportError, match="export failed"):
        mx.export(Printing(), (X,), exporter=exporter)  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "line"),
    [("a:\nb", "a: b"), ("a:\n\n b:\nc\nd", "a: b: c"), ("a\nb", "a"), ("a:", "a:"), ("", "(no text)")],
)
def test_a_line_that_announces_another_is_told_with_it(text: str, line: str) -> None:
    """An error is not cut off after a colon."""
    assert first_line(ValueError(text)) == line


def test_a_module_whose_name_ends_in_a_number_behind_an_at_sign_is_no_further_call() -> None:
    """``default@7`` is a name; the second call of it is ``default@7@1``."""
    net = nn.Module()
    net.add_module("default@7", nn.Linear(3, 3))
    layer = net.get_submodule("default@7")
    net.forward = lambda x: layer(layer(x))  # type: ignore[method-assign]
    model = mx.export(net.eval(), (torch.ones(2, 3),))
    frames = [scope.frames[-1] for node in model.graph if node.op_type == "Gemm" and (scope := mx.scope_of(node))]
    assert [(frame.path, frame.call) for frame in frames] == [("default@7", 0), ("default@7", 1)]
