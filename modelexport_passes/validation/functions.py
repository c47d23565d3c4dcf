"""Rules for local functions and the nodes that call them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping

import onnx_ir as ir

from modelexport_passes.fast_nodes import inputs_of
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.validation.problem import Problem
from modelexport_passes.validation.structure import name_of, place_of

MAX_FUNCTIONS = 10_000
"""onnx.checker refuses more."""

MAX_CALL_DEPTH = 100
"""onnx.checker refuses deeper nesting of calls."""

_OPERATOR_DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft"}
)


def check_functions(model: ir.Model) -> list[Problem]:
    """Check functions against the format and what runtimes take; and calls against functions."""
    found: list[Problem] = []
    if len(model.functions) > MAX_FUNCTIONS:
        text = f"{len(model.functions)} functions; the ONNX checker takes at most {MAX_FUNCTIONS}"
        found.append(Problem("function-count", "the model", text))
    for function in model.functions.values():
        found += _imports(model, function)
        found += _outputs(function)
        found += _attributes(function)
    domains = {function.domain for function in model.functions.values()} - _OPERATOR_DOMAINS
    found += _calls(model, domains, model.graph, "the main graph", model.graph.opset_imports)
    for function in model.functions.values():
        found += _calls(model, domains, function.graph, place_of(function), function.opset_imports)
    found += _nesting(model)
    return found


def _imports(model: ir.Model, function: ir.Function) -> Iterator[Problem]:
    where = place_of(function)
    if not function.domain:
        yield Problem("function-domain", where, 'has the domain "", which is that of the ONNX operators')
    elif function.domain not in model.opset_imports:
        yield Problem("function-domain", where, f"the model does not import the domain {function.domain!r}")
    for domain, version in function.opset_imports.items():
        expected = model.opset_imports.get(domain)
        if expected is not None and expected != version:
            # Legal while no operator in the body differs between the two; the checker tells if one does.
            text = f"imports {domain or 'ai.onnx'} {version}, the model {expected}; some inliners refuse that"
            yield Problem("function-opset", where, text, fatal=False)


def _outputs(function: ir.Function) -> Iterator[Problem]:
    where = place_of(function)
    inputs = set(inputs_of(function.graph))
    if not function.outputs:
        yield Problem("function-output", where, "has no output")
    for output in function.outputs:
        if output in inputs:
            text = f"returns its input {output.name!r} unchanged; onnxruntime refuses to load that"
            yield Problem("function-output", where, text)
    counts = Counter(output.name or "" for output in function.outputs)
    for name in sorted(name for name, count in counts.items() if count > 1):
        yield Problem("function-output", where, f"returns {name!r} twice")


def _attributes(function: ir.Function) -> Iterator[Problem]:
    for node in owned_nodes(function):
        for attribute in node.attributes.values():
            if attribute.is_ref() and attribute.ref_attr_name not in function.attributes:
                text = f"{name_of(node)} refers to the attribute {attribute.ref_attr_name!r}, which is not declared"
                yield Problem("function-attribute", place_of(function), text, fatal=False)


def _calls(
    model: ir.Model, domains: Container[str], graph: ir.Graph, where: str, imports: Mapping[str, int]
) -> Iterator[Problem]:
    for node in owned_nodes(graph):
        # onnx_ir has the short name of the default domain on nodes, and in imports the one that the file has.
        if node.domain not in imports and (node.domain or "ai.onnx") not in imports:
            text = f"{name_of(node)} is of the domain {node.domain or 'ai.onnx'!r}, which is not imported here"
            yield Problem("opset-import", where, text)
        function = model.functions.get(node.op_identifier())
        if function is not None:
            yield from _call(node, function, where)
        elif node.domain in domains:
            yield Problem("call", where, f"{name_of(node)} calls a function that {node.domain!r} does not have")


def _call(node: ir.Node, function: ir.Function, where: str) -> Iterator[Problem]:
    if len(node.inputs) > len(function.inputs):
        text = f"{name_of(node)} passes {len(node.inputs)} inputs; {place_of(function)} has {len(function.inputs)}"
        yield Problem("call", where, text)
    if len(node.outputs) > len(function.outputs):
        text = f"{name_of(node)} takes {len(node.outputs)} outputs; {place_of(function)} has {len(function.outputs)}"
        yield Problem("call", where, text)
    if any(not output.name for output in node.outputs):
        text = f"{name_of(node)} leaves an output unnamed; some inliners fail on that"
        yield Problem("call", where, text, fatal=False)
    for name in node.attributes:
        if name not in function.attributes:
            text = f"{name_of(node)} passes the attribute {name!r}, which is not declared"
            yield Problem("call", where, text, fatal=False)


# --- who calls whom --------------------------------------------------------------------------------------------------


def _nesting(model: ir.Model) -> Iterator[Problem]:
    """No function calls itself, no chain of calls is too long, and every function is called."""
    callees = {key: _callees(model, function.graph) for key, function in model.functions.items()}
    depths: dict[ir.OperatorIdentifier, int] = {}
    cycle = _measure(callees, depths)
    if cycle is not None:
        chain = " -> ".join(place_of(model.functions[key]).removeprefix("function ") for key in cycle)
        yield Problem("recursion", place_of(model.functions[cycle[0]]), f"calls itself: {chain}")
        return
    called = _callees(model, model.graph)
    deepest = max((depths[key] for key in called), default=0)
    if deepest > MAX_CALL_DEPTH:
        text = f"calls are nested {deepest} deep; the ONNX checker takes at most {MAX_CALL_DEPTH}"
        yield Problem("call-depth", "the main graph", text)
    reached: set[ir.OperatorIdentifier] = set()
    waiting = list(called)
    while waiting:
        key = waiting.pop()
        if key not in reached:
            reached.add(key)
            waiting.extend(callees[key])
    for key, function in model.functions.items():
        if key not in reached:
            yield Problem("unused-function", place_of(function), "is never called", fatal=False)


def _callees(model: ir.Model, graph: ir.Graph) -> list[ir.OperatorIdentifier]:
    keys = dict.fromkeys(node.op_identifier() for node in owned_nodes(graph))
    return [key for key in keys if key in model.functions]


def _measure(
    callees: Mapping[ir.OperatorIdentifier, list[ir.OperatorIdentifier]], depths: dict[ir.OperatorIdentifier, int]
) -> list[ir.OperatorIdentifier] | None:
    """Fill in how deep the calls below each function go; returns a cycle if there is one. Without recursion."""
    for start in callees:
        stack = [(start, iter(callees[start]))] if start not in depths else []
        open_keys = [start] if stack else []
        while stack:
            key, rest = stack[-1]
            callee = next((callee for callee in rest if callee not in depths), None)
            if callee is None:
                depths[key] = 1 + max((depths[callee] for callee in callees[key]), default=0)
                stack.pop()
                open_keys.pop()
            elif callee in open_keys:
                return [*open_keys[open_keys.index(callee) :], callee]
            else:
                stack.append((callee, iter(callees[callee])))
                open_keys.append(callee)
    return None
