"""Writing an ``onnx_ir`` model to an .onnx file, atomically.

Where the weights go is decided first, tensor by tensor:

- external data that already lies in the target's directory is referenced where it is, without a copy;
- external data from elsewhere is copied into a data file beside the model (by the kernel, where it can);
- weights in memory go into the model file itself, or into the data file once they pass `INLINE_LIMIT` together.

The order of events makes a crash at any point harmless. Everything is written below a hidden directory beside the
target (`modelexport_passes.exporting.staging`). The data file gets its name first, one that no file has or had
(`modelexport_passes.exporting.data_files`), so whatever the old model refers to is untouched. The model file is
renamed over the old one last: from that instant the new model is complete. Only then is a data file of ours removed
that the old model alone referred to. Savers into one directory take turns. A data file that would equal one that is
there is not written again, so repeating a run gives the same names and bytes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import cast

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from modelexport_passes.errors import ModelExportError
from modelexport_passes.exporting.data_files import (
    Intent,
    clear_away,
    identity_of,
    settle_data,
    superseded,
)
from modelexport_passes.exporting.held_tensor import check_all_unchanged
from modelexport_passes.exporting.reader import Uncommon
from modelexport_passes.exporting.staging import directory_locked, staging_directory, sync_directory
from modelexport_passes.exporting.tensor_piece import Piece
from modelexport_passes.exporting.weights import Tensors, bytes_of, data_directory, is_external
from modelexport_passes.exporting.writer import model_bytes, model_pieces
from modelexport_passes.garbage import collector_paused

INLINE_LIMIT = 1 << 30
"""Bytes of weights in memory up to which a model is one file. Half of what protobuf can hold."""

_SMALL = 1024
"""Tensors up to this many bytes always stay in the model file: shape inference reads them there."""

_PROTOBUF_LIMIT = (1 << 31) - 1

Instead = Iterable[tuple[ir.Value, ir.TensorProtocol]]
"""Initializers, and what is written instead of their data."""


def save(model: ir.Model, path: str | os.PathLike[str]) -> None:
    """Write a model to an .onnx file, and its weights beside it when they are large or were external before.

    Atomic: an error or an interruption leaves the files that were there, and no others. The model in memory is left as
    it is and can be used on, also when it is saved over the very file it was loaded from. Missing directories are made.

    Args:
        model: the model.
        path: the file to write. A symbolic link is replaced, not followed.

    Raises:
        ModelExportError: a weight has no data or its data file is gone, the graph is too large for protobuf, or the
            directory cannot be written.
    """
    target = Path(os.path.abspath(path))
    tensors = Tensors(model)
    weights = tensors.initializers
    to_write = _outside(weights, target.parent) + _too_large_to_embed(weights)
    _check_attributes(tensors.in_attributes, target.parent)
    made = _make_directories(target.parent)
    try:
        with collector_paused():
            _write(model, target, to_write, weights)
    except OSError as error:
        raise ModelExportError(f"save {target}: {error.strerror or error}; nothing was changed") from error
    finally:
        for directory in made:
            # Not empty once the save has succeeded; then it stays.
            with contextlib.suppress(OSError):
                directory.rmdir()


def to_proto(model: ir.Model, instead: Instead = ()) -> onnx.ModelProto:
    """The model as protobuf, with other tensors written instead of the data of some initializers.

    The model is as it was afterwards.
    """
    with _replaced(instead), collector_paused():
        try:
            return onnx.ModelProto.FromString(b"".join(model_bytes(model)))
        except (Uncommon, DecodeError):  # more than protobuf reads at once
            return ir.to_proto(model)


@contextlib.contextmanager
def _replaced(instead: Instead) -> Generator[None]:
    before: list[tuple[ir.Value, ir.TensorProtocol | None]] = []
    try:
        for value, tensor in instead:
            before.append((value, value.const_value))
            value.const_value = tensor
        yield
    finally:
        for value, tensor in before:
            value.const_value = tensor


# --- where weights go ------------------------------------------------------------------------------------------------


def _outside(weights: Iterable[ir.Value], directory: Path) -> list[ir.Value]:
    """Initializers whose external data lies in another directory. Checks that data to be referenced is there."""
    here = os.path.realpath(directory)
    real = functools.cache(os.path.realpath)
    check_all_unchanged(value.const_value for value in weights)
    elsewhere: list[ir.Value] = []
    for value in weights:
        tensor = value.const_value
        if tensor is None:
            raise ModelExportError(f"save: initializer {value.name!r} has no data; give it a const_value or remove it")
        if not is_external(tensor):
            continue
        if real(data_directory(tensor)) != here:
            elsewhere.append(value)
    return elsewhere


def _check_attributes(tensors: Iterable[tuple[ir.TensorProtocol, ir.Node | None]], directory: Path) -> None:
    """Refuse tensors in attributes whose data lies in another directory."""
    here = os.path.realpath(directory)
    for tensor, node in tensors:
        if is_external(tensor) and os.path.realpath(data_directory(tensor)) != here:
            owner = "a function" if node is None else f"node {node.name!r} ({node.op_type})"
            raise ModelExportError(
                f"save: {owner} has an attribute whose data is in {tensor.path}; "
                f"attributes cannot move to {directory}: make it an initializer, or save into {data_directory(tensor)}"
            )


def _too_large_to_embed(weights: Iterable[ir.Value]) -> list[ir.Value]:
    """The weights in memory that must leave the model file, all but the small ones, if they are too much together."""
    in_memory = [value for value in weights if not is_external(value.const_value)]
    if sum(map(_at_most, in_memory)) <= INLINE_LIMIT or sum(map(_nbytes, in_memory)) <= INLINE_LIMIT:
        return []
    return [value for value in in_memory if _nbytes(value) > _SMALL and value.dtype is not ir.DataType.STRING]


def _at_most(value: ir.Value) -> int:
    """No less than the bytes of a tensor, quickly: an element, of 16 at most, takes a byte of the protobuf at least."""
    tensor = value.const_value
    return 16 * tensor.raw.ByteSize() if type(tensor) is ir.TensorProtoTensor else _nbytes(value)


def _nbytes(value: ir.Value) -> int:
    tensor = value.const_value
    return 0 if tensor is None else bytes_of(tensor)


# --- writing ---------------------------------------------------------------------------------------------------------


def _make_directories(directory: Path) -> list[Path]:
    """Make a directory and its parents; returns those made, deepest first."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelExportError(f"save: cannot make the directory {directory}: {error.strerror}") from error
    return missing


def _write(model: ir.Model, target: Path, to_write: Sequence[ir.Value], weights: Iterable[ir.Value]) -> None:
    with staging_directory(target) as staging:
        staged = _write_data(to_write, staging) if to_write else []
        with directory_locked(target.parent):
            _settle(model, target, staging, staged, weights)


def _settle(
    model: ir.Model,
    target: Path,
    staging: Path,
    staged: Sequence[tuple[ir.Value, ir.ExternalTensor]],
    weights: Iterable[ir.Value],
) -> None:
    """Give what is staged its names: the data, then the model that refers to it.

    An interrupt may come between any two steps. What is left behind then is cleared away with the staging directory, by
    what the disk says and not by variables.
    """
    data, new_model = staging / _STAGED_DATA, staging / target.name
    files = [identity] if staged and (identity := identity_of(data)) is not None else []
    references: list[tuple[ir.Value, ir.ExternalTensor]] = []
    if staged:
        Intent(target.name, (*files,)).write(staging)
        data_path = settle_data(data, target)
        references = [(value, _reference(value, tensor, data_path)) for value, tensor in staged]
    with _replaced(references):
        _write_synced(new_model, _serialized(model, target))
    _keep_mode(target, new_model)
    _outside(weights, target.parent)  # another saver may have removed what this model refers to
    needed = _in_use(weights) | {os.path.realpath(tensor.path) for _, tensor in references}
    old = [identity for path in superseded(target, needed) if (identity := identity_of(path)) is not None]
    if files or old:
        Intent(target.name, (*files, *old)).write(staging)
    sync_directory(target.parent)  # the data has its name before a model refers to it
    new_model.replace(target)
    clear_away(staging)


_STAGED_DATA = "weights"


def _write_data(values: Sequence[ir.Value], staging: Path) -> list[tuple[ir.Value, ir.ExternalTensor]]:
    """Write the tensors of these initializers to one file; a tensor that several share is written once."""
    slots: dict[object, int] = {}
    distinct: list[ir.TensorProtocol] = []
    slot_of: list[int] = []
    for value in values:
        tensor = cast(ir.TensorProtocol, value.const_value)
        key: object = tensor
        if is_external(tensor):
            key = (os.path.realpath(tensor.path), tensor.offset, tensor.length, tensor.nbytes)
        if key not in slots:
            slots[key] = len(distinct)
            distinct.append(tensor)
        slot_of.append(slots[key])
    written = ir.external_data.convert_tensors_to_external(  # pyright: ignore[reportUnknownMemberType]
        distinct, base_dir=staging, relative_path=_STAGED_DATA
    )
    with (staging / _STAGED_DATA).open("rb+") as file:
        os.fsync(file.fileno())
    return [(value, written[slot]) for value, slot in zip(values, slot_of, strict=True)]


def _reference(value: ir.Value, written: ir.ExternalTensor, path: Path) -> ir.ExternalTensor:
    """The reference that replaces an initializer's tensor in the model file."""
    tensor = cast(ir.TensorProtocol, value.const_value)
    return ir.ExternalTensor(
        path.name,
        written.offset,
        written.length,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=value.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
        base_dir=path.parent,
    )


def _serialized(model: ir.Model, target: Path) -> list[Piece]:
    """The bytes of the file, in pieces."""
    pieces: list[Piece]
    try:
        pieces = model_pieces(model)
        size = sum(map(len, pieces))
    except Uncommon:
        proto = ir.to_proto(model)
        size = proto.ByteSize()
        pieces = [proto.SerializeToString(deterministic=True)] if size <= _PROTOBUF_LIMIT else []
    if size > _PROTOBUF_LIMIT:
        raise ModelExportError(
            f"save {target}: {size} bytes without the external weights, and protobuf ends at 2 GB; what is that large "
            "must be tensors in attributes: make them initializers (onnx_ir's LiftConstantsToInitializersPass)"
        )
    return pieces


def _write_synced(path: Path, pieces: Iterable[Piece]) -> None:
    with path.open("wb", buffering=1 << 20) as file:
        for piece in pieces:
            if isinstance(piece, bytes):
                file.write(piece)
            else:
                piece.write(file)
        file.flush()
        os.fsync(file.fileno())


def _keep_mode(target: Path, staged: Path) -> None:
    if target.is_file() and not target.is_symlink():
        shutil.copymode(target, staged)


# --- data files of the model that is replaced -----------------------------------------------------------------------


def _in_use(weights: Iterable[ir.Value]) -> set[str]:
    """Real paths of the data files that the model in memory still reads from."""
    tensors = (value.const_value for value in weights)
    return {os.path.realpath(tensor.path) for tensor in tensors if is_external(tensor)}
