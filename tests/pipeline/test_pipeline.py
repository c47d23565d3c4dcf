"""Running pipelines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

import modelexport_passes as mx
from modelexport_passes.builtin.validate import Parity
from modelexport_passes.pipeline.observer import Observer, SaveAfter
from modelexport_passes.pipeline.report import Counts
from modelexport_passes.progress import Progress, tell


@dataclass(frozen=True)
class Do(ir.passes.InPlacePass):
    """Does what the test wants done."""

    action: Callable[[ir.Model], object]
    modified: bool = True

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.action(model)
        return ir.passes.PassResult(model, self.modified)


@dataclass(frozen=True, kw_only=True)
class Remember(mx.ModelPass):
    """Keeps the operators of the pipeline's input as it is given twice, and spoils what it was given."""

    name: ClassVar[str] = "remember"
    seen: list[Any]
    context: mx.RunContext | None = None

    def bind(self, context: mx.RunContext) -> Remember:
        return Remember(seen=self.seen, context=context)

    def call(self, model: ir.Model) -> mx.Outcome:
        assert self.context is not None
        for _ in range(2):
            given = self.context.input_model()
            self.seen.append([node.op_type for node in given.graph])
            next(iter(given.graph)).op_type = "Spoiled"
        return mx.Outcome(model, False, figures={"seen": 2}, notes=["remembered"])


def rename(old: str, new: str) -> Do:
    def action(model: ir.Model) -> None:
        for node in model.graph:
            if node.op_type == old:
                node.op_type = new

    return Do(action)


def fail(error: Exception) -> Do:
    def action(_: ir.Model) -> None:
        raise error

    return Do(action)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_steps_run_in_order_and_the_report_tells_each(chain):
    """Ids, counts before and after, what was modified, figures and notes of our passes."""
    drop = Do(lambda model: ir.convenience.replace_all_uses_with(model.graph[1].outputs, [model.graph[0].outputs[0]]))
    result = mx.Pipeline([drop, common.RemoveUnusedNodesPass(), mx.Step("last", Remember(seen=[]))]).run(chain)
    assert result.model is chain
    assert operators(chain) == ["Relu", "Exp"]
    steps = result.report.steps
    assert [(step.id, step.modified, step.before.nodes, step.after.nodes, step.verified) for step in steps] == [
        ("Do", True, 3, 3, "structure"),
        ("RemoveUnusedNodesPass", True, 3, 2, "structure"),
        ("last", False, 2, 2, "none"),
    ]
    assert (steps[2].figures, steps[2].notes) == ({"seen": 2}, ["remembered"])
    assert (result.report.input.kind, result.report.input.source) == ("memory", "onnx_ir.Model")
    assert result.report.input.counts == Counts(nodes=3, function_nodes=0, functions=0, initializers=0)
    assert all(step.seconds >= 0 for step in steps)
    assert json.loads(json.dumps(result.report.to_json()))["schema"] == 1


@pytest.mark.parametrize("early_stop", [True, False])
def test_a_composite_runs_as_in_onnx_ir_and_is_reported_pass_by_pass(chain, early_stop):
    """As many rounds as PassManager itself makes, each pass of each round a step of its own."""
    calls: list[str] = []

    class Count(ir.passes.InPlacePass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            calls.append("count")
            return ir.passes.PassResult(model, len(calls) % 4 in (1, 2))

    def nested() -> ir.passes.PassManager:
        return ir.passes.PassManager([ir.passes.Sequential(Count()), Count()], steps=5, early_stop=early_stop)

    nested()(chain.clone())
    alone = len(calls)
    calls.clear()
    report = mx.Pipeline([nested()]).run(chain).report
    assert len(calls) == len(report.steps) == alone == (4 if early_stop else 10)
    assert [step.id for step in report.steps[:3]] == [
        "PassManager.0.0-Sequential.0-Count",
        "PassManager.0.1-Count",
        "PassManager.1.0-Sequential.0-Count",
    ]


def test_a_composite_with_a_mind_of_its_own_is_run_whole(chain):
    """A subclass that overrides ``call`` is one step: taken apart it would do something else."""

    class Twice(ir.passes.Sequential):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            super().call(model)
            return super().call(model)

    calls: list[int] = []
    report = mx.Pipeline([Twice(Do(lambda _: calls.append(1)))]).run(chain).report
    assert (len(calls), [step.id for step in report.steps]) == (2, ["Twice"])


@pytest.mark.parametrize("form", ["path", "proto", "ir"])
def test_a_pass_can_have_the_input_again_untouched(chain, tmp_path, form):
    """Whatever the input was given as and whatever earlier steps did, each copy is fresh."""
    onnx.save(ir.to_proto(chain), tmp_path / "in.onnx")
    x = {"path": tmp_path / "in.onnx", "proto": ir.to_proto(chain), "ir": chain}[form]
    seen: list[Any] = []
    mx.Pipeline([rename("Neg", "Abs"), ir.passes.Sequential(Remember(seen=seen))]).run(x)
    assert seen == [["Relu", "Neg", "Exp"]] * 2


def test_what_is_no_model_is_refused(chain):
    """Neither a number nor nothing at all; nor is a class a pass."""
    with pytest.raises(mx.ConfigError, match=r"got int; expected a path, an onnx\.ModelProto"):
        mx.Pipeline([mx.InjectTags()]).run(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(mx.ConfigError, match="there is no input"):
        mx.Pipeline([mx.InjectTags()]).run()
    with pytest.raises(mx.ConfigError, match="an instance, not the class"):
        mx.Pipeline([mx.InjectTags]).run(chain)  # pyright: ignore[reportArgumentType]
    with pytest.raises(mx.ConfigError, match="two steps have the id a"):
        mx.Pipeline([mx.Step("a", mx.InjectTags()), mx.Step("a", mx.InjectTags())])


@pytest.mark.parametrize(
    ("error", "kind", "code", "message"),
    [
        (ValueError("bad\nmore"), mx.StepError, 1, "step 'Sequential.1-Do' (Do) failed: ValueError: bad"),
        (mx.VerificationError("not the same"), mx.VerificationError, 3, "(Do) failed: not the same"),
        (mx.MissingDependencyError("no onnxsim"), mx.MissingDependencyError, 4, "(Do) failed: no onnxsim"),
        (mx.ConfigError("no such module"), mx.ConfigError, 2, "(Do) failed: no such module"),
    ],
)
def test_a_failing_step_is_named_with_its_reason(chain, error, kind, code, message):
    """In one line, without onnx_ir's wrappers, with the exit code of the reason."""
    steps = [ir.passes.Sequential(mx.InjectTags(), ir.passes.PassManager([fail(error)]))]
    with pytest.raises(mx.StepError) as caught:
        mx.Pipeline(steps).run(chain)
    assert isinstance(caught.value, kind)
    assert message.replace("1-Do", "1-PassManager.0-Do") in str(caught.value)
    assert (caught.value.exit_code, caught.value.reason) == (code, error)
    assert "0x" not in str(caught.value)


def test_onnx_irs_own_wrappers_are_taken_off(chain):
    """A failed precondition says the condition, not that there was one."""

    class Needs(ir.passes.InPlacePass):
        def requires(self, model: ir.Model) -> None:
            raise RuntimeError("needs opset 99")

        def call(self, model: ir.Model) -> ir.passes.PassResult:
            raise AssertionError

    with pytest.raises(mx.StepError, match=r"\(Needs\) failed: RuntimeError: needs opset 99"):
        mx.Pipeline([Needs()]).run(chain)


def test_the_step_that_breaks_the_model_is_stopped_at(chain):
    """Not a later one, and not for what came in broken."""

    def swap(model: ir.Model) -> None:
        first = model.graph[0]
        model.graph.remove(first)
        model.graph.append(first)

    later: list[int] = []
    steps = [mx.InjectTags(), mx.Step("swap", Do(swap)), Do(lambda _: later.append(1))]
    with pytest.raises(mx.VerificationError, match=r"step 'swap' \(Do\) failed: it left the model not valid: .*'a'"):
        mx.Pipeline(steps).run(chain)
    assert later == []
    already_broken = chain
    result = mx.Pipeline([Do(lambda _: None)]).run(already_broken)
    assert result.report.input.notes[0].startswith("came in: ")
    mx.Pipeline([rename("Neg", "Abs")], verify_each="none").run(already_broken)


def test_a_pass_that_hides_its_changes_is_found_out(chain):
    """``modified`` false with other counts: said in the report, and the model is verified all the same."""
    step = Do(lambda model: model.graph.append(ir.node("Relu", [model.graph[0].outputs[0]])), modified=False)
    (report,) = mx.Pipeline([step]).run(chain).report.steps
    assert report.modified
    assert report.verified == "structure"
    assert report.notes == ["the pass said that it changed nothing, but nodes went from 3 to 4"]


def test_output_and_report_are_written_when_all_is_done(chain, tmp_path):
    """The report tells the file's size and hash, as they are on disk."""
    model, report = tmp_path / "a/b/m.onnx", tmp_path / "c/r.json"
    mx.Pipeline([rename("Neg", "Abs")], output=model, report=report).run(chain)
    assert [node.op_type for node in onnx.load(model).graph.node] == ["Relu", "Abs", "Exp"]
    told = json.loads(report.read_text())["output"]
    assert told["bytes"] == model.stat().st_size
    assert told["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["m.onnx", "r.json"]


def test_a_failed_run_leaves_what_was_there_and_nothing_else(chain, tmp_path):
    """Old files keep their bytes; no new file or directory appears."""
    old = tmp_path / "m.onnx"
    old.write_bytes(b"old")
    pipeline = mx.Pipeline([rename("Neg", "Abs"), fail(ValueError())], output=old, report=tmp_path / "new/r.json")
    with pytest.raises(mx.StepError):
        pipeline.run(chain)
    assert [path.name for path in tmp_path.rglob("*")] == ["m.onnx"]
    assert old.read_bytes() == b"old"


def test_a_failed_save_leaves_what_was_there_and_nothing_else(chain, tmp_path, monkeypatch):
    """Neither the report nor the directories made for it stay when the model cannot be written."""

    def broken(*_: object) -> None:
        raise mx.ModelExportError("disk full")

    monkeypatch.setattr("modelexport_passes.pipeline.writing.save", broken)
    (tmp_path / "r.json").write_text("old")
    pipeline = mx.Pipeline([mx.InjectTags()], output=tmp_path / "new/deep/m.onnx", report=tmp_path / "r.json")
    with pytest.raises(mx.ModelExportError, match="disk full"):
        pipeline.run(chain)
    assert [path.name for path in tmp_path.rglob("*")] == ["r.json"]
    assert (tmp_path / "r.json").read_text() == "old"


def test_a_target_that_cannot_be_written_is_known_before_the_work(chain, tmp_path):
    """A file where a directory is needed is told before the first step runs."""
    (tmp_path / "file").write_text("")
    ran: list[int] = []
    with pytest.raises(mx.ConfigError, match="is not a directory"):
        mx.Pipeline([Do(lambda _: ran.append(1))], output=tmp_path / "file/m.onnx").run(chain)
    assert ran == []


def test_snapshots_are_saved_after_steps_that_changed_something(chain, tmp_path):
    """Numbered by step; they stay when a later step fails."""
    steps = [rename("Neg", "Abs"), Do(lambda _: None, modified=False), mx.Step("odd/id", rename("Abs", "Sin"))]
    with pytest.raises(mx.StepError):
        mx.Pipeline([*steps, fail(ValueError())]).run(chain, observers=[SaveAfter(tmp_path / "snapshots")])
    saved = {path.name: operators(mx.load(path)) for path in (tmp_path / "snapshots").iterdir()}
    assert saved == {"01-Do.onnx": ["Relu", "Abs", "Exp"], "03-odd-id.onnx": ["Relu", "Sin", "Exp"]}


def test_observers_are_told_in_order(chain, tmp_path):
    """Input, each step's start and end, output."""
    told: list[str] = []

    class Tell(Observer):
        def input_started(self, source: str) -> None:
            told.append(f"input {source}")

        def step_started(self, step: mx.Step) -> None:
            told.append(f"start {step.id}")

        def step_finished(self, step: mx.Step, report: Any, model: ir.Model) -> None:
            told.append(f"end {report.id}")

        def output_finished(self, report: Any) -> None:
            told.append("output")

    mx.Pipeline([mx.InjectTags(), mx.InjectTags(key="b")], output=tmp_path / "m.onnx").run(chain, observers=[Tell()])
    assert told == [
        "input onnx_ir.Model",
        "start inject-tags",
        "end inject-tags",
        "start inject-tags-2",
        "end inject-tags-2",
        "output",
    ]


def test_observers_are_told_how_far_parity_is(chain):
    """While a step runs; observers that do not ask are not disturbed, and nobody is told once the run is over."""
    told: list[str] = []

    class Tell(Observer):
        def progressed(self, progress: Progress) -> None:
            told.append(str(progress))

    steps = [mx.Validate(parity=Parity())]
    mx.Pipeline(steps).run(chain, observers=[Observer(), Tell()])
    assert told == [
        "parity: sets of inputs that the reference ran with 0",
        "parity: sets of inputs that the reference ran with 1",
        "parity: sets of inputs that the reference ran with 2",
        "parity: sets of inputs compared 0 of 2",
        "parity: sets of inputs compared 1 of 2",
    ]
    told.clear()
    tell("weights written", 1, 2)
    assert told == []


def test_the_same_input_gives_the_same_bytes(chain, tmp_path):
    """Two runs write the same file."""
    onnx.save(ir.to_proto(chain), tmp_path / "in.onnx")
    for name in ("a.onnx", "b.onnx"):
        mx.Pipeline([mx.RecoverScopes(), mx.InjectTags()], output=tmp_path / name).run(tmp_path / "in.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_an_outcome_is_shown_without_its_model(chain):
    """At a prompt, all nodes and weights of a real one would be."""
    shown = repr(mx.Outcome(chain, True, figures={"tagged": 4}, notes=["one is unknown"]))
    assert shown == "Outcome(modified=True, figures={'tagged': 4}, notes=['one is unknown'])"
