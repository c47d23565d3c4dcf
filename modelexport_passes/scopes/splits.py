"""Splits: which part of a divided model each repeated block goes to, in the form that Olive's ``SplitModel`` reads.

Olive keeps an entry ``split_assignments`` on the model (``model.layers.0=0;model.layers.1=1``) and matches its module
paths with the beginnings of node names, in which it reads ``/`` as ``.``. All paths must have the same number of parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from modelexport_passes.errors import ConfigError, ModelExportError
from modelexport_passes.scopes.scope import scope_of
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.unique_names import Names

SPLITS_KEY = "split_assignments"
"""Metadata key on the model."""


def check_splits(splits: int | Mapping[str, int]) -> None:
    """Refuse what Olive would misread.

    Raises:
        ConfigError: fewer than two parts, numbers that leave one out, or paths of different lengths.
    """
    if isinstance(splits, int):
        if splits < 2:
            raise ConfigError(f"splits {splits}; expected at least 2")
        return
    numbers = sorted(set(splits.values()))
    if len(numbers) < 2 or numbers != list(range(len(numbers))):
        raise ConfigError(f"splits: the parts are {numbers}; expected 0, 1, ... without a gap, and at least two")
    for path in splits:
        if not path or any(mark in path for mark in "=;"):
            raise ConfigError(f"splits: {path!r} is no module path that can be written in {SPLITS_KEY}")
    if len({path.count(".") for path in splits}) > 1:
        raise ConfigError(f"splits: {', '.join(splits)}: expected paths with the same number of parts")


def blocks_of(nodes: Iterable[ir.Node]) -> list[str]:
    """Paths of the blocks of the list of modules that holds most operations, in their order; empty if there is none.

    A list is told by the numbers in its paths: ``model.layers.0``, ``model.layers.1``.
    """
    sizes: dict[str, Counter[int]] = {}
    for node in nodes:
        scope = scope_of(node)
        for frame in scope.frames if scope is not None else ():
            parent, _, last = frame.path.rpartition(".")
            if last.isdecimal():
                sizes.setdefault(parent, Counter())[int(last)] += 1
                break  # the outermost
    lists = {parent: counts for parent, counts in sizes.items() if len(counts) > 1}
    if not lists:
        return []
    largest = max(sorted(lists), key=lambda parent: lists[parent].total())
    return [f"{largest}.{number}".lstrip(".") for number in sorted(lists[largest])]


def divide(blocks: list[str], parts: int) -> dict[str, int]:
    """Consecutive blocks into parts whose sizes differ by one at most, the larger first.

    Raises:
        ModelExportError: there are fewer blocks than parts.
    """
    if len(blocks) < parts:
        raise ModelExportError(
            f"split_assignments: {len(blocks)} repeated blocks for {parts} splits; give splits as module path: number"
        )
    size, more = divmod(len(blocks), parts)
    starts = [part * size + min(part, more) for part in range(parts + 1)]
    return {block: part for part in range(parts) for block in blocks[starts[part] : starts[part + 1]]}


def assign_splits(model: ir.Model, splits: int | Mapping[str, int]) -> int:
    """Write which part each block goes to, and name the nodes of the main graph after their modules.

    A node of ``model.layers.0.mlp`` becomes ``/model.layers.0.mlp/MatMul``, a second one ``..._1``. Nodes whose scope
    is unknown keep their names. Returns how many things changed.

    Raises:
        ModelExportError: no blocks to divide, or a path that no operation is in.
    """
    nodes = list(owned_nodes(model.graph))
    assignments = divide(blocks_of(nodes), splits) if isinstance(splits, int) else dict(splits)
    depth = next(iter(assignments)).count(".") + 1
    paths = {".".join(scope.path.split(".")[:depth]) for node in nodes if (scope := scope_of(node)) is not None}
    missing = [path for path in assignments if path not in paths]
    if missing:
        raise ModelExportError(f"split_assignments: no operation is in {missing[0]!r}; expected a module path")
    text = ";".join(f"{path}={part}" for path, part in assignments.items())
    changed = int(model.metadata_props.get(SPLITS_KEY) != text)
    model.metadata_props[SPLITS_KEY] = text
    names = Names(node.name for node in nodes if node.name and scope_of(node) is None)
    for node in nodes:
        scope = scope_of(node)
        if scope is not None:
            name = names.take(f"/{scope.path}/{node.op_type}" if scope.path else f"/{node.op_type}")
            changed += node.name != name
            node.name = name
    return changed
