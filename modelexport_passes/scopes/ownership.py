"""Scopes from parameters: an operation that reads a module's parameters was made in a call of that module.

Where nodes and values have lost their names, parameters mostly keep theirs. Their owners' paths tell the stack as far
as paths can: a list or a dict of modules is never called and makes no frame. What stands between two such operations
follows from them (`modelexport_passes.scopes.dataflow`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import groupby, takewhile

import onnx_ir as ir

from modelexport_passes.scopes.calls import Call, Event, call_frames, call_tree
from modelexport_passes.scopes.dataflow import constant_nodes
from modelexport_passes.scopes.parameters import VIEWS, ParameterOwners, read_initializers
from modelexport_passes.scopes.scope import Frame, Scope, Source, scope_of

_NEVER_CALLED = frozenset(
    f"torch.nn.modules.{name}"
    for name in (
        "container.ModuleList",
        "container.ModuleDict",
        "container.ParameterList",
        "container.ParameterDict",
        "linear.NonDynamicallyQuantizableLinear",
    )
)
_IDLE = VIEWS | {"Constant", "Concat", "Shape", "Gather", "Expand", "CastLike"}
"""Operations that exporters share between the calls of a module, or place anywhere."""
_LIFTED = re.compile(r"\.(lifted_tensor_|_tensor_constant)\d+$")
"""Torch's names for constants in the code of a module."""
_PRODUCTS = frozenset({"MatMul", "MatMulInteger", "Conv"})


def scopes_from_parameters(
    nodes: Sequence[ir.Node], owners: ParameterOwners, classes: Mapping[str, str] | None
) -> dict[ir.Node, Scope]:
    """The scope of each node without one that reads parameters of one module.

    Args:
        nodes: of one graph, in its order.
        owners: who owns its parameters.
        classes: module path -> class where the torch model is at hand.
    """
    told = _told_stacks(nodes)
    found: dict[ir.Node, Scope] = {}
    by_path: dict[ir.Node, str] = {}
    for node in nodes:
        path = None if scope_of(node) is not None or node.op_type in VIEWS else _owner(_read_owners(node, owners))
        if path is None:
            continue
        stacks = told.get(path, set())
        if len(stacks) == 1:
            found[node] = Scope(next(iter(stacks)), Source.PARAMETER)
        elif not stacks:
            by_path[node] = path
    by_path = _without_resized(by_path)
    frames = _Frames(owners, classes)
    return found | _numbered(_without_tied(by_path, frames), frames, nodes, owners)


def _read_owners(node: ir.Node, owners: ParameterOwners) -> list[str]:
    """The owners of the parameters that a node reads, or of the bias that is added to its product.

    A folded weight has no name of its own.
    """
    read = owners.of(node)
    if read or node.op_type not in _PRODUCTS or not read_initializers(node):
        return read
    uses = list(node.outputs[0].uses())
    return owners.of(uses[0].node) if len(uses) == 1 and uses[0].node.op_type == "Add" else []


def _owner(paths: Sequence[str]) -> str | None:
    """The module that owns all of these, or holds their owners."""
    if not paths:
        return None
    split = [path.split(".") for path in paths]
    low, high = min(split), max(split)
    same = [a == b for a, b in zip(low, high, strict=False)]
    common = low[: same.index(False) if False in same else len(same)]
    return ".".join(common) if common or not any(paths) else None


def _without_resized(paths: Mapping[ir.Node, str]) -> dict[ir.Node, str]:
    """No module resizes its own parameters: a table of positions that is only resized is read by the module around."""
    kinds: dict[str, set[str]] = {}
    for node, path in paths.items():
        kinds.setdefault(path, set()).add(node.op_type)
    resized = {path for path, found in kinds.items() if "Resize" in found and found <= {"Resize", "Shape"}}
    return {node: path.rpartition(".")[0] if path in resized else path for node, path in paths.items()}


def _without_tied(paths: Mapping[ir.Node, str], frames: _Frames) -> dict[ir.Node, str]:
    """Leave out an operation that reads a parameter of a module that is not running.

    A tied parameter has one owner by name and several users. One that others read as well says where an operation
    belongs only if the operations next to it are of the caller of that owner.
    """
    readers = Counter(value for node in paths for value in set(read_initializers(node)))
    runs = [list(run) for _, run in groupby(paths, key=paths.__getitem__)]
    kept: dict[ir.Node, str] = {}
    for place, run in enumerate(runs):
        path = paths[run[0]]
        caller = frames.called(path)[:-1]
        beside = [
            frames.called(paths[other[0]]) for other in (*runs[max(place - 1, 0) : place], *runs[place + 1 : place + 2])
        ]
        at_home = not caller or any(other[: len(caller)] == caller for other in beside)
        for node in run:
            if at_home or not all(readers[value] > 1 for value in read_initializers(node)):
                kept[node] = path
    return kept


def _told_stacks(nodes: Iterable[ir.Node]) -> dict[str, set[tuple[Frame, ...]]]:
    """Path -> the stacks of its calls that are known already, those around an operation included."""
    stacks: dict[str, set[tuple[Frame, ...]]] = {}
    for node in nodes:
        scope = scope_of(node)
        for depth, frame in enumerate(scope.frames if scope is not None else ()):
            assert scope is not None
            stacks.setdefault(frame.path, set()).add(scope.frames[: depth + 1])
    return stacks


def _numbered(
    paths: Mapping[ir.Node, str], frames: _Frames, nodes: Sequence[ir.Node], owners: ParameterOwners
) -> dict[ir.Node, Scope]:
    told = _telling_reads(paths, nodes, owners)
    events = [Event(frames.called(path), kind=node.op_type, reads=told[node]) for node, path in paths.items()]
    root, innermost = call_tree(events, by_reads=True)
    framed = call_frames(root, innermost, {call: call.key for call in root.walk()}, frames.classes)
    doubtful = _doubtful(list(paths), events, root, nodes)
    return {
        node: Scope(tuple(takewhile(lambda frame: frame.path not in doubtful, stack)), Source.PARAMETER)
        for node, (stack, _) in zip(paths, framed, strict=True)
    }


def _telling_reads(
    readers: Iterable[ir.Node], nodes: Sequence[ir.Node], owners: ParameterOwners
) -> dict[ir.Node, tuple[Hashable, ...]]:
    """Of each operation the parameters by which a call of its module is told from the next.

    Exporters keep one of several equal weights without a name, and one of several equal operations on weights alone;
    a constant that they lifted out of the code has another name each time.
    """
    read = {
        node: tuple(
            value
            for value in read_initializers(node)
            if owners.owner(value) is not None and not _LIFTED.search(value.name or "")
        )
        for node in readers
    }
    constant = constant_nodes(nodes)
    times = Counter((node.op_type, values) for node, values in read.items())
    return {
        node: () if node in constant and times[node.op_type, values] == 1 else tuple(value.name for value in values)
        for node, values in read.items()
    }


def _doubtful(readers: Sequence[ir.Node], events: Sequence[Event], root: Call, nodes: Sequence[ir.Node]) -> set[str]:
    """The modules whose calls are not told for certain; what runs in them is known only as far as their caller.

    A module that runs again reads the same parameters again, and does the same with them. Where it does not, another
    module has parameters of it (an encoder and a decoder that share weights) and no name of its own. And a call in
    which what is read first is read again, and most of the rest, may be two that run into each other.
    """
    places = {node: place for place, node in enumerate(nodes)}
    work: dict[str, set[Hashable]] = {}
    found: set[str] = set()
    for call in root.walk():
        reads = [one for index in call.events for one in dict.fromkeys(events[index].reads)]
        counts = Counter(reads)
        if reads and counts[reads[0]] > 1 and 2 * sum(count > 1 for count in counts.values()) > len(counts):
            found.add(call.key)
        span = nodes[places[readers[call.events[0]]] : places[readers[call.events[-1]]] + 1]
        does = tuple(node.op_type for node in span if node.op_type not in _IDLE)
        work.setdefault(call.key, set()).add((frozenset(counts), does))
    return found | {path for path, kinds in work.items() if len(kinds) > 1}


class _Frames:
    """Which of the modules on a path are called."""

    def __init__(self, owners: ParameterOwners, classes: Mapping[str, str] | None) -> None:
        self.classes = owners.paths() if classes is None else classes
        if classes is not None:
            self._containers = {path for path, name in classes.items() if name in _NEVER_CALLED}
        else:
            # Children that are all numbers: a list of modules, or a Sequential that may or may not be called.
            children: dict[str, bool] = {}
            for path in self.classes:
                parent, _, atom = path.rpartition(".")
                children[parent] = children.get(parent, True) and atom.isdecimal()
            self._containers = {path for path, numbers in children.items() if numbers} | owners.uncalled

    def called(self, path: str) -> tuple[str, ...]:
        """The modules on a path that have calls, outermost first, without the root."""
        atoms = path.split(".") if path else []
        prefixes = (".".join(atoms[:end]) for end in range(1, len(atoms) + 1))
        return tuple(prefix for prefix in prefixes if prefix not in self._containers)
