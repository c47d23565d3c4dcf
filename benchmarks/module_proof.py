"""How many module calls of real architectures the proof of scopes proves, and how many wrong scopes it finds.

    python -m benchmarks.module_proof                                  # the bundled sample, both exporters
    python -m benchmarks.module_proof --archs bert,t5 --wrong 25       # and 25 wrong scopes of each kind, on purpose
    python -m benchmarks.module_proof --zoo PATH --keep DIR

A line per model: calls by verdict, calls with values that cross an edge unasked, seconds. With ``--wrong``: of scopes
that were made wrong, how many turned a verdict or an edge.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

import modelexport_passes as mx
from benchmarks.apart import apart
from benchmarks.attribution_truth import KINDS
from benchmarks.exports import Home, add_options, chosen_cases, home_of, recorded
from benchmarks.referee import Referee, referee
from modelexport_passes.scopes.scope import Scope
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.validation.module_regions import Regions
from modelexport_passes.validation.module_verdicts import COMPARABLE, SHOWN_BY_NUMBERS, ModuleProof, Verdict
from tests.zoo import ZooCase

Change = list[tuple[ir.Node, Scope]]


def main() -> None:
    """Prove each model, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, limit=900)
    parser.add_argument("--wrong", type=int, default=0, help="wrong scopes to try, of each kind and model")
    options = parser.parse_args()
    totals: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    wrong: Counter[tuple[str, str]] = Counter()
    home = home_of(options)
    for case in chosen_cases(options):
        try:
            answer = apart(lambda: measure_case(case, home, options.wrong), options.limit)  # noqa: B023
        except RuntimeError as error:
            answer = {"lines": [f"{case.arch}: {error}"], "counts": {}, "wrong": []}
        print(*answer["lines"], sep="\n", flush=True)
        for kind, counts in answer["counts"].items():
            totals[kind].update(counts)
        for name, what, count in answer["wrong"]:
            wrong[name, what] += count
    for kind, counts in totals.items():
        compared = sum(counts[verdict] for verdict in COMPARABLE) or 1
        share = sum(counts[verdict] for verdict in SHOWN_BY_NUMBERS) / compared
        print(f"{kind}: {dict(counts)}; {share:.2%} of {compared} proven")
    for kind in sorted({kind for kind, _ in wrong}):
        print(f"{kind}: {wrong[kind, 'found']} of {wrong[kind, 'tried']} found")


def measure_case(case: ZooCase, home: Home, tries: int) -> dict[str, Any]:
    """The lines about one case, its verdicts by kind of export, and how many wrong scopes were tried and found."""
    found = home.exports(case)
    lines = [f"{case.arch} {exporter}: {text}" for exporter, text in found.failures.items()]
    counts: dict[str, dict[str, int]] = {}
    wrong: Counter[tuple[str, str]] = Counter()
    with referee(case, found.models) as judge:
        for kind, proto in found.models.items():
            started = time.perf_counter()
            model = recorded(proto, kind, case)
            try:
                proof = judge.judge(kind, _scopes(model))
            except mx.VerificationError as error:
                lines.append(f"{case.arch} {kind}: {error}")
                continue
            seconds = time.perf_counter() - started
            counts[kind] = proof.counts
            lines.append(f"{seconds:6.2f} s  {case.arch} {kind}: {proof.counts}, edges {len(proof.leaking)}")
            lines += [f"    {one.verdict}: {one}" for one in proof.of(Verdict.DIFFERENT, Verdict.NOT_FOUND)]
            wrong += _found(judge, kind, model, faults(proof), tries)
    return {"lines": lines, "counts": counts, "wrong": [(*key, count) for key, count in wrong.items()]}


def _scopes(model: ir.Model) -> list[Scope | None]:
    return [mx.scope_of(node) for node in owned_nodes(model.graph)]


def _found(
    judge: Referee, kind: str, model: ir.Model, right: set[tuple[str, str]], tries: int
) -> Counter[tuple[str, str]]:
    """How many of so many wrong scopes are found. The model is computed once."""
    found: Counter[tuple[str, str]] = Counter()
    places = {node: place for place, node in enumerate(owned_nodes(model.graph))}
    scopes = _scopes(model)
    for name, changes in wrong_scopes(model, tries):
        changed = list(scopes)
        for node, scope in changes:
            changed[places[node]] = scope
        found[name, "tried"] += 1
        found[name, "found"] += bool(faults(judge.judge(kind, changed)) - right)
    return found


def faults(proof: ModuleProof) -> set[tuple[str, str]]:
    """What ``edges: error`` would list."""
    different = {(one.call, "") for one in proof.of(Verdict.DIFFERENT)}
    return different | {(one.call, leak) for one in proof.leaking for leak in one.leaks}


def wrong_scopes(model: ir.Model, tries: int) -> Iterator[tuple[str, Change]]:
    """Changes of scopes that are each wrong, in operations that depend on an input."""
    varying = Regions.of(model).varying
    dependent = [node for node in model.graph if not varying.isdisjoint(node.outputs)]
    scopes = {node: scope for node in dependent if (scope := mx.scope_of(node))}
    nodes, rng = list(scopes), random.Random(0)
    for _ in range(tries):
        node, other = rng.sample(nodes, 2)
        own, its = scopes[node], scopes[other]
        if len(own.frames) > 1:
            yield "one operation given to the caller", [(node, Scope(own.frames[:-1]))]
        if own == its:
            continue
        yield "one operation given to another call", [(node, its)]
        yield "two operations exchanged", [(node, its), (other, own)]
        first = [(one, its) for one in nodes if scopes[one] == own]
        yield "the operations of two calls exchanged", first + [(one, own) for one in nodes if scopes[one] == its]
        beside = [usage.node for value in node.outputs for usage in value.uses()]
        beside += [producer for value in node.inputs if value is not None and (producer := value.producer())]
        neighbours = [one for one in beside if one in scopes and scopes[one] != own]
        if neighbours:
            yield "one operation given to its neighbour's call", [(node, scopes[rng.choice(neighbours)])]


if __name__ == "__main__":
    main()
