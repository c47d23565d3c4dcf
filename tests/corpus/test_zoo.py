"""The rebuilt models can tell errors apart: outputs of order one, no two parameters equal."""

from __future__ import annotations

import pytest
import torch

from tests.zoo import ZooCase, build, tensors, zoo_cases


@pytest.mark.parametrize("case", zoo_cases(), ids=lambda case: case.arch)
def test_weights_differ_and_outputs_are_of_order_one(case: ZooCase) -> None:
    """A swapped weight changes the result, and an absolute difference means something."""
    model, inputs = build(case)
    seen = {(parameter.shape, parameter.detach().numpy().tobytes()) for parameter in model.parameters()}
    assert len(seen) == len(list(model.parameters()))
    with torch.no_grad():
        spreads = [float(tensor.std()) for tensor in tensors(model(**inputs)) if tensor.is_floating_point()]
    assert all(0.1 < spread < 10 for spread in spreads[:1]), spreads
