"""Paths that names of TorchScript leave open: a name tells a module's end and its caller, and not who holds it.

Most modules are held by their caller, and one without parameters has nothing else to go by. Two things speak against
it: a caller that is seen to call what another module holds, which is not running itself (``self.head.pool(x)`` is
``/pool``), may do so here as well; and calls of one path that read different weights are of two modules
(``lora_A.default`` and ``lora_B.default`` are ``/default`` and ``/default_1``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

import onnx_ir as ir

from modelexport_passes.scopes.calls import Call
from modelexport_passes.scopes.parameters import ParameterOwners
from modelexport_passes.scopes.values import signature

_WEIGHTED = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
"""Operators whose second input is a layer's weight, which is the same in all its calls."""


def doubtful_calls(
    paths: Mapping[Call, str], known_as: Mapping[Call, Collection[str]], end_of: Callable[[str], str]
) -> set[Call]:
    """Calls of modules that may be held by another than their caller.

    Args:
        paths: the module that each call is taken to be of, the root's included.
        known_as: of each call whose path nothing confirms, the known modules of that end.
        end_of: the end of a path.
    """
    running = set(paths.values())

    def holder(path: str) -> str:
        return path.removesuffix(end_of(path)).removesuffix(".")

    def is_below(path: str, caller: str) -> bool:
        return not caller or path.startswith(f"{caller}.")

    around = {  # callers of what another module holds, somewhere below them
        paths[call.parent]
        for call, path in paths.items()
        if call.parent is not None and holder(path) not in running and is_below(path, paths[call.parent])
    }
    # A Sequential calls its items: what else it calls is held by another as well, whose name for it is the one told.
    sequential = {paths[call.parent] for call in paths if call.parent is not None and _is_item(call, paths)}
    sequential -= {
        paths[call.parent]
        for call in paths
        if call.parent is not None and call not in known_as and not _is_item(call, paths)
    }
    strays: dict[str, list[str]] = {}
    doubtful: set[Call] = set()
    for call, known in known_as.items():
        assert call.parent is not None
        caller = paths[call.parent]
        if call.key not in strays:
            strays[call.key] = [path for path in known if holder(path) not in running]
        shared = caller in sequential and not _is_item(call, paths)
        if shared or caller in around or any(is_below(path, caller) for path in strays[call.key]):
            doubtful.add(call)
    return doubtful


def _is_item(call: Call, paths: Mapping[Call, str]) -> bool:
    """Whether a call is one of an item by its caller, which holds it itself, by number."""
    if call.parent is None or not call.key.startswith(f"{call.parent.key}."):
        return False
    return paths[call] == paths[call.parent] + call.key[len(call.parent.key) :]


def contradicted_calls(
    nodes: Sequence[ir.Node],
    innermost: Sequence[Call],
    paths: Mapping[Call, str],
    unconfirmed: Collection[Call],
    owners: ParameterOwners,
) -> list[Call]:
    """Calls that are taken to be of one module, and read different weights where it would read the same."""
    weights: dict[Call, list[ir.Value]] = defaultdict(list)
    for node, call in zip(nodes, innermost, strict=True):
        if call in unconfirmed and node.op_type in _WEIGHTED:
            weights[call] += [value for value in owners.read(node) if len(value.shape or ()) > 1]
    by_path: dict[str, list[Call]] = defaultdict(list)
    for call in weights:
        by_path[paths[call]].append(call)
    told: dict[ir.Value, Hashable] = {}
    return [
        call
        for calls in by_path.values()
        if any(_differ(weights[calls[0]], weights[other], told) for other in calls[1:])
        for call in calls
    ]


def given_to_callers(calls: Collection[Call], innermost: list[Call]) -> set[int]:
    """Take these calls out of the tree: their operations are given to what called them.

    Returns:
        the operations.
    """
    moved: set[int] = set()
    for call in sorted(calls, key=lambda call: len(call.events)):  # one that was made in another before that one
        assert call.parent is not None
        for index in call.events:
            innermost[index] = call.parent
        moved.update(call.events)
    gone = set(calls)
    for parent in {call.parent for call in calls if call.parent is not None}:
        parent.children = [child for child in parent.children if child not in gone]
    return moved


def _differ(some: Sequence[ir.Value], others: Sequence[ir.Value], told: dict[ir.Value, Hashable]) -> bool:
    """Whether weights read at the same place are not the same; an exporter may keep one as several."""
    return len(some) == len(others) and any(
        one is not other and _signature(one, told) != _signature(other, told)
        for one, other in zip(some, others, strict=True)
    )


def _signature(value: ir.Value, told: dict[ir.Value, Hashable]) -> Hashable:
    if value not in told:
        told[value] = None if value.const_value is None else signature(value.const_value.numpy())
    return told[value]
