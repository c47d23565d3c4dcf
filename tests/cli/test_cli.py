"""``mx-pipeline``: what goes to stdout and stderr, and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import typer.main

from modelexport_passes.cli.app import VERBS, app, root

HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "pydantic", "rich", "yaml", "numpy")

PASSES = {
    "noisy": "print('chatter'); return ir.passes.PassResult(model, False)",
    "failing": "raise ValueError('no')",
    "wrong": "raise VerificationError('not the same')",
    "needy": "raise MissingDependencyError('onnxsim is not installed')",
    "stopped": "raise KeyboardInterrupt",
}


@pytest.fixture
def folder(tmp_path, monkeypatch, chain):
    """A directory with a model, passes and a pipeline file, as the working directory."""
    monkeypatch.chdir(tmp_path)
    onnx.save(ir.to_proto(chain), "in.onnx")
    Path("mine").mkdir()
    for name, body in PASSES.items():
        Path("mine", f"{name}.py").write_text(
            "import onnx_ir as ir\nfrom modelexport_passes import MissingDependencyError, VerificationError\n"
            f"class P(ir.passes.InPlacePass):\n    def call(self, model):\n        {body}\n"
        )
    write("inject-tags")
    return tmp_path


def write(*names: str) -> None:
    steps = "".join(f"  - pass: {name}\n" for name in names)
    Path("pipeline.yaml").write_text(
        "version: 1\npass_dirs: [mine]\ninput: {model: in.onnx}\noutput: {path: build/out.onnx}\n"
        f"report: {{json: build/r.json}}\nsteps:\n{steps}"
    )


@pytest.fixture
def run(capsys):
    """Runs the command in this process; returns exit code, stdout, stderr."""

    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            typer.main.get_command(app)(list(args), prog_name="mx-pipeline")
        out, err = capsys.readouterr()
        return int(str(exit_.value.code)), out, err

    return run


def computed() -> float:
    """Processor seconds of the child processes so far."""
    times = os.times()
    return times.children_user + times.children_system


def test_help_answers_at_once():
    """Under 0.3 s of computing, the best of three, whatever else the machine does; nothing heavy is imported."""
    code = (
        "import sys; sys.argv = ['mx-pipeline', '--help']\n"
        "from modelexport_passes.cli.app import main\n"
        "try: main()\nexcept SystemExit as error: assert not error.code\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    times: list[float] = []
    for _ in range(3):
        started = computed()
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        times.append(computed() - started)
        assert "HEAVY []" in out
        assert all(f"  {verb}  " in out for verb in VERBS)
    assert min(times) < 0.3


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(run, verb):
    """The table of verbs names functions that are there and take options."""
    code, out, _ = run(verb, "--help")
    assert (code, verb in out, VERBS[verb].rstrip(".")[:40] in out) == (0, True, True)


def test_the_help_tells_the_exit_codes():
    """They are part of the contract."""
    assert "130 interrupted" in " ".join(str(root.__doc__).split())


def test_run_writes_the_model_and_the_report(run, folder):
    """The table of steps goes to stdout, nothing to stderr."""
    code, out, err = run("run")
    assert (code, err) == (0, "")
    assert "inject-tags" in out
    assert onnx.load("build/out.onnx").graph.node[0].op_type == "Relu"
    assert json.loads(Path("build/r.json").read_text())["output"]["path"] == "build/out.onnx"


def test_json_on_stdout_is_only_json(run, folder):
    """What a pass prints goes to stderr."""
    write("noisy", "inject-tags")
    code, out, err = run("run", "--json")
    assert (code, err) == (0, "chatter\n")
    assert [step["id"] for step in json.loads(out)["steps"]] == ["noisy", "inject-tags"]


def test_quiet_prints_nothing(run, folder):
    """Not even the table."""
    assert run("run", "--quiet") == (0, "", "")


def test_options_of_run_take_the_place_of_the_file(run, folder):
    """Input, output, report, single values, snapshots."""
    model = onnx.load("in.onnx")
    model.graph.node[1].op_type = "Abs"
    onnx.save(model, "other.onnx")
    targets = ("--output", "o.onnx", "--report", "o.json", "--save-after", "snapshots")
    code, *_ = run("run", "pipeline.yaml", "-i", "other.onnx", *targets, "--set", "steps.inject-tags.with.key=k")
    assert code == 0
    assert onnx.load("o.onnx").graph.node[1].op_type == "Abs"
    assert json.loads(Path("o.json").read_text())["steps"][0]["options"] == {"key": "k"}
    assert [path.name for path in Path("snapshots").iterdir()] == ["01-inject-tags.onnx"]
    assert not Path("build").exists()


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("failing", 1, "error: step 'failing' (failing) failed: ValueError: no\n"),
        ("outlin", 2, "pipeline.yaml:7:11: steps[0].pass: unknown pass 'outlin'"),
        ("wrong", 3, "error: step 'wrong' (wrong) failed: not the same\n"),
        ("needy", 4, "error: step 'needy' (needy) failed: onnxsim is not installed\n"),
        ("stopped", 130, "interrupted\n"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code_and_one_line(run, folder, name, code, message):
    """No traceback; nothing on stdout; no output; the file of an earlier run keeps its bytes."""
    write(name)
    Path("build").mkdir()
    Path("build/out.onnx").write_bytes(b"old")
    got, out, err = run("run")
    assert (got, out) == (code, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert [(path.name, path.read_bytes()) for path in Path("build").iterdir()] == [("out.onnx", b"old")]


@pytest.mark.parametrize(
    "args",
    [("nope",), ("run", "--nope"), ("run", "missing.yaml"), ("run", "--set", "x"), ("run", "--set", "steps.x.id=[")],
)
def test_wrong_usage_exits_2(run, folder, args):
    """An unknown verb or option, a file that is not there, an override that is none."""
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert err


def test_debug_lets_the_traceback_through(folder, capsys):
    """The error itself, for whoever has to find it."""
    write("failing")
    with pytest.raises(Exception, match="ValueError: no") as caught:
        typer.main.get_command(app)(["--debug", "run"], prog_name="mx-pipeline")
    assert isinstance(caught.value.__cause__, ValueError)


def test_check_runs_nothing(run, folder):
    """It names the steps; a wrong file exits 2 with the line."""
    write("failing", "inject-tags")
    assert run("check") == (0, "pipeline.yaml: ok, 2 steps: failing, inject-tags\n", "")
    assert run("check", "--set", "version=2")[0] == 2
    code, out, _ = run("check", "--json", "--set", "steps.1.with.key=k")
    assert (code, json.loads(out)["steps"][1]) == (
        0,
        {"id": "inject-tags", "pass": "inject-tags", "with": {"key": "k"}},
    )


def test_list_names_every_pass_and_hides_none_behind_a_broken_one(run, folder):
    """A pass that cannot be imported is listed with the reason."""
    Path("mine/broken.py").write_text("1 / 0")
    code, out, _ = run("list", "--pass-dir", "mine", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert {"inject-tags", "validate", "noisy", "broken"} <= set(rows)
    assert rows["broken"]["summary"].startswith("cannot be used: pass 'broken' (mine/broken.py) fails on import")
    assert "mine/noisy.py" in run("list", "--pass-dir", "mine")[1]


def test_show_tells_the_options(run):
    """Name, what it takes, default and meaning; an unknown pass exits 2 with the nearest."""
    options = {option["name"]: option for option in json.loads(run("show", "inject-tags", "--json")[1])["options"]}
    assert (options["key"]["expected"], options["key"]["default"]) == ("text", "hierarchy_tag")
    assert options["key"]["doc"] == "the metadata key to write."
    assert "hierarchy_tag" in run("show", "inject-tags")[1]
    code, _, err = run("show", "inject-tag")
    assert (code, "did you mean 'inject-tags'?" in err) == (2, True)
    foreign = json.loads(run("show", "onnx_ir.passes.common:DeduplicateInitializersPass", "--json")[1])
    assert foreign["options"][0]["name"] == "size_limit"


SLEEPER = """
import time
from dataclasses import dataclass
import onnx_ir as ir
import modelexport_passes as mx

@dataclass(frozen=True, kw_only=True)
class Sleeper(mx.ModelPass):
    \"\"\"Takes its time.\"\"\"

    name = "sleeper"

    def call(self, model: ir.Model) -> mx.Outcome:
        print("asleep", flush=True)
        time.sleep(60)
        return mx.Outcome(model, modified=False)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_sigterm_is_an_orderly_end(tmp_path: Path) -> None:
    """Exit code 143, a word on stderr, and the files that were there."""
    (tmp_path / "passes").mkdir()
    (tmp_path / "passes" / "sleeper.py").write_text(SLEEPER)
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[1] x) => (float[1] y) { y = Neg(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    (tmp_path / "out.onnx").write_text("old")
    (tmp_path / "p.yaml").write_text(
        "version: 1\npass_dirs: [passes]\ninput: {model: m.onnx}\nsteps: [{pass: sleeper}]\noutput: {path: out.onnx}\n"
    )
    before = sorted(path.name for path in tmp_path.iterdir())
    code = "from modelexport_passes.cli.app import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", str(tmp_path / "p.yaml")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert any("asleep" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "terminated" in said
    assert (tmp_path / "out.onnx").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == before
