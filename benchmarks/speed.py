"""What this project costs beside onnx_ir and onnx, as ratios in one run, over models from 10,000 to a million nodes.

    python -m benchmarks.speed                            # 10,000 and 100,000 nodes
    python -m benchmarks.speed --nodes 10000 100000 1000000
    python -m benchmarks.speed --kind torchscript         # another exporter: dynamo (default), dynamo-optimized
    python -m benchmarks.speed --json figures.json

The model is a real export made as deep as it takes (`benchmarks.deep_model`): a Llama, or a BERT by TorchScript, whose
modules are smaller and are known by the names of nodes alone. Each figure is CPU time in a process of
its own, so that neither memory that another left behind nor the machine's other work is counted. All are measured
several times in turn (``--repeat``), and the run that took least counts: what a busy machine adds is nobody's cost.

- *pipeline*: load, recover-scopes, inject-tags, outline, validate (structure and hierarchy), save; beside what onnx_ir
  takes to load and save the same file;
- *scopes*: recover-scopes and inject-tags of that, beside the same;
- *inline*: load, inline, save of the outlined file; beside the same with ``onnx.inliner``, which is C++.

The exponent says how a time grows with the nodes between the smallest and the largest model; 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx.inliner
import onnx_ir as ir

import modelexport_passes as mx
from benchmarks.apart import apart
from benchmarks.deep_model import Base, deepened, exported_bert, exported_llama

Times = dict[str, float]

BASES: dict[str, Callable[[], Base]] = {
    "dynamo": exported_llama,
    "dynamo-optimized": lambda: exported_llama(optimize=True),
    "torchscript": exported_bert,
}


def clocked(steps: dict[str, Callable[[], Any]]) -> Times:
    """CPU seconds of each step, one after another, and of all; ``GB``: the largest memory that the process had."""
    times: Times = {}
    for name, step in steps.items():
        started = time.process_time()
        step()
        times[name] = time.process_time() - started
    times["all"] = sum(times.values())
    times["GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return times


def onnx_ir_alone(source: Path, target: Path) -> Times:
    """Load and save with onnx_ir."""
    held: list[ir.Model] = []
    return clocked({"load": lambda: held.append(ir.load(source)), "save": lambda: ir.save(held[0], target)})


def pipeline(source: Path, target: Path, modules: Literal["all", "auto"]) -> Times:
    """From file to outlined file."""
    held: list[ir.Model] = []
    passes: list[Any] = [
        mx.RecoverScopes(), mx.InjectTags(), mx.Outline(modules=modules), mx.Validate(),
    ]  # fmt: skip
    steps: dict[str, Callable[[], Any]] = {"load": lambda: held.append(mx.load(source))}
    steps |= {step.name: lambda step=step: step(held[0]) for step in passes}
    return clocked({**steps, "save": lambda: mx.save(held[0], target)})


def inlining(source: Path, target: Path) -> Times:
    """From outlined file to flat file."""
    held: list[ir.Model] = []
    return clocked(
        {
            "load": lambda: held.append(mx.load(source)),
            "inline": lambda: mx.Inline()(held[0]),
            "save": lambda: mx.save(held[0], target),
        }
    )


def inlining_by_onnx(source: Path, target: Path) -> Times:
    """The same with onnx's own inliner."""
    held: list[onnx.ModelProto] = []
    return clocked(
        {
            "load": lambda: held.append(onnx.load(source)),
            "inline": lambda: held.append(onnx.inliner.inline_local_functions(held[0])),
            "save": lambda: onnx.save(held[1], target),
        }
    )


def measure(
    base: Base, nodes: int, folder: Path, *, modules: Literal["all", "auto"], full: bool, repeat: int
) -> dict[str, Times]:
    """All figures of one size: of each the run that took least."""
    flat, outlined, again = folder / "flat.onnx", folder / "outlined.onnx", folder / "again.onnx"
    apart(lambda: onnx.save(deepened(base, nodes, metadata=None) if full else deepened(base, nodes), flat), 3600)
    measured: dict[str, Callable[[], Times]] = {
        "onnx_ir": lambda: onnx_ir_alone(flat, again),
        "pipeline": lambda: pipeline(flat, outlined, modules),
        "inline": lambda: inlining(outlined, again),
        "onnx.inliner": lambda: inlining_by_onnx(outlined, again),
    }
    runs = [{name: apart(step, 3600) for name, step in measured.items()} for _ in range(repeat)]
    return {name: min((run[name] for run in runs), key=lambda times: times["all"]) for name in measured}


def table(found: dict[int, dict[str, Times]]) -> str:
    """Markdown: seconds and ratios for each size, and how they grow."""
    sizes = sorted(found)
    lines = [f"| | {' | '.join(f'{size:,} nodes' for size in sizes)} | exponent |", f"|---|{'--:|' * (len(sizes) + 1)}"]
    for what in ("onnx_ir", "pipeline", "inline", "onnx.inliner"):
        for step in found[sizes[0]][what]:
            if step == "GB":
                continue
            times = [found[size][what][step] for size in sizes]
            growth = _exponent(sizes, times) if step == "all" and len(sizes) > 1 else ""
            lines.append(f"| {what}: {step}, s | {' | '.join(f'{value:.2f}' for value in times)} | {growth} |")
        memory = [f"{found[size][what]['GB']:.2f}" for size in sizes]
        lines.append(f"| {what}: memory, GB | {' | '.join(memory)} | |")
    ratios = {
        "pipeline / onnx_ir": lambda row: row["pipeline"]["all"] / row["onnx_ir"]["all"],
        "scopes / onnx_ir": lambda row: (
            (row["pipeline"]["recover-scopes"] + row["pipeline"]["inject-tags"]) / row["onnx_ir"]["all"]
        ),
        "inline / onnx.inliner": lambda row: row["inline"]["all"] / row["onnx.inliner"]["all"],
    }
    for name, ratio in ratios.items():
        lines.append(f"| **{name}** | {' | '.join(f'{ratio(found[size]):.2f}' for size in sizes)} | |")
    return "\n".join(lines)


def _exponent(sizes: list[int], times: list[float]) -> str:
    return f"{math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0]):.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10_000, 100_000], help="sizes of the model")
    parser.add_argument("--modules", default="all", choices=("all", "auto"), help="what outline is told: all or auto")
    parser.add_argument("--kind", default="dynamo", choices=tuple(BASES), help="which export is made deep")
    parser.add_argument("--full", action="store_true", help="all of torch's metadata, not only what tells modules")
    parser.add_argument("--repeat", type=int, default=3, help="how often each is measured")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    # Imported here, once, and not by every process anew.
    _ = (mx.load, mx.RecoverScopes, mx.InjectTags, mx.Outline, mx.Validate, mx.Inline)
    base = BASES[options.kind]()
    found: dict[int, dict[str, Times]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for nodes in options.nodes:
            found[nodes] = measure(
                base, nodes, Path(folder), modules=options.modules, full=options.full, repeat=options.repeat
            )
            print(f"{nodes:,} nodes measured", file=sys.stderr, flush=True)
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
