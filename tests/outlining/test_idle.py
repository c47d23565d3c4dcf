"""A move that one layer has, and that an exporter left out in the next, where it does nothing: both have it."""

from __future__ import annotations

import pytest

import modelexport_passes as mx
from modelexport_passes.outlining.canonical import is_constant
from modelexport_passes.outlining.flow import Op
from modelexport_passes.scopes.ledger import STANDS_IN_KEY, read_ledger
from modelexport_passes.surgery.upkeep import LedgerUpkeep
from tests.outlining.test_margins import FIRST, SECOND
from tests.outlining.test_outline import X, outlined
from tests.scoped_models import fingerprint, function_calls, run, scoped


def _block(number: int, x: str, y: str, move: str) -> str:
    """A layer of two products, with a move in between or none."""
    moved = f"m{number}" if move else f"a{number}"
    return f"""
        a{number} = Softmax <axis = -1> ({x})
        {move.format(f"a{number}", n=number)}
        {y} = Softmax <axis = 0> ({moved})"""


def _layers(first: str, second: str, x: str = "float[2,3] x") -> str:
    return f"g ({x}) => (float[M,N] y) {{ {_block(0, 'x', 'h', first)} {_block(1, 'h', 'y', second)} }}"


SCOPES = dict.fromkeys(["a0", "m0", "k0", "h"], FIRST) | dict.fromkeys(["a1", "m1", "k1", "y"], SECOND)

EXPAND = "k{n} = Constant <value = int64[2] {{2, 3}}> ()  m{n} = Expand({}, k{n})"
FREE = "k{n} = Constant <value = int64[2] {{3, -1}}> ()  m{n} = Reshape({}, k{n})"
STRICT = FREE.replace("Reshape(", "Reshape <allowzero = 1> (")
TILE = "k{n} = Constant <value = int64[2] {{2, 3}}> ()  m{n} = Tile({}, k{n})"
CAST = "m{n} = Cast <to = 1> ({})"


@pytest.mark.parametrize("move", [EXPAND, FREE, STRICT, TILE, CAST, "m{n} = Identity({})"])
@pytest.mark.parametrize("in_first", [False, True], ids=["second", "first"])
def test_who_lacks_a_move_has_one_that_does_nothing(move: str, in_first: bool) -> None:
    """What stands in is listed for its call, and what it takes is marked; inlining takes both out (in `outlined`)."""
    model = outlined(_layers(move, "") if in_first else _layers("", move), SCOPES)
    assert list(function_calls(model)) == ["Block"]
    ((call, entry),) = read_ledger(model).calls.items()
    assert ("layers.1" if in_first else "layers.0") in call
    assert len(entry.idle) == 1
    marked = [node for node in model.graph if STANDS_IN_KEY in node.metadata_props]
    assert [node.op_type for node in marked] == (["Constant"] if "Constant" in move else [])


def test_several_moves_one_after_the_other_all_stand_in() -> None:
    """Each does nothing to the one value; it has no declared size."""
    moves = (
        STRICT.replace("m{n}", "r{n}") + "  t{n} = Cast <to = 1> (r{n})  e{n} = Constant <value = int64[2] {{3, 2}}> ()"
    )
    text = _layers("", f"{moves}  m{{n}} = Expand(t{{n}}, e{{n}})")
    model = outlined(text, SCOPES | dict.fromkeys(["r1", "t1", "e1"], SECOND))
    assert list(function_calls(model)) == ["Block"]
    ((_, entry),) = read_ledger(model).calls.items()
    assert len(entry.idle) == 3


@pytest.mark.parametrize(
    ("move", "shared"), [(EXPAND, True), (FREE, True), (TILE, True), (STRICT, False)], ids=["ones", "0", "tile", "none"]
)
def test_sizes_may_vary_where_the_move_can_keep_any(move: str, shared: bool) -> None:
    """Expand to ones and Reshape to zeros do nothing whatever the size is. With allowzero, a zero is a size."""
    text = _layers("", move.replace("2, 3", "2, 1"), "float[K,L] x")
    assert len(function_calls(outlined(text, SCOPES))) == (1 if shared else 2)


@pytest.mark.parametrize(
    ("first", "second"),
    [(EXPAND, FREE), (FREE, STRICT), ("m{n} = Cast <to = 1> ({})", "m{n} = Identity({})")],
)
def test_different_moves_keep_layers_apart(first: str, second: str) -> None:
    """Neither can stand in for the other."""
    assert len(function_calls(outlined(_layers(first, second), SCOPES))) == 2


def test_a_cast_to_another_type_does_something() -> None:
    """There is no cast that would give what it takes and be the same operation."""
    text = """g (float[2,3] x) => (float[2,3] y) {
        a0 = Softmax <axis = -1> (x)
        h = ReduceMean <keepdims = 0> (a0)
        e = Expand(h, s)
        a1 = Softmax <axis = -1> (e)
        m1 = Cast <to = 11> (a1)
        z = ReduceMean <keepdims = 0> (m1)
        w = Cast <to = 1> (z)
        y = Expand(w, s)
    }""".replace("{", "<int64[2] s = {2, 3}> {", 1)
    scopes = {"a0": FIRST, "h": FIRST, "a1": SECOND, "m1": SECOND, "z": SECOND}
    assert len(function_calls(outlined(text, scopes))) == 2


STAGES = f"""
g (float[2,3] x) => (float[2,3] y) {{
    {_block(0, "x", "b", "")}
    {_block(1, "b", "c", EXPAND)}
    {_block(2, "c", "d", "")}
    {_block(3, "d", "y", EXPAND)}
}}"""
STAGE_SCOPES = {
    f"{name}{number}": f"/Net/Stage.stages.{number // 2}/Block.stages.{number // 2}.layers.{number % 2}"
    for name in "akm"
    for number in range(4)
}
STAGE_SCOPES |= {last: STAGE_SCOPES[f"a{number}"] for number, last in enumerate("bcdy")}


@pytest.mark.parametrize("first", ["*.Block", "*.Stage"])
def test_a_caller_that_is_a_function_has_the_size(first: str) -> None:
    """It stands in at each call of the caller, also when one of both is written out before the other."""
    model = outlined(STAGES, STAGE_SCOPES)
    assert set(function_calls(model)) == {"Block", "Stage"}
    assert [node.op_type for node in model.graph] == ["Stage", "Stage"]
    before = run(model, X)
    mx.Inline(modules=[first])(model)
    assert run(model, X) == before
    mx.Inline()(model)
    assert run(model, X) == before
    assert fingerprint(model) == fingerprint(scoped(STAGES, STAGE_SCOPES))


def test_a_second_outlining_takes_the_size_along() -> None:
    """What was put in the main graph is put in a function then."""
    model = scoped(STAGES, STAGE_SCOPES)
    before, kept = run(model, X), fingerprint(model)
    mx.Outline(modules=["*.Block"])(model)
    mx.Outline(modules=["*.Stage"])(model)
    assert set(function_calls(model)) == {"Block", "Stage"}
    assert run(model, X) == before
    mx.Inline()(model)
    assert run(model, X) == before
    assert fingerprint(model) == kept


def test_a_body_that_a_pass_changed_is_written_out_as_it_is() -> None:
    """The move may do something there now."""
    model = scoped(_layers("", EXPAND), SCOPES)
    before = run(model, X)
    mx.Outline()(model)
    upkeep = LedgerUpkeep(model)
    upkeep.follow({key: {str(node.name): str(node.name) for node in body} for key, body in model.functions.items()})
    assert not any(call.idle for call in read_ledger(model).calls.values())
    mx.Inline()(model)
    assert run(model, X) == before
    assert [node.op_type for node in model.graph].count("Expand") == 2


def test_where_constants_are_not_lifted_nothing_stands_in() -> None:
    """With ``lift: never`` each has its own function."""
    plan = mx.Outline(lift="never").plan(scoped(_layers("", EXPAND), SCOPES))
    assert len(plan.functions) == 2
    items = [item for region in plan.bodies.layout.values() for item in region]
    assert not any(isinstance(item, Op) and item.stands_in for item in items)
    assert any(isinstance(item, Op) and is_constant(item) for item in items)
