"""Running a model on onnxruntime exactly as it is written: CPU, no optimizations, one thread."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import re
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from modelexport_passes.errors import VerificationError
from modelexport_passes.exporting.held_tensor import check_all_unchanged
from modelexport_passes.exporting.saving import INLINE_LIMIT, save, to_proto
from modelexport_passes.exporting.weights import bytes_of, data_directory, initializers, is_external

Array: TypeAlias = np.ndarray[Any, Any]

# onnxruntime carries no types.
_ort: Any = importlib.import_module("onnxruntime")
_states: Any = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")

_ERRORS: tuple[type[Exception], ...] = tuple(
    getattr(_states, name)
    for name in (
        "EPFail",
        "EngineError",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
)
"""What onnxruntime raises; its classes have no base of their own."""

_SMALL = 1024
"""Bytes up to which a weight is part of the model that onnxruntime loads."""

_FOLDER = "session.model_external_initializers_file_folder_path"


def open_session(model: ir.Model, what: str = "the model") -> Any:
    """An ``onnxruntime.InferenceSession`` over a model in memory, whatever its size; weights on disk are read in place.

    Optimizations are off and one thread computes, so that equal models give equal bits.

    Raises:
        VerificationError: onnxruntime does not take the model; the one line that matters.
    """
    options = _ort.SessionOptions()
    options.graph_optimization_level = _ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = _ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what matters is raised
    # Each weight is held once, where it is; what one run needed is given back.
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = False
    values = initializers(model)
    check_all_unchanged(value.const_value for value in values)
    folders = {data_directory(value.const_value) for value in values if is_external(value.const_value)}
    handed = _handed_over(model, in_place=len(folders) == 1)
    given = {value for value, _ in handed}
    rest = [value.const_value for value in values if value not in given and value.const_value is not None]
    folders = {data_directory(tensor) for tensor in rest if is_external(tensor)}
    try:
        if len(folders) > 1 or sum(bytes_of(tensor) for tensor in rest if not is_external(tensor)) > INLINE_LIMIT:
            with tempfile.TemporaryDirectory(prefix="modelexport_passes-") as directory:
                path = Path(directory) / "model.onnx"
                save(model, path)
                return _ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        if folders:
            options.add_session_config_entry(_FOLDER, str(Path(folders.pop()).absolute()))
        data = to_proto(model, [(value, _placeholder(tensor)) for value, tensor in handed]).SerializeToString()
        names = [str(value.name) for value, _ in handed]
        weights = [_to_ort(tensor.numpy()) for _, tensor in handed]
        options.add_external_initializers(names, weights)
        session = _ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        session.weights_in_use = weights  # onnxruntime reads their arrays, and does not keep them
        return session
    except _ERRORS as error:
        raise VerificationError(f"onnxruntime does not load {what}: {one_line(error)}") from error


def _handed_over(model: ir.Model, *, in_place: bool) -> list[tuple[ir.Value, ir.TensorProtocol]]:
    """The weights that onnxruntime takes from where they are in memory, and not through protobuf.

    Those of the main graph that are not small: loading reads small ones, such as shapes. Those on disk, too, unless
    onnxruntime itself finds them all in one folder (``in_place``).
    """
    return [
        (value, tensor)
        for value in model.graph.initializers.values()
        if (tensor := value.const_value) is not None
        and bytes_of(tensor) > _SMALL
        and not (in_place and is_external(tensor))
        and tensor.dtype.itemsize >= 1  # packed types have no array of theirs
    ]


def _placeholder(tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    """A tensor without data, which onnxruntime is given beside the model."""
    return ir.ExternalTensor("weights", 0, 0, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name="")


def run_session(session: Any, inputs: Mapping[str, Array], what: str = "the model") -> list[Any]:
    """Run a session; the outputs in the graph's order. Types that numpy lacks (bfloat16, ...) are those of ml_dtypes.

    Raises:
        VerificationError: onnxruntime fails to run it; the one line that matters.
    """
    types = [value.type for value in (*session.get_inputs(), *session.get_outputs())]
    if any(type_ in _NOT_IN_NUMPY for type_ in types):
        results = run_ort_values(session, to_ort(inputs, what), what)
        with _run_errors(what):
            return [from_ort(value) for value in results]
    with _run_errors(what):
        return list(session.run(None, dict(inputs)))


def run_ort_values(session: Any, inputs: Mapping[str, Any], what: str = "the model") -> list[Any]:
    """`run_session` with inputs and outputs in onnxruntime's own form, in which one run's results can go into another.

    Raises:
        VerificationError: onnxruntime fails to run it; the one line that matters.
    """
    with _run_errors(what):
        return list(session.run_with_ort_values(None, dict(inputs)))


@contextlib.contextmanager
def _run_errors(what: str) -> Generator[None]:
    try:
        yield
    except (*_ERRORS, ValueError, RuntimeError) as error:
        raise VerificationError(f"onnxruntime does not run {what}: {one_line(error)}") from error


_NOT_IN_NUMPY = frozenset(
    f"tensor({name})"
    for name in ("bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float8e8m0")
)


def to_ort(inputs: Mapping[str, Array], what: str = "the model") -> dict[str, Any]:
    """Arrays as ``onnxruntime.OrtValue``.

    Raises:
        VerificationError: onnxruntime makes none of one of them: of text.
    """
    with _run_errors(what):
        return {name: _to_ort(array) for name, array in inputs.items()}


def _to_ort(array: Array) -> Any:
    dtype = ir.DataType.from_numpy(array.dtype)
    if f"tensor({dtype.name.lower()})" in _NOT_IN_NUMPY:
        raw = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
        return _ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, dtype.value)
    return _ort.OrtValue.ortvalue_from_numpy(array)


def from_ort(value: Any) -> Array:
    """The array that an ``onnxruntime.OrtValue`` holds.

    Raises:
        RuntimeError: it is no tensor.
    """
    if value.data_type() not in _NOT_IN_NUMPY:
        return value.numpy()
    # onnxruntime hands these out by address only; the copy outlives the value.
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, ir.DataType(value.element_type()).numpy()).reshape(value.shape())


def one_line(error: Exception) -> str:
    """The message of an onnxruntime error without its numbering and the C++ place it comes from.

    Example:
        >>> one_line(ValueError("[ONNXRuntimeError] : 1 : FAIL : /src/graph.cc:15 void Graph::Init(int) Bad node."))
        'Bad node.'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    before = ""
    while text != before:
        before = text
        text = _NUMBERING.sub("", text)
        text = _after_signature(text) if _PLACE.match(text) else text
    return text


_NUMBERING = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?")
_PLACE = re.compile(r"^\S+\.(cc|cpp|h|hpp|cu):\d+ ")


def _after_signature(text: str) -> str:
    """What follows ``file.cc:12 void Class::method(types) const``."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and depth == 0:
            return text[position + 1 :].removeprefix(" const").strip() or text
    return text
