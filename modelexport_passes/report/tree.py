"""The module tree of a model: what each module call holds, seen through functions as if they were inlined."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from modelexport_passes.report.expansion import Frames, operations
from modelexport_passes.scopes.ledger import MODULE_KEY, SOURCE_KEY
from modelexport_passes.scopes.scope import Frame


@dataclass(eq=False)
class ModuleCall:
    """One module call and what it holds.

    Attributes:
        frame: path, class and call index.
        function: the function that it is a call of, ``domain::name``, if it was outlined.
        operations: op type -> number of the module's own operations, without those of the calls below.
        nodes: (op type, name) of these, in order.
        weights: the initializers that they read.
        children: the calls below, by first appearance.
    """

    frame: Frame
    function: str | None = None
    operations: Counter[str] = field(default_factory=Counter[str])
    nodes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    weights: set[ir.Value] = field(default_factory=set[ir.Value])
    children: list[ModuleCall] = field(default_factory=list["ModuleCall"])

    @property
    def own_operations(self) -> int:
        """Number of the module's own operations."""
        return self.operations.total()

    @property
    def total_operations(self) -> int:
        """Number of operations with those of all calls below."""
        return sum(call.own_operations for call in self.walk())

    def all_weights(self) -> set[ir.Value]:
        """The weights read here and below; one that several read is there once."""
        return {weight for call in self.walk() for weight in call.weights}

    def walk(self) -> Iterator[ModuleCall]:
        """This call and all below, each before its own."""
        yield self
        for child in self.children:
            yield from child.walk()

    def to_json(self, *, nodes: bool = False, depth: int | None = None) -> dict[str, Any]:
        """JSON-able; children down to ``depth`` levels below this one (None: all)."""
        weights = self.all_weights()
        values: dict[str, Any] = {
            "path": self.frame.path,
            "class": self.frame.class_name,
            "call": self.frame.call,
            "function": self.function,
            "own_operations": self.own_operations,
            "total_operations": self.total_operations,
            "parameters": parameter_count(weights),
            "parameter_bytes": parameter_bytes(weights),
            "op_types": dict(sorted(self.operations.items())),
        }
        if nodes:
            values["nodes"] = [{"op_type": op_type, "name": name} for op_type, name in self.nodes]
        if depth is None or depth > 0:
            below = None if depth is None else depth - 1
            values["children"] = [child.to_json(nodes=nodes, depth=below) for child in self.children]
        return values


@dataclass(frozen=True)
class FunctionUse:
    """A function and how much it is used.

    Attributes:
        name: ``domain::name``.
        module: qualified class of the module it was made from, if it was.
        nodes: nodes of its body and the bodies inside, calls among them.
        call_sites: nodes that call it, in the main graph and in function bodies.
        calls: how often it runs when the model does (a body of Loop counted once).
        source: where the module's code is, ``file:line``, if it is known.
    """

    name: str
    module: str | None
    nodes: int
    call_sites: int
    calls: int
    source: str | None = None


@dataclass(frozen=True)
class ModuleTree:
    """The modules of a model.

    Attributes:
        roots: usually one.
        unknown: operations whose module is not known, by op type.
        functions: the functions, in the model's order.
    """

    roots: list[ModuleCall]
    unknown: Counter[str]
    functions: list[FunctionUse]

    def to_json(self, *, nodes: bool = False, depth: int | None = None) -> dict[str, Any]:
        """JSON-able."""
        return {
            "modules": [root.to_json(nodes=nodes, depth=depth) for root in self.roots],
            "unknown_operations": dict(sorted(self.unknown.items())),
            "functions": [vars(function) for function in self.functions],
        }


def module_tree(model: ir.Model) -> ModuleTree:
    """Build the module tree of a flat, outlined or partly outlined model."""
    modules: dict[Frames, ModuleCall] = {}
    roots: list[ModuleCall] = []
    unknown: Counter[str] = Counter()
    calls: Counter[ir.OperatorIdentifier] = Counter()
    sites: dict[ir.OperatorIdentifier, set[ir.Node]] = {}
    for operation in operations(model):
        callee = operation.callee
        if callee is not None:
            calls[callee.identifier()] += 1
            sites.setdefault(callee.identifier(), set()).add(operation.node)
        if not operation.frames:
            if callee is None:
                unknown[operation.node.op_type] += 1
            continue
        module = _module(operation.frames, modules, roots)
        if callee is None:
            module.operations[operation.node.op_type] += 1
            module.nodes.append((operation.node.op_type, operation.node.name or ""))
            module.weights.update(operation.weights)
        elif MODULE_KEY in callee.metadata_props:
            module.function = f"{callee.domain}::{callee.name}"
    functions = [
        FunctionUse(
            name=f"{function.domain}::{function.name}",
            module=function.metadata_props.get(MODULE_KEY),
            nodes=sum(1 for _ in function.all_nodes()),
            call_sites=len(sites.get(key, ())),
            calls=calls[key],
            source=function.metadata_props.get(SOURCE_KEY),
        )
        for key, function in model.functions.items()
    ]
    return ModuleTree(roots, unknown, functions)


def _module(frames: Frames, modules: dict[Frames, ModuleCall], roots: list[ModuleCall]) -> ModuleCall:
    found = modules.get(frames)
    if found is None:
        found = modules[frames] = ModuleCall(frames[-1])
        siblings = _module(frames[:-1], modules, roots).children if len(frames) > 1 else roots
        siblings.append(found)
    return found


def parameter_count(weights: set[ir.Value]) -> int:
    """Elements of these weights together."""
    return sum(math.prod(weight.const_value.shape.numpy()) for weight in weights if weight.const_value is not None)


def parameter_bytes(weights: set[ir.Value]) -> int:
    """Bytes of these weights together; text counts nothing."""
    tensors = [weight.const_value for weight in weights]
    return sum(t.nbytes for t in tensors if t is not None and t.dtype is not ir.DataType.STRING)
