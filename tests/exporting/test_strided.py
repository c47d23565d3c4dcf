"""``as_strided`` of tensors that do not lie in memory in the order of their axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import modelexport_passes as mx
from modelexport_passes.exporting.record import record_of
from modelexport_passes.validation.session import open_session, run_session

NUMBERS = torch.arange(24.0).reshape(4, 6)


class Strided(torch.nn.Module):
    """Windows over the memory of a view."""

    def __init__(self, view: Callable[[torch.Tensor], torch.Tensor], offset: int | None) -> None:
        super().__init__()
        self.view, self.offset = view, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.view(x).as_strided((2, 3, 2), (2, 1, 3), self.offset) + 1


@pytest.mark.parametrize("offset", [None, 14])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x.T,
        lambda x: x.reshape(2, 2, 6).permute(2, 0, 1),
        lambda x: x[2:],
        lambda x: x[2:].T,
    ],
    ids=["plain", "transposed", "permuted", "part", "part transposed"],
)
@pytest.mark.parametrize("exporter", ["dynamo", "dynamo+example"])
def test_windows_over_memory_are_torchs(
    view: Callable[[torch.Tensor], torch.Tensor], offset: int | None, exporter: Any
) -> None:
    """Whatever the order of the axes, and wherever in the memory the view begins."""
    exported = mx.export(Strided(view, offset), (NUMBERS,), exporter=exporter)
    record = record_of(exported)
    assert record is not None
    np.testing.assert_array_equal(run_session(open_session(exported), record.inputs)[0], record.outputs[0])


def test_memory_around_a_view_is_refused() -> None:
    """A graph holds values, not what lies beside them."""
    with pytest.raises(mx.ModelExportError, match=r"reads the memory around .*, a part of a larger tensor"):
        mx.export(Strided(lambda x: x[:, 1:4], None), (NUMBERS,))
