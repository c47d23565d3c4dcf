"""What two or more forms of a model have in common and what not: plain, modules as functions, some modules, ..."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from modelexport_passes.exporting.weights import initializers
from modelexport_passes.report.expansion import operations
from modelexport_passes.report.tree import parameter_bytes, parameter_count
from modelexport_passes.scopes.tags import tag_templates
from modelexport_passes.scopes.walk import all_nodes


@dataclass(frozen=True)
class ModelFacts:
    """What is counted of a model.

    Attributes:
        name: how to call it.
        main_nodes: nodes of the main graph, without bodies of If, Loop and Scan.
        stored_nodes: nodes of the main graph, subgraphs and functions, each body once.
        expanded_nodes: operations when all functions are inlined; equal in all forms of one model.
        functions: local functions.
        call_sites: nodes that call one.
        initializers: number of weights.
        parameters: their elements.
        parameter_bytes: their bytes.
        tagged: nodes with all the tags the model is said to carry.
        scoped: nodes with a scope.
        op_types: op type -> operations when all functions are inlined.
        inputs: ``name: type[shape]`` of each graph input without a default.
        outputs: the same of each graph output.
        opsets: domain -> version.
    """

    name: str
    main_nodes: int
    stored_nodes: int
    expanded_nodes: int
    functions: int
    call_sites: int
    initializers: int
    parameters: int
    parameter_bytes: int
    tagged: int
    scoped: int
    op_types: dict[str, int]
    inputs: list[str]
    outputs: list[str]
    opsets: dict[str, int]


def facts_of(model: ir.Model, name: str) -> ModelFacts:
    """Count a model."""
    weights = set(initializers(model))
    nodes = list(all_nodes(model))
    tags = tag_templates(model)
    expanded: Counter[str] = Counter()
    scoped = 0
    for operation in operations(model):
        if operation.callee is None:
            expanded[_op_type(operation.node)] += 1
            scoped += operation.frames is not None
    return ModelFacts(
        name=name,
        main_nodes=len(model.graph),
        stored_nodes=len(nodes),
        expanded_nodes=expanded.total(),
        functions=len(model.functions),
        call_sites=sum(1 for node in nodes if node.op_identifier() in model.functions),
        initializers=len(weights),
        parameters=parameter_count(weights),
        parameter_bytes=parameter_bytes(weights),
        tagged=sum(1 for node in nodes if tags and all(key in node.metadata_props for key in tags)),
        scoped=scoped,
        op_types=dict(sorted(expanded.items())),
        inputs=[_describe(value) for value in model.graph.inputs if value.name not in model.graph.initializers],
        outputs=[_describe(value) for value in model.graph.outputs],
        opsets=dict(sorted(model.opset_imports.items())),
    )


def _op_type(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _describe(value: ir.Value) -> str:
    dims = (
        "?" if value.shape is None else ", ".join(str(d if isinstance(d, int) else d.value or "?") for d in value.shape)
    )
    return f"{value.name}: {value.dtype.name.lower() if value.dtype else '?'}[{dims}]"


@dataclass(frozen=True)
class ModelDiff:
    """Models side by side; all are compared with the first.

    Attributes:
        models: the facts, in the order given.
    """

    models: Sequence[ModelFacts]

    @property
    def op_types(self) -> dict[str, list[int]]:
        """Op types whose number is not the same everywhere -> the number in each model."""
        names = sorted({name for facts in self.models for name in facts.op_types})
        rows = {name: [facts.op_types.get(name, 0) for facts in self.models] for name in names}
        return {name: row for name, row in rows.items() if len(set(row)) > 1}

    @property
    def reductions(self) -> list[float]:
        """By how many per cent each main graph is smaller than the first's; 0 for an empty one."""
        first = self.models[0].main_nodes
        return [100.0 * (first - facts.main_nodes) / first if first else 0.0 for facts in self.models]

    @property
    def same_interface(self) -> list[bool]:
        """Whether each model has the inputs and outputs of the first."""
        first = self.models[0]
        return [(facts.inputs, facts.outputs) == (first.inputs, first.outputs) for facts in self.models]

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        rows = zip(self.models, self.reductions, self.same_interface, strict=True)
        return {
            "models": [
                vars(facts) | {"main_graph_reduction_percent": round(reduction, 2), "same_interface": same}
                for facts, reduction, same in rows
            ],
            "different_op_types": self.op_types,
        }


def diff_models(models: Sequence[tuple[str, ir.Model]]) -> ModelDiff:
    """Compare models, given with a name for each."""
    return ModelDiff([facts_of(model, name) for name, model in models])
