"""Running tools as passes: the guard, failures, what is told, weights beside the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import modelexport_passes as mx
from modelexport_passes.builtin.converters import ConvertOpset, Float16
from modelexport_passes.builtin.external import External
from modelexport_passes.builtin.optimizers import OnnxRuntime, OnnxScriptOptimize, OnnxSim, OnnxSlim
from modelexport_passes.builtin.quantizers import QuantizeDynamic, QuantizeStatic
from modelexport_passes.builtin.tool_pass import GuardedToolPass, ToolPass
from modelexport_passes.errors import ConfigError, MissingDependencyError, ModelExportError, VerificationError
from modelexport_passes.exporting.record import ExportRecord
from modelexport_passes.pass_base import RunContext
from modelexport_passes.pipeline import writing
from modelexport_passes.registry import Registry
from modelexport_passes.scopes.scope import SCOPE_KEY
from modelexport_passes.scopes.walk import all_nodes
from modelexport_passes.tools import tool
from modelexport_passes.validation.session import open_session
from tests.scoped_models import scoped

ONES = ", ".join(["1"] * 16)
TEXT = f"""g (float[2,4] x) => (float[2,4] y) <float[4,4] l0.w = {{{ONES}}}, float[4,4] l1.w = {{{ONES}}}> {{
    i = Identity(x)  a = MatMul(i, l0.w)  b = Relu(a)  c = MatMul(b, l1.w)  y = Relu(c) }}"""
CALIBRATION = RunContext(None, ExportRecord("dynamo", {"x": np.ones((2, 4), np.float32)}, []))  # type: ignore[arg-type]
SCOPES = {"i": "/Net"} | {
    name: f"/Net/Block.l{layer}{inner}"
    for name, layer, inner in (("a", 0, "/Linear.lin"), ("b", 0, ""), ("c", 1, "/Linear.lin"), ("y", 1, ""))
}

GUARDED = [
    OnnxRuntime,
    OnnxScriptOptimize,
    lambda **options: ConvertOpset(opset=21, **options),
    lambda **options: ConvertOpset(opset=21, converter="onnxscript", **options),
    Float16,
    QuantizeDynamic,
    lambda **options: QuantizeStatic(ops=["MatMul"], **options).bind(CALIBRATION),
    lambda **options: External(function="tests.tools.test_apply:rename_all", **options),
]


def rename_all(proto: onnx.ModelProto) -> None:
    """A foreign tool: new node names, no metadata, and chatter on stdout."""
    print("simplifying ...")
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
        del node.metadata_props[:]


def copy_file(source: str, target: str, *, suffix: str) -> None:
    """A foreign tool on files."""
    proto = onnx.load(source)
    proto.producer_name += suffix
    onnx.save(proto, target)


def fail(proto: onnx.ModelProto) -> None:
    """A foreign tool that gives up half-way."""
    del proto.graph.node[:]
    raise RuntimeError("no such thing\nwith details")


def return_bytes(proto: onnx.ModelProto) -> bytes:
    return proto.SerializeToString()


@pytest.fixture
def model() -> ir.Model:
    """Two blocks, tagged, with weights."""
    made = scoped(TEXT, SCOPES)
    rng = np.random.default_rng(0)
    for value in made.graph.initializers.values():
        value.const_value = ir.tensor(rng.standard_normal((4, 4), np.float32), name=value.name)
    mx.InjectTags()(made)
    return made


def tags(model: ir.Model) -> list[str | None]:
    return [node.metadata_props.get("hierarchy_tag") for node in all_nodes(model)]


@pytest.mark.parametrize("make", GUARDED)
def test_a_tool_that_harms_functions_is_stopped_before_it_runs(model, make):
    """The error offers to inline; the option does it, and every operation is tagged as before outlining."""
    mx.Outline(modules=["*.Block"])(model)
    before = ir.to_proto(model)
    with pytest.raises(
        ModelExportError, match=r"has 1 local function, and .*; inline them first.*on_functions: inline"
    ):
        make()(model)
    assert ir.to_proto(model) == before
    result = make(on_functions="inline")(model)
    assert isinstance(result, mx.Outcome)
    assert (result.modified, len(model.functions), len(result.notes)) == (True, 0, 1)
    assert {*SCOPES.values()} - {"/Net"} <= set(tags(result.model)) <= {*SCOPES.values()}
    mx.Validate(session=True)(model)


def test_no_tool_of_the_table_is_without_a_guard() -> None:
    """What is not guarded is known to keep functions; whatever else runs a tool asks first."""
    passes = {entry.load() for entry in Registry().entries() if entry.owner == "built-in"}
    tools = {one for one in passes if issubclass(one, ToolPass)}
    assert {one for one in tools if not issubclass(one, GuardedToolPass)} == {OnnxSlim, OnnxSim}
    guarded = {type(make(on_functions="run")) for make in GUARDED}
    assert guarded == tools - {OnnxSlim, OnnxSim}


WITH_CONSTANT = f"""g (float[2,4] x) => (float[2,4] y) <float[4,4] l0.w = {{{ONES}}}, float[4,4] l1.w = {{{ONES}}}> {{
    i = Identity(x)  k = Constant <value = float {{2}}> ()  a = MatMul(i, l0.w)  p = Mul(a, k)  b = Relu(p)
    c = MatMul(b, l1.w)  q = Mul(c, k)  y = Relu(q) }}"""


def does_not_load(model: ir.Model) -> bool:
    try:
        open_session(model)
    except VerificationError:
        return True
    return False


def not_quantized(model: ir.Model) -> bool:
    return not any("Quant" in node.op_type for node in all_nodes(model))


def without_calls(model: ir.Model) -> bool:
    return not model.functions and not does_not_load(model)


@pytest.mark.parametrize(
    ("make", "harmed"),
    [
        (OnnxRuntime, without_calls),
        (OnnxScriptOptimize, without_calls),
        (lambda **options: ConvertOpset(opset=21, **options), does_not_load),
        (lambda **options: ConvertOpset(opset=21, converter="onnxscript", **options), without_calls),
        (Float16, does_not_load),
        (QuantizeDynamic, not_quantized),
        (lambda **options: QuantizeStatic(**options).bind(CALIBRATION), not_quantized),
    ],
)
def test_the_harm_that_is_told_is_done(make, harmed) -> None:
    """A guard against what a tool does no longer would only be in the way; without functions no harm is done."""
    model = scoped(WITH_CONSTANT, SCOPES | {"p": "/Net/Block.l0", "q": "/Net/Block.l1"})
    flat = model.clone()
    mx.Outline(modules=["*.Block"])(model)
    make(on_functions="run")(model)
    assert harmed(model)
    make()(flat)
    assert harmed is without_calls or not harmed(flat)


def test_a_tool_may_be_given_functions_all_the_same(model):
    """Then what it does is told; relative scopes do not stay on what it inlined."""
    mx.Outline(modules=["*.Block"])(model)
    result = OnnxRuntime(on_functions="run")(model)
    assert isinstance(result, mx.Outcome)
    assert [note.partition(",")[0] for note in result.notes] == ["the model has 1 local function"]
    assert not any(text.startswith(".") for node in model.graph if (text := node.metadata_props.get(SCOPE_KEY)))


@pytest.mark.parametrize("make", [OnnxSlim, OnnxSim])
def test_tools_that_keep_functions_keep_all_that_is_known_of_them(model, make):
    """Bodies have their relative tags, functions their module: the model inlines to the tags it had."""
    mx.Outline(modules=["*.Block"])(model)
    make()(model)
    assert len(model.functions) == 1
    mx.Validate(session=True)(model)
    mx.Inline()(model)
    assert sorted(map(str, tags(model))) == sorted(tag for name, tag in SCOPES.items() if name != "i")


def test_a_second_run_changes_nothing_and_says_so(model):
    """Modified is found by comparing models, not believed."""
    assert OnnxSlim()(model).modified
    assert not OnnxSlim()(model).modified


def test_any_function_is_a_tool(model, capsys):
    """On protobuf or on files; scopes and tags are back, and what it prints is not on stdout."""
    before = tags(model)
    result = External(function="tests.tools.test_apply:rename_all")(model)
    assert isinstance(result, mx.Outcome)
    assert [node.name for node in model.graph] == ["n0", "n1", "n2", "n3", "n4"]
    assert (tags(model), result.modified, result.figures["by_name"]) == (before, True, 5)
    External(function="tests.tools.test_apply:copy_file", takes="paths", options={"suffix": "!"})(model)
    assert (tags(model), model.producer_name) == (before, "!")
    assert capsys.readouterr().out == ""


def test_a_tool_that_fails_leaves_the_model_as_it_was(model):
    """The error has the tool, the kind and the first line."""
    before = ir.to_proto(model)
    with pytest.raises(ModelExportError, match=r"test_apply:fail failed: RuntimeError: no such thing; the model is as"):
        External(function="tests.tools.test_apply:fail")(model)
    assert ir.to_proto(model) == before
    with pytest.raises(ModelExportError, match=r"return_bytes returned a bytes; expected an onnx\.ModelProto or None"):
        External(function="tests.tools.test_apply:return_bytes")(model)


def test_what_cannot_be_had_is_told_with_the_way_to_get_it(model, monkeypatch):
    """A missing package, a missing function, nothing to calibrate with."""

    def gone(name: str) -> None:
        raise ImportError(f"No module named {name!r}", name=name)

    with monkeypatch.context() as patch:
        patch.setattr(tool.importlib, "import_module", gone)
        with pytest.raises(MissingDependencyError, match=r"onnxslim .*; pip install modelexport-passes\[tools\]"):
            OnnxSlim()(model)
    with pytest.raises(ConfigError, match=r"tests\.tools\.test_apply has no function 'nothing'"):
        External(function="tests.tools.test_apply:nothing")(model)
    with pytest.raises(ConfigError, match=r"expected package\.module:function"):
        External(function="rename_all")
    with pytest.raises(ConfigError, match=r"nothing to calibrate with: give inputs"):
        QuantizeStatic()(model)


def test_calibration_inputs_come_from_files(model, tmp_path):
    """And the pairs that are put in have the tags of what they serve."""
    np.savez(tmp_path / "a.npz", x=np.ones((2, 4), np.float32))
    QuantizeStatic(inputs=[tmp_path / "a.npz"])(model)
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph) >= 3
    assert None not in tags(model)


def test_weights_beside_a_model_go_with_it(model, tmp_path):
    """A model whose weights are in a file: what the tool wrote is read when it is needed, and saved with the model."""
    value = model.graph.initializers["l0.w"]
    weights = value.const_value
    assert weights is not None
    ir.save(model, tmp_path / "in.onnx", external_data="in.data", size_threshold_bytes=1)
    loaded = mx.load(tmp_path / "in.onnx")
    External(function="tests.tools.test_apply:rename_all")(loaded)
    (tmp_path / "in.data").unlink()
    mx.save(loaded, tmp_path / "out.onnx")
    again = mx.load(tmp_path / "out.onnx").graph.initializers["l0.w"].const_value
    assert again is not None
    assert again.numpy().tobytes() == weights.numpy().tobytes()


def test_the_saved_file_holds_every_tag(model, tmp_path):
    """The report counts in the file: as many as nodes, after a tool that wipes them."""
    steps = [OnnxSlim(), OnnxRuntime(), mx.Outline(modules=["*.Block"])]
    report = mx.Pipeline(steps, output=tmp_path / "out.onnx").run(model).report
    assert report.output is not None
    assert report.output.tags == {"hierarchy_tag": report.output.nodes}
    assert report.output.nodes == 4
    proto = onnx.load(tmp_path / "out.onnx")
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    assert len(nodes) == 4
    assert all("hierarchy_tag" in {entry.key for entry in node.metadata_props} for node in nodes)


def test_a_tag_that_is_lost_in_saving_is_an_error(model, tmp_path, monkeypatch):
    """The file is read again; what it lacks is told with the numbers."""

    def save_without_one(model: ir.Model, path: Path) -> None:
        model = model.clone()
        del model.graph[0].metadata_props["hierarchy_tag"]
        mx.save(model, path)

    monkeypatch.setattr(writing, "save", save_without_one)
    with pytest.raises(
        VerificationError, match=r"the file holds .*'hierarchy_tag': 4.*, the model .*'hierarchy_tag': 5"
    ):
        mx.Pipeline([], output=tmp_path / "out.onnx").run(model)
