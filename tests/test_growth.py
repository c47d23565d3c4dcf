"""Four times the model takes about four times as long, whatever it is that there is four times of.

Each model has many of one thing, in a form in which steps were seen to take the square of that: modules of one name,
inputs of one operation, outputs of the graph, functions, readers of one weight.
"""

import time
from collections.abc import Callable, Iterator

import onnx_ir as ir
import pytest

import modelexport_passes as mx
from modelexport_passes.garbage import collector_paused

SMALL, LARGE = 1_000, 4_000
MOST = 7.5
"""Times as long; a step that takes the square takes up to 16 times. What is linear was measured to take 3.6 to 5.5."""
LEAST = 0.02
"""Seconds of CPU that are too few to tell."""

_FLOAT = ir.TensorType(ir.DataType.FLOAT)


class Builder:
    """A graph in the making. Operations are told their module by torch's metadata, or by name alone."""

    def __init__(self, *, by_name: bool = False) -> None:
        self.x = self._known(ir.Value(name="x"))
        self.inputs = [self.x]
        self.outputs: list[ir.Value] = []
        self._by_name = by_name
        self._nodes: list[ir.Node] = []
        self._weights: list[ir.Value] = []

    def op(self, op_type: str, inputs: list[ir.Value], path: str = "", class_name: str = "q.Layer") -> ir.Value:
        """The result of an operation of the module at this path; of the root if it is empty."""
        number = len(self._nodes)
        if self._by_name:
            node = ir.Node("", op_type, inputs, name=f"/{path}/{op_type}")
        else:
            node = ir.Node("", op_type, inputs, name=f"n{number}")
            modules = ["", path] if path else [""]
            node.metadata_props["pkg.torch.onnx.name_scopes"] = repr([*modules, f"fx_{number}"])
            classes = ["q.Root", class_name][: len(modules)]
            node.metadata_props["pkg.torch.onnx.class_hierarchy"] = repr([*classes, "aten.op"])
        self._nodes.append(node)
        made = self._known(node.outputs[0])
        made.name = f"v{number}"
        return made

    def weight(self, name: str) -> ir.Value:
        """A weight that no other equals."""
        tensor = ir.tensor([float(len(self._weights)), 1.0], dtype=ir.DataType.FLOAT, name=name)
        value = ir.Value(name=name, type=_FLOAT, shape=ir.Shape([2]), const_value=tensor)
        self._weights.append(value)
        return value

    def input(self, name: str) -> ir.Value:
        """A further input of the graph."""
        self.inputs.append(self._known(ir.Value(name=name)))
        return self.inputs[-1]

    def model(self, *outputs: ir.Value) -> ir.Model:
        """All of it."""
        graph = ir.Graph(
            self.inputs, outputs, nodes=self._nodes, initializers=self._weights, opset_imports={"": 20}, name="g"
        )
        return ir.Model(graph, ir_version=10)

    @staticmethod
    def _known(value: ir.Value) -> ir.Value:
        value.type, value.shape = _FLOAT, ir.Shape([2])
        return value


def modules_of_one_name(count: int) -> ir.Model:
    """Layers that names alone tell, each with a child that is called as all of these are."""
    build = Builder(by_name=True)
    value = build.x
    for layer in range(count):
        value = build.op("Mul", [value, build.weight(f"layers.{layer}.dense.weight")], f"layers.{layer}/dense")
        value = build.op("Relu", [value], f"layers.{layer}/act")
    return build.model(value)


def inputs_of_one_operation(count: int) -> ir.Model:
    """The results of all layers are put together at the end."""
    build = Builder()
    values = [build.x]
    for layer in range(count):
        made = build.op("Mul", [values[-1], build.weight(f"layers.{layer}.weight")], f"layers.{layer}")
        values.append(build.op("Relu", [made], f"layers.{layer}"))
    return build.model(build.op("Sum", values))


def outputs_of_the_graph(count: int) -> ir.Model:
    """Each layer has a state that is given in and out."""
    build = Builder()
    value, states = build.x, list[ir.Value]()
    for layer in range(count):
        states.append(build.op("Add", [value, build.input(f"past.{layer}.key")], f"layers.{layer}"))
        states[-1].name = f"present.{layer}.key"
        value = build.op("Mul", [states[-1], build.weight(f"layers.{layer}.weight")], f"layers.{layer}")
    return build.model(build.op("Relu", [value]), *states)


def functions(count: int) -> ir.Model:
    """Each class is called twice: no two share."""
    build = Builder()
    value = build.x
    for at in range(count):
        for path in (f"layers.{at}.0", f"layers.{at}.1"):
            value = build.op("Mul", [value, build.weight(f"{path}.weight")], path, f"q.Layer{at}")
            value = build.op("Relu", [value], path, f"q.Layer{at}")
    return build.model(value)


def readers_of_one_weight(count: int) -> ir.Model:
    """All of these read a weight that has the name of none."""
    build = Builder()
    value, weight = build.x, build.weight("val_1")
    for at in range(count):
        value = build.op("Mul", [value, weight], f"layers.{at}", f"q.Layer{at}")
        value = build.op("Relu", [value], f"layers.{at}", f"q.Layer{at}")
    return build.model(value)


def calls_of_one_module(count: int) -> ir.Model:
    """One module runs again and again, and something else in between."""
    build = Builder()
    value, weight = build.x, build.weight("layer.weight")
    for _ in range(count):
        value = build.op("Relu", [build.op("Mul", [value, weight], "layer")], "layer")
        value = build.op("Abs", [value])
    return build.model(value)


def crossings_of_two_modules(count: int) -> ir.Model:
    """Two modules take turns, each at what the other made."""
    build = Builder()
    one = other = build.x
    for _ in range(count):
        one = build.op("Mul", [one, other], "one")
        other = build.op("Add", [one, other], "other")
    return build.model(build.op("Add", [one, other]))


def steps(model: ir.Model) -> Iterator[tuple[str, float]]:
    """Each pass with the CPU seconds that it takes."""
    for one in (mx.RecoverScopes(), mx.InjectTags(), mx.Outline(modules="all"), mx.Validate(), mx.Inline()):
        started = time.process_time()
        one(model)
        yield one.name, time.process_time() - started


@pytest.mark.parametrize(
    "build",
    [
        modules_of_one_name,
        inputs_of_one_operation,
        outputs_of_the_graph,
        functions,
        readers_of_one_weight,
        calls_of_one_module,
        crossings_of_two_modules,
    ],
)
@collector_paused()
def test_no_step_takes_the_square(build: Callable[[int], ir.Model]) -> None:
    """Recover, tag, outline, validate and inline, over models that are all of one thing."""
    small, large = dict(steps(build(SMALL))), dict(steps(build(LARGE)))
    slow = [name for name, seconds in large.items() if seconds > max(MOST * small[name], LEAST)]
    if slow:  # a busy machine may be all that there is to it: once more
        again_small, again_large = dict(steps(build(SMALL))), dict(steps(build(LARGE)))
        small = {name: max(seconds, again_small[name]) for name, seconds in small.items()}
        large = {name: min(seconds, again_large[name]) for name, seconds in large.items()}
    factors = {name: round(seconds / small[name], 1) for name, seconds in large.items() if seconds > LEAST}
    assert all(factor <= MOST for factor in factors.values()), factors
