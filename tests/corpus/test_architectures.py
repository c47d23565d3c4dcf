"""Architectures as unlike each other as there are: repeated calls, experts, state spaces, windows, kernels."""

from __future__ import annotations

import functools

import onnx
import pytest

import modelexport_passes as mx
from modelexport_passes.exporting.record import ExportRecord, record_of
from tests.round_trip import RoundTrip, differences, operations, round_trip, tags
from tests.zoo import CORE, build, zoo_cases

ARCHS = [case.arch for case in zoo_cases() if case.arch not in CORE]


@functools.cache
def trip(arch: str) -> tuple[RoundTrip, ExportRecord]:
    """Plain export, recover, tag, outline, inline; once per test process."""
    (case,) = zoo_cases((arch,))
    model, inputs = build(case)
    exported = mx.export(model, kwargs=inputs)
    record = record_of(exported)
    assert record is not None
    return round_trip(exported), record


@pytest.mark.parametrize("arch", ARCHS)
def test_every_operation_has_an_exact_scope_and_keeps_it(arch: str) -> None:
    """A plain export leaves nothing to infer, and outline then inline gives every scope and tag back."""
    stages, _ = trip(arch)
    assert not [key for key in operations(stages.plain) if key[1] is None]
    assert operations(stages.inlined) == operations(stages.plain)
    assert tags(stages.inlined) == tags(stages.plain)
    assert (stages.outlined_twice, stages.inlined_twice) == (False, False)


@pytest.mark.parametrize("arch", ARCHS)
def test_results_are_bit_equal_through_outline_and_inline(arch: str) -> None:
    """The same bits from the plain, the outlined and the inlined model, and both are valid."""
    stages, record = trip(arch)
    onnx.checker.check_model(stages.outlined, full_check=True)
    onnx.checker.check_model(stages.inlined, full_check=True)
    assert differences(stages.plain, stages.outlined, record.inputs) == []
    assert differences(stages.plain, stages.inlined, record.inputs) == []
