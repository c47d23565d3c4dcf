"""Scopes from the metadata that torch's dynamo exporter writes on nodes.

``pkg.torch.onnx.name_scopes`` and ``pkg.torch.onnx.class_hierarchy`` are Python ``repr`` of two parallel lists, root
first. Their last entry is the fx node and its operator, not a module. Fewer than two names mean "no module stack",
which is not the root: the root is ``['', 'add']``. The file does not tell calls of one module apart; the order of
operations does (`modelexport_passes.scopes.calls`).
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.scopes.builder_metadata import frames_from_builder
from modelexport_passes.scopes.calls import Call, Event, call_frames, call_tree
from modelexport_passes.scopes.class_names import readable_class_name
from modelexport_passes.scopes.dropped_calls import dropped_calls
from modelexport_passes.scopes.fusions import RULE_NAME, frames_of_owner, fused_kernel, keep_origins
from modelexport_passes.scopes.merged_calls import merged_calls
from modelexport_passes.scopes.parameters import ParameterOwners, literal_list
from modelexport_passes.scopes.scope import Frame, Scope, Source, by_identity
from modelexport_passes.scopes.traces import STACK_TRACE, Traces

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
CLASS_HIERARCHY = "pkg.torch.onnx.class_hierarchy"
_STRICT_ROOT = "_export_root"
NO_STACK = "_empty_nn_module_stack_from_metadata_hook"
"""What torch puts in the place of the modules of an operation that it made itself, before any module ran."""


def module_path(path: str) -> str:
    """A path without the prefix that ``torch.export(strict=True)`` puts before the model."""
    if path == _STRICT_ROOT:
        return ""
    return path.removeprefix(_STRICT_ROOT + ".")


def fx_node_name(node: ir.Node) -> str | None:
    """The fx node that this node was translated from, if the exporter says so."""
    text = node.metadata_props.get(NAME_SCOPES)
    return None if text is None else _last(text)


def _last(text: str) -> str | None:
    """The last item of a list."""
    if text.endswith("']") and '"' not in text and "\\" not in text:
        return text[text.rfind("'", 0, -2) + 1 : -2]  # the usual, in a tenth of the time
    items = literal_list(text)
    return items[-1] if items else None


class _Told(NamedTuple):
    """The operations whose metadata tells their modules, in order: parallel lists, for there are very many.

    Attributes:
        nodes: the operations.
        frames: the modules that each is told.
        names: the fx node that each was made from.
        more: positions of those that are told more than that: by which rule they were made, or a stack trace.
    """

    nodes: list[ir.Node]
    frames: list[tuple[Frame, ...]]
    names: list[str | None]
    more: list[int]


def scopes_from_metadata(nodes: Iterable[ir.Node], owners: ParameterOwners) -> dict[ir.Node, Scope]:
    """The scope of each node whose metadata tells its modules, calls numbered in the order of the graph."""
    told = _told(nodes)
    if not told.nodes:
        return {}
    norms: dict[ir.Node, tuple[Frame, ...]] = {}
    for at in told.more:
        node = told.nodes[at]
        owner = _kernel_owner(node, owners)
        if owner is not None:
            norms[node] = told.frames[at]
            told.frames[at] = frames_of_owner(told.frames[at], owner)
    # The last one that names a path decides, should two name other classes of it.
    stacks = [*by_identity(reversed(told.frames)).values()][::-1]
    classes = {frame.path: frame.class_name for frames in stacks for frame in frames}
    events = _events(told, owners)
    root, innermost = call_tree(events)
    paths = _paths(root, events)
    classes |= {path: classes[call.key] for call, path in paths.items() if path not in classes}
    dropped = dropped_calls(root, _names(told, root, events)) | merged_calls(told.nodes, innermost, root, paths)
    framed = call_frames(root, innermost, paths, classes, dropped)
    # One object for all operations of a call: 100 000 operations have a few hundred.
    shared = {
        key: Scope(frames, Source.DATAFLOW if concluded else Source.METADATA)
        for key, (frames, concluded) in by_identity(framed).items()
    }
    scopes = dict(zip(told.nodes, [shared[id(key)] for key in framed], strict=True))
    for node, norm in norms.items():
        scopes[node] = scopes[node].with_source(max(scopes[node].source, Source.PARAMETER, key=lambda s: s.rank))
        keep_origins(node, scopes[node], Scope(norm, Source.METADATA))
    return scopes


def _told(nodes: Iterable[ir.Node]) -> _Told:
    """What the metadata on each node tells of its modules, where it tells any."""
    told = _Told([], [], [], [])
    # What follows each other is mostly made of one fx node, and says the same: it is read once.
    before_names: str | None = None
    before_classes: str | None = None
    name: str | None = None
    frames: tuple[Frame, ...] = ()
    for node in nodes:
        metadata = node.metadata_props
        names, classes = metadata.get(NAME_SCOPES), metadata.get(CLASS_HIERARCHY)
        if names != before_names or classes != before_classes:
            before_names, before_classes = names, classes
            frames = _frames_from(names, classes)
            name = None if names is None else _last(names)
        found = frames or frames_from_builder(node)
        if not found:
            continue
        if len(metadata) > 2 and (STACK_TRACE in metadata or RULE_NAME in metadata):
            told.more.append(len(told.nodes))
        told.nodes.append(node)
        told.frames.append(found)
        told.names.append(name)
    return told


def _names(told: _Told, root: Call, events: Sequence[Event]) -> list[str | None]:
    """The fx nodes that operations were made from, without those of constants that may be of an earlier call.

    Exporters keep one of equal constants, where it was made first: one that stands before all else of a call may have
    been made in a call that is gone.
    """
    names = list(told.names)
    for call in root.walk():
        early = list(itertools.takewhile(lambda index: not events[index].ends, call.events))
        for index in early if len(early) < len(call.events) else ():
            names[index] = None
    return names


def _events(told: _Told, owners: ParameterOwners) -> list[Event]:
    read = [owners.read(node) for node in told.nodes]
    readers = Counter(map(owners.parameter, itertools.chain.from_iterable(read)))
    events: list[Event] = []
    before: tuple[Frame, ...] = ()
    chain: tuple[str, ...] = ()
    alike: dict[str, Event] = {}  # one for all that tell nothing but their module and operator
    traces = Traces()
    more = frozenset(told.more)
    for at, (node, frames, reads) in enumerate(zip(told.nodes, told.frames, read, strict=True)):
        if frames is not before:
            before, chain, alike = frames, tuple([frame.path for frame in frames[1:]]), {}
        kind = node.op_type
        own_event = reads or at in more
        event = None if own_event else alike.get(kind)
        if event is None:
            event = Event(chain, kind=kind, ends=kind != "Constant")
            if reads:
                event.reads = tuple([value.name for value in reads])
                # A parameter that several read may be tied, or one that the optimizer kept for all that are equal.
                alone = [value for value in reads if readers[owners.parameter(value)] == 1]
                own = [owner for value in alone if (owner := owners.owner(value)) is not None]
                event.hints = tuple([_hint(own, path) for path in chain]) if own else ()
            if at in more:
                event.places = traces.places(_trace(node), len(frames))
            if not own_event:
                alike[kind] = event
        events.append(event)
    return events


def _trace(node: ir.Node) -> str | None:
    metadata = node.metadata_props
    # What was made of several operations has the trace of one of them, which may be another module's.
    return None if RULE_NAME in metadata else metadata.get(STACK_TRACE)


def _hint(owners: Sequence[str], path: str) -> str | None:
    """The module that the owners lie in, where it is ``path`` or differs from it in numbers only."""
    below = f"{path}."
    if all(owner == path or owner.startswith(below) for owner in owners):
        return path
    atoms = path.split(".")
    found: set[str] = set()
    for owner in owners:
        prefix = owner.split(".")[: len(atoms)]
        if len(prefix) == len(atoms) and all(
            a == b or (a.isdecimal() and b.isdecimal()) for a, b in zip(prefix, atoms, strict=True)
        ):
            found.add(".".join(prefix))
    return found.pop() if len(found) == 1 else None


def _paths(root: Call, events: Sequence[Event]) -> dict[Call, str]:
    """The path of each call: as the metadata says, but where all parameters read in it are of another item of its list.

    A region that is compiled once is labelled with its first use by ``torch.export(strict=True)``.
    """
    paths = {root: ""}
    depths = {root: 0}
    for call in root.walk():
        assert call.parent is not None
        depths[call] = depth = depths[call.parent] + 1
        before, after = call.parent.key, paths[call.parent]
        inside = call.key.startswith(f"{before}.") and before != after
        path = after + call.key[len(before) :] if inside else call.key
        hints = {events[index].hints[depth - 1] for index in call.events if len(events[index].hints) >= depth} - {None}
        paths[call] = hints.pop() or path if len(hints) == 1 else path
    return paths


def _kernel_owner(node: ir.Node, owners: ParameterOwners) -> str | None:
    kernel = fused_kernel(node)
    return None if kernel is None else owners.owner(kernel)


def frames_from_metadata(node: ir.Node) -> tuple[Frame, ...]:
    """The modules that torch's metadata on the node tells, root first, each with call 0. Empty if none are told."""
    metadata = node.metadata_props
    return _frames_from(metadata.get(NAME_SCOPES), metadata.get(CLASS_HIERARCHY))


def _frames_from(names: str | None, classes: str | None) -> tuple[Frame, ...]:
    # Names end in the operation's own: each is another text. Classes are not: few have to be looked at.
    return () if names is None or classes is None else _frames(_head(names), _class_head(classes))


@functools.lru_cache(maxsize=16384)
def _frames(names: str, classes: str) -> tuple[Frame, ...]:
    paths = _read_list(names)
    class_names = _read_list(classes)
    if len(paths) != len(class_names) or NO_STACK in paths:
        return ()
    named = zip(paths, map(readable_class_name, class_names), strict=True)
    return one_root(tuple(Frame(module_path(path), name) for path, name in named))


def one_root(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """The stack with the root once, and first.

    A compiled region of a strict export has it as ``''`` and ``_export_root``. A `torch.fx.GraphModule` that torch
    exports runs no call of its own, so its stacks begin with the first module that it calls.
    """
    if frames and frames[0].path:
        return (Frame(""), *frames)
    return frames[1:] if len(frames) > 1 and not frames[1].path else frames


def _head(text: str) -> str:
    """The list's text without its last item: the same for all operations of a module call."""
    cut = text.rfind("', '")
    if cut < 0 or '"' in text or "\\" in text:
        return repr(literal_list(text)[:-1])
    return f"{text[:cut]}']"


_class_head = functools.lru_cache(maxsize=16384)(_head)


def _read_list(text: str) -> list[str]:
    return [] if text == "[]" else literal_list(text)
