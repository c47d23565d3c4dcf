"""How many functions the repeated blocks of real models become, beside how many distinct modules they are.

    python -m benchmarks.sharing                       # the bundled sample, about half a minute per architecture
    python -m benchmarks.sharing --only bert llama
    python -m benchmarks.sharing --zoo PATH --json rows.jsonl

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

import onnx_ir as ir
import onnxruntime as ort
import torch
import transformers

import modelexport_passes as mx
from benchmarks.apart import apart
from benchmarks.universality import read_cases
from modelexport_passes.exporting.record import record_of
from modelexport_passes.outlining.canonical import attributes_key
from modelexport_passes.outlining.plan import OutlinePlan
from modelexport_passes.scopes.walk import all_nodes
from tests.zoo import DATA, TensorsOut, ZooCase, build

VARIANTS = (("dynamo", False), ("dynamo", True), ("torchscript", True))


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


def measure(case: ZooCase, exporter: str, *, optimize: bool) -> dict[str, Any]:
    """Export, outline, inline, compare."""
    model, inputs = build(case)
    exported = mx.export(
        TensorsOut(model, list(inputs)).eval(),
        tuple(inputs.values()),
        exporter=exporter,  # type: ignore[arg-type]
        optimize=optimize,
        root="model",
    )
    record = record_of(exported)
    assert record is not None
    row = Row(case.arch, _variant(exporter, optimize=optimize), len(exported.graph))
    plan = mx.Outline().plan(exported)
    row.blocks = count_blocks(model, plan)
    row.bytes_before, row.functions = graph_bytes(exported), len(plan.functions)
    expected, kept = _run(exported, record.inputs), _operations(exported)
    edge = _edge(exported)
    for selection in ("auto", "all"):
        outlined = exported.clone()
        mx.Outline(modules=selection)(outlined)
        row.bytes_after = graph_bytes(outlined)
        if _run(outlined, record.inputs) != expected:
            row.failures.append(f"outline {selection}: outputs differ")
        mx.Inline()(outlined)
        if _run(outlined, record.inputs) != expected:
            row.failures.append(f"inline after {selection}: outputs differ")
        if _operations(outlined) != kept or _edge(outlined) != edge:
            row.failures.append(f"inline after {selection}: another model")
    return asdict(row)


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


def _run(model: ir.Model, inputs: dict[str, Any]) -> list[bytes]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: Any = session.run(None, inputs)
    return [output.tobytes() for output in outputs]


def _variant(exporter: str, *, optimize: bool) -> str:
    return exporter if exporter == "torchscript" else f"{exporter} {'optimized' if optimize else 'plain'}"


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


def main() -> int:
    """Measure the cases that have no row yet; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=DATA, help="cases, one JSON object a line")
    parser.add_argument("--only", nargs="*", default=[], metavar="ARCH", help="these architectures")
    parser.add_argument("--limit", type=int, default=300, help="seconds for one export")
    parser.add_argument("--json", type=Path, help="where rows go, one a line; what has a row is done")
    chosen = parser.parse_args()
    known = chosen.json.read_text(encoding="utf-8").splitlines() if chosen.json and chosen.json.exists() else []
    rows = [_row(json.loads(line)) for line in known]
    done = {(row.arch, row.export) for row in rows}
    torch.set_num_threads(1)
    # What is imported before forking is imported once.
    _ = (mx.export, mx.Outline, mx.Inline, transformers.PreTrainedModel)
    for case in read_cases(chosen.zoo, set(chosen.only), every_class=False):
        for exporter, optimize in VARIANTS:
            if (case.arch, _variant(exporter, optimize=optimize)) in done:
                continue
            try:
                row = _row(apart(lambda: measure(case, exporter, optimize=optimize), chosen.limit))  # noqa: B023
            except RuntimeError as error:
                print(f"{case.arch} {exporter}: not measured: {error}", file=sys.stderr, flush=True)
                continue
            rows.append(row)
            print(f"{row.arch} {row.export}: {row.failures or 'ok'}", file=sys.stderr, flush=True)
            if chosen.json:
                with chosen.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
    print(table(rows))
    return 1 if any(row.failures for row in rows) else 0


def _row(data: dict[str, Any]) -> Row:
    return Row(**{**data, "blocks": [Blocks(**blocks) for blocks in data["blocks"]]})


if __name__ == "__main__":
    sys.exit(main())
