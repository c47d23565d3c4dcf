"""Inlining: calls of local functions are replaced by what the functions do, and scopes are recomposed."""

from __future__ import annotations

import graphlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from modelexport_passes.default_domain import name_default_domain
from modelexport_passes.errors import ModelExportError
from modelexport_passes.fast_nodes import insert_nodes, remove_node
from modelexport_passes.inlining.inside import record_differences, scopes_at_calls
from modelexport_passes.inlining.instantiate import Instantiation
from modelexport_passes.inlining.originals import Originals
from modelexport_passes.inlining.results import Results
from modelexport_passes.inlining.site import Instance, Site
from modelexport_passes.scopes.ledger import STANDS_IN_KEY, Ledger, read_ledger, write_ledger
from modelexport_passes.scopes.scope import Scope, Source, scope_of, set_scope
from modelexport_passes.scopes.tags import retag, tag_templates
from modelexport_passes.scopes.walk import all_nodes, owned_nodes, subgraphs_of
from modelexport_passes.unique_names import Names

Selected = Callable[[ir.Function], bool]


@dataclass
class Inlined:
    """What inlining did.

    Attributes:
        calls: number of calls written out, those inside of others included.
        functions: identifiers of the functions that went.
    """

    calls: int = 0
    functions: list[ir.OperatorIdentifier] = field(default_factory=list[ir.OperatorIdentifier])


def inline(model: ir.Model, selected: Selected, wanted: Callable[[Scope | None], bool] | None = None) -> Inlined:
    """Replace the calls of the selected functions, and remove those functions that nothing calls any more.

    Tags follow the scopes.

    Args:
        model: changed in place.
        selected: tells which functions.
        wanted: tells by its absolute scope which calls of them; all if None. A call in a function that stays has no
            absolute scope: it stays unless all do not.

    Raises:
        ModelExportError: functions call each other in a circle, or a function needs another version of an opset.
    """
    chosen = {key: function for key, function in model.functions.items() if selected(function)}
    if not chosen:
        return Inlined()
    check_no_recursion(model)
    name_default_domain(model)
    _merge_opsets(model, chosen.values())
    ledger = read_ledger(model)
    some_stay = bool(ledger.calls) and len(chosen) < len(model.functions) and wanted is None
    before = scopes_at_calls(model, ledger, chosen) if some_stay else {}
    instantiation = Instantiation(chosen, ledger, tag_templates(model), wanted)
    domains = instantiation.domains_of(model.graph)
    names = Names(_value_names(model.graph))
    originals = Originals(model.graph, ledger, names)
    site = Site(names, Names(_node_names(model.graph)), originals, inside=False)
    _inline_in(model.graph, instantiation, site)
    if any(call.idle for call in ledger.calls.values()):
        site.stand_ins += [node for node in model.graph if STANDS_IN_KEY in node.metadata_props]
    _drop_unused(model.graph, site.stand_ins)
    if originals.reused and not originals.in_order():
        originals.move_to_front()
    for key, function in model.functions.items():
        if key not in chosen and wanted is None:
            inner = Names(_value_names(function.graph))
            place = Site(inner, Names(_node_names(function.graph)), None, inside=True)
            _inline_in(function.graph, instantiation, place)
            for domain in {node.domain for node in owned_nodes(function)}:
                function.opset_imports.setdefault(domain, model.opset_imports.get(domain, 1))
    # Without a choice among calls, none is left of any function that was chosen.
    called = _called(model) if wanted is not None else set[ir.OperatorIdentifier]()
    gone = [key for key in chosen if key not in called]
    for key in gone:
        del model.functions[key]
    if some_stay:
        record_differences(model, ledger, before)
    _tidy(model, {domain for domain, _, _ in gone} - domains - instantiation.domains(), ledger)
    return Inlined(instantiation.calls, gone)


def _called(model: ir.Model) -> set[ir.OperatorIdentifier]:
    """Functions that the main graph calls, directly or through others."""
    found: set[ir.OperatorIdentifier] = set()
    work = list(owned_nodes(model.graph))
    while work:
        key = work.pop().op_identifier()
        if key in model.functions and key not in found:
            found.add(key)
            work.extend(owned_nodes(model.functions[key]))
    return found


def count_calls(model: ir.Model) -> Counter[ir.OperatorIdentifier]:
    """How many nodes call each function, in the main graph, subgraphs and functions."""
    return Counter(key for node in all_nodes(model) if (key := node.op_identifier()) in model.functions)


def check_no_recursion(model: ir.Model) -> None:
    """Refuse functions that call themselves, directly or not.

    Raises:
        ModelExportError: naming the circle.
    """
    calls = {
        key: {node.op_identifier() for node in owned_nodes(function)} & model.functions.keys()
        for key, function in model.functions.items()
    }
    try:
        graphlib.TopologicalSorter(calls).prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(f"{domain}::{name}" for domain, name, _ in error.args[1])
        raise ModelExportError(f"inline: functions call each other in a circle: {circle}") from error


def _merge_opsets(model: ir.Model, functions: Iterable[ir.Function]) -> None:
    imports = model.graph.opset_imports
    for function in functions:
        for domain, version in function.opset_imports.items():
            if imports.setdefault(domain, version) != version:
                raise ModelExportError(
                    f"inline: function {function.domain}::{function.name} uses opset {version} of domain {domain!r}, "
                    f"the model {imports[domain]}; convert one of them first"
                )


def _drop_unused(graph: ir.Graph, stand_ins: Sequence[ir.Node]) -> None:
    """Where the constants are back, nothing reads what computed them; what calls that stay need is marked."""
    for node in reversed(stand_ins):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            remove_node(graph, node)
        else:
            node.metadata_props[STANDS_IN_KEY] = "1"


def _value_names(graph: ir.Graph) -> Iterable[str]:
    yield from (str(value.name) for value in (*graph.inputs, *graph.initializers.values()))
    for node in graph:
        yield from (str(value.name) for value in node.outputs)
        for inner in subgraphs_of(node):
            yield from _value_names(inner)


def _node_names(graph: ir.Graph) -> Iterable[str]:
    return (node.name for node in owned_nodes(graph) if node.name)


def _inline_in(graph: ir.Graph, instantiation: Instantiation, site: Site) -> None:
    """Replace the calls directly in a graph, and in the bodies that its nodes own."""
    results = Results(graph)
    for node in list(graph):
        if node.op_identifier() in instantiation.functions and instantiation.wants(scope_of(node)):
            results.arrive(node)
            insert_nodes(graph, _written_out(node, instantiation, site, results), before=node)
            results.leave(node)
            continue
        for inner in subgraphs_of(node):
            _inline_in(inner, instantiation, Site(site.names, site.node_names, None, site.inside))
    results.settle()


def _written_out(node: ir.Node, instantiation: Instantiation, site: Site, results: Results) -> list[ir.Node]:
    names = [value.name for value in node.outputs]
    outputs_of_graph = {value for value in node.outputs if value.is_graph_output()}
    instance = instantiation.call(
        node,
        node.op_identifier(),
        node.inputs,
        node.attributes,
        site,
        scope=scope_of(node),
        result_names=names,
        prefix=node.name or node.op_type,
    )
    nodes = list(instance.nodes)
    for at, old in enumerate(node.outputs):
        new = _result_value(at, old, instance, nodes, outputs_of_graph, node)
        if new is not None:
            results.replace(old, new)
    retag(nodes[len(instance.nodes) :], instantiation.tags)
    return nodes


def _result_value(
    at: int, old: ir.Value, instance: Instance, nodes: list[ir.Node], outputs: set[ir.Value], call: ir.Node
) -> ir.Value | None:
    """The value that takes an output's place. An output of the graph keeps its name, by an Identity if need be."""
    new = instance.outputs[at] if at < len(instance.outputs) else None
    if new is None:
        if old.uses() or old in outputs:
            raise ModelExportError(
                f"inline: output {old.name!r} of call {call.name!r} is used, and the function returns nothing for it"
            )
        return None
    producer = new.producer()
    made_here = producer is not None and producer.graph is None  # it is about to be put where the call stands
    if made_here and new.name == old.name:
        new.type, new.shape = old.type or new.type, old.shape if old.shape is not None else new.shape
        return new
    if old not in outputs:
        return new
    identity = ir.Node("", "Identity", [new], name=f"{call.name or call.op_type}/{old.name}")
    identity.outputs[0].name, identity.outputs[0].type, identity.outputs[0].shape = old.name, old.type, old.shape
    scope = scope_of(call)
    set_scope(identity, scope.with_source(Source.INHERITED) if scope is not None else None)
    nodes.append(identity)
    return identity.outputs[0]


def _tidy(model: ir.Model, unused: set[str], ledger: Ledger) -> None:
    """Domains that the main graph uses no more go where no function uses them, and so does an empty ledger."""
    for function in model.functions.values():
        unused -= {function.domain, *(node.domain for node in owned_nodes(function))}
    for domain in unused:
        model.opset_imports.pop(domain, None)
        for function in model.functions.values():
            function.opset_imports.pop(domain, None)
    if not model.functions:
        ledger = Ledger()
    write_ledger(model, ledger)
