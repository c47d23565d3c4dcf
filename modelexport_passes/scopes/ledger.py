"""The ledger: what a shared function body cannot say for each of its calls, kept on the model so that inlining can.

A body is kept once; its calls differ in little: which call of a re-used module it was, a scope that is not where its
likes have it, a constant that in the original graph was one for all. The model carries that as JSON under
`LEDGER_KEY`; functions of other origin have no entry, and nothing is lost without one but these details.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from modelexport_passes.scopes.compact import as_text
from modelexport_passes.scopes.scope import Frame, format_frames

LEDGER_KEY = "pkg.modelexport_passes.ledger"
"""Metadata key of the ledger on the model."""

ORIGIN_KEY = "pkg.modelexport_passes.origin"
"""Metadata key on a node in a body: the value of the original graph that this constant is a copy of."""

MODULE_KEY = "pkg.modelexport_passes.module"
"""Metadata key on a function: the qualified class of the module it is."""

CALLS_KEY = "pkg.modelexport_passes.calls"
"""Metadata key on a function: JSON list of the module calls it serves, ``path@call``."""

SOURCE_KEY = "pkg.modelexport_passes.source"
"""Metadata key on a function: where in its module's ``forward`` its first operation is made, ``file:line``."""

SOURCES_KEY = "pkg.modelexport_passes.sources"
"""Metadata key on the model: JSON, qualified class -> ``file:line``, of the classes that functions were made of."""

STATE_KEY = "pkg.modelexport_passes.state"
"""Metadata key on a function: JSON, name of an input that is state -> name of the output that is its next value, null
for one that is only read."""

STANDS_IN_KEY = "pkg.modelexport_passes.stands_in"
"""Metadata key on an operation of the main graph, a constant mostly, that the original model has not: calls need it."""

PART_KEY = "pkg.modelexport_passes.part"
"""Metadata key on a call: which part of the module call it is, from 1, where that was cut into parts. On the function
of such calls: the parts that it is, ``1,2``."""


def call_key(frames: tuple[Frame, ...], part: int) -> str:
    """A call of a function in the ledger's words: its absolute frames, and which part of the module call it is."""
    return f"{format_frames(frames)}|{part}" if part else format_frames(frames)


def part_of(call: ir.Node) -> int:
    """Which part of a module call a node calls, from 1; 0 if it is the whole call."""
    return int(call.metadata_props.get(PART_KEY, 0))


def state_pairs(function: ir.Function) -> dict[str, str | None]:
    """Name of each input of a function that is state -> name of the output that is its next value, None without one."""
    return json.loads(function.metadata_props.get(STATE_KEY, "{}"))


@dataclass
class Call:
    """How one call differs from the body it calls.

    Attributes:
        bases: path -> index of its first call inside, where not zero.
        scopes: name of a node in the body -> its absolute scope, where the relative one in the body is not this call's.
        origins: name of a node in the body -> its origin, where it is not the one in the body; "" for none.
        stand_ins: names of nodes in the body that only stand in at this call: it has constants for what they compute.
        idle: names of nodes in the body that do nothing at this call, which has not got them: their first input is
            their result.
        constants: name of a node in the body -> number of an input -> origin of the constant that it is at this call.
    """

    bases: dict[str, int] = field(default_factory=dict[str, int])
    scopes: dict[str, str] = field(default_factory=dict[str, str])
    origins: dict[str, str] = field(default_factory=dict[str, str])
    stand_ins: list[str] = field(default_factory=list[str])
    idle: list[str] = field(default_factory=list[str])
    constants: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])


NOTHING_PARTICULAR = Call()
"""The entry of a call of which nothing is particular. Only to be looked at."""


@dataclass
class Original:
    """A value of the original graph that bodies have copies of.

    Attributes:
        scope: scope of its operation; "" if unknown.
        node: name of its operation.
        initializer: it was no operation's but an initializer.
        value: what it holds, as `format_tensor` writes it, if there may be no copy; else "".
    """

    scope: str = ""
    node: str = ""
    initializer: bool = False
    value: str = ""


@dataclass
class Ledger:
    """All calls that differ, by `call_key`, and all originals, by value name."""

    calls: dict[str, Call] = field(default_factory=dict[str, Call])
    originals: dict[str, Original] = field(default_factory=dict[str, Original])

    def call(self, frames: tuple[Frame, ...], call: ir.Node) -> Call:
        """The entry of a call whose absolute scope has these frames; an empty one if it has none."""
        if not self.calls:
            return Call()
        return self.calls.get(call_key(frames, part_of(call))) or Call()


def format_tensor(tensor: ir.TensorProtocol) -> str:
    """A small tensor as text: dtype, shape and bytes."""
    return f"{tensor.dtype.name}[{','.join(map(str, tensor.shape.numpy()))}]{tensor.tobytes().hex()}"


def parse_tensor(text: str) -> ir.TensorProtocol:
    """The tensor of integers that `format_tensor` wrote."""
    dtype, _, rest = text.partition("[")
    shape, _, data = rest.partition("]")
    element = ir.DataType[dtype]
    array = np.frombuffer(bytes.fromhex(data), element.numpy().newbyteorder("<"))
    return ir.Tensor(array.astype(element.numpy()).reshape([int(size) for size in shape.split(",") if size]))


def read_ledger(model: ir.Model) -> Ledger:
    """The model's ledger; empty if it has none."""
    text = model.metadata_props.get(LEDGER_KEY)
    if not text:
        return Ledger()
    data: Mapping[str, Any] = json.loads(text)
    return Ledger(
        {key: Call(**entry) for key, entry in data["calls"].items()},
        {name: Original(**entry) for name, entry in data["originals"].items()},
    )


def write_ledger(model: ir.Model, ledger: Ledger) -> None:
    """Keep the ledger on the model; an empty one leaves no entry."""
    calls = {key: _filled(entry) for key, entry in sorted(ledger.calls.items()) if _filled(entry)}
    if not calls and not ledger.originals:
        model.metadata_props.pop(LEDGER_KEY, None)
        return
    originals = {name: _filled(entry) for name, entry in sorted(ledger.originals.items())}
    text = as_text({"calls": calls, "originals": originals})
    model.metadata_props[LEDGER_KEY] = text


def _filled(entry: Call | Original) -> dict[str, Any]:
    return {key: value for key, value in vars(entry).items() if value}
