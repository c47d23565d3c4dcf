"""Names of functions and of their inputs: deterministic, from the class and from local parameter names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from modelexport_passes.outlining.regions import Region
from modelexport_passes.outlining.sharing import Column
from modelexport_passes.scopes.scope import UNKNOWN_CLASS, Frame
from modelexport_passes.scopes.torchscript_names import tail

LOCAL_DOMAIN = "modules"
"""Domain of functions whose class has no Python module, or is unknown."""

_NUMBER = re.compile(r"(\d+)")


class Formal(NamedTuple):
    """One input of a function.

    Attributes:
        name: unique in the function.
        column: what it is at each call.
    """

    name: str
    column: Column


class Names:
    """Hands out each name once; a name that is taken gets ``_1``, ``_2``, ..."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def take(self, name: str) -> str:
        """This name, or the next free one like it."""
        candidate = name
        while candidate in self._taken:
            self._next[name] = self._next.get(name, 0) + 1
            candidate = f"{name}_{self._next[name]}"
        self._taken.add(candidate)
        return candidate


def function_identity(frame: Frame) -> tuple[str, str]:
    """Domain and name of the function of a module: the class's Python module, and the class as a C identifier."""
    class_name = frame.class_name
    if class_name == UNKNOWN_CLASS:
        class_name = re.sub(r"(\.\d+)+$", "", tail(frame.path)) or frame.path
        return LOCAL_DOMAIN, _identifier(class_name)
    domain, _, name = class_name.replace(".<locals>", "").rpartition(".")
    if domain in ("", "ai.onnx"):
        domain = LOCAL_DOMAIN
    return domain, _identifier(name)


def _identifier(text: str) -> str:
    name = re.sub(r"\W", "_", text)
    return f"_{name}" if not name or name[0].isdigit() else name


def name_formals(columns: Sequence[Column], body: Region, taken: Iterable[str]) -> list[Formal]:
    """Order and name the inputs: activations in order of use, then constants, then weights by local name."""
    names = Names(taken)
    activations = [column for column in columns if not _is_weight(column)]
    weights = sorted(
        ((local_name(str(column[0].value.name), body.frame.path), at, column)
         for at, column in enumerate(columns) if _is_weight(column)),
        key=lambda item: (_natural(item[0]), item[1]),
    )  # fmt: skip
    formals = [Formal(names.take(f"input_{at}"), column) for at, column in enumerate(activations)]
    return formals + [Formal(names.take(name), column) for name, _, column in weights]


def _is_weight(column: Column) -> bool:
    return all(wire.is_weight for wire in column)


def local_name(name: str, path: str) -> str:
    """A parameter's name inside the module at ``path``; the whole name where the parameter lies elsewhere."""
    return name.removeprefix(path + ".")


def _natural(text: str) -> list[tuple[int, str]]:
    """``layer.10`` behind ``layer.9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _NUMBER.split(text)]


