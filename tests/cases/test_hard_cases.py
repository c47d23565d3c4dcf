"""Every hard case through export, outline and inline, plain and optimised."""

from __future__ import annotations

import functools
from collections import Counter

import onnx
import pytest

import modelexport_passes as mx
from modelexport_passes.exporting.record import ExportRecord, record_of
from tests.cases.hard_cases.all_cases import CASES
from tests.cases.hard_cases.case import Case
from tests.round_trip import RoundTrip, classes, differences, function_counts, operations, recovered, round_trip, tags

BY_NAME = {case.name: case for case in CASES}


@functools.cache
def trip(name: str, *, optimised: bool) -> tuple[RoundTrip, ExportRecord]:
    """The case through the whole pipeline, once per test process."""
    case = BY_NAME[name]
    model = mx.export(
        case.build(),
        case.args,
        case.kwargs or None,
        dynamic_shapes=case.dynamic_shapes,
        optimize=optimised,
    )
    record = record_of(model)
    assert record is not None
    return round_trip(model), record


def every_case(check: str) -> pytest.MarkDecorator:
    """Each case plain and optimised; strict xfail where the case says that this check cannot pass yet."""

    def reason(case: Case, variant: str) -> str | None:
        return case.xfail.get(check) or case.xfail.get(f"{check} {variant}")

    return pytest.mark.parametrize(
        ("case", "optimised"),
        [
            pytest.param(
                case,
                variant == "optimised",
                id=f"{case.name}-{variant}",
                marks=[pytest.mark.xfail(reason=why, strict=True)] if (why := reason(case, variant)) else [],
            )
            for case in CASES
            for variant in ("plain", "optimised")
        ],
    )


def calls_text(counts: Counter[tuple[str, str | None]]) -> dict[str | None, str]:
    """The operations per module call in the form that cases are written in."""
    calls: dict[str | None, list[str]] = {}
    for (op_type, call), count in sorted(counts.items(), key=str):
        if op_type != "Constant":
            calls.setdefault(call, []).append(op_type if count == 1 else f"{op_type}*{count}")
    return {call: " ".join(op_types) for call, op_types in calls.items()}


@every_case("scopes")
def test_every_operation_has_the_scope_written_down_for_it(case: Case, optimised: bool) -> None:
    """Path, call index and calling module are as a person reads them from the module's code."""
    result, _ = trip(case.name, optimised=optimised)
    assert calls_text(operations(result.plain)) == case.expected(optimised=optimised)


@every_case("file alone")
def test_the_file_alone_tells_what_the_exporter_recorded(case: Case, optimised: bool) -> None:
    """Without the scopes that were recorded, metadata, parameters and the order of operations tell the same calls."""
    result, _ = trip(case.name, optimised=optimised)
    assert operations(recovered(result.plain)) == operations(result.plain)


@every_case("classes")
def test_every_frame_names_the_class_of_its_module(case: Case, optimised: bool) -> None:
    """A frame's class is the qualified class of the torch module at its path."""
    modules = dict(case.build().named_modules(remove_duplicate=False))
    result, _ = trip(case.name, optimised=optimised)
    for path, names in classes(result.plain).items():
        module = type(modules[path])
        assert names == {f"{module.__module__}.{module.__qualname__}"}


@every_case("functions")
def test_each_distinct_module_becomes_one_function(case: Case, optimised: bool) -> None:
    """Instances with equal bodies share a function, others do not, and no called module is left out."""
    result, _ = trip(case.name, optimised=optimised)
    assert function_counts(result.outlined) == dict(case.expected_functions(optimised=optimised))


@every_case("valid")
def test_outlined_and_inlined_models_are_valid(case: Case, optimised: bool) -> None:
    """The checker accepts both, and inlining leaves no function behind."""
    result, _ = trip(case.name, optimised=optimised)
    onnx.checker.check_model(result.outlined, full_check=True)
    onnx.checker.check_model(result.inlined, full_check=True)
    assert not result.inlined.functions


@every_case("equal")
def test_results_are_bit_equal_through_outline_and_inline(case: Case, optimised: bool) -> None:
    """The same inputs give the same bits before, with functions, and after."""
    result, record = trip(case.name, optimised=optimised)
    assert differences(result.plain, result.outlined, record.inputs) == []
    assert differences(result.plain, result.inlined, record.inputs) == []


@every_case("reversible")
def test_inline_gives_every_operation_its_scope_back(case: Case, optimised: bool) -> None:
    """Outline then inline leaves the same multisets of (op type, scope) and (op type, tag)."""
    result, _ = trip(case.name, optimised=optimised)
    assert operations(result.inlined) == operations(result.plain)
    assert tags(result.inlined) == tags(result.plain)


@every_case("idempotent")
def test_a_second_run_changes_nothing(case: Case, optimised: bool) -> None:
    """Outlining an outlined model, and inlining an inlined one, say that they changed nothing."""
    result, _ = trip(case.name, optimised=optimised)
    assert (result.outlined_twice, result.inlined_twice) == (False, False)
