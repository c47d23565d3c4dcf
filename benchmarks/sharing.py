"""How many functions the repeated blocks of real models become, beside how many distinct modules they are.

    python -m benchmarks.sharing                       # the bundled sample, about half a minute per architecture
    python -m benchmarks.sharing --archs bert,llama
    python -m benchmarks.sharing --zoo PATH --keep DIR --json rows.jsonl
    python -m benchmarks.sharing --every               # every way to select and to share, not only auto and all

A *block class* is a class of which a ModuleList holds at least two items with modules of their own. *Distinct* counts
their different ``repr``, which is a good but not a perfect yardstick: shifted and unshifted windows have one ``repr``,
and a layer whose input is known to be zero is folded. So each surplus function comes with the first difference of the
bodies and the operators that one has more of than the other, and each block without a function with what became of it:
not called, left no operation, no result used, not convex.

Every model is also run: bit-equal after outlining and after inlining that, with onnxruntime's optimizations off, and
inlining must give back every operation with its attributes and scope. Both pass onnx's full checker, if the export
does. What draws random numbers gets a seed first: without one, onnxruntime takes a node's position for it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
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
from modelexport_passes.exporting.record import TorchRun
from modelexport_passes.outlining.canonical import attributes_key
from modelexport_passes.outlining.explain import difference
from modelexport_passes.outlining.plan import OutlinePlan
from modelexport_passes.outlining.regions import Region
from modelexport_passes.outlining.sharing import Bodies
from modelexport_passes.randomness import draws_random_numbers
from modelexport_passes.scopes.walk import all_nodes
from modelexport_passes.validation.session import Array, open_session, run_session
from tests.scoped_models import fault_of
from tests.zoo import ZooCase

SELECTIONS: dict[str, dict[str, Any]] = {"auto": {"modules": "auto"}, "all": {}}
EVERY: dict[str, dict[str, Any]] = {
    **SELECTIONS,
    "classes": {"modules": ["*Attention*", "*MLP*", "*Norm*"]},
    "paths": {"paths": ["*.0", "*.1.*"]},
    "depth": {"depth": 2},
    "exclude": {"exclude": ["*Linear", "*.0"]},
    "min_nodes": {"min_nodes": 6},
    "min_calls": {"min_calls": 2},
    "split": {"on_nonconvex": "split"},
    "lift attributes": {"lift": "attributes"},
    "lift never": {"lift": "never"},
    "weights shape": {"weights": "shape"},
}

_FLAT = "left flat"
_NOTHING_TO_CUT = ("not called", "left no operation", "its results are not used")


@dataclass
class Blocks:
    """One class of repeated blocks.

    Attributes:
        name: the class.
        instances: how many blocks there are.
        distinct: how many different ``repr`` they have.
        functions: how many functions they became.
        missing: blocks that have no function.
        reasons: why there are more functions than different ``repr``.
        absent: what became of blocks without a function -> how many.
    """

    name: str
    instances: int
    distinct: int
    functions: int
    missing: int
    reasons: list[str] = field(default_factory=list)
    absent: dict[str, int] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """No more functions than distinct modules, and every block that has operations is one."""
        return self.functions <= self.distinct and self.absent.keys() <= set(_NOTHING_TO_CUT)


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


def measure(case: ZooCase, kind: str, proto: onnx.ModelProto, selections: Mapping[str, dict[str, Any]]) -> Row:
    """Outline in each of these ways, inline, compare."""
    exported = recorded(proto, kind, case)
    truths(exported.graph)
    seed(exported)
    run = torch_run(case)
    inputs = graph_inputs(exported, run)
    row = Row(case.arch, kind, len(exported.graph))
    plan = mx.Outline().plan(exported)
    row.blocks = count_blocks(run, exported, plan)
    row.bytes_before, row.functions = graph_bytes(exported), len(plan.functions)
    expected, kept = _run(exported, inputs), _operations(exported)
    edge = _edge(exported)
    if _run(exported, inputs) != expected:
        row.failures.append("not compared: the model draws random numbers")
        return row
    valid = fault_of(exported) is None
    for name, options in selections.items():
        model = exported.clone()
        for step in (mx.Outline(**options), mx.Inline()):
            step(model)
            after = f"{step.name} ({name})"
            if name == "all" and isinstance(step, mx.Outline):
                row.bytes_after = graph_bytes(model)
            if _run(model, inputs) != expected:
                row.failures.append(f"{after}: outputs differ")
            if valid and (fault := fault_of(model)):
                row.failures.append(f"{after}: {fault}")
        if _operations(model) != kept or _edge(model) != edge:
            row.failures.append(f"inline ({name}): another model")
    return row


def seed(model: ir.Model) -> None:
    """Let each operation that draws random numbers draw the same ones wherever it stands."""
    for node in all_nodes(model):
        if draws_random_numbers(node) and "seed" not in node.attributes:
            attribute = ir.AttrInt64("seed", 1) if node.op_type == "Dropout" else ir.AttrFloat32("seed", 1.0)
            node.attributes["seed"] = attribute


def count_blocks(run: TorchRun, exported: ir.Model, plan: OutlinePlan) -> list[Blocks]:
    """The block classes of a torch model, and the functions that a plan has for them."""
    reprs: dict[str, dict[str, str]] = defaultdict(dict)
    for name, module in run.module.named_modules():
        if isinstance(module, torch.nn.ModuleList):
            for at, item in enumerate(module):
                if list(item.children()):
                    reprs[type(item).__name__][f"{name}.{at}".lstrip(".")] = repr(item)
    regions: dict[str, list[Region]] = defaultdict(list)
    for region in plan.bodies.in_call_order():
        regions[region.frame.path].append(region)
    wanted = {path for paths in reprs.values() if len(paths) > 1 for path in paths if not regions[path]}
    absent = what_became_of(wanted, run, exported, plan)
    found: list[Blocks] = []
    for class_name, paths in sorted(reprs.items()):
        if len(paths) < 2:
            continue
        firsts: dict[int, Region] = {}
        for region in (region for path in paths for region in regions[path]):
            firsts.setdefault(plan.bodies.group_of[region].number, region)
        missing = [absent[path] for path in paths if path in absent]
        blocks = Blocks(class_name, len(paths), len(set(paths.values())), len(firsts), len(missing))
        blocks.absent = dict(Counter(missing))
        if blocks.functions > blocks.distinct:
            first, *others = firsts.values()
            blocks.reasons = [why_apart(first, other, plan.bodies) for other in others]
        found.append(blocks)
    return found


def what_became_of(paths: Collection[str], run: TorchRun, exported: ir.Model, plan: OutlinePlan) -> dict[str, str]:
    """Why these modules have no function."""
    called: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.add(name))
        for name, module in run.module.named_modules()
        if name in paths
    ]
    if paths:
        with torch.no_grad():
            run.module(*(tensor.clone() for tensor in run.args))
    for hook in hooks:
        hook.remove()
    inside: dict[str, set[ir.Node]] = {path: set() for path in paths}
    for node in exported.graph:
        scope = mx.scope_of(node)
        for frame in () if scope is None else scope.frames:
            if frame.path in inside:
                inside[frame.path].add(node)
    obstacles = {obstacle.region.frame.path: str(obstacle) for obstacle in plan.obstacles}
    return {path: _fate(path, inside[path], called, obstacles) for path in sorted(paths)}


def _fate(path: str, nodes: Collection[ir.Node], called: Collection[str], obstacles: Mapping[str, str]) -> str:
    if path not in called:
        return _NOTHING_TO_CUT[0]
    if not nodes:
        return _NOTHING_TO_CUT[1]
    values = [value for node in nodes for value in node.outputs]
    if not any(value.is_graph_output() or any(use.node not in nodes for use in value.uses()) for value in values):
        return _NOTHING_TO_CUT[2]
    return obstacles.get(path, _FLAT)


def why_apart(first: Region, other: Region, bodies: Bodies) -> str:
    """The first difference of two bodies, and of which operators one has more than the other."""
    counts = [_operators(region, bodies) for region in (first, other)]
    surplus = [
        f"{region} has {', '.join(f'{count} {name}' for name, count in sorted(more.items()))} more"
        for region, more in ((first, counts[0] - counts[1]), (other, counts[1] - counts[0]))
        if more
    ]
    return f"{difference(first, other, bodies)} ({', '.join(surplus) or 'of the same operators'})"


def _operators(region: Region, bodies: Bodies) -> Counter[str]:
    """How often each operator stands in a body, those of calls inside included, constants not."""
    found: Counter[str] = Counter()
    stack: list[Region] = [region]
    while stack:
        for item in bodies.layout[stack.pop()]:
            if isinstance(item, Region):
                stack.append(item)
            elif not item.constant:
                found[item.node.op_type] += 1
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
        "| model | export | block class | instances | distinct | functions | why more, or none |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    entries = [(row, blocks) for row in rows for blocks in row.blocks]
    for row, blocks in sorted(entries, key=lambda entry: (entry[1].is_good, not entry[1].missing)):
        cells = [row.arch, row.export, blocks.name, blocks.instances, blocks.distinct, blocks.functions]
        absent = [f"{count} {fate}" for fate, count in blocks.absent.items()]
        why = "; ".join([*blocks.reasons, *absent]).replace("|", "\\|")
        lines.append(f"| {' | '.join(map(str, cells))} | {why} |")
    lines += ["", *(f"{row.arch} {row.export}: {failure}" for row in rows for failure in row.failures)]
    good = sum(blocks.is_good for _, blocks in entries)
    cases = [row for row in rows if row.blocks]
    good_cases = sum(all(blocks.is_good for blocks in row.blocks) for row in cases)
    held = sum(not row.failures for row in rows)
    before, after = sum(row.bytes_before for row in rows), sum(row.bytes_after for row in rows)
    share, share_of_cases = 100 * good / max(len(entries), 1), 100 * good_cases / max(len(cases), 1)
    lines += [
        f"{good} of {len(entries)} block classes ({share:.1f} %) have no more functions than distinct modules",
        f"{good_cases} of {len(cases)} exports with blocks ({share_of_cases:.1f} %) have that in all of them",
        f"{held} of {len(rows)} models are bit-equal outlined and inlined, and come back whole",
        f"graphs without weights: {after / max(before, 1):.2f} of their size",
    ]
    return "\n".join(lines)


def measure_case(case: ZooCase, home: Home, selections: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The rows of one case, and what failed with its cause."""
    found = home.exports(case)
    failures = [f"{case.arch}, {exporter}: {text}" for exporter, text in found.failures.items()]
    rows: list[dict[str, Any]] = []
    for kind, proto in found.models.items():
        try:
            rows.append(asdict(measure(case, kind, proto, selections)))
        except mx.VerificationError as error:
            failures.append(f"{case.arch}, {kind}: {error}")
    return {"rows": rows, "failures": failures}


def main() -> int:
    """Measure the cases that have no row yet; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, limit=900)
    parser.add_argument("--every", action="store_true", help="outline in every way, not only auto and all")
    parser.add_argument("--json", type=Path, help="where rows go, one a line; a case that has one is done")
    options = parser.parse_args()
    known = options.json.read_text(encoding="utf-8").splitlines() if options.json and options.json.exists() else []
    rows = [_row(json.loads(line)) for line in known]
    done = {row.arch for row in rows}
    failures: list[str] = []
    home = home_of(options)
    selections = EVERY if options.every else SELECTIONS
    torch.set_num_threads(1)
    # What is imported before forking is imported once.
    _ = (mx.Outline, mx.Inline, transformers.PreTrainedModel)
    for case in chosen_cases(options):
        if case.arch in done:
            continue
        try:
            answer = apart(lambda: measure_case(case, home, selections), options.limit)  # noqa: B023
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
