"""``mx-pipeline extract``: the file it writes, what it prints, and what it says of a module that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer.main

import modelexport_passes as mx
from modelexport_passes.cli.app import app
from tests.scoped_models import scoped

NET = "g (float[2,3] x) => (float[2,3] y) { a = Relu(x)  y = Neg(a) }"


def run(*args: str) -> int:
    """The exit code of the command."""
    with pytest.raises(SystemExit) as exit_:
        typer.main.get_command(app)(["extract", *args], prog_name="mx-pipeline")
    return int(str(exit_.value.code))


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of two modules in the working directory."""
    monkeypatch.chdir(tmp_path)
    mx.save(scoped(NET, {"a": "/Net/A.a", "y": "/Net/B.b"}), "net.onnx")


def test_the_module_is_written_and_its_boundary_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each input and output: kind, name, dtype, shape."""
    assert run("net.onnx", "b", "-o", "b.onnx") == 0
    assert [node.op_type for node in mx.load("b.onnx").graph] == ["Neg"]
    assert capsys.readouterr().out == "input\ta\tFLOAT\t[2,3]\noutput\ty\tFLOAT\t[2,3]\n"


def test_a_module_that_is_not_there_leaves_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and what there is on stderr."""
    assert run("net.onnx", "c", "-o", "c.onnx") == 1
    assert "extract: no module call 'c'; there are a, b" in capsys.readouterr().err
    assert not Path("c.onnx").exists()
