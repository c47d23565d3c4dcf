"""Where the code of a module is: file and line in its ``forward``, as far as the exporter told.

torch's exporter writes on each operation the Python calls that led to it, outermost first::

    File "net.py", line 15, in forward
      for layer in self.layers: x = layer(x)
    File "net.py", line 9, in forward
      return self.act(self.fc(x))

If as many of these are ``forward`` as modules were running, they are those of these modules, one each. Where a module
was called in another way (a hook, ``super().forward``), they are not, and that operation tells nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from modelexport_passes.fast_nodes import metadata_of
from modelexport_passes.outlining.flow import Op
from modelexport_passes.outlining.plan import OutlinePlan
from modelexport_passes.outlining.regions import Region
from modelexport_passes.outlining.sharing import Bodies
from modelexport_passes.scopes.compact import as_text
from modelexport_passes.scopes.ledger import SOURCE_KEY, SOURCES_KEY
from modelexport_passes.scopes.scope import UNKNOWN_CLASS
from modelexport_passes.scopes.source_paths import relative_path
from modelexport_passes.scopes.torch_metadata import frames_from_metadata
from modelexport_passes.scopes.traces import STACK_TRACE, python_frames

Sources = Mapping[tuple[str, str], str]


def find_sources(model: ir.Model, plan: OutlinePlan) -> Sources:
    """Domain and name of each function to make -> ``file:line``, of those where it is known. Before the rewrite.

    What an earlier outlining found for a class counts as well: traces that differ by call are not in shared bodies.
    """
    before = _remembered(model)
    told = any(STACK_TRACE in (metadata or ()) for metadata in map(metadata_of, [op.node for op in plan.ops]))
    found: dict[tuple[str, str], str] = {}
    for function in plan.functions:
        body = function.group.body
        source = (_source(body, plan.bodies) if told else None) or before.get(body.frame.class_name)
        if source:
            found[function.domain, function.name] = source
    return found


def record_sources(model: ir.Model, plan: OutlinePlan, sources: Sources) -> None:
    """Write them on the functions, and on the model for when there are no functions."""
    by_class = _remembered(model)
    for function in plan.functions:
        source = sources.get((function.domain, function.name))
        if source is None:
            continue
        model.functions[function.domain, function.name, ""].metadata_props[SOURCE_KEY] = source
        class_name = function.group.body.frame.class_name
        if class_name != UNKNOWN_CLASS:
            by_class.setdefault(class_name, source)
    if by_class:
        model.metadata_props[SOURCES_KEY] = as_text(by_class)


def _remembered(model: ir.Model) -> dict[str, str]:
    return json.loads(model.metadata_props.get(SOURCES_KEY, "{}"))


def _source(region: Region, bodies: Bodies) -> str | None:
    """What the first operation says that says something; the module's own come first."""
    return next((source for op in _operations(region, bodies) if (source := _line_in(op, region))), None)


def _operations(region: Region, bodies: Bodies) -> Iterator[Op]:
    """Operations of a region, the module's own before those of calls in it."""
    work = [region]
    while work:
        items = bodies.layout[work.pop()]
        yield from (item for item in items if isinstance(item, Op) and item.copy_of is None)
        work.extend(item for item in reversed(items) if isinstance(item, Region))


def _line_in(op: Op, region: Region) -> str | None:
    """Where in the module's ``forward`` an operation was made, directly or by a module that it called."""
    trace = op.node.metadata_props.get(STACK_TRACE)
    module = region.frames
    if trace is None or op.scope is None or op.scope.frames[: len(module)] != module:
        return None
    # Counted from the innermost: the scope may lack a wrapper around the model that was exported.
    at = len(module) - len(op.scope.frames) - 1
    frames = frames_from_metadata(op.node)
    lines = [frame for frame in python_frames(trace) if frame.is_forward]
    if len(lines) != len(frames) or len(frames) < -at or frames[at].class_name != module[-1].class_name:
        return None
    return f"{relative_path(lines[at].file)}:{lines[at].line}"
