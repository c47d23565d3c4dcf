"""Any grouping of any model's operations into modules can be outlined and undone: random trees over many models.

The groupings make no sense as modules, which is the point: regions cross, come back, share, capture, and hold nothing.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test.loader
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import modelexport_passes as mx
from modelexport_passes.scopes.scope import Frame, Scope, Source, set_scope
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.testing import model_of
from tests.scoped_models import fault_of, fingerprint, run

FUNCTIONS = Path(__file__).parent.parent / "data" / "functions"
DTYPES = {"FLOAT": np.float32, "DOUBLE": np.float64, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}


def group(model: ir.Model, seed: int) -> None:
    """Give the operations scopes in a random module tree, some of them none."""
    rng = random.Random(seed)

    def below(stack: tuple[Frame, ...], path: str) -> list[tuple[Frame, ...]]:
        stacks = [stack]
        for name in rng.sample("abc", rng.randint(0, 3)) if len(stack) < 4 else ():
            inner = f"{path}.{name}".lstrip(".")
            stacks += below((*stack, Frame(inner, f"random.C{rng.randint(0, 2)}", rng.randint(0, 1))), inner)
        return stacks

    stacks = below((Frame("", "random.Root"),), "")
    stack = rng.choice(stacks)
    for node in owned_nodes(model.graph):
        stack = rng.choice(stacks) if rng.random() < 0.35 else stack
        if rng.random() > 0.05:
            set_scope(node, Scope(stack, rng.choice(list(Source))))


def assert_reversible(model: ir.Model, inputs: dict[str, np.ndarray[Any, Any]], **options: Any) -> None:
    """Outline all, then inline: bit-equal both times, settled, and nothing lost on the way back."""
    expected, kept = run(model, inputs), fingerprint(model)
    edge = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
    valid = is_valid(model)
    outline = mx.Outline(**options)
    notes = outline(model).notes  # type: ignore[attr-defined]
    assert run(model, inputs) == expected
    assert outline.on_nonconvex == "skip" or not any("not convex" in note for note in notes)
    assert not outline(model).modified
    model = ir.from_proto(onnx.load_from_string(ir.to_proto(model).SerializeToString()))
    mx.Inline(modules=["random.*"], depth=2)(model)
    assert run(model, inputs) == expected
    mx.Inline(modules=["random.C0"])(model)
    assert run(model, inputs) == expected
    mx.Inline(modules=["random.*"])(model)
    assert run(model, inputs) == expected
    assert fingerprint(model) == kept
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == edge
    assert is_valid(model) == valid


def is_valid(model: ir.Model) -> bool:
    """Some of the peers' models do not pass the full check themselves."""
    return fault_of(model) is None


def some_inputs(model: ir.Model) -> dict[str, np.ndarray[Any, Any]] | None:
    """Random inputs of a model; None if it takes what is not a plain tensor."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for value in model.graph.inputs:
        if value.dtype is None or value.dtype.name not in DTYPES or value.shape is None:
            return None
        shape = [dim if isinstance(dim, int) and dim > 0 else 2 for dim in value.shape]
        arrays[str(value.name)] = (rng.normal(size=shape) * 3).astype(DTYPES[value.dtype.name])
    return arrays


@pytest.mark.parametrize("path", sorted(FUNCTIONS.glob("*.onnx")), ids=lambda path: path.stem[-40:])
def test_models_with_functions_and_subgraphs(path: Path) -> None:
    """Peers' own test models: functions that are there stay there."""
    model = ir.load(str(path))
    inputs = some_inputs(model)
    try:
        runs = inputs is not None and bool(run(model, inputs))
    except Exception as error:  # noqa: BLE001  # onnxruntime's own error classes have no common base but this
        pytest.skip(f"onnxruntime does not run it as it is: {str(error)[:60]}")
    if not runs or inputs is None:
        pytest.skip("not tensors")
    for seed in range(8):
        model = ir.load(str(path))
        group(model, seed)
        assert_reversible(model, inputs, on_nonconvex="split" if seed % 2 else "skip")


def backend_cases() -> list[Any]:
    """The models of onnx's own backend tests; of those of single operators, the ones with a body."""
    load = onnx.backend.test.loader.load_model_tests
    models = [case for kind in ("simple", "pytorch-converted", "pytorch-operator") for case in load(kind=kind)]
    return [case for case in [*models, *filter(_has_more, load(kind="node"))] if case.model_dir]


def _has_more(case: Any) -> bool:
    if not case.model_dir:
        return False
    model = onnx.load(Path(case.model_dir) / "model.onnx")
    bodies = any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute)
    return bodies or len(model.graph.node) > 1


def test_backend_models_of_onnx() -> None:
    """Every backend test model that onnxruntime runs; If, Loop, Scan and sequences among them."""
    done = 0
    for case in backend_cases():
        folder = Path(case.model_dir)
        proto = onnx.load(folder / "model.onnx")
        try:
            inputs = {
                value.name: numpy_helper.to_array(onnx.load_tensor(str(folder / "test_data_set_0" / f"input_{at}.pb")))
                for at, value in enumerate(proto.graph.input)
            }
            run(ir.from_proto(proto), inputs)
        except Exception:  # noqa: BLE001  # not tensors, or not an operator of this runtime: no case for us
            continue
        for seed, on_nonconvex in enumerate(["skip", "split"]):
            model = ir.from_proto(proto)
            group(model, seed)
            assert_reversible(model, inputs, on_nonconvex=on_nonconvex)
        done += 1
    assert done >= 50, f"only {done} models ran"


# --- random graphs ---------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> str:
    """Text of a random graph over ``[2, 3]`` tensors with weights, shared constants, and several outputs."""
    values = ["x", "past_0", "w1", "w2", "c"]
    lines = ["c = Constant <value = float {2}> ()"]
    for at in range(draw(st.integers(1, 14))):
        name = f"v{at}"
        first, second = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        operation = draw(st.sampled_from(["Add", "Mul", "Sub", "Max", "Neg", "Relu", "Elu", "Selu", "Constant"]))
        if operation == "Constant":
            lines.append(f"{name} = Constant <value = float {{{draw(st.integers(0, 1))}}}> ()")
        elif operation == "Elu":
            lines.append(f"{name} = Elu <alpha = {draw(st.sampled_from(['0.5', '0.25', '1.0']))}> ({first})")
        elif operation == "Selu":
            alpha, gamma = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
            lines.append(f"{name} = Selu <alpha = {alpha}.0, gamma = {gamma}.0> ({first})")
        elif operation in ("Neg", "Relu"):
            lines.append(f"{name} = {operation}({first})")
        else:
            lines.append(f"{name} = {operation}({first}, {second})")
        values.append(name)
    made = values[5:]
    outputs = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
    weights = "<float[2,3] w1 = {1,2,3,4,5,6}, float[2,3] w2 = {6,5,4,3,2,1}>"
    tail = [f"present_{at} = Add({name}, x)" for at, name in enumerate(outputs)]
    named = ", ".join(f"float[2,3] present_{at}" for at in range(len(outputs)))
    body = "\n".join([*lines, *tail])
    return f"g (float[2,3] x, float[2,3] past_0) => ({named}) {weights} {{\n{body}\n}}"


_X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
GRAPH_INPUTS = {"x": _X, "past_0": 2 * _X}
"""What `graphs` take."""

OPTIONS = st.fixed_dictionaries(
    {"on_nonconvex": st.sampled_from(["skip", "split"])},
    optional={
        "modules": st.sampled_from(["auto", ["random.C0"], ["random.C1", "random.C2"]]),
        "paths": st.sampled_from([["a"], ["*.b", "c"]]),
        "exclude": st.sampled_from([["random.C1"], ["a.*"]]),
        "lift": st.sampled_from(["attributes", "never"]),
        "weights": st.just("shape"),
        "depth": st.integers(1, 2),
        "min_nodes": st.integers(2, 3),
        "min_calls": st.just(2),
        "state": st.sampled_from([{}, {"past_{i}": "no_{i}"}]),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=graphs(), seed=st.integers(0, 2**16), options=OPTIONS)
def test_random_graphs_with_random_module_trees(text: str, seed: int, options: dict[str, Any]) -> None:
    """Whatever the graph, the tree and the options: the same results, and the same model back."""
    model = model_of(text)
    group(model, seed)
    assert_reversible(model, GRAPH_INPUTS, **options)


# --- layers that an exporter wrote differently -----------------------------------------------------------------------

MOVES = {
    "Identity": "{new} = Identity({old})",
    "Cast": "{new} = Cast <to = 1> ({old})",
    "Expand": "{new}k = Constant <value = int64[2] {{2, 3}}> ()  {new} = Expand({old}, {new}k)",
    "Reshape": "{new}k = Constant <value = int64[2] {{2, 3}}> ()  {new} = Reshape({old}, {new}k)",
    "Strict": "{new}k = Constant <value = int64[2] {{2, 3}}> ()  {new} = Reshape <allowzero = 1> ({old}, {new}k)",
    "Computed": "{new}k = Shape({old})  {new} = Reshape({old}, {new}k)",
    "Other": "{new}k = Shape(x)  {new} = Expand({old}, {new}k)",
    "Turn": "{new}t = Transpose <perm = [1, 0]> ({old})  {new} = Transpose <perm = [1, 0]> ({new}t)",
}
"""What gives what it takes, in the ways that exporters write it, or leave it out."""


@st.composite
def layers(draw: st.DrawFn) -> tuple[str, dict[str, tuple[Frame, ...]]]:
    """Layers of one body that differ in moves; and the module call of each operation, by its first output."""
    length = draw(st.integers(2, 6))
    inner = range(*sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length)))))
    steps: list[tuple[str, int, int]] = []
    for at in range(length):
        operation = draw(st.sampled_from(["Add", "Mul", "Softmax", "Tanh", "MatMul"]))
        steps.append((operation, draw(st.integers(-1, at - 1)), draw(st.integers(-1, at - 1))))
    # What no weight made counts as shared by all layers, and what a call makes never does.
    steps.append(("MatMul", length - 1, length - 1))
    spots = draw(st.lists(st.integers(0, length - 1), max_size=2, unique=True))
    lines: list[str] = []
    calls: dict[str, tuple[Frame, ...]] = {}
    last = "x"
    for layer in range(draw(st.integers(2, 4))):
        outer = (Frame("", "random.Root"), Frame(f"{layer}", f"random.C{draw(st.sampled_from([0, 0, 0, 1]))}"))
        made = {-1: last}
        for at, (operation, first, second) in enumerate(steps):
            stack = (*outer, Frame(f"{layer}.inner", "random.C2")) if at in inner else outer
            name, (one, two) = f"v{layer}_{at}", (made[first], made[second])
            text = {
                "MatMul": f"{name} = MatMul({one}, w{layer % 2})",
                "Softmax": f"{name} = Softmax <axis = -1> ({one})",
                "Tanh": f"{name} = Tanh({one})",
            }.get(operation, f"{name} = {operation}({one}, {two})")
            if at in spots and (move := draw(st.sampled_from([None, *MOVES]))):
                text = f"{text}  {MOVES[move].format(new=f'{name}m', old=name)}"
                name = f"{name}m"
            made[at] = name
            lines.append(text)
            calls.update((word[:-2], stack) for word in _ASSIGNED.findall(text))
        last = made[length]
    size = draw(st.sampled_from(["2,3", "N,3"]))
    weights = "<float[3,3] w0 = {1,2,3,4,5,6,7,8,9}, float[3,3] w1 = {9,8,7,6,5,4,3,2,1}>"
    body = "\n".join([*lines, f"y = Identity({last})"])
    return f"g (float[{size}] x) => (float[{size}] y) {weights} {{\n{body}\n}}", calls


_ASSIGNED = re.compile(r"\w+ =(?= \w+[ (<])")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=layers(), options=OPTIONS)
def test_layers_that_differ_in_moves(case: tuple[str, dict[str, tuple[Frame, ...]]], options: dict[str, Any]) -> None:
    """Whatever stands in for whatever: the same results, and the same model back."""
    text, calls = case
    model = model_of(text)
    for node in model.graph:
        stack = calls.get(str(node.outputs[0].name))
        if stack is not None:
            set_scope(node, Scope(stack, Source.EXPORT))
    assert_reversible(model, {"x": _X}, **options)
