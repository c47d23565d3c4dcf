"""How many functions the repeated blocks of real models become, beside how many distinct modules they are.

    python -m benchmarks.sharing                       # the bundled sample, about half a minute per architecture
    python -m benchmarks.sharing --archs bert,llama
    python -m benchmarks.sharing --zoo PATH --keep DIR --json rows.jsonl

A *block class* is a class of which a ModuleList holds at least two items with modules of their own. *Distinct* counts
their different ``repr``, which is a good but not a perfect yardstick: shifted and unshifted windows have one ``repr``,
and a layer whose input is known to be zero is folded. So each surplus function comes with the first difference of the
bodies. Every model is also run: bit-equal after outlining and after inlining that, with onnxruntime's optimizations
off, and inlining must give back every operation with its attributes and scope.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
import transformers

import modelexport_passes as mx
from benchmarks.apart import apart
from benchmarks.attribution_truth import truths
from benchmarks.exports import Home, add_options, chosen_cases, graph_inputs, home_of, recorded, torch_run
from modelexport_passes.outlining.canonical import attributes_key
from modelexport_passes.outlining.plan import OutlinePlan
from modelexport_passes.scopes.walk import all_nodes
from modelexport_passes.validation.session import Array, open_session, run_session
from tests.zoo import ZooCase


@dataclass
class Blocks:
    """One class of repeated blocks.

    Attributes:
        name: the class.
        instances: how many blocks there are.
        distinct: how many different ``repr`` they have.
        functions: how many functions they became.
        missing: blocks that are no call, or left no operations.
        reasons: why there are more functions than different ``repr``.
    """

    name: str
    instances: int
    distinct: int
    functions: int
    missing: int
    reasons: list[str] = field(default_factory=list)


@dataclass
class Row:
    """One export of one architecture.

    Attributes:
        arch: the architecture.
        export: exporter, and whether it optimized.
        nodes: operations of the plain graph.
        blocks: its block classes.
        functions: functions of the whole model.
        bytes_before: size of the plain graph without weights.
        bytes_after: size of the outlined one.
        failures: what did not hold; empty if all is well.
    """

    arch: str
    export: str
    nodes: int = 0
    blocks: list[Blocks] = field(default_factory=list)
    functions: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    failures: list[str] = field(default_factory=list)


def measure(case: ZooCase, kind: str, proto: onnx.ModelProto) -> Row:
    """Outline, inline, compare."""
    exported = recorded(proto, kind, case)
    truths(exported.graph)
    run = torch_run(case)
    inputs = graph_inputs(exported, run)
    row = Row(case.arch, kind, len(exported.graph))
    plan = mx.Outline().plan(exported)
    row.blocks = count_blocks(run.module, plan)
    row.bytes_before, row.functions = graph_bytes(exported), len(plan.functions)
    expected, kept = _run(exported, inputs), _operations(exported)
    edge = _edge(exported)
    if _run(exported, inputs) != expected:
        row.failures.append("not compared: the model draws random numbers")
        return row
    for selection in ("auto", "all"):
        outlined = exported.clone()
        mx.Outline(modules=selection)(outlined)
        row.bytes_after = graph_bytes(outlined)
        if _run(outlined, inputs) != expected:
            row.failures.append(f"outline {selection}: outputs differ")
        mx.Inline()(outlined)
        if _run(outlined, inputs) != expected:
            row.failures.append(f"inline after {selection}: outputs differ")
        if _operations(outlined) != kept or _edge(outlined) != edge:
            row.failures.append(f"inline after {selection}: another model")
    return row


def count_blocks(model: torch.nn.Module, plan: OutlinePlan) -> list[Blocks]:
    """The block classes of a torch model, and the functions that a plan has for them."""
    reprs: dict[str, dict[str, str]] = defaultdict(dict)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList):
            for at, item in enumerate(module):
                if list(item.children()):
                    reprs[type(item).__name__][f"{name}.{at}".lstrip(".")] = repr(item)
    regions = defaultdict(list)
    for region in plan.bodies.in_call_order():
        regions[region.frame.path].append(region)
    found: list[Blocks] = []
    for class_name, paths in sorted(reprs.items()):
        if len(paths) < 2:
            continue
        groups = {plan.bodies.group_of[region].number for path in paths for region in regions[path]}
        missing = sum(1 for path in paths if not regions[path])
        blocks = Blocks(class_name, len(paths), len(set(paths.values())), len(groups), missing)
        if blocks.functions > blocks.distinct:
            misses = [miss for miss in plan.near_misses() if miss.first in paths and miss.second in paths]
            blocks.reasons = [miss.difference for miss in misses]
        found.append(blocks)
    return found


def graph_bytes(model: ir.Model) -> int:
    """Size of a model without the content of its initializers."""
    proto = ir.to_proto(model)
    return proto.ByteSize() - sum(len(tensor.raw_data) for tensor in proto.graph.initializer)


def _operations(model: ir.Model) -> Counter[Any]:
    return Counter((node.op_type, attributes_key(node), mx.scope_of(node)) for node in all_nodes(model))


def _edge(model: ir.Model) -> list[str]:
    return [str(value.name) for value in (*model.graph.inputs, *model.graph.outputs)]


def _run(model: ir.Model, inputs: dict[str, Array]) -> list[bytes]:
    return [output.tobytes() for output in run_session(open_session(model), inputs)]


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line for each block class, those with surplus functions first, then what failed, then the totals."""
    lines = [
        "| model | export | block class | instances | distinct | functions | why more |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    entries = [(row, blocks) for row in rows for blocks in row.blocks]
    for row, blocks in sorted(entries, key=lambda entry: entry[1].functions <= entry[1].distinct):
        cells = [row.arch, row.export, blocks.name, blocks.instances, blocks.distinct, blocks.functions]
        why = "; ".join(blocks.reasons).replace("|", "\\|")
        lines.append(f"| {' | '.join(map(str, cells))} | {why} |")
    lines += ["", *(f"{row.arch} {row.export}: {failure}" for row in rows for failure in row.failures)]
    good = sum(blocks.functions <= blocks.distinct and not blocks.missing for _, blocks in entries)
    held = sum(not row.failures for row in rows)
    before, after = sum(row.bytes_before for row in rows), sum(row.bytes_after for row in rows)
    share = 100 * good / max(len(entries), 1)
    lines += [
        f"{good} of {len(entries)} block classes ({share:.1f} %) have no more functions than distinct modules",
        f"{held} of {len(rows)} models are bit-equal outlined and inlined, and come back whole",
        f"graphs without weights: {after / max(before, 1):.2f} of their size",
    ]
    return "\n".join(lines)


def measure_case(case: ZooCase, home: Home) -> dict[str, Any]:
    """The rows of one case, and what failed with its cause."""
    found = home.exports(case)
    failures = [f"{case.arch}, {exporter}: {text}" for exporter, text in found.failures.items()]
    rows: list[dict[str, Any]] = []
    for kind, proto in found.models.items():
        try:
            rows.append(asdict(measure(case, kind, proto)))
        except mx.VerificationError as error:
            failures.append(f"{case.arch}, {kind}: {error}")
    return {"rows": rows, "failures": failures}


def main() -> int:
    """Measure the cases that have no row yet; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, limit=900)
    parser.add_argument("--json", type=Path, help="where rows go, one a line; a case that has one is done")
    options = parser.parse_args()
    known = options.json.read_text(encoding="utf-8").splitlines() if options.json and options.json.exists() else []
    rows = [_row(json.loads(line)) for line in known]
    done = {row.arch for row in rows}
    failures: list[str] = []
    home = home_of(options)
    torch.set_num_threads(1)
    # What is imported before forking is imported once.
    _ = (mx.Outline, mx.Inline, transformers.PreTrainedModel)
    for case in chosen_cases(options):
        if case.arch in done:
            continue
        try:
            answer = apart(lambda: measure_case(case, home), options.limit)  # noqa: B023
        except RuntimeError as error:
            failures.append(f"{case.arch}: {error}")
            continue
        failures += answer["failures"]
        for data in answer["rows"]:
            rows.append(_row(data))
            print(f"{case.arch} {data['export']}: {data['failures'] or 'ok'}", file=sys.stderr, flush=True)
            if options.json:
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(data) + "\n")
    print(table(rows))
    print(*(f"- no result: {failure}" for failure in failures), sep="\n")
    return 1 if any(row.failures for row in rows) else 0


def _row(data: dict[str, Any]) -> Row:
    return Row(**{**data, "blocks": [Blocks(**blocks) for blocks in data["blocks"]]})


if __name__ == "__main__":
    sys.exit(main())
