"""The hard cases on the TorchScript exporter, where names of nodes are all there is."""

from __future__ import annotations

import functools

import pytest

import modelexport_passes as mx
from modelexport_passes.exporting.record import ExportRecord, record_of
from tests.cases.hard_cases.all_cases import CASES
from tests.cases.hard_cases.case import Case
from tests.round_trip import RoundTrip, differences, operations, recovered, round_trip, tags

NOT_TRACEABLE = ("conditional", "scanned", "looped")

DIFFERENT: dict[str, set[str]] = {
    # the trace sees through the dropout and keeps the view
    "no_nodes": {"linear", "view", "folded", ""},
    # one instance has one name, whichever attribute it was called by
    "alias": {"first", "", "first@1"},
    # sizes are constants of the trace
    "dynamic_shapes": {"layers.0", "layers.0 > layers.0.value", "layers.1", "layers.1 > layers.1.value"},
}
"""Cases where this exporter really runs the modules otherwise; the others give the calls written down for dynamo."""

traceable = pytest.mark.parametrize(
    "case", [case for case in CASES if case.name not in NOT_TRACEABLE], ids=lambda case: case.name
)


@functools.cache
def trip(name: str) -> tuple[RoundTrip, ExportRecord]:
    """The case through the whole pipeline, once per test process."""
    (case,) = (case for case in CASES if case.name == name)
    model = mx.export(case.build(), case.args, exporter="torchscript")
    record = record_of(model)
    assert record is not None
    return round_trip(model), record


@traceable
def test_names_tell_the_module_calls(case: Case) -> None:
    """The calls that have operations are those of the module's code."""
    stages, _ = trip(case.name)
    calls = {call for op_type, call in operations(stages.plain) if op_type != "Constant"}
    assert calls == DIFFERENT.get(case.name, set(case.plain))


@traceable
def test_the_file_alone_tells_the_same(case: Case) -> None:
    """Without the torch model, names, parameters and the order of operations tell the same calls."""
    stages, _ = trip(case.name)
    assert operations(recovered(stages.plain)) == operations(stages.plain)


@traceable
def test_outline_and_inline_keep_results_and_scopes(case: Case) -> None:
    """Bit-equal at every stage, every scope and tag given back, nothing to do the second time."""
    stages, record = trip(case.name)
    assert differences(stages.plain, stages.outlined, record.inputs) == []
    assert differences(stages.plain, stages.inlined, record.inputs) == []
    assert operations(stages.inlined) == operations(stages.plain)
    assert tags(stages.inlined) == tags(stages.plain)
    assert (stages.outlined_twice, stages.inlined_twice) == (False, False)
