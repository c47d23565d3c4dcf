"""Scopes from node names of torch's TorchScript exporter: ``/layers.0/attention/query/MatMul``.

Each part is the *tail* of a module's path: what begins at its last atom that is not a number (``net.1.0`` for
``model.net.1.0``). A container that is never called leaves no part. The exporter numbers equal tails below one module,
``lin``, ``lin_1``, ...: usually the second call of ``lin``, but also a module that is really called ``lin_1``, or
another module with the same tail. Which it is, the modules tell (`ModuleNames`): all of them when the torch model is
at hand, else those that the names of parameters give away.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.scopes.scope import UNKNOWN_CLASS, Frame, Scope, Source

_NUMBERED = re.compile(r"(.+)_(\d+)")


class ModuleNames:
    """The modules that are known to be in the model: path -> qualified class.

    Attributes:
        complete: every module is known, so a name that fits none of them is not a module's.
    """

    def __init__(self, classes: Mapping[str, str], *, complete: bool) -> None:
        self.classes = dict(classes)
        self.complete = complete
        self._by_tail: dict[str, list[str]] = defaultdict(list)
        for path in self.classes:
            if path:
                self._by_tail[tail(path)].append(path)

    @classmethod
    def from_parameters(cls, names: Iterable[str]) -> ModuleNames:
        """The modules that own the parameters of these names, and those above them; their classes are unknown."""
        paths = {""}
        for name in names:
            atoms = name.split(".")
            if "/" not in name and ":" not in name:
                paths.update(".".join(atoms[:end]) for end in range(1, len(atoms)))
        return cls(dict.fromkeys(sorted(paths), UNKNOWN_CLASS), complete=False)

    def below(self, parent: str, part: str) -> list[str]:
        """Modules with this tail, nearest below ``parent`` first found; all of that tail if none lies below it."""
        found = self._by_tail.get(part, [])
        prefix = parent + "." if parent else ""
        inside = [path for path in found if path.startswith(prefix)]
        if not inside:
            return found
        depth = min(path.count(".") for path in inside)
        return [path for path in inside if path.count(".") == depth]


def tail(path: str) -> str:
    """The end of a path from its last atom that is not a number: the part that names carry."""
    atoms = path.split(".")
    start = len(atoms) - 1
    while start > 0 and atoms[start].isdecimal():
        start -= 1
    return ".".join(atoms[start:])


class _Name(NamedTuple):
    paths: tuple[str, ...]
    number: int


def scopes_from_names(nodes: Iterable[ir.Node], modules: ModuleNames) -> dict[ir.Node, Scope]:
    """The scope of each node whose name tells it."""
    resolved: dict[tuple[str, ...], _Name | None] = {}
    names: dict[ir.Node, _Name] = {}
    for node in nodes:
        parts = _parts(node)
        if parts is None:
            continue
        if parts not in resolved:
            resolved[parts] = _resolve(parts, modules)
        name = resolved[parts]
        if name is not None:
            names[node] = name
    calls = _calls_per_path(set(names.values()))
    scopes = {name: _scope(name, calls, modules) for name in set(names.values())}
    return {node: scopes[name] for node, name in names.items()}


def _parts(node: ir.Node) -> tuple[str, ...] | None:
    if not node.name or not node.name.startswith("/"):
        return None
    *parts, operation = node.name[1:].split("/")
    if not operation.startswith(node.op_type):
        return None
    return tuple(parts)


def _resolve(parts: tuple[str, ...], modules: ModuleNames) -> _Name | None:
    paths: list[str] = []
    number = 0
    parent = ""
    for part in parts:
        found = _resolve_part(part, parent, modules)
        if found is None:
            return None
        parent, number = found
        paths.append(parent)
    return _Name(tuple(paths), number)


def _resolve_part(part: str, parent: str, modules: ModuleNames) -> tuple[str, int] | None:
    """The module that a part below ``parent`` means, and the number of its call."""
    exact = modules.below(parent, part)
    if exact:
        return exact[0], 0
    numbered = _NUMBERED.fullmatch(part)
    if numbered is not None:
        others = modules.below(parent, numbered[1])
        number = int(numbered[2])
        if others:
            # As many modules of one tail as numbers: other modules. Else the number counts calls.
            return (others[number], 0) if number < len(others) else (others[0], number)
    if modules.complete:
        return None
    last = tail(parent) if parent else ""
    if last and part.startswith(last + ".") and part[len(last) + 1 :].replace(".", "").isdecimal():
        return parent + part[len(last) :], 0  # an item of a Sequential repeats its parent's name
    return (f"{parent}.{part}" if parent else part), 0


def _calls_per_path(names: Iterable[_Name]) -> dict[str, int]:
    """How often each module was called: from the numbers on its own operations, else from those of its children."""
    own: dict[str, int] = defaultdict(int)
    children: dict[str, dict[str, int]] = defaultdict(dict)
    for name in names:
        if not name.paths:
            continue
        path = name.paths[-1]
        own[path] = max(own[path], name.number + 1)
        for above, below in zip(name.paths, name.paths[1:], strict=False):
            children[above].setdefault(below, 0)
    calls: dict[str, int] = {}

    def count(path: str) -> int:
        if path not in calls:
            calls[path] = 1  # a module below itself: one call
            below = [count(child) for child in children[path]]
            calls[path] = max(own[path], min(below, default=1))
        return calls[path]

    for path in list(children) + list(own):
        count(path)
    return calls


def _scope(name: _Name, calls: Mapping[str, int], modules: ModuleNames) -> Scope:
    frames = [Frame("", modules.classes.get("", UNKNOWN_CLASS), 0)]
    for path in name.paths:
        # The name numbers the calls of the innermost module only; those above share them out evenly.
        call = name.number * calls.get(path, 1) // max(calls.get(name.paths[-1], 1), 1)
        frames.append(Frame(path, modules.classes.get(path, UNKNOWN_CLASS), call))
    return Scope(tuple(frames), Source.NAME)
