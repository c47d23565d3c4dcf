"""Reading an .onnx file into an ``onnx_ir`` model: weights stay on disk, and nothing is lost without a word."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from modelexport_passes.errors import ModelExportError
from modelexport_passes.exporting.deserialize import deserialize, deserialize_file
from modelexport_passes.exporting.held_tensor import FileState, file_state, hold
from modelexport_passes.exporting.weights import data_location

_SHOWN = 5
_READINGS = 5
"""How often a file is read at the most while others save to its path."""


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Read a model from an .onnx file.

    External data is mapped when a tensor is first looked at. Its files are checked to exist and to be long enough now,
    so that a missing one is an error here and not in the middle of a pass.

    Raises:
        ModelExportError: there is no such file, it is not an ONNX model, it holds something that would be lost
            (`modelexport_passes.exporting.losses`), or an external data file is missing, too short or not readable.
    """
    source = Path(path)
    for _ in range(_READINGS):
        before = _state(source)
        try:
            return _load(source)
        except ModelExportError:
            if _state(source) == before:
                raise
            # Replaced while it was read, and its data with it: the new model is whole.
    return _load(source)


def _state(source: Path) -> FileState | None:
    try:
        return file_state(source)
    except OSError:
        return None


def _load(source: Path) -> ir.Model:
    data = _read(source)
    # Absolute: a later chdir must not lose the weights. Not resolved: data lies beside the name the user gave.
    directory = Path(os.path.abspath(source.parent))
    model, external = deserialize_file(data, directory) or deserialize(
        _parse(data, source), f"load {source}", directory
    )
    try:
        _check_external_data(external, directory, source)
    except OSError as error:  # checked, and gone before it was looked at
        what = f"the data file {error.filename} cannot be read: {error.strerror}"
        raise ModelExportError(f"load {source}: {what}") from error
    return model


def _read(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except FileNotFoundError as error:
        raise ModelExportError(f"load {source}: there is no such file{_neighbours(source)}") from error
    except OSError as error:
        raise ModelExportError(f"load {source}: cannot be read: {error.strerror}") from error


def _parse(data: bytes, source: Path) -> onnx.ModelProto:
    try:
        proto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelExportError(
            f"load {source}: not an ONNX model, or cut short ({len(data)} bytes): {error}; expected a protobuf file as "
            "onnx.save writes it"
        ) from error
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelExportError(f"load {source}: not an ONNX model: no IR version or no graph in its {len(data)} bytes")
    return proto


def _neighbours(source: Path) -> str:
    if not source.parent.is_dir():
        return f", and no directory {source.parent}"
    names = sorted(entry.name for entry in source.parent.glob("*.onnx"))
    return f"; {source.parent} has {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}" if names else ""


# --- external data -------------------------------------------------------------------------------------------------


def _check_external_data(tensors: Iterable[ir.ExternalTensor], directory: Path, source: Path) -> None:
    """Check that the data of external tensors is there, and bind each to the file that it was found in."""
    tensors = list(tensors)
    needed: dict[str, tuple[int, str]] = {}
    for tensor in tensors:
        if tensor.nbytes < 0 or (tensor.offset or 0) < 0:
            raise ModelExportError(f"load {source}: the tensor {tensor.name!r} has a negative size or offset")
        if tensor.length is not None and tensor.length != tensor.nbytes:
            said = f"{tensor.length} bytes of data, and its type and shape say {tensor.nbytes}"
            raise ModelExportError(f"load {source}: the tensor {tensor.name!r} is said to have {said}")
        end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
        location = data_location(tensor)
        if end > needed.get(location, (-1, ""))[0]:
            needed[location] = (end, tensor.name or "")
    for location, (end, name) in sorted(needed.items()):
        fault = data_fault(directory, location, end)
        if fault:
            raise ModelExportError(f"load {source}: weights of {name!r} are in {location!r}, which {fault}")
    states = {location: file_state(directory / location) for location in needed}
    for tensor in tensors:
        hold(tensor, states[data_location(tensor)])


def data_fault(directory: str | os.PathLike[str], location: str, end: int) -> str | None:
    """Why a data file cannot serve: the rules that onnx, onnx_ir and onnxruntime all apply, as one sentence's end."""
    path = Path(directory, location)
    if os.path.isabs(location) or ".." in Path(location).parts:
        return "is not below the model's directory; save the model again with its data beside it"
    if not path.is_file():
        return f"is missing; put it beside the model, in {directory}"
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(directory)):
        return f"is a symbolic link out of the model's directory, to {real}; copy the file instead"
    stat = real.stat()
    if stat.st_nlink > 1:
        return f"has {stat.st_nlink} hard links, which ONNX tools refuse to read; copy the file instead of linking it"
    if stat.st_size < end:
        return f"is too short: {stat.st_size} bytes, needed {end}; it was cut off or belongs to another model"
    return None
