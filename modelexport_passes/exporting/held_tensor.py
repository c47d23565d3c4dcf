"""External tensors that are read only from the very file that was there when the model was loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable
from typing import Any, TypeAlias, cast

import numpy as np
import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.exporting.weights import is_external

FileState: TypeAlias = tuple[int, int, int, int]
"""Device, inode, size in bytes, time of the last change in nanoseconds."""

_KEY = "modelexport_passes.file_state"


class HeldTensor(ir.ExternalTensor):
    """An external tensor that refuses to read a file that was replaced or changed since it was loaded.

    What is mapped already stays readable: a mapping belongs to the file that it was made of.
    """

    __slots__ = ()

    def numpy(self) -> np.ndarray[Any, Any]:
        """As of `onnx_ir.ExternalTensor`. Raises `ModelExportError` if the file has changed."""
        with _read_from(self, mapped=self.raw is not None):
            return super().numpy()

    def __array__(self, dtype: Any = None) -> np.ndarray[Any, Any]:
        with _read_from(self, mapped=self.raw is not None):
            return super().__array__(dtype)

    def __dlpack__(self, *, stream: Any = None) -> Any:
        with _read_from(self, mapped=self.raw is not None):
            return super().__dlpack__(stream=stream)

    def tobytes(self) -> bytes:
        """As of `onnx_ir.ExternalTensor`. Raises `ModelExportError` if the file has changed."""
        with _read_from(self, mapped=self.raw is not None):
            return super().tobytes()

    def tofile(self, file: Any) -> None:
        """As of `onnx_ir.ExternalTensor`. Raises `ModelExportError` if the file has changed."""
        check_unchanged(self)  # copied from the path, not from the mapping
        super().tofile(file)  # pyright: ignore[reportUnknownMemberType]


@contextlib.contextmanager
def _read_from(tensor: ir.ExternalTensor, *, mapped: bool) -> Generator[None]:
    """Read a tensor in the body. A file that goes between the check and the reading is the same error."""
    if not mapped:
        check_unchanged(tensor)
    try:
        yield
    except FileNotFoundError as error:
        raise _gone(tensor) from error


def hold(tensor: ir.ExternalTensor, state: FileState) -> None:
    """Bind a tensor that was just loaded to the state of its data file."""
    tensor.meta[_KEY] = state
    if type(tensor) is ir.ExternalTensor:
        tensor.__class__ = HeldTensor  # readers make onnx_ir's own, and attributes cannot be given others


def file_state(path: str | os.PathLike[str]) -> FileState:
    """The state of a file.

    Raises:
        OSError: there is none.
    """
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def check_unchanged(tensor: ir.TensorProtocol | None) -> None:
    """Check that the data file of an external tensor is the one that was there when the model was loaded.

    Raises:
        ModelExportError: it is gone, or has been replaced or changed.
    """
    if not is_external(tensor):
        return
    expected = cast("FileState | None", tensor.meta.get(_KEY))  # pyright: ignore[reportUnknownMemberType]
    try:
        found = file_state(tensor.path)
    except OSError as error:
        raise ModelExportError(
            f"the data of {tensor.name!r} was in {tensor.path}, which is gone; load the model again"
        ) from error
    if expected is not None and found != expected:
        raise ModelExportError(
            f"the data of {tensor.name!r} was in {tensor.path}, which has been replaced or changed since the model was "
            "loaded; load the model again"
        )


def _gone(tensor: ir.ExternalTensor) -> ModelExportError:
    return ModelExportError(f"the data of {tensor.name!r} was in {tensor.path}, which is gone; load the model again")


def check_all_unchanged(tensors: Iterable[ir.TensorProtocol | None]) -> None:
    """`check_unchanged` for every data file that these tensors are in, once each."""
    by_path = {tensor.path: tensor for tensor in tensors if is_external(tensor)}
    for tensor in by_path.values():
        check_unchanged(tensor)
