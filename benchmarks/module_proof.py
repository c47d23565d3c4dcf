"""How many module calls of real architectures the proof of scopes proves, and how many wrong scopes it finds.

    python -m benchmarks.module_proof                       # the bundled sample, both exporters
    python -m benchmarks.module_proof bert t5 --wrong 25    # and 25 wrong scopes of each kind, on purpose

A line per model: calls by verdict, calls with values that cross an edge unasked, seconds. With ``--wrong``: of scopes
that were made wrong, how many turned a verdict or an edge.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

sys.path.insert(0, str(Path(__file__).parent.parent))

import modelexport_passes as mx
from modelexport_passes.errors import ModelExportError
from modelexport_passes.exporting.module_calls import Recording, recorded_calls
from modelexport_passes.exporting.record import ExportRecord, record_of
from modelexport_passes.inlining.inline import inline
from modelexport_passes.scopes.scope import Scope, set_scope
from modelexport_passes.validation.module_judge import Judge
from modelexport_passes.validation.module_regions import Regions
from modelexport_passes.validation.module_verdicts import COMPARABLE, SHOWN_BY_NUMBERS, ModuleProof, Verdict
from modelexport_passes.validation.modules import MEMORY
from modelexport_passes.validation.observed_values import Observed, observe
from tests.zoo import TensorsOut, ZooCase, build, zoo_cases

VARIANTS = (("dynamo", False), ("dynamo", True), ("torchscript", True))

Change = list[tuple[ir.Node, Scope]]


def main() -> None:
    """Prove each model, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archs", nargs="*", help="architectures of the bundled sample; all by default")
    parser.add_argument("--wrong", type=int, default=0, help="wrong scopes to try, of each kind and model")
    arguments = parser.parse_args()
    totals: dict[tuple[str, bool], Counter[str]] = {variant: Counter() for variant in VARIANTS}
    wrong: Counter[tuple[str, str]] = Counter()
    for case in zoo_cases(tuple(arguments.archs) or None):
        for exporter, optimize in VARIANTS:
            name = f"{case.arch} {exporter}{' optimized' if optimize else ''}"
            try:
                model, record = export(case, exporter, optimize=optimize)
            except ModelExportError as error:
                print(f"{name}: {error}".splitlines()[0][:120])
                continue
            proof, found = prove(model, record, arguments.wrong)
            totals[exporter, optimize].update(proof.counts)
            wrong += found
            print(f"{name}: {proof.counts}, edges {len(proof.leaking)}", flush=True)
            for one in proof.of(Verdict.DIFFERENT, Verdict.NOT_FOUND):
                print(f"    {one.verdict}: {one}")
    for (exporter, optimize), counts in totals.items():
        compared = sum(counts[verdict] for verdict in COMPARABLE) or 1
        share = sum(counts[verdict] for verdict in SHOWN_BY_NUMBERS) / compared
        print(f"{exporter}{' optimized' if optimize else ''}: {dict(counts)}; {share:.2%} of {compared} proven")
    for kind in sorted({kind for kind, _ in wrong}):
        print(f"{kind}: {wrong[kind, 'found']} of {wrong[kind, 'tried']} found")


def export(case: ZooCase, exporter: str, *, optimize: bool) -> tuple[ir.Model, ExportRecord]:
    """The model with its scopes, and the record of its export."""
    module, inputs = build(case)
    wrapper = TensorsOut(module, list(inputs)).eval()
    model = mx.export(wrapper, tuple(inputs.values()), exporter=exporter, optimize=optimize, root="model")  # pyright: ignore[reportArgumentType]
    record = record_of(model)
    assert record is not None
    return model, record


def prove(model: ir.Model, record: ExportRecord, tries: int) -> tuple[ModuleProof, Counter[tuple[str, str]]]:
    """The proof of a model as it is, and how many of so many wrong scopes are found. The model is computed once."""
    started = time.perf_counter()
    assert record.run is not None
    inline(model, lambda _: True)
    outputs = list(model.graph.outputs)
    with recorded_calls(record.run) as recording:
        observed = observe(model, record.inputs, recording, tolerance=None, memory=MEMORY)
        model.graph.outputs.clear()
        model.graph.outputs.extend(outputs)
        proof = judged(model, recording, observed)
        print(f"{time.perf_counter() - started:6.2f} s  ", end="")
        right, found = faults(proof), Counter[tuple[str, str]]()
        for kind, changes in wrong_scopes(model, tries):
            before = [(node, mx.scope_of(node)) for node, _ in changes]
            for node, scope in changes:
                set_scope(node, scope)
            found[kind, "tried"] += 1
            found[kind, "found"] += bool(faults(judged(model, recording, observed)) - right)
            for node, scope in before:
                set_scope(node, scope)
    return proof, found


def judged(model: ir.Model, recording: Recording, observed: Observed) -> ModuleProof:
    """The verdicts on the scopes that the model has now."""
    return Judge(recording, Regions.of(model), observed).proof()


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
