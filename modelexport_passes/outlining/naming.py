"""Names of functions and of their inputs: deterministic, from the class and from local parameter names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from modelexport_passes.outlining.constants import folded_from
from modelexport_passes.outlining.flow import Op, Wire
from modelexport_passes.outlining.margins import is_view_of_weight
from modelexport_passes.outlining.regions import Frames, Region
from modelexport_passes.outlining.sharing import Column
from modelexport_passes.outlining.state import Named, State, local_names
from modelexport_passes.scopes.module_names import tail
from modelexport_passes.scopes.scope import UNKNOWN_CLASS, Frame
from modelexport_passes.unique_names import Names

LOCAL_DOMAIN = "modules"
"""Domain of functions whose class has no Python module, or is unknown."""

_OPERATORS = ("ai.onnx.", "com.microsoft.")
"""Domains in which runtimes have operators of their own; a function there may be taken for one."""

_NUMBER = re.compile(r"(\d+)")


class Formal(NamedTuple):
    """One input of a function.

    Attributes:
        name: unique in the function.
        column: what it is at each call.
        state: which state of the graph it is at each call; empty if it is none.
    """

    name: str
    column: Column
    state: Sequence[Named] = ()


def function_identity(frame: Frame) -> tuple[str, str]:
    """Domain and name of the function of a module: the class's Python module, and the class as a C identifier."""
    class_name = frame.class_name
    if class_name == UNKNOWN_CLASS:
        class_name = re.sub(r"(\.\d+)+$", "", tail(frame.path)) or frame.path
        return LOCAL_DOMAIN, _identifier(class_name)
    domain, _, name = class_name.replace(".<locals>", "").rpartition(".")
    if not domain or f"{domain}.".startswith(_OPERATORS):
        domain = LOCAL_DOMAIN
    return domain, _identifier(name)


def _identifier(text: str) -> str:
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return f"_{name}" if not name or name[0].isdigit() else name


class FirstReaders:
    """The first operation that reads a wire, in a module call and anywhere. Every layer may read one wire."""

    def __init__(self) -> None:
        self._known: dict[Wire, dict[Frames, Op]] = {}

    def of(self, wire: Wire, module: Frames) -> Op | None:
        """The first in this call, or the first of all where it has none; None if nothing reads the wire."""
        if len(wire.readers) == 1:  # of weights nearly all
            return wire.readers[0]
        known = self._known.get(wire)
        if known is None:
            known = self._known[wire] = {}
            for reader in sorted(wire.readers, key=attrgetter("order")):
                for depth in range(len(reader.frames) + 1):
                    known.setdefault(reader.frames[:depth], reader)
        return known.get(module) or known.get(())


def name_formals(
    columns: Sequence[Column], body: Region, names: Names, state: State, readers: FirstReaders
) -> list[Formal]:
    """Order and name the inputs: activations in order of use, then constants, then state, then weights by local name.

    State is in the order of the graph's inputs, and has their names without the number of the layer.
    """
    known = {column: named for column in columns if (named := state.of_input(column)) is not None}
    activations = [column for column in columns if column not in known and not _is_weight(column)]
    others = {*known, *activations}
    weights = sorted(
        [(weight_name(column[0], body.frames, readers), column) for column in columns if column not in others],
        key=lambda item: _natural(item[0]),
    )
    formals = [Formal(names.take(f"input_{at}"), column) for at, column in enumerate(activations)]
    state_columns = sorted(known, key=lambda column: known[column][0].position)
    state_names = local_names([known[column] for column in state_columns], names)
    formals += [Formal(name, column, known[column]) for name, column in zip(state_names, state_columns, strict=True)]
    return formals + [Formal(names.take(name), column) for name, column in weights]


def _is_weight(column: Column) -> bool:
    for wire in column:  # noqa: SIM110 - a loop is faster than all(), and columns are as long as there are calls
        if not (wire.is_weight or is_view_of_weight(wire)):
            return False
    return True


def weight_name(wire: Wire, module: Frames, readers: FirstReaders) -> str:
    """A weight's name inside a module: the parameter's own, else where it is used (``query.weight``)."""
    path = module[-1].path
    local = local_name(str(wire.value.name), path)
    if local is not None:
        return local
    for name in folded_from(wire.value):
        local = local_name(name, path)
        if local is not None:
            return local
    reader = readers.of(wire, module)
    where = reader.frames[-1].path if reader is not None and reader.frames else ""
    return f"{where[len(path) + 1 :]}.weight" if where.startswith(path + ".") else "weight"


def local_name(name: str, path: str) -> str | None:
    """A parameter's name inside the module at ``path``; None where it lies elsewhere.

    A wrapper that was there at export, and is no longer a frame, is still a prefix of the names of parameters.
    """
    at = f".{name}".find(f".{path}.")
    return None if at < 0 else name[at + len(path) + 1 :]


def _natural(text: str) -> list[str | int]:
    """``layer.10`` behind ``layer.9``: texts and numbers by turns."""
    parts: list[str | int] = [*_NUMBER.split(text)]
    parts[1::2] = map(int, parts[1::2])
    return parts
