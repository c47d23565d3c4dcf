"""`TensorStore`: tensors kept once each by their content, outside of memory when they are many."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"

IN_MEMORY = 64 << 20
"""Bytes up to which a store stays in memory; a larger one is a temporary file."""


@dataclass(frozen=True)
class Kind:
    """What a tensor is besides its numbers.

    Attributes:
        dtype: its type; those that numpy lacks are ``ml_dtypes``'.
        shape: its shape.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.size * self.dtype.itemsize


class TensorStore:
    """Tensors by key. Equal tensors (type, shape, bits) have one key and are kept once.

    A copy is taken when a tensor is added, so what happens to it later (an operation in place) changes nothing here.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed with the store
        self._places: dict[str, tuple[int, Kind]] = {}

    def add(self, array: Array) -> str:
        """Keep a tensor; its key."""
        data = np.ascontiguousarray(array).tobytes()
        kind = Kind(array.dtype, array.shape)
        digest = hashlib.blake2b(data, digest_size=16, salt=b"tensor")
        digest.update(f"{kind.dtype.name}{kind.shape}".encode())
        key = digest.hexdigest()
        if key not in self._places:
            self._places[key] = (self._file.seek(0, 2), kind)
            self._file.write(data)
        return key

    def kind(self, key: str) -> Kind:
        """Type and shape of a tensor."""
        return self._places[key][1]

    def load(self, key: str) -> Array:
        """A tensor, read again."""
        start, kind = self._places[key]
        self._file.seek(start)
        return np.frombuffer(self._file.read(kind.nbytes), kind.dtype).reshape(kind.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
