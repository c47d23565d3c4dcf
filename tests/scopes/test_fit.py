"""A torch model or a reference that was handed in: the file's own, a part of it, or another."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import modelexport_passes as mx
from modelexport_passes.scopes.scope import SCOPE_KEY


class Mlp(nn.Module):
    """Two layers and an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One after the other."""
        return self.fc2(self.act(self.fc1(x)))


class Net(nn.Module):
    """Two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Mlp() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """With a residual."""
        for block in self.blocks:
            x = block(x) + x
        return x


class Wrapper(nn.Module):
    """A model inside another."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"deep": inner})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """And an operation behind it."""
        return self.inner["deep"](x).softmax(-1)


class Other(nn.Module):
    """An unrelated model."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two layers."""
        return self.enc[1](self.enc[0](x))


X = torch.randn(2, 4)


def file_of(module: nn.Module, *, names: bool = True) -> ir.Model:
    """A TorchScript export without scopes; without the names of its nodes as well if asked for."""
    model = mx.export(module.eval(), (X,), exporter="torchscript")
    for node in model.graph:
        node.metadata_props.pop(SCOPE_KEY, None)
        if not names:
            node.name = ""
    return model


def paths(model: ir.Model) -> list[str | None]:
    return [None if (scope := mx.scope_of(node)) is None else scope.path for node in model.graph]


@pytest.mark.parametrize("names", [True, False])
def test_an_unrelated_module_is_refused(*, names: bool) -> None:
    """Else every operation would be the root's."""
    model = file_of(Net(), names=names)
    with pytest.raises(mx.ModelExportError, match=r"Other does not fit the file: none of its 4 parameters "):
        mx.RecoverScopes(module=Other())(model)
    assert not any(SCOPE_KEY in node.metadata_props for node in model.graph)


def test_an_unrelated_reference_is_refused() -> None:
    """By its weights."""
    with pytest.raises(mx.ModelExportError, match="reference does not fit the file: none of its 4 weights"):
        mx.RecoverScopes(reference=mx.export(Other().eval(), (X,)))(file_of(Net(), names=False))


@pytest.mark.parametrize("same", [True, False])
def test_the_inner_model_of_a_wrapper_is_found_in_it(*, same: bool) -> None:
    """By its weights' names, whatever their values; the scopes are those that the whole model would have given."""
    net = Net()
    whole = Wrapper(net)
    expected, model = file_of(whole), file_of(whole)
    mx.RecoverScopes(module=whole)(expected)
    report = mx.Pipeline([mx.RecoverScopes(module=net if same else Net())]).run(model).report
    assert paths(model) == paths(expected)
    assert any("at 'inner.deep'" in note for note in report.steps[0].notes)
    classes = {frame.path: frame.class_name for n in model.graph if (s := mx.scope_of(n)) for frame in s.frames}
    assert classes["inner.deep.blocks.0"] == f"{__name__}.Mlp"


def test_another_checkpoint_is_recognized_by_its_names() -> None:
    """Structure is what is asked of the module."""
    expected, model = file_of(Net()), file_of(Net())
    mx.RecoverScopes(module=Net())(expected)
    assert paths(expected).count("") < len(expected.graph) / 2
    mx.RecoverScopes(module=Net())(model)
    assert paths(model) == paths(expected)


def test_weights_without_names_are_recognized_by_value() -> None:
    """Transposed, renamed and rounded."""
    net = Net()
    model = file_of(net)
    for number, value in enumerate(list(model.graph.initializers.values())):
        tensor = value.const_value
        assert tensor is not None
        value.name = f"w{number}"
        value.const_value = ir.tensor(tensor.numpy().astype(np.float16).astype(np.float32), name=value.name)
    with pytest.raises(mx.ModelExportError, match="does not fit the file"):
        mx.RecoverScopes(module=nn.Linear(3, 5))(model)
    mx.RecoverScopes(module=net)(model)


def test_weights_that_took_in_a_norm_are_recognized_by_their_extent() -> None:
    """An exporter gave them other names and values: the right module is not refused, and one of other sizes is."""
    model = file_of(Net())
    for number, value in enumerate(list(model.graph.initializers.values())):
        tensor = value.const_value
        assert tensor is not None
        value.name = f"onnx::Conv_{number}"
        value.const_value = ir.tensor(tensor.numpy() * 1.7, name=value.name)
    with pytest.raises(mx.ModelExportError, match="does not fit the file"):
        mx.RecoverScopes(module=nn.Linear(3, 5))(model)
    mx.RecoverScopes(module=Net())(model)
    assert "blocks.1.fc2" in paths(model)


def test_without_weights_nothing_is_measured() -> None:
    """An activation fits whatever it is said to be."""
    model = file_of(nn.ReLU())
    mx.RecoverScopes(module=nn.ReLU())(model)
    assert paths(model) == [""]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 9), st.integers(2, 9)), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_the_right_module_always_fits(sizes: list[tuple[int, int]], seed: int) -> None:
    """Whatever its layers are."""
    torch.manual_seed(seed)
    module = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
    values = [
        ir.Value(name=name, const_value=ir.tensor(tensor.numpy(), name=name))
        for name, tensor in module.state_dict().items()
    ]
    model = ir.Model(ir.Graph([], [], nodes=[], initializers=values, name="g", opset_imports={"": 20}), ir_version=10)
    mx.RecoverScopes(module=module)(model)
