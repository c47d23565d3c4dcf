"""``pipeline.yaml`` of this repository, as the README's first command runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import onnx
import pytest

from tests.generated import ROOT


@pytest.fixture
def folder(tmp_path):
    """A copy of what the pipeline reads: a run must not write into the repository."""
    shutil.copy(ROOT / "pipeline.yaml", tmp_path)
    for name in ("examples", "passes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def run(folder, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"{before}\nimport sys; sys.argv = ['mx-pipeline', 'run', 'pipeline.yaml']\n"
    code += "from modelexport_passes.cli.app import main; main()"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_the_pipeline_makes_a_tagged_outlined_proven_model(folder):
    """At most 10 nodes and 8 functions, a tag on every operation, outputs bit-equal to the plain export's."""
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "name_by_module" in done.stdout
    model = onnx.load(folder / "build/model.onnx")
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    assert len(model.graph.node) <= 10
    assert len(model.functions) == 8
    assert all("hierarchy_tag" in {entry.key for entry in node.metadata_props} for node in nodes)
    assert "layers.1/TransformerBlock" in {node.name for node in model.graph.node}
    report = json.loads((folder / "build/report.json").read_text())
    figures = {step["id"]: step["figures"] for step in report["steps"]}
    assert figures["recover-scopes"]["unknown"] == 0
    assert figures["validate"]["bit_equal"] is True
    assert report["input"]["exporter"] == "dynamo"


def test_without_torch_an_export_says_what_to_install(folder):
    """Exit code 4, one line, nothing written."""
    done = run(folder, before="import sys; sys.modules['torch'] = None")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("error: input.export.factory examples.hierarchical_transformer:factory: ")
    assert "modelexport-passes[torch]" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "build").exists()
