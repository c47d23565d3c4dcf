"""``pipeline.yaml`` -> a checked pipeline, or all that is wrong with it."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from modelexport_passes.builtin.inject_tags import InjectTags
from modelexport_passes.config.pipeline_file import ExportInput, ModelInput, load_pipeline
from modelexport_passes.config.problems import ConfigFileError
from modelexport_passes.errors import MissingDependencyError
from modelexport_passes.registry import BUILTIN

PASS_FILE = """
from __future__ import annotations
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal
import modelexport_passes as mx
if TYPE_CHECKING:
    from torch.nn import Module

@dataclass(frozen=True)
class Limits:
    low: int
    high: int | None = None

@dataclass(frozen=True, kw_only=True)
class Everything(mx.ModelPass):
    name: ClassVar[str] = "everything"
    count: int = 0
    share: float = 0.5
    on: bool = False
    which: Literal["all", "auto"] | list[str] = "all"
    names: tuple[str, ...] = ()
    limits: Limits | None = None
    data: Path | None = None
    module: Module | None = None
    def call(self, model):
        return mx.Outcome(model, False)
"""


@pytest.fixture
def write(tmp_path):
    """Writes a pipeline file beside a directory of passes and returns its path."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "everything.py").write_text(PASS_FILE)
    (tmp_path / "in.onnx").write_bytes(b"")

    def write(text: str):
        path = tmp_path / "p.yaml"
        path.write_text(textwrap.dedent(text))
        return path

    return write


def problems_of(path, **overrides) -> list[str]:
    with pytest.raises(ConfigFileError) as caught:
        load_pipeline(path, overrides)
    return [str(problem).replace(str(path.parent) + "/", "") for problem in caught.value.problems]


def with_options(options: str) -> str:
    return f"version: 1\npass_dirs: [mine]\nsteps:\n  - pass: everything\n    with: {{{options}}}\n"


def test_a_right_file_is_a_pipeline_of_built_passes(write, tmp_path):
    """Passes are built from their options, ids default to the pass name, paths are relative to the file."""
    config = load_pipeline(
        write("""
            version: 1
            input: {model: in.onnx}
            steps:
              - pass: inject-tags
              - pass: inject-tags
                with: {key: other}
              - {id: last, pass: onnx_ir.passes.common:RemoveUnusedNodesPass, with: }
            output: {path: out/m.onnx}
            report: {json: out/r.json}
        """)
    )
    assert config.input == ModelInput(tmp_path / "in.onnx")
    assert [(step.id, step.pass_name) for step in config.steps] == [
        ("inject-tags", "inject-tags"),
        ("inject-tags-2", "inject-tags"),
        ("last", "onnx_ir.passes.common:RemoveUnusedNodesPass"),
    ]
    assert config.steps[1].pass_ == InjectTags(key="other")
    assert (config.output, config.report) == (tmp_path / "out/m.onnx", tmp_path / "out/r.json")


def test_all_problems_are_told_at_once_each_at_its_place(write):
    """One run tells unknown keys, wrong types, unknown passes and missing files, in the order of the file."""
    path = write("""\
        version: 2
        input:
          model: nope.onnx
        stps: []
        pass_dirs: [mine]
        steps:
          - pass: everything
            with: {cuont: 3, count: "3"}
          - pass: outlin
          - id: a.b
            pass: inject-tags
            with: [key]
        verify_each: yes
    """)
    assert problems_of(path) == [
        "p.yaml:1:10: version: got 2 (a whole number); expected 1",
        "p.yaml:3:10: input.model: file 'nope.onnx' does not exist",
        (
            "p.yaml:4:1: unknown key 'stps'; expected input, output, pass_dirs, report, steps, verify_each or version; "
            "did you mean 'steps'?"
        ),
        (
            "p.yaml:8:12: steps[0].with: unknown key 'cuont'; expected count, data, limits, module, names, on, share "
            "or which; did you mean 'count'?"
        ),
        "p.yaml:8:29: steps[0].with.count: got '3' (text); expected a whole number",
        (
            "p.yaml:9:11: steps[1].pass: unknown pass 'outlin'; expected one of "
            f"{', '.join(BUILTIN)}, everything; did you mean 'outline'?"
        ),
        "p.yaml:10:9: steps[2].id: got 'a.b' (text); expected text, of the form ^[^.\\s]+$",
        "p.yaml:12:11: steps[2].with: got a list; expected a mapping from text to any value",
        'p.yaml:13:14: verify_each: got \'yes\' (text); expected "none" or "structure"',
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("count: 1.0", ".count: got 1.0 (a number); expected a whole number"),
        ("count: true", ".count: got true (a bool); expected a whole number"),
        ("on: yes", ".on: got 'yes' (text); expected true or false; did you mean true?"),
        ("on: 1", ".on: got 1 (a whole number); expected true or false"),
        ("which: al", ".which: got 'al' (text); expected \"all\", \"auto\" or a list of text; did you mean 'all'?"),
        ("which: [a, 1]", ".which[1]: got 1 (a whole number); expected text; quote it to make it text"),
        ("names: a", ".names: got 'a' (text); expected a list of text"),
        ("limits: {low: 1, hihg: 2}", ".limits: unknown key 'hihg'; expected high or low; did you mean 'high'?"),
        ("limits: {}", ".limits.low: missing; expected a whole number"),
        ("limits: {low: x}", ".limits.low: got 'x' (text); expected a whole number"),
        ("module: x", ".module: can be set from Python only; remove it here"),
        ("share: ", ".share: got nothing (null); expected a number"),
    ],
)
def test_options_are_strict(write, options, problem):
    """No value is converted: text is not a number, 1 is not true, and a nested unknown key is unknown."""
    found = problems_of(write(with_options(options)))
    assert [text.partition("with")[2] for text in found] == [problem]


def test_options_arrive_as_their_types(write, tmp_path):
    """A list becomes a tuple, a mapping a dataclass, a path is relative to the file, 1 is a number."""
    options = "count: 0x10, share: 1, which: [a], names: [b], limits: {low: 1}, data: d.bin, on: true"
    built: Any = load_pipeline(write(with_options(options))).steps[0].pass_
    assert (built.count, built.share, built.on, built.which, built.names) == (16, 1.0, True, ["a"], ("b",))
    assert (built.limits.low, built.limits.high, built.data) == (1, None, tmp_path / "d.bin")


def test_a_refused_option_is_told_at_its_step(write):
    """What a pass's constructor refuses is a problem of the file."""
    path = write("version: 1\nsteps:\n  - pass: inject-tags\n    with: {key: ''}\n")
    (problem,) = problems_of(path)
    assert problem.startswith("p.yaml:4:11: steps[0].with: inject-tags: key ''; expected a metadata key other than ")


def test_two_steps_of_one_id_are_an_error(write):
    """An id that is given twice is told with the step that has it."""
    path = write("version: 1\nsteps:\n  - {id: a, pass: inject-tags}\n  - {id: a, pass: inject-tags}\n")
    assert problems_of(path) == ["p.yaml:4:10: steps[1].id: 'a' is the id of steps[0] too"]


def test_a_missing_file_and_a_missing_directory_are_problems(tmp_path, write):
    """The pipeline file itself, and the pass directories that it names."""
    assert problems_of(tmp_path / "no.yaml") == ["no.yaml: cannot be read: No such file or directory"]
    path = write("version: 1\npass_dirs: [mine, yours]\nsteps: [{pass: everything}]\n")
    assert problems_of(path) == ["p.yaml:2:19: pass_dirs[1]: directory 'yours' does not exist"]


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{}", "p.yaml:2:8: input: expected exactly one of export, hf and model"),
        (
            "{model: in.onnx, export: {factory: 'net:make'}}",
            "p.yaml:2:8: input: expected exactly one of export, hf and model",
        ),
        (
            "{export: {factory: net.make}}",
            "p.yaml:2:27: input.export.factory: got 'net.make'; expected package.module:function",
        ),
        (
            "{export: {factory: 'net:mak'}}",
            "p.yaml:2:27: input.export.factory: net.py has no 'mak'; did you mean 'make'?",
        ),
        (
            "{export: {factory: 'nett:make'}}",
            "p.yaml:2:27: input.export.factory: module 'nett' is neither beside the file (FOLDER) nor installed",
        ),
        (
            "{export: {factory: 'net:make', opset: twenty}}",
            "p.yaml:2:46: input.export.opset: got 'twenty' (text); expected a whole number",
        ),
    ],
)
def test_the_input_is_checked_without_running_it(write, tmp_path, section, problem):
    """A factory is looked up in the source of its module; nothing of it is executed."""
    (tmp_path / "net.py").write_text("raise RuntimeError('executed')\ndef make(): ...\n")
    path = write(f"version: 1\ninput: {section}\nsteps: [{{pass: validate}}]\n")
    assert problems_of(path) == [problem.replace("FOLDER", str(tmp_path))]


def test_an_export_keeps_only_the_options_that_are_given(write, tmp_path):
    """Defaults are those of the export itself, whatever they become."""
    (tmp_path / "net.py").write_text("def make(): ...\n")
    section = "{factory: 'net:make', with: {layers: 3}, opset: 18, dynamic_shapes: {x: {0: batch}}}"
    config = load_pipeline(write(f"version: 1\ninput: {{export: {section}}}\nsteps: [{{pass: validate}}]\n"))
    options = {"dynamic_shapes": {"x": {0: "batch"}}, "opset": 18}
    assert config.input == ExportInput("net:make", tmp_path, {"layers": 3}, options)


def test_overrides_are_written_by_step_id_and_checked_like_the_file(write):
    """A step is addressed by id, pass name or index; a wrong address or value names the override."""
    path = write(with_options("count: 1"))
    overrides = {"steps.everything.with.count": 5, "steps.0.with.limits.low": 7, "output.path": "o.onnx"}
    config = load_pipeline(path, overrides)
    built: Any = config.steps[0].pass_
    assert (built.count, built.limits.low) == (5, 7)
    assert config.output == path.parent / "o.onnx"
    assert problems_of(path, **{"steps.everything.with.count": "5"}) == [
        "override steps.everything.with.count: steps[0].with.count: got '5' (text); expected a whole number"
    ]
    assert problems_of(path, **{"steps.evrything.with.count": 5}) == [
        (
            "override steps.evrything.with.count: no 'evrything' in steps; expected everything or an index below 1; "
            "did you mean 'everything'?"
        )
    ]
    assert problems_of(path, **{"version.x": 5}) == [
        "override version.x: version is not a mapping; nothing below it can be set"
    ]


def test_an_override_in_place_of_a_part_forgets_what_stood_there(write):
    """A problem below a replaced value is told at the override, not at the line of what is gone."""
    path = write("version: 1\nsteps:\n  - {pass: inject-tags, with: {kee: 1}}\n")
    assert load_pipeline(path, {"steps": [{"pass": "inject-tags"}]}).steps[0].pass_ == InjectTags()


def test_a_pass_whose_package_is_missing_is_a_missing_dependency(write, tmp_path):
    """Not installed is exit code 4, not a wrong configuration, and says where it is needed."""
    (tmp_path / "mine" / "needy.py").write_text("import surely_not_installed\n")
    path = write("version: 1\npass_dirs: [mine]\nsteps: [{pass: needy}]\n")
    with pytest.raises(MissingDependencyError, match=r"p\.yaml:3:16: steps\[0\]\.pass: .*'surely_not_installed'"):
        load_pipeline(path)
