"""What a model says about where it was made."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import modelexport_passes as mx
from modelexport_passes.scopes.source_paths import relative_path, relative_path_of_code
from modelexport_passes.scopes.traces import STACK_TRACE

NET = """
import torch
class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 3)
        torch.nn.init.ones_(self.fc.weight)
        torch.nn.init.zeros_(self.fc.bias)
    def forward(self, x):
        return self.fc(x) + x
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.Sequential(Block(), Block())
    def forward(self, x):
        return self.blocks(x)
"""


def net_in(folder: Path) -> Any:
    """A model whose code lies in a folder."""
    folder.mkdir(parents=True)
    file = folder / "their_net.py"
    file.write_text(NET)
    spec = importlib.util.spec_from_file_location("their_net", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Net().eval()


def saved(net: Any, path: Path, **options: Any) -> bytes:
    model = mx.export(net, (torch.ones(2, 3),), **options)
    mx.Outline(modules="all")(model)
    mx.save(model, path)
    return path.read_bytes()


def test_a_model_made_in_another_folder_has_the_same_bytes(tmp_path: Path) -> None:
    """No path of the machine is in the file: not that of the code, of the environment, or of the working directory."""
    data = [saved(net_in(tmp_path / folder / "nets"), tmp_path / f"{folder}.onnx") for folder in ("ann", "bob")]
    assert data[0] == data[1]
    environment = Path(torch.__file__).parents[1]
    for path in (tmp_path, environment, Path.cwd(), Path.home()):
        assert str(path).encode() not in data[0]
    assert b"torch/nn/modules/linear.py" in data[0]


@pytest.mark.parametrize(("traces", "kept"), [("keep", True), ("drop", False)])
def test_traces_are_kept_or_dropped_as_asked(tmp_path: Path, traces: Any, *, kept: bool) -> None:
    """``keep`` leaves what torch wrote, absolute paths included; ``drop`` leaves nothing. Scopes are the same."""
    net = net_in(tmp_path / "nets")
    model = mx.export(net, (torch.ones(2, 3),), traces=traces)
    plain = mx.export(net, (torch.ones(2, 3),))
    texts = [node.metadata_props.get(STACK_TRACE, "") for node in model.graph]
    assert all((str(tmp_path) in text) == kept for text in texts)
    assert [str(mx.scope_of(node)) for node in model.graph] == [str(mx.scope_of(node)) for node in plain.graph]


def test_an_unknown_form_of_traces_is_refused() -> None:
    """Before anything is exported."""
    wrong: Any = "none"
    with pytest.raises(mx.ConfigError, match=r"traces 'none'; expected one of keep, relative, drop"):
        mx.export(torch.nn.ReLU(), (torch.ones(2),), traces=wrong)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/ann/.venv/lib/python3.11/site-packages/torch/nn/modules/linear.py", "torch/nn/modules/linear.py"),
        (r"C:\Users\ann\Lib\site-packages\torch\nn\modules\linear.py", "torch/nn/modules/linear.py"),
        ("/usr/lib/python3/dist-packages/numpy/core.py", "numpy/core.py"),
        ("/usr/lib/python3.11/contextlib.py", "contextlib.py"),
        ("/home/ann/elsewhere/net.py", "net.py"),
        (r"C:\Users\ann\net.py", "net.py"),
        (r"\\server\share\net.py", "net.py"),
        ("../ann/net.py", "net.py"),
        ("nets/net.py", "nets/net.py"),
        ("<eval_with_key>.4", "<eval_with_key>.4"),
    ],
)
def test_what_is_particular_to_a_machine_is_left_out_of_a_path(path: str, expected: str) -> None:
    """Decided by the text, for paths of any system."""
    assert relative_path(path) == expected


def test_code_is_named_relative_to_its_package_or_its_project(tmp_path: Path) -> None:
    """The outermost package that encloses the file without a gap; else the nearest project; else the name alone."""
    package = tmp_path / "project" / "src" / "net"
    (package / "parts").mkdir(parents=True)
    for folder in (package, package / "parts"):
        (folder / "__init__.py").touch()
    (tmp_path / "project" / "pyproject.toml").touch()
    assert relative_path_of_code(str(package / "parts" / "block.py")) == "net/parts/block.py"
    assert relative_path_of_code(str(tmp_path / "project" / "scripts" / "run.py")) == "scripts/run.py"
    assert relative_path_of_code(str(tmp_path / "alone.py")) == "alone.py"
