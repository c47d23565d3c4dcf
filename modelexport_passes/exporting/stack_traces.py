"""The stack traces that torch's exporter writes on operations: kept, with relative paths, or dropped."""

from __future__ import annotations

import functools
import re
from typing import Literal

import onnx_ir as ir

from modelexport_passes.scopes.source_paths import relative_path_of_code
from modelexport_passes.scopes.traces import STACK_TRACE
from modelexport_passes.scopes.walk import all_nodes

TraceMode = Literal["keep", "relative", "drop"]

_FILE = re.compile(r'(?<=File ")[^"\n]+(?=", line \d)')


def settle_traces(model: ir.Model, mode: TraceMode) -> None:
    """Write the traces of all operations in the form asked for. Visits: main graph, subgraphs, functions.

    Args:
        model: a model that was exported on this machine.
        mode: ``keep`` leaves them as torch wrote them; ``relative`` writes file names as
            `modelexport_passes.scopes.source_paths.relative_path_of_code` does; ``drop`` removes the traces.
    """
    if mode == "keep":
        return
    relative = functools.cache(relative_path_of_code)  # many traces, few files
    for node in all_nodes(model):
        trace = node.metadata_props.get(STACK_TRACE)
        if trace is None:
            continue
        if mode == "drop":
            del node.metadata_props[STACK_TRACE]
        else:
            node.metadata_props[STACK_TRACE] = _FILE.sub(lambda found: relative(found[0]), trace)
