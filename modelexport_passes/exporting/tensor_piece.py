"""A large tensor on its way into a file: written from where it is, when its turn comes."""

from __future__ import annotations

from typing import BinaryIO, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.exporting.weights import bytes_of, is_external
from modelexport_passes.exporting.wire_format import LENGTHS, as_bytes, start_of, to_bytes

_RAW_DATA = start_of(9)
_LARGE = 1 << 12
"""Bytes from which on a tensor is not worth a copy."""


class TensorPiece:
    """The bytes of a ``TensorProto`` that are made when they are written. `len` is their number.

    Args:
        tensor: holds its data in memory, as one block of bytes.
        name: of the initializer that is written. Several may share one tensor.
    """

    def __init__(self, tensor: ir.TensorProtocol, name: str) -> None:
        self._tensor = tensor
        self._name = name
        tensor.name = name
        if type(tensor) is ir.TensorProtoTensor:
            self._head = self._tail = b""
            self._data_length = tensor.raw.ByteSize()
            return
        self._data_length = tensor.nbytes
        dims = [int(size) for size in tensor.shape.numpy()]
        head = onnx.TensorProto(dims=dims, data_type=tensor.dtype.value, name=name)
        self._head = to_bytes(head) + as_bytes([_RAW_DATA, LENGTHS[self._data_length]])
        tail = onnx.TensorProto(doc_string=tensor.doc_string) if tensor.doc_string else onnx.TensorProto()
        for key in sorted(tensor.metadata_props):
            tail.metadata_props.add(key=key, value=tensor.metadata_props[key])
        self._tail = to_bytes(tail)

    def __len__(self) -> int:
        return len(self._head) + self._data_length + len(self._tail)

    def __bytes__(self) -> bytes:
        return b"".join((self._head, self._checked(self._data()), self._tail))

    def write(self, file: BinaryIO) -> None:
        """Write them.

        Raises:
            ModelExportError: the tensor has more or fewer bytes than its type and shape say.
        """
        file.write(self._head)
        file.write(self._checked(self._data()))
        file.write(self._tail)

    def _data(self) -> bytes | memoryview:
        tensor = self._tensor
        if type(tensor) is ir.TensorProtoTensor:
            tensor.name = self._name
            return to_bytes(tensor.raw)
        if isinstance(tensor, ir.Tensor) and tensor.dtype.bitwidth >= 8 and np.little_endian:
            array = np.asarray(tensor.numpy())
            if array.flags.c_contiguous and array.dtype.itemsize * 8 == tensor.dtype.bitwidth:
                return array.reshape(-1).view(np.uint8).data
        return tensor.tobytes()

    def _checked(self, data: bytes | memoryview) -> bytes | memoryview:
        if len(data) != self._data_length:
            said = f"its type and shape say {self._data_length}"
            raise ModelExportError(f"save: initializer {self._name!r} has {len(data)} bytes of data, and {said}")
        return data


Piece: TypeAlias = bytes | TensorPiece


def piece_of(tensor: ir.TensorProtocol, name: str) -> TensorPiece | None:
    """The piece for an initializer; None for one that is small or has no data in memory."""
    if is_external(tensor) or bytes_of(tensor) < _LARGE:  # texts have no size
        return None
    return TensorPiece(tensor, name)
