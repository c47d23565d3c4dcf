"""What extract takes out: the module's operations, weights and boundary; and that it computes what the module does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import modelexport_passes as mx
from modelexport_passes.exporting.record import RECORD_KEY
from modelexport_passes.surgery.calls import stacks
from modelexport_passes.testing import model_of
from tests.outlining.test_random_groupings import GRAPH_INPUTS, graphs, group
from tests.scoped_models import check, fingerprint, scoped

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
Arrays = dict[str, np.ndarray[Any, Any]]

NET = """
g (float[2,3] x) => (float[2,3] y)
<float[3,3] layers.0.fc.weight = {1,2,3,4,5,6,7,8,9}, float[3,3] layers.1.fc.weight = {9,8,7,6,5,4,3,2,1},
 float[3,3] head.weight = {1,0,0,0,1,0,0,0,1}>
{
    mask = Sigmoid(x)
    a0 = MatMul(x, layers.0.fc.weight)
    b0 = Mul(a0, mask)
    c0 = Relu(b0)
    a1 = MatMul(c0, layers.1.fc.weight)
    b1 = Mul(a1, mask)
    c1 = Relu(b1)
    y = MatMul(c1, head.weight)
}
"""
SCOPES = {
    "mask": "/Net/Block.layers.0",
    "a0": "/Net/Block.layers.0/Linear.fc",
    "b0": "/Net/Block.layers.0",
    "c0": "/Net/Block.layers.0/Act.^act",
    "a1": "/Net/Block.layers.1/Linear.fc",
    "b1": "/Net/Block.layers.1",
    "c1": "/Net/Block.layers.1/Act.^act@1",
    "y": "/Net/Head.head",
}


def net(*passes: ir.passes.PassBase) -> ir.Model:
    model = scoped(NET, SCOPES)
    for pass_ in passes:
        pass_(model)
    return model


def session_outputs(model: ir.Model, inputs: Arrays) -> Arrays:
    """Output name -> value, on onnxruntime without optimizations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(None, inputs)), strict=True))


def every_value(model: ir.Model, inputs: Arrays) -> Arrays:
    """What every value of the main graph is when the whole model runs."""
    exposed = model.clone()
    exposed.graph.outputs.clear()
    exposed.graph.outputs.extend(value for node in exposed.graph for value in node.outputs)
    return {**inputs, **session_outputs(exposed, inputs)}


def assert_computes_its_part(part: ir.Model, values: Arrays) -> None:
    """Fed with what the whole model had at the boundary, a part gives the same bits."""
    check(part)
    feeds = {str(value.name): values[str(value.name)] for value in part.graph.inputs}
    for name, found in session_outputs(part, feeds).items():
        assert found.tobytes() == values[name].tobytes(), name


def places_in(model: ir.Model) -> list[tuple[str, str]]:
    """Operator and module path of each node; ``^`` stands before a module that is not below the root."""
    return [(node.op_type, scope.path) for node in model.graph if (scope := mx.scope_of(node)) is not None]


# --- what is taken out -----------------------------------------------------------------------------------------------


def test_a_module_of_a_flat_model_with_its_own_weights_alone() -> None:
    """Scopes, tags and weights are told from the module, inputs and outputs keep their names, the mask is an input."""
    model = net(mx.InjectTags())
    before = ir.to_proto(model).SerializeToString()
    part = mx.extract(model, "layers.1")
    assert places_in(part) == [("MatMul", "fc"), ("Mul", ""), ("Relu", "^act")]
    assert part.graph[0].metadata_props["hierarchy_tag"] == "/Block/Linear.fc"
    assert list(part.graph.initializers) == ["fc.weight"]
    assert [value.name for value in part.graph.inputs] == ["c0", "mask"]
    assert [value.name for value in part.graph.outputs] == ["c1"]
    assert_computes_its_part(part, every_value(model, {"x": X}))
    assert ir.to_proto(model).SerializeToString() == before


def test_a_call_of_an_outlined_model_is_its_functions_body() -> None:
    """Functions that the body calls stay functions, names of the call's own values stand at the boundary."""
    part = mx.extract(net(mx.Outline()), "layers.1")
    assert places_in(part) == [("Linear", "fc"), ("Mul", ""), ("Act", "^act")]
    assert {function.name for function in part.functions.values()} == {"Linear", "Act"}
    assert [value.name for value in part.graph.inputs] == ["c0", "mask"]
    assert_computes_its_part(part, every_value(net(), {"x": X}))
    calls = {
        function.name: function.metadata_props["pkg.modelexport_passes.calls"] for function in part.functions.values()
    }
    assert {name: json.loads(text) for name, text in calls.items()} == {"Linear": ["fc"], "Act": ["^act"]}


@pytest.mark.parametrize("module", ["layers.0", "layers.1", "layers.1.fc", "act@1"])
def test_flat_or_outlined_the_same_comes_out(module: str) -> None:
    """Outlining before changes nothing but that functions are functions."""
    flat = mx.extract(net(), module)
    outlined = mx.extract(net(mx.Outline()), module)
    mx.Inline()(outlined)
    assert fingerprint(outlined) == fingerprint(flat)
    assert list(outlined.graph.initializers) == list(flat.graph.initializers)


def test_a_part_can_be_outlined_and_parted_again() -> None:
    """A part is a model like any other: its own modules can be taken out of it."""
    part = mx.extract(mx.extract(net(), "layers.1"), "fc")
    assert places_in(part) == [("MatMul", "")]
    assert list(part.graph.initializers) == ["weight"]
    assert_computes_its_part(part, every_value(net(), {"x": X}))


def test_a_value_that_a_call_passes_twice_is_one_input() -> None:
    """The shared function takes two, as another call passes two."""
    text = "g (float[2,3] x) => (float[2,3] y) { a = Relu(x)  b = Add(x, x)  y = Add(a, b) }"
    model = scoped(text, {"a": "/Net", "b": "/Net/Sum.one", "y": "/Net/Sum.two"})
    values = every_value(model, {"x": X})
    mx.Outline()(model)
    for module, inputs in (("one", ["x"]), ("two", ["a", "b"])):
        part = mx.extract(model, module)
        assert [value.name for value in part.graph.inputs] == inputs
        assert_computes_its_part(part, values)


def test_the_second_call_of_a_module() -> None:
    """``path@1`` is the second call, ``path`` the first; a class that is called once can be named by a glob."""
    assert [value.name for value in mx.extract(net(), "act").graph.outputs] == ["c0"]
    assert [value.name for value in mx.extract(net(), "act@0").graph.outputs] == ["c0"]
    assert [value.name for value in mx.extract(net(), "act@1").graph.outputs] == ["c1"]
    assert [value.name for value in mx.extract(net(), "*.Head").graph.outputs] == ["y"]


def test_constants_and_shape_arithmetic_come_along() -> None:
    """What the caller computes of constants, or of the shape of what the module reads, is no input."""
    text = """
    g (float[2,3] x) => (float[3,2] y) {
        h = Neg(x)
        s = Shape <start = 0, end = 1> (h)
        three = Constant <value = int64[1] {3}> ()
        shape = Concat <axis = 0> (three, s)
        other = Neg(three)
        y = Reshape(h, shape)
    }
    """
    scopes = dict.fromkeys(("h", "s", "three", "shape", "other"), "/Net") | {"y": "/Net/View.view"}
    model = scoped(text, scopes)
    for node, rank in (("s", 1), ("three", 1), ("shape", 2)):
        value = next(v for n in model.graph for v in n.outputs if v.name == node)
        value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([rank])
    part = mx.extract(model, "view")
    assert [value.name for value in part.graph.inputs] == ["h"]
    assert [node.op_type for node in part.graph] == ["Constant", "Shape", "Concat", "Reshape"]
    assert {mx.scope_of(node).source.value for node in list(part.graph)[:3]} == {"inherited"}  # type: ignore[union-attr]
    assert_computes_its_part(part, every_value(model, {"x": X}))


def test_types_of_the_boundary_are_inferred_where_the_file_has_none() -> None:
    """A runtime needs the dtype of each input."""
    model = net()
    assert all(value.dtype is None for node in list(model.graph)[:-1] for value in node.outputs)
    assert [value.dtype for value in mx.extract(model, "layers.1").graph.inputs] == [ir.DataType.FLOAT] * 2


def test_weights_stay_on_disk_and_the_export_record_stays_behind(tmp_path: Path) -> None:
    """Tensors are those of the source, not copies; what was recorded of the whole is not true of the part."""
    model = net()
    model.meta[RECORD_KEY] = "of the whole"
    model.meta["other"] = "kept"
    part = mx.extract(model, "layers.1")
    assert (
        part.graph.initializers["fc.weight"].const_value is model.graph.initializers["layers.1.fc.weight"].const_value
    )
    assert RECORD_KEY not in part.meta
    assert part.meta["other"] == "kept"
    mx.save(part, tmp_path / "part.onnx")
    assert_computes_its_part(mx.load(tmp_path / "part.onnx"), every_value(net(), {"x": X}))


# --- what cannot be taken out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("layers", "never called itself, only modules below it: layers.0"),
        ("layers.2", "did you mean 'layers.[01]'"),
        ("*.Block", "means 2 module calls; expected one of layers.0, layers.1"),
        ("*.Net", "is the root"),
    ],
)
def test_what_is_not_one_module_call_is_refused(module: str, message: str) -> None:
    """The message says what there is."""
    with pytest.raises(mx.ModelExportError, match=message):
        mx.extract(net(), module)


def test_a_model_without_scopes_is_refused() -> None:
    """The message names the pass that finds them."""
    with pytest.raises(mx.ModelExportError, match="run recover-scopes first"):
        mx.extract(scoped(NET, {}), "layers.0")


def test_a_module_that_others_lie_between_is_refused() -> None:
    """It could not run as one: it would read what is computed from its own output."""
    text = "g (float[2,3] x) => (float[2,3] y) { a = Relu(x)  b = Neg(a)  y = Relu(b) }"
    model = scoped(text, {"a": "/Net/Two.two", "b": "/Net", "y": "/Net/Two.two"})
    with pytest.raises(mx.ModelExportError, match=r"two is not convex: .* between its operations"):
        mx.extract(model, "two")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=graphs(), seed=st.integers(0, 2**16))
def test_every_module_of_any_grouping_computes_its_part(text: str, seed: int) -> None:
    """A module call that can be taken out gives the bits that it gave inside; out of an outlined model, too."""
    model = model_of(text)
    group(model, seed)
    values = every_value(model, GRAPH_INPUTS)
    outlined = model.clone()
    mx.Outline()(outlined)
    for source in (model, outlined):
        for name in sorted({str(frames[-1]) for frames, *_ in stacks(source) if len(frames) > 1}):
            try:
                part = mx.extract(source, name)
            except mx.ModelExportError as error:
                if re.search("not convex|nothing outside|module calls|in bodies", str(error)):
                    continue
                raise
            # Names in a shared body are those of its first call, so what stands deeper cannot be looked up.
            if source is model or _is_called_in_main(outlined, name):
                assert_computes_its_part(part, values)
            else:
                check(part)


def _is_called_in_main(model: ir.Model, name: str) -> bool:
    return any((scope := mx.scope_of(node)) is not None and str(scope.frames[-1]) == name for node in model.graph)


def test_the_default_domain_may_have_its_long_name() -> None:
    """The part imports it by the name that its operations have."""
    model = scoped("g (float[2,3] x) => (float[2,3] y) { a = Neg(x)  y = Relu(a) }", {"a": "/Net/B.b", "y": "/Net"})
    model.opset_imports["ai.onnx"] = model.opset_imports.pop("")
    part = mx.extract(model, "b")
    assert part.opset_imports == {"": 20}
    assert model.opset_imports == {"ai.onnx": 20}


def test_a_part_of_a_graph_out_of_order() -> None:
    """Onnxruntime takes such a graph, so it is a model like any other."""
    model = scoped("g (float[2,3] x) => (float[2,3] y) { a = Neg(x)  y = Relu(a) }", {"a": "/Net/B.b", "y": "/Net"})
    proto = ir.to_proto(model)
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert [node.op_type for node in mx.extract(ir.from_proto(proto), "b").graph] == ["Neg"]


SEQUENCES = """
g (float[2,3] x, int64 i) => (float[2,3] y) {
    a = Neg(x)
    s = SequenceConstruct(a, x)
    b = Exp(a)
    t = SequenceInsert(s, b)
    c = SequenceAt(t, i)
    y = Neg(c)
}
"""


def test_a_sequence_at_the_edge_of_a_module_is_one() -> None:
    """Types that inference finds are taken as they are: a list of tensors is no tensor."""
    scopes = dict.fromkeys("as", "/Net/A.one") | dict.fromkeys("bt", "/Net/B.two") | {"c": "/Net/C.three", "y": "/Net"}
    model = scoped(SEQUENCES, scopes)
    sequence = ir.SequenceType(ir.TensorType(ir.DataType.FLOAT))
    for path, edge in (("one", ["s"]), ("two", ["s", "t"]), ("three", ["t"])):
        part = mx.extract(model, path)
        check(part)
        values = {value.name: value.type for value in (*part.graph.inputs, *part.graph.outputs)}
        assert [name for name, kind in values.items() if kind == sequence] == edge
