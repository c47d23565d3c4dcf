"""How the house is laid out: imports run one way, the wheel holds the package, what is generated is current."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import modelexport_passes
from modelexport_passes.config.pipeline_file import load_pipeline
from tests.generated import ROOT, generated

PACKAGE = ROOT / "modelexport_passes"
SOURCES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    {"cli"},
    {"config", "pipeline", "report", "registry", "testing", "modules_as_functions"},
    {"builtin"},
    {"scopes", "outlining", "inlining", "validation", "exporting", "tools", "surgery"},
    {"pass_base", "unique_names", "garbage", "default_domain", "fast_copies", "fast_nodes", "randomness", "progress"},
    {"errors"},
]
"""Rooms, the highest first. A room imports from its own layer and from those below."""


def layer_of(room: str) -> int:
    found = [number for number, rooms in enumerate(LAYERS) if room in rooms]
    assert found, f"{room} has no place in the house yet: add it to LAYERS"
    return found[0]


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    """Rooms of this package that a file imports when it runs, inside functions too."""
    names: list[str] = []
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name.split(".")[1] for name in names if name.startswith("modelexport_passes.")]


def test_imports_run_one_way():
    """From cli to config, pipeline, report to builtin to scopes, outlining, inlining, validation, exporting."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {room}"
        for path in SOURCES
        if room_of(path) != "__init__"
        for room in imports_of(path)
        if layer_of(room) < layer_of(room_of(path))
    ]
    assert wrong == []


def test_only_the_export_imports_torch():
    """Passes over existing files work without torch: only two rooms name it, and both import it late or alone."""
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in SOURCES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if (isinstance(node, ast.Import) and any(alias.name.partition(".")[0] == "torch" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch")
    }
    assert users <= {"exporting"}


def test_importing_the_package_imports_nothing_heavy():
    """And the passes over existing files never import torch."""
    code = (
        "import sys, modelexport_passes as mx\n"
        "heavy = {'torch', 'onnx', 'onnx_ir', 'numpy', 'pydantic', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "mx.RecoverScopes, mx.InjectTags, mx.Outline, mx.Inline, mx.Validate, mx.Pipeline\n"
        "mx.load, mx.save, mx.scope_of\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", modelexport_passes.__all__)
def test_every_public_name_is_there_and_documented(name):
    """What ``__all__`` promises can be had and says what it is."""
    value = getattr(modelexport_passes, name)
    assert value.__doc__
    assert name in dir(modelexport_passes)


def test_files_and_functions_are_small():
    """A file has at most 400 lines, a function at most 60 besides its docstring."""
    large: list[str] = []
    for path in (*SOURCES, *sorted((ROOT / "passes").glob("*.py"))):
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            large.append(str(path.relative_to(ROOT)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                doc = node.body[0] if ast.get_docstring(node) else None
                said = (doc.end_lineno or 0) - doc.lineno + 1 if doc else 0
                if (node.end_lineno or 0) - node.lineno + 1 - said > 60:
                    large.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert large == []


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    """All of its files, the marker for type checkers, the licence; no tests, no passes of the repository."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"modelexport_passes-{modelexport_passes.__version__}.dist-info"
    sources = {str(path.relative_to(ROOT)) for path in SOURCES}
    assert {name for name in names if not name.startswith(info)} == sources | {"modelexport_passes/py.typed"}
    assert f"{info}/licenses/LICENSE" in names


def test_what_is_generated_is_current():
    """The catalogue of passes and the JSON schema are what ``python -m tests.generated`` writes."""
    for path, text in generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python -m tests.generated"


def test_constraints_pin_every_dependency():
    """Each requirement of the package and its extras has its tested version in constraints.txt, within its range."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    for text in [*project["dependencies"], *extras]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), text


# --- documents -----------------------------------------------------------------------------------------------------


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language in a Markdown file."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_quick_start_is_two_blocks():
    """The first bash block runs the pipeline, the second all tests; CI runs the second."""
    first, second = blocks(ROOT / "README.md", "bash")[:2]
    assert first.rstrip().endswith("mx-pipeline run pipeline.yaml")
    assert second.rstrip().endswith("python -m pytest")


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/pipeline.md"])
def test_pipelines_in_the_documents_are_right(document, tmp_path):
    """Each YAML block that is a whole file is checked as one."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "passes").mkdir()
    (tmp_path / "passes" / "drop_identities.py").write_text(blocks(ROOT / "CONTRIBUTING.md", "python")[0])
    (tmp_path / "model.onnx").touch()
    whole = [text for text in blocks(ROOT / document, "yaml") if text.startswith("version:")]
    assert whole
    for text in whole:
        (tmp_path / "pipeline.yaml").write_text(text)
        assert load_pipeline(tmp_path / "pipeline.yaml").steps


def test_the_worked_example_of_contributing_works(tmp_path):
    """Its pass, its tests, as written there, pass."""
    code, tests = blocks(ROOT / "CONTRIBUTING.md", "python")
    (tmp_path / "passes").mkdir()
    (tmp_path / "passes" / "drop_identities.py").write_text(code)
    (tmp_path / "test_drop_identities.py").write_text(tests)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "test_drop_identities.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_python_of_the_readme_works(tmp_path, monkeypatch):
    """As written there, with the example's model for ``module`` and ``input_ids``."""
    from examples.hierarchical_transformer import factory

    module, (input_ids,) = factory()
    monkeypatch.chdir(tmp_path)
    names = {"module": module, "input_ids": input_ids}
    for code in blocks(ROOT / "README.md", "python"):
        exec(code, names)
    functions = modelexport_passes.load("model.onnx").functions
    assert [name for _, name, _ in functions] == ["TransformerBlock"]


def test_links_in_the_documents_lead_somewhere():
    """Relative links name files that are there."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "passes").glob("*.md")]
    dead = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in documents
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert dead == []


def test_the_pipeline_of_the_repository_is_right():
    """``pipeline.yaml`` names passes and options that there are."""
    names = [step.pass_name for step in load_pipeline(ROOT / "pipeline.yaml").steps]
    assert set(names) >= {"recover-scopes", "inject-tags", "outline", "validate", "name_by_module"}
