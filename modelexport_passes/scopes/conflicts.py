"""Sources that disagree: an operation in a call of one module that alone reads the parameters of another."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from modelexport_passes.scopes.parameters import ParameterOwners
from modelexport_passes.scopes.scope import Scope, Source, scope_of


@dataclass(frozen=True, order=True)
class Conflict:
    """Operations whose scope and whose parameters tell different modules.

    Attributes:
        module: path of the module that the scope tells.
        source: how the scope is known.
        owner: path of the module that owns the parameters.
        operations: how many operations this is true of.
        example: the name of the first of them.
    """

    module: str
    source: Source
    owner: str
    operations: int
    example: str

    def __str__(self) -> str:
        return (
            f"{self.module or 'the root'} by {self.source.value}, {self.owner} by parameter "
            f"({self.operations} operations, such as {self.example})"
        )


def conflicts_of(nodes: Iterable[ir.Node], owners: ParameterOwners) -> list[Conflict]:
    """Where the owner of a parameter is no module of the scope, nor below one, for every operation that reads it.

    A tied parameter is read in several modules and owned by one of them: as long as one of its readers is there, that
    is no conflict.
    """
    at_home: set[Hashable] = set()
    readers: dict[Hashable, dict[ir.Node, tuple[Scope, str]]] = defaultdict(dict)
    for node in nodes:
        read = owners.read(node)
        scope = scope_of(node) if read else None
        if scope is None or scope.relative:
            continue
        for value in read:
            owner, parameter = owners.owner(value), owners.parameter(value)
            if owner is None or parameter in at_home:
                continue
            if _agrees(scope, owner):
                at_home.add(parameter)
            else:
                readers[parameter][node] = scope, owner
    counts: Counter[tuple[str, Source, str]] = Counter()
    examples: dict[tuple[str, Source, str], str] = {}
    for parameter, reading in readers.items():
        for node, (scope, owner) in reading.items() if parameter not in at_home else ():
            key = (scope.path, scope.source, owner)
            counts[key] += 1
            examples.setdefault(key, node.name or f"<unnamed {node.op_type}>")
    return sorted(Conflict(*key, count, examples[key]) for key, count in counts.items())


def _agrees(scope: Scope, owner: str) -> bool:
    """Whether the owner lies in the innermost module, or is one of those around it."""
    inside = not scope.path or owner == scope.path or owner.startswith(scope.path + ".")
    return inside or any(frame.path == owner for frame in scope.frames)
