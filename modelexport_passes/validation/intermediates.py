"""The values inside a model, computed by onnxruntime: every operation once, a stretch of the graph at a time.

Exposed as graph outputs, the values of a whole model may not fit into memory. So the graph is cut into stretches, each
a model of its own that makes as much of what is asked for as memory allows. What later stretches read is handed on in
onnxruntime's own form, bit by bit as it is: the model runs once, however little is held at a time.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import onnx_ir as ir

from modelexport_passes.fast_nodes import remove_nodes
from modelexport_passes.progress import tell
from modelexport_passes.scopes.copying import copy_model, copy_node
from modelexport_passes.scopes.walk import values_read
from modelexport_passes.validation.session import Array, from_ort, open_session, run_ort_values, to_ort


class Budget(NamedTuple):
    """How much to hold at a time.

    Attributes:
        limit: bytes of values that are asked for. One larger than that is held alone.
        unknown: bytes to reckon with for a value of unknown type or shape.
    """

    limit: int
    unknown: int


def intermediates(
    model: ir.Model, inputs: Mapping[str, Array], values: Sequence[ir.Value], budget: Budget
) -> Iterator[tuple[ir.Value, Array]]:
    """Run a model and yield these values of its main graph with what they are; what is no tensor is passed over.

    Args:
        model: without calls of functions; left as it is.
        inputs: graph input name -> array.
        values: what to compute, each of which has a name.
        budget: how much to hold at a time.

    Raises:
        VerificationError: onnxruntime does not load or run the model.
    """
    asked = {value.name: value for value in values}
    names = {value.name for value in model.graph.inputs}
    held = to_ort({name: array for name, array in inputs.items() if name in names})
    stretches = _stretches(copy_model(model), asked.keys(), budget)
    for number, stretch in enumerate(stretches):
        tell("module proof: stretches run", number, len(stretches))
        given = {name: held[name] for value in stretch.reads if (name := str(value.name)) in held}
        results = run_ort_values(open_session(stretch.as_model(given)), given)
        results.reverse()
        for value in stretch.makes:
            name, result = str(value.name), results.pop()
            if name in asked and result.is_tensor():
                yield asked[name], from_ort(result)
            if value in stretch.handed_on:
                held[name] = result
        for value in stretch.ends:
            held.pop(str(value.name), None)


@dataclass(eq=False)
class _Stretch:
    """Nodes that follow each other.

    Attributes:
        whole: the model that they are of.
        nodes: in order.
        asked: what of their outputs is asked for.
        reads: values that they take from before.
        handed_on: values that they make for later stretches.
        ends: values that no later stretch reads.
    """

    whole: ir.Model
    nodes: list[ir.Node] = field(default_factory=list[ir.Node])
    asked: list[ir.Value] = field(default_factory=list[ir.Value])
    reads: dict[ir.Value, None] = field(default_factory=dict[ir.Value, None])
    handed_on: dict[ir.Value, None] = field(default_factory=dict[ir.Value, None])
    ends: list[ir.Value] = field(default_factory=list[ir.Value])

    @property
    def makes(self) -> list[ir.Value]:
        """The outputs of the stretch as a model."""
        return list(dict.fromkeys([*self.asked, *self.handed_on]))

    def as_model(self, given: Mapping[str, Any]) -> ir.Model:
        """The stretch as a model: what is given is its inputs, what it reads besides are weights and constants."""
        weights = [value for value in self.reads if value.name not in given and value.is_initializer()]
        constants = [copy_node(node, []) for node in dict.fromkeys(map(_constant, self.reads)) if node is not None]
        graph = ir.Graph(
            [ir.Value(name=name, type=_type_of(value), shape=_shape_of(value)) for name, value in given.items()],
            self.makes,
            nodes=[*constants, *self.nodes],
            initializers=[ir.Value(name=value.name, const_value=value.const_value) for value in weights],
            opset_imports=dict(self.whole.graph.opset_imports),
            name="stretch",
        )
        return ir.Model(graph, ir_version=max(self.whole.ir_version, 4))  # weights that are no inputs


def _stretches(model: ir.Model, asked: Container[str | None], budget: Budget) -> list[_Stretch]:
    """Cut a model, which is used up."""
    graph = model.graph
    nodes = list(graph)
    graph.outputs.clear()
    remove_nodes(graph)
    found = [_Stretch(model)]
    size = 0
    for node in nodes:
        wanted = [value for value in node.outputs if value.name in asked]
        more = sum(_nbytes(value, budget.unknown) for value in wanted)
        if wanted and found[-1].asked and size + more > budget.limit:
            found.append(_Stretch(model))
            size = 0
        size += more
        found[-1].nodes.append(node)
        found[-1].asked += wanted
    _hand_on(found)
    return [stretch for stretch in found if stretch.asked]


def _hand_on(stretches: Sequence[_Stretch]) -> None:
    """Note what passes from each stretch to later ones."""
    made: dict[ir.Value, int] = {}
    last: dict[ir.Value, int] = {}
    for at, stretch in enumerate(stretches):
        for node in stretch.nodes:
            for value in values_read(node):
                if value is not None and made.get(value) != at:
                    stretch.reads[value] = None
                    last[value] = at
            made.update(dict.fromkeys(node.outputs, at))
    for value, at in last.items():
        stretches[at].ends.append(value)
        if value in made and _constant(value) is None:
            stretches[made[value]].handed_on[value] = None


def _constant(value: ir.Value) -> ir.Node | None:
    """The Constant that makes a value: each stretch that reads it has a copy, as some operators take nothing else."""
    node = value.producer()
    return node if node is not None and node.op_type == "Constant" and not node.domain else None


def _nbytes(value: ir.Value, unknown: int) -> int:
    if value.dtype is None or value.shape is None or not value.shape.is_static():
        return unknown
    return math.ceil(math.prod(value.shape.numpy()) * value.dtype.itemsize)


def _shape_of(value: Any) -> ir.Shape | None:
    # The very sizes: onnxruntime does not load a Resize to sizes of which it is not told how many there are.
    return ir.Shape(value.shape()) if value.is_tensor() else None


def _type_of(value: Any) -> ir.TypeProtocol:
    """The type of one of onnxruntime's values, which it tells as ``seq(tensor(float))``."""
    return _parse_type(value.data_type())


_KINDS = {"seq": ir.SequenceType, "optional": ir.OptionalType}


def _parse_type(text: str) -> ir.TypeProtocol:
    kind, _, rest = text.removesuffix(")").partition("(")
    if kind in _KINDS:
        return _KINDS[kind](_parse_type(rest))
    return ir.TensorType(ir.DataType[rest.upper()])
