"""Calls are told apart from the order of operations."""

from __future__ import annotations

from modelexport_passes.scopes.calls import Call, Event, call_tree
from modelexport_passes.scopes.traces import Traces


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


def test_a_numbered_constant_is_of_the_call_of_its_number() -> None:
    """Exporters move constants: one that stands in the first call and carries the second's number is the second's."""
    early = op("a", "Constant", number=1, ends=False)
    assert tree(op("a", number=0), early, op("a", number=0), op("", "Add"), op("a", number=1)) == [
        "a@0",
        "a@1",
        "a@0",
        "",
        "a@1",
    ]


def test_a_moved_operation_does_not_break_the_call_it_stands_in() -> None:
    """Exporters move operations: a stretch goes on where a numbered call goes on."""
    events = [op("a x", number=0), op("b y", number=0), op("a x", number=0), op("b y", number=0)]
    assert tree(*events) == ["a@0 > x@0", "b@0 > y@0", "a@0 > x@0", "b@0 > y@0"]


def test_parameters_of_another_module_of_that_name_are_another_call() -> None:
    """Two modules that end in the same name, called one after the other."""
    events = [Event(("l", "fc"), hints=(hint, None), reads=(hint,)) for hint in ("encoder.l", "decoder.l")]
    assert tree(*events) == ["l@0 > fc@0", "l@1 > fc@1"]


def at(chain: str, *lines: int, kind: str = "Add", reads: tuple[str, ...] = ()) -> Event:
    """An operation with the line of each module's forward, the root's first."""
    keys = tuple(chain.split())
    text = "\n".join(f'File "model.py", line {line}, in forward\n    ...' for line in lines)
    return Event(keys, kind=kind, reads=reads, places=Traces().places(text, len(keys) + 1))


def test_another_line_of_the_caller_is_another_call() -> None:
    """Two calls that read different parameters and follow each other are told apart by where they were made."""
    assert tree(at("b", 7, 90), at("b", 7, 91), at("b", 8, 90), at("b", 8, 91)) == ["b@0", "b@0", "b@1", "b@1"]


def test_lines_that_begin_anew_are_another_call() -> None:
    """A caller's loop has one line for all calls; the lines of the module itself run once in each."""
    body = [at("b", 7, 90, kind="Cast"), at("b", 7, 91), at("b", 7, 92)]
    assert tree(*body, *body) == ["b@0"] * 3 + ["b@1"] * 3


def test_a_loop_in_a_module_is_one_call() -> None:
    """What runs before the repetition runs in the same call, and so does a line that stays and then goes on."""
    loop = [at("b", 7, 90), at("b", 7, 91)]
    assert tree(at("b", 7, 89), *loop, *loop) == ["b@0"] * 5
    # Another child each time: it is the module's own loop, though nothing else stands in it.
    children = [at(f"b {child}", 7, 90 + line, 30) for child in "cd" for line in (0, 1)]
    assert [call.partition(" ")[0] for call in tree(*children)] == ["b@0"] * 4
    assert tree(*[at("b", 7, 90, reads=("w",))] * 2, at("b", 7, 92)) == ["b@0"] * 3


def test_parameters_read_again_on_the_next_line_are_no_other_call() -> None:
    """A module that calls its child twice, one line after the other, was called once."""
    events = [at("b c", 7, 90, 30, reads=("w",)), at("b c", 7, 91, 30, reads=("w",))]
    assert tree(*events) == ["b@0 > c@0", "b@0 > c@1"]


def test_a_part_traced_by_itself_has_lines_of_its_own() -> None:
    """Torch names no file of a part without gradients; its lines begin anew with each call."""
    texts = [f'File "<eval_with_key>.{part}", line {line}, in forward' for part in (3, 4) for line in (5, 6)]
    events = [Event(("b",), kind="Mul", places=Traces().places(text, 2)) for text in texts]
    assert tree(*events) == ["b@0", "b@0", "b@1", "b@1"]


def test_a_trace_that_does_not_fit_the_modules_tells_nothing() -> None:
    """A forward that calls its base's forward has one frame more than there are modules."""
    text = "\n".join(f'File "model.py", line {line}, in forward' for line in (7, 90, 30))
    assert not Traces().places(text, 2)
    assert not Traces().places(None, 2)


def test_an_operation_labelled_with_the_next_module_is_of_its_call() -> None:
    """Exporters do that: its trace tells another caller, and a line that a new call does not go on to."""
    assert tree(at("b", 7, 50), at("b", 8, 90), at("b", 8, 91)) == ["b@0"] * 3
