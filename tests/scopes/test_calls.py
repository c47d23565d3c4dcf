"""Calls are told apart from the order of operations."""

from __future__ import annotations

from modelexport_passes.scopes.calls import Call, Event, call_tree


def tree(*events: Event) -> list[str]:
    """For each operation the calls it was made in, numbered per key in the order in which they began."""
    root, innermost = call_tree(events)
    order = sorted(root.walk(), key=lambda call: call.events[0])
    numbers = {call: sum(other.key == call.key for other in order[:place]) for place, call in enumerate(order)}

    def text(call: Call) -> str:
        above = "" if call.parent is None or call.parent.parent is None else f"{text(call.parent)} > "
        return "" if call.parent is None else f"{above}{call.key}@{numbers[call]}"

    return [text(call) for call in innermost]


def op(chain: str, kind: str = "Add", *reads: str, number: int | None = None, ends: bool = True) -> Event:
    return Event(tuple(chain.split()), number, kind, reads, ends)


def test_an_operation_outside_ends_a_call() -> None:
    """What follows an operation of the caller is another call."""
    assert tree(op("a"), op(""), op("a")) == ["a@0", "", "a@1"]


def test_a_sibling_ends_a_call_and_all_calls_in_it() -> None:
    """Two halves of a module with a sibling between them are two calls."""
    assert tree(op("auto encoder"), op("middle"), op("auto decoder")) == [
        "auto@0 > encoder@0",
        "middle@0",
        "auto@1 > decoder@0",
    ]


def test_a_constant_ends_nothing() -> None:
    """A constant may stand anywhere, and one that stands before a call is of it."""
    events = op("a", ends=False), op("b"), op("", "Constant", ends=False), op("b"), op("a")
    assert tree(*events) == ["a@0", "b@0", "", "b@0", "a@0"]


def test_numbers_tell_calls_that_follow_each_other() -> None:
    """Each call gets the operations of children that stand where they stand in the first call."""
    body = [op("block linear", "Gemm", "w", number=0), op("block", number=0)]
    again = [op("block linear", "Gemm", "w", number=1), op("block", number=1)]
    assert tree(*body, *again) == ["block@0 > linear@0", "block@0", "block@1 > linear@1", "block@1"]


def test_children_behind_the_last_own_operation_stay_with_it() -> None:
    """A block that ends with a child keeps it, though the next block's own operation is numbered later."""
    events = [op("b", number=0), op("b c", "Gemm", number=0), op("b", number=1), op("b c", "Gemm", number=1)]
    assert tree(*events) == ["b@0", "b@0 > c@0", "b@1", "b@1 > c@1"]


def test_the_same_parameters_again_are_another_call() -> None:
    """Without numbers and without anything between, repetition tells; the shape of a call decides what is whose."""
    body = [op("b", "Shape"), op("b c", "Gemm", "w"), op("b c", "Gemm", "v"), op("b", "Add")]
    assert tree(*body, *body, *body)[3:6] == ["b@0", "b@1", "b@1 > c@1"]


def test_repeated_operations_without_parameters_are_one_call() -> None:
    """A module may do one thing twice."""
    assert tree(op("b", "Relu"), op("b", "Relu")) == ["b@0", "b@0"]


def test_a_moved_operation_does_not_break_the_call_it_stands_in() -> None:
    """Exporters move operations: a stretch goes on where a numbered call goes on."""
    events = [op("a x", number=0), op("b y", number=0), op("a x", number=0), op("b y", number=0)]
    assert tree(*events) == ["a@0 > x@0", "b@0 > y@0", "a@0 > x@0", "b@0 > y@0"]


def test_parameters_of_another_module_of_that_name_are_another_call() -> None:
    """Two modules that end in the same name, called one after the other."""
    events = [Event(("l", "fc"), hints=(hint, None), reads=(hint,)) for hint in ("encoder.l", "decoder.l")]
    assert tree(*events) == ["l@0 > fc@0", "l@1 > fc@1"]
