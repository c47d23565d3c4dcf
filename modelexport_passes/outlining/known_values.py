"""What is known of values before anything runs: their shapes, and what small tensors of integers hold.

Asked for one value, this looks as far back as it must, and remembers. Operations of small integers that are known are
computed by onnx's reference implementation; of all others, onnx's shape inference tells what they make.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.defs
import onnx.numpy_helper
import onnx.shape_inference
import onnx_ir as ir

from modelexport_passes.outlining.flow import Op, Wire
from modelexport_passes.randomness import draws_random_numbers

Array = npt.NDArray[Any]

_LIMIT = 65536
"""Elements of the largest tensor whose content is followed: shapes and axes, and distances of 256 by 256 positions."""

_INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})
_COMPUTED = frozenset(
    """Abs Add And Cast Concat Constant ConstantOfShape Div Equal Expand Gather Greater Identity Less Max Min Mod Mul
    Neg Not Or Range ReduceMax ReduceMin ReduceProd ReduceSum Reshape Slice Split Squeeze Sub Tile Transpose Unsqueeze
    Where""".split()  # noqa: SIM905 - as a list it would fill a screen
)
"""Operators whose results are followed: what exporters make shapes of."""


class KnownValues:
    """Shapes and contents, found on demand.

    Args:
        opsets: domain -> version of its operators.
    """

    def __init__(self, opsets: Mapping[str, int]) -> None:
        self._opsets = {"" if domain == "ai.onnx" else domain: version for domain, version in opsets.items()}
        self._types: dict[Wire, onnx.TypeProto | None] = {}
        self._contents: dict[Wire, Array] = {}

    def content(self, wire: Wire) -> Array | None:
        """What a value always holds; None if that is not known."""
        self._find(wire)
        return self._contents.get(wire)

    def dtype(self, wire: Wire) -> int | None:
        """The element type of a tensor as onnx numbers it; None if that is not known."""
        self._find(wire)
        kind = self._types[wire]
        return None if kind is None else kind.tensor_type.elem_type or None

    def sizes(self, wire: Wire) -> list[int | None] | None:
        """The size of each dimension of a tensor, None for those that are not known; None if the rank is not known."""
        self._find(wire)
        kind = self._types[wire]
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        return [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.tensor_type.shape.dim]

    def _find(self, wire: Wire) -> None:
        waiting = [wire]
        while waiting:
            last = waiting[-1]
            missing = [read for read in _needed_for(last) if read not in self._types]
            if last not in self._types and missing:
                waiting += missing
                continue
            waiting.pop()
            if last not in self._types:
                self._settle(last)

    def _settle(self, wire: Wire) -> None:
        """Find what is known of a value, now that it is of all that it is made of."""
        op, tensor = wire.producer, wire.value.const_value
        if op is not None and not _is_told(wire):
            self._types.update(dict.fromkeys(op.outs))
            if _is_understood(op):
                self._run(op)
            return
        self._types[wire] = _declared(wire)
        if op is None and wire.is_weight and tensor is not None and tensor.dtype in _INTEGERS and tensor.size <= _LIMIT:
            self._contents[wire] = tensor.numpy()

    def _run(self, op: Op) -> None:
        node = _with_plain_names(op)
        given = {f"in_{at}": wire for at, wire in enumerate(op.ins) if wire is not None}
        contents = {name: array for name, wire in given.items() if (array := self._contents.get(wire)) is not None}
        made = self._shape_read(op) if node.op_type == "Shape" else None
        if made is None and node.op_type in _COMPUTED and len(contents) == len(given):
            made = self._compute(node, contents)
        if made is None:
            types = {name: kind for name, wire in given.items() if (kind := self._types[wire]) is not None}
            found = self._infer(node, types, contents)
            self._types.update((wire, found.get(f"out_{at}")) for at, wire in enumerate(op.outs))
            return
        for wire, array in zip(op.outs, made, strict=True):
            element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            self._types[wire] = onnx.helper.make_tensor_type_proto(element, array.shape)
            if array.dtype.kind in "ib" and array.size <= _LIMIT:
                self._contents[wire] = array

    def _shape_read(self, op: Op) -> list[Array] | None:
        kind = self._types[op.reads[0]]
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        start, end = (op.node.attributes.get(name) for name in ("start", "end"))
        dims = kind.tensor_type.shape.dim[
            None if start is None else start.as_int() : None if end is None else end.as_int()
        ]
        if not all(dim.HasField("dim_value") for dim in dims):
            return None
        return [np.array([dim.dim_value for dim in dims], np.int64)]

    def _compute(self, node: onnx.NodeProto, contents: Mapping[str, Array]) -> list[Array] | None:
        from onnx.reference import ReferenceEvaluator

        if node.op_type == "Div" and any((array < 0).any() for array in contents.values()):
            return None  # onnx's reference rounds down, runtimes towards zero
        inputs = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in contents.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
        graph = onnx.helper.make_graph([node], "one", inputs, outputs)
        try:
            evaluator: Any = ReferenceEvaluator(graph, opsets=self._opsets)
            found = evaluator.run(None, dict(contents))
        except (ValueError, IndexError, TypeError, RuntimeError):
            return None  # an operation that fails when it runs
        return [np.asarray(array) for array in found]

    def _infer(
        self, node: onnx.NodeProto, types: dict[str, onnx.TypeProto], contents: Mapping[str, Array]
    ) -> dict[str, onnx.TypeProto]:
        if any(name and name not in types for name in node.input):
            return {}
        tensors = {name: onnx.numpy_helper.from_array(array, name) for name, array in contents.items()}
        imports = [onnx.helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opsets.get("", 1), "")
            return onnx.shape_inference.infer_node_outputs(schema, node, types, tensors, opset_imports=imports)
        except (onnx.shape_inference.InferenceError, onnx.defs.SchemaError):
            return {}


def _with_plain_names(op: Op) -> onnx.NodeProto:
    """The node by itself; one that reads a value twice has two names for it."""
    node = ir.to_proto(op.node)
    del node.input[:], node.output[:]
    node.domain = ""
    node.input.extend(f"in_{at}" if wire is not None else "" for at, wire in enumerate(op.ins))
    node.output.extend(f"out_{at}" for at in range(len(op.outs)))
    return node


def _declared(wire: Wire) -> onnx.TypeProto | None:
    """What the model says of a tensor."""
    value = wire.value
    if value.dtype is None or value.shape is None:
        return None
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    return onnx.helper.make_tensor_type_proto(value.dtype.value, sizes)


def _needed_for(wire: Wire) -> Sequence[Wire]:
    """What has to be known first."""
    op = wire.producer
    return op.reads if op is not None and _is_understood(op) and not _is_told(wire) else ()


def _is_told(wire: Wire) -> bool:
    """Whether the model says all that is asked: of large tensors and of floats, the shape."""
    value = wire.value
    if value.dtype is None or value.shape is None or not value.shape.is_static():
        return False
    return value.dtype not in _INTEGERS or math.prod(value.shape.numpy()) > _LIMIT


def _is_understood(op: Op) -> bool:
    return op.node.domain == "" and not op.has_bodies and not draws_random_numbers(op.node)
