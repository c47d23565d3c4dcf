"""The module calls of a model, wherever they stand: in scopes of the main graph, or inside bodies of functions."""

from __future__ import annotations

import difflib
import fnmatch
from collections import defaultdict
from collections.abc import Iterator

import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.scopes.ledger import MODULE_KEY, Call, Ledger, read_ledger
from modelexport_passes.scopes.relative import Frames, to_absolute
from modelexport_passes.scopes.scope import parse_scope, scope_of
from modelexport_passes.scopes.walk import owned_nodes

_SHOWN = 5


def function_of(model: ir.Model, node: ir.Node) -> ir.Function | None:
    """The function that a node calls, if it is that of a module; functions of other makers are operations to us."""
    function = model.functions.get(node.op_identifier())
    return function if function is not None and MODULE_KEY in function.metadata_props else None


def stacks(model: ir.Model) -> Iterator[tuple[Frames, ir.Node, ir.Function | None]]:
    """The absolute frames of every operation and call, each call before what is in it, and the function it calls.

    Visits: main graph, subgraphs, functions of modules at each of their calls. Unknown scopes are left out.
    """
    yield from _in_container(model, model.graph, (), Call(), read_ledger(model))


def _in_container(
    model: ir.Model, container: ir.Graph | ir.Function, module: Frames, differs: Call, ledger: Ledger
) -> Iterator[tuple[Frames, ir.Node, ir.Function | None]]:
    for node in owned_nodes(container):
        own = differs.scopes.get(node.name or "")
        scope = scope_of(node) if own is None else parse_scope(own) if own else None
        if scope is None or (scope.relative and not module):
            continue
        frames = to_absolute(scope.frames, module, differs.bases) if scope.relative else scope.frames
        function = function_of(model, node)
        yield frames, node, function
        if function is not None:
            yield from _in_container(model, function, frames, ledger.call(frames, node), ledger)


def find_call(model: ir.Model, module: str, what: str) -> Frames:
    """The frames of the one module call that is meant.

    Args:
        model: the model.
        module: ``path`` for the first call of a module, ``path@1`` for the second, ...; or a glob over qualified class
            names that a single call fits.
        what: who asks, for errors.

    Raises:
        ModelExportError: no call is meant, or several, or the root.
    """
    calls = {frames[:depth]: None for frames, _, _ in stacks(model) for depth in range(1, len(frames) + 1)}
    if not calls:
        raise ModelExportError(f"{what}: no operation of the model has a scope; run recover-scopes first")
    path = module.removesuffix("@0")
    found = [call for call in calls if str(call[-1]) == path]
    found = found or [call for call in calls if fnmatch.fnmatchcase(call[-1].class_name, module)]
    if not found:
        raise ModelExportError(f"{what}: no module call {module!r}{_near(module, calls)}")
    if len(found) > 1:
        shown = ", ".join(_described(found)) + (", ..." if len(found) > _SHOWN else "")
        raise ModelExportError(f"{what}: {module!r} means {len(found)} module calls; expected one of {shown}")
    if len(found[0]) == 1:
        raise ModelExportError(f"{what}: {module!r} is the root, which is the whole model; expected a module below it")
    return found[0]


def _near(module: str, calls: dict[Frames, None]) -> str:
    """What may have been meant, and what there is to look at."""
    names = [str(call[-1]) for call in calls if len(call) > 1]
    near = difflib.get_close_matches(module, names, n=1)
    below = [name for name in names if name.startswith(f"{module}.")]
    if below:
        return f"; it is never called itself, only modules below it: {', '.join(below[:_SHOWN])}"
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names[:_SHOWN])}, ..."


def _described(found: list[Frames]) -> list[str]:
    """The calls by path; those that share one by their callers too."""
    by_path: dict[str, list[Frames]] = defaultdict(list)
    for call in found:
        by_path[str(call[-1])].append(call)
    return [
        path if len(calls) == 1 else f"{path} in {call[-2] if len(call) > 1 else 'nothing'}"
        for path, calls in by_path.items()
        for call in calls
    ][:_SHOWN]
