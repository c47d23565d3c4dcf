"""Compiled regions exported with ``strict=True``: torch labels the third block with the second block's path."""

from __future__ import annotations

import pytest
import torch

from tests.cases.hard_cases.layers import CASES
from tests.cases.test_hard_cases import calls_text
from tests.round_trip import RoundTrip, differences, operations, round_trip

(CASE,) = (case for case in CASES if case.name == "compiled_regions")


@pytest.fixture(scope="module")
def strict() -> RoundTrip:
    """The model that torch makes of a strict export, through the whole pipeline; scopes from its metadata alone."""
    program = torch.onnx.export(
        torch.export.export(CASE.build(), CASE.args, strict=True), dynamo=True, optimize=False, verbose=False
    )
    assert program is not None
    return round_trip(program.model)


def test_blocks_are_told_apart_by_their_weights(strict: RoundTrip) -> None:
    """Three blocks with weights of their own are three module calls of three paths."""
    assert calls_text(operations(strict.plain)) == CASE.plain


def test_what_torch_mislabels_is_still_computed_right(strict: RoundTrip) -> None:
    """Wrong labels cost structure, not results: the bits are equal at every stage."""
    (x,) = CASE.args
    assert differences(strict.plain, strict.outlined, {"x": x.numpy()}) == []
    assert differences(strict.plain, strict.inlined, {"x": x.numpy()}) == []
