"""Protobuf to ``onnx_ir``: what cannot be held is refused, and nothing is lost without a word."""

from __future__ import annotations

import itertools
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from modelexport_passes.default_domain import name_default_domain
from modelexport_passes.errors import ModelExportError, first_line, innermost
from modelexport_passes.exporting.losses import losses
from modelexport_passes.exporting.pieces import split
from modelexport_passes.exporting.reader import Reader, Uncommon, Unsorted
from modelexport_passes.exporting.reading_notes import set_reading_notes
from modelexport_passes.exporting.repetitions import without_repetitions
from modelexport_passes.exporting.weights import all_tensors
from modelexport_passes.garbage import collector_paused

_SHOWN = 5


def deserialize(
    proto: onnx.ModelProto, what: str, directory: Path | None = None
) -> tuple[ir.Model, list[ir.ExternalTensor]]:
    """The model in a protobuf, and those of its tensors whose data is in other files.

    Args:
        proto: the model.
        what: what is being read, for errors: ``load model.onnx``.
        directory: where external data lies; None leaves it to where the process runs.

    Raises:
        ModelExportError: the model is not valid, or it holds something that ``onnx_ir`` would drop
            (`modelexport_passes.exporting.losses`).
    """
    with collector_paused():
        reader = Reader(directory or Path())
        try:
            model, external = reader.model(proto), reader.external
        except Uncommon:
            proto, notes = without_repetitions(proto)
            model = _deserialize_uncommon(proto, what)
            set_reading_notes(model, notes)
            external = [tensor for tensor in all_tensors(model) if isinstance(tensor, ir.ExternalTensor)]
            for tensor in external:
                tensor.base_dir = directory or Path()
        name_default_domain(model)
        return model, external


def deserialize_file(data: bytes, directory: Path) -> tuple[ir.Model, list[ir.ExternalTensor]] | None:
    """As `deserialize`, straight from the bytes of a file; None if it is not one of those that nearly all are.

    The protobuf of all nodes is never in memory at once.
    """
    with collector_paused():
        pieces = split(data)
        if pieces is None or not pieces.rest.ir_version:
            return None
        for in_order in (True, False):
            reader = Reader(directory, in_order=in_order)
            try:
                model = reader.model(pieces.rest, pieces)
            except Unsorted:
                continue
            except (Uncommon, DecodeError):
                return None
            name_default_domain(model)
            return model, reader.external
        return None


def _deserialize_uncommon(proto: onnx.ModelProto, what: str) -> ir.Model:
    found = list(itertools.islice(losses(proto), _SHOWN + 1))
    if found:
        more = f"; and more after these {_SHOWN}" if len(found) > _SHOWN else ""
        raise ModelExportError(
            f"{what}: this file holds what onnx_ir cannot: {'; '.join(found[:_SHOWN])}{more}. Loading would "
            "drop it and change the model; rewrite the file without it, with the tool that made it"
        )
    try:
        return ir.from_proto(proto)
    except (ir.serde.SerdeError, ValueError, KeyError, NotImplementedError) as error:
        raise ModelExportError(f"{what}: the model is not valid: {_reason(innermost(error))}") from error


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"value {error} is used and never made"
    return first_line(error)
