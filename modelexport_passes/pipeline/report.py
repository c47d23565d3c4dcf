"""The report of a run: what came in, what each step did and took, what went out. Plain data, for JSON."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import platform
from dataclasses import dataclass, field
from typing import Any, cast

import onnx_ir as ir

from modelexport_passes.pass_base import Figure

SCHEMA = 1
"""Version of the report's form."""

_TOOLS = ("modelexport-passes", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "torch")


@dataclass(frozen=True)
class Counts:
    """How much there is of a model.

    Attributes:
        nodes: operations of the main graph and its subgraphs; a call of a function is one.
        function_nodes: operations in function bodies and their subgraphs, each body once.
        functions: local functions.
        initializers: of the main graph and its subgraphs.
    """

    nodes: int
    function_nodes: int
    functions: int
    initializers: int


def count(model: ir.Model) -> Counts:
    """Count a model."""
    graphs = [model.graph, *model.graph.subgraphs()]
    bodies = [function.graph for function in model.functions.values()]
    bodies += [graph for body in bodies for graph in body.subgraphs()]
    return Counts(
        nodes=sum(len(graph) for graph in graphs),
        function_nodes=sum(len(body) for body in bodies),
        functions=len(model.functions),
        initializers=sum(len(graph.initializers) for graph in graphs),
    )


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        id: the step's id.
        pass_name: the pass.
        options: its options as given.
        seconds: wall-clock time of the pass, without the verification after it.
        modified: whether the pass says that it changed the model.
        before: counts before it.
        after: counts after it.
        verified: ``structure`` if the model was checked after it, else ``none``.
        figures: what the pass counted.
        notes: what the pass wants a person to know.
    """

    id: str
    pass_name: str
    options: dict[str, Any]
    seconds: float
    modified: bool
    before: Counts
    after: Counts
    verified: str = "none"
    figures: dict[str, Figure] = field(default_factory=dict[str, Figure])
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class InputReport:
    """Where the model came from.

    Attributes:
        kind: ``file``, ``export`` or ``memory``.
        source: the path or the factory; what object it was for ``memory``.
        seconds: time to load or export it.
        counts: what came in.
        exporter: torch's exporter, for an exported model.
        notes: such as why another exporter was taken.
    """

    kind: str
    source: str
    seconds: float
    counts: Counts
    exporter: str | None = None
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class OutputReport:
    """What was written: the file, its size in bytes, its SHA-256. External data is beside it.

    Attributes:
        nodes: how many the file holds, those of function bodies once.
        tags: tag key -> how many of them carry it, counted in the file.
    """

    path: str
    bytes: int
    sha256: str
    seconds: float
    nodes: int = 0
    tags: dict[str, int] = field(default_factory=dict[str, int])


def tool_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that matter here."""
    versions = {"python": platform.python_version()}
    installed = {name: _version(name) for name in _TOOLS}
    return versions | {name: version for name, version in installed.items() if version is not None}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass
class RunReport:
    """A run of a pipeline.

    Attributes:
        input: what came in.
        steps: what each step did, in the order of running.
        output: what was written, if anything was.
        pipeline: the pipeline file, if there was one.
        seconds: wall-clock time of all of it.
        tools: versions of what ran.
        schema: version of this form.
    """

    input: InputReport
    steps: list[StepReport] = field(default_factory=list[StepReport])
    output: OutputReport | None = None
    pipeline: str | None = None
    seconds: float = 0.0
    tools: dict[str, str] = field(default_factory=tool_versions)
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-able values; ``schema`` first, and the keys in a fixed order."""
        values: dict[str, Any] = _jsonable(dataclasses.asdict(self))
        order = ("schema", "pipeline", "tools", "input", "steps", "output", "seconds")
        return {key: values[key] for key in order}


def _jsonable(value: Any) -> Any:
    """JSON has no infinities and no NaN: those become text."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in cast("list[Any]", value)]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
