"""How universal the export is: every architecture of a file exported, its scopes counted, its numbers compared.

    python benchmarks/universality.py                                   # the sample that the tests use
    python benchmarks/universality.py --zoo zoo.jsonl --json rows.jsonl # a file of your own; a second run goes on

Each case runs in a process of its own, with a time limit: exporters crash, hang, and leave state behind. A case agrees
when onnxruntime, with its optimizations off, gives what torch gives: no element of an output is further off than
``TOLERANCE`` of that output's spread, for the example inputs and for others of the same shapes. Where that is too much
to ask of float32 (a step that makes much of little), it agrees when it is on average as near to torch in float64 as
torch in float32 is; a note says so. Weights are drawn so that outputs are of order one; near zero, any tolerance would
pass. Where batch and sequence lengths may vary, the model is exported so first, and compared with inputs of other
shapes too; that is a column of its own (``--no-shapes``: fixed sizes only).

The table tells the exporter that was taken and why not the one before, from which source operations know their module
call, and how far the numbers are apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx_ir as ir
import torch

import modelexport_passes as mx
from benchmarks.apart import apart
from benchmarks.noise import Silent, silence
from modelexport_passes.exporting.huggingface.flat import Flat
from modelexport_passes.exporting.huggingface.inputs import AXES
from modelexport_passes.exporting.huggingface.sizes import other_sizes
from modelexport_passes.exporting.record import record_of
from modelexport_passes.exporting.state import state_kept
from modelexport_passes.scopes.recover import scope_stats
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.validation.session import open_session, run_session
from tests.zoo import DATA, ZooCase, build

TOLERANCE = 1e-3
"""Of an output's spread. Float32 sums in another order differ by some 1e-6 of it; a wrong operation by far more."""

ROUNDING = 1e-5
"""Of an output's spread: by how much float32 may on average be off float64. Beyond it, anything would be rounding."""

_SHAPES = "shapes: "
"""Begins a note on inputs of other shapes."""

_SEEDS = 4
"""Weights to try."""

Outcome = Literal["agrees", "ties", "differs", "not run", "failed"]
Shapes = Literal["", "agree", "differ", "fixed"]


@dataclass
class Row:
    """What came of one case.

    Attributes:
        name: model class.
        arch: architecture.
        outcome: ``agrees``; ``ties``: the same values in another order, as of equal scores; ``differs``; ``not run``:
            onnxruntime refuses the model; ``failed``: no exporter takes it.
        shapes: inputs of other shapes, to a graph whose batch and sequence lengths may vary: ``agree``, ``differ``, or
            ``fixed``, because no such graph is to be had or torch takes no others; notes say why.
        exporter: the one that was taken.
        notes: why, and what else there is to know, a line each.
        nodes: operations in the graph and its subgraphs.
        sources: source of the scope -> operations.
        unknown: operations whose scope no source tells.
        error: largest difference, relative to the spread of the output it is in.
        seconds: wall-clock time of the export.
    """

    name: str
    arch: str
    outcome: Outcome = "failed"
    shapes: Shapes = ""
    exporter: str = ""
    notes: list[str] = field(default_factory=list)
    nodes: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    error: float | None = None
    seconds: float = 0.0


def read_cases(path: Path, archs: set[str], *, every_class: bool) -> Iterator[ZooCase]:
    """The cases of a file, one JSON object a line with the fields of `tests.zoo.ZooCase`; the first of each arch."""
    seen: set[str] = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if (not archs or row["arch"] in archs) and (every_class or row["arch"] not in seen):
            seen.add(row["arch"])
            yield ZooCase(**{name: row[name] for name in ZooCase.__dataclass_fields__})


# --- one case --------------------------------------------------------------------------------------------------------


def measure(case: ZooCase, *, shapes: bool = True) -> Row:
    """Export and compare: with sizes that may vary, and, unless all is well by the plain way, with fixed ones."""
    if not shapes:
        return _measured(case, dynamic=False)
    varying = _measured(case, dynamic=True)
    if varying.outcome == "agrees" and varying.shapes != "fixed" and varying.exporter == "dynamo":
        return varying
    row = _measured(case, dynamic=False)
    if row.outcome == "failed":
        return row
    row.shapes = varying.shapes if varying.outcome == "agrees" else "fixed"
    if varying.outcome == "agrees" and varying.exporter == row.exporter:
        row.notes += [note for note in varying.notes if note.startswith(_SHAPES)]
    else:
        said = [note for note in varying.notes if note.startswith(_SHAPES)] or varying.notes[-1:]
        row.notes.append(f"{_SHAPES}{varying.outcome} by {varying.exporter or 'no exporter'}: {'; '.join(said)}")
    row.seconds += varying.seconds
    return row


def _measured(case: ZooCase, *, dynamic: bool) -> Row:
    row = Row(case.model_class, case.arch)
    started = time.perf_counter()
    try:
        model, inputs, row.notes = _runnable(case)
        exported = mx.export_hf(model, inputs=inputs, dynamic=dynamic)
    except mx.ModelExportError as error:
        row.notes = [str(error).removeprefix("export failed: ").partition(" (full report")[0]]
        return row
    finally:
        row.seconds = round(time.perf_counter() - started, 1)
    record = record_of(exported)
    assert record is not None
    assert record.run is not None
    mx.RecoverScopes()(exported)
    nodes = list(owned_nodes(exported.graph))
    stats = scope_stats(nodes)
    row.exporter, row.nodes, row.unknown = record.exporter, len(nodes), len(stats.unknown)
    row.sources = {source.value: count for source, count in stats.by_source.items()}
    drawn = silence(exported)
    module, args = cast("Flat", record.run.module), list(record.run.args)
    with Silent():
        row.outcome, row.error, notes = compare(exported, module, args)
        if dynamic and row.outcome == "agrees":
            row.shapes, why = compare_shapes(exported, module, args)
            notes += [f"{_SHAPES}{why}"] if why else []
    row.notes += [*record.notes, *([f"random numbers ({drawn} operations) compared as 0"] if drawn else []), *notes]
    return row


def _runnable(case: ZooCase) -> tuple[torch.nn.Module, dict[str, torch.Tensor], list[str]]:
    """The model with the first weights that torch itself runs: some, at random, lead out of the range of an index."""
    problems: list[str] = []
    for seed in range(_SEEDS):
        model, inputs = build(case, seed)
        try:
            with torch.no_grad():
                model(**{name: tensor.clone() for name, tensor in inputs.items()})
        except (IndexError, RuntimeError, ValueError) as error:
            problems.append(f"torch itself fails with weights of seed {seed}: {type(error).__name__}")
        else:
            # Built anew: a run may leave things in a model.
            return *build(case, seed), problems
    raise mx.ModelExportError("; ".join(problems))


def compare(exported: ir.Model, module: Flat, inputs: list[torch.Tensor]) -> tuple[Outcome, float | None, list[str]]:
    """Outcome, relative error and notes, over the example inputs and over others of the same shapes."""
    try:
        session = open_session(exported)
        outcome, error, notes = _difference(session, module, inputs)
        if outcome != "agrees":
            return outcome, error, notes
        others = [_other_values(tensor, number) for number, tensor in enumerate(inputs)]
        outcome, again, notes = _difference(session, module, others)
    except mx.VerificationError as refused:
        return "not run", None, [str(refused)]
    if outcome != "agrees":
        notes.append("agrees for the example inputs only")
    return outcome, max(error, again), notes


def compare_shapes(exported: ir.Model, module: Flat, inputs: list[torch.Tensor]) -> tuple[Shapes, str]:
    """Whether inputs of other shapes agree; what varied where they do not, or why nothing did."""
    session = open_session(exported)
    refused: list[str] = []
    for what, others in other_sizes(dict(zip(module.names, inputs, strict=True)), _varying(exported)):
        tensors = list(others.values())
        try:
            expected = _in_torch(module, tensors)
        except _TAKEN_BY_TORCH as error:
            refused.append(f"torch takes no other {what}: {type(error).__name__}")
            continue
        try:
            outcome, _, notes = _judged(session, module, tensors, expected)
        except mx.VerificationError as error:
            return "differ", f"another {what}: {error}"
        if outcome != "agrees":
            return "differ", f"another {what}: {'; '.join(notes)}"
        return "agree", "; ".join([*refused, f"another {what} agrees"] if refused else [])
    return "fixed", "; ".join(refused) or "no batch or sequence length may vary"


def _varying(exported: ir.Model) -> dict[str, dict[int, str]]:
    """Input -> axis -> name, of those that may vary; not of those that are a number at some input."""
    axes = {value: AXES.get(str(value.name), {}) for value in exported.graph.inputs if value.shape is not None}
    constant = {
        symbol
        for value, symbols in axes.items()
        for axis, symbol in symbols.items()
        if value.shape is not None and isinstance(value.shape[axis], int)
    }
    return {
        str(value.name): {axis: symbol for axis, symbol in symbols.items() if symbol not in constant}
        for value, symbols in axes.items()
    }


_TAKEN_BY_TORCH = (RuntimeError, ValueError, IndexError)
"""What torch raises where a model does not take some inputs."""


def _in_torch(module: Flat, inputs: list[torch.Tensor]) -> list[np.ndarray[Any, Any]]:
    with torch.no_grad(), state_kept(module):
        return [tensor.numpy() for tensor in module(*(tensor.clone() for tensor in inputs))]


def _difference(session: Any, module: Flat, inputs: list[torch.Tensor]) -> tuple[Outcome, float, list[str]]:
    try:
        expected = _in_torch(module, inputs)
    except _TAKEN_BY_TORCH as error:
        # Not every model takes every value; then there is nothing to compare with.
        return "agrees", 0.0, [f"torch does not take other inputs: {type(error).__name__}"]
    return _judged(session, module, inputs, expected)


def _judged(
    session: Any, module: Flat, inputs: list[torch.Tensor], expected: list[np.ndarray[Any, Any]]
) -> tuple[Outcome, float, list[str]]:
    """Compare with torch, and where that differs, both with torch in float64: rounding, or a mistake?"""
    outcome, error, notes = _against(session, module, inputs, expected)
    exact = _in_double(module, inputs) if outcome == "differs" else None
    if exact is None:
        return outcome, error, notes
    ours = _results(session, module, inputs)
    mine, theirs = (max(map(_mean_error, results, exact)) for results in (list(ours.values()), expected))
    if mine > max(2 * theirs, ROUNDING / 10) or theirs > ROUNDING:
        return outcome, error, notes
    means = f"{mine:.1e} of its spread, torch in float32 {theirs:.1e}"
    return "agrees", error, [f"{'; '.join(notes)}: rounding, as it is on average {means} off float64"]


def _in_double(module: Flat, inputs: list[torch.Tensor]) -> list[np.ndarray[Any, Any]] | None:
    """Torch's results in float64, which tell rounding from a mistake; None where a model has no such."""
    if any(parameter.dtype is not torch.float32 for parameter in module.parameters()):
        return None
    try:
        return _in_torch(
            module.double(), [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]
        )
    except _TAKEN_BY_TORCH:
        return None
    finally:
        module.float()


def _against(
    session: Any, module: Flat, inputs: list[torch.Tensor], expected: list[np.ndarray[Any, Any]]
) -> tuple[Outcome, float, list[str]]:
    outcome: Outcome = "agrees"
    worst, notes = 0.0, []
    for (name, ours), theirs in zip(_results(session, module, inputs).items(), expected, strict=True):
        error = _relative_error(ours, theirs)
        worst = max(worst, error)
        if error > TOLERANCE:
            tied = ours.shape == theirs.shape and _relative_error(_ordered(ours), _ordered(theirs)) <= TOLERANCE
            outcome = "ties" if tied and outcome != "differs" else "differs"
            notes.append(f"{name} is {error:.1e} of its spread off" + (", in order only" if tied else ""))
    return outcome, worst, notes


def _results(session: Any, module: Flat, inputs: list[torch.Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    taken = {given.name for given in session.get_inputs()}
    feeds = {name: tensor.numpy() for name, tensor in zip(module.names, inputs, strict=True) if name in taken}
    return dict(zip([output.name for output in session.get_outputs()], run_session(session, feeds), strict=True))


def _mean_error(results: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> float:
    """The average difference as a part of the spread; infinite where shapes or numbers do not allow one."""
    if results.shape != exact.shape or not np.isfinite(exact).all():
        return 0.0 if np.array_equal(results, exact, equal_nan=True) else float("inf")
    return float(np.abs(results.astype(np.float64) - exact).mean()) / _spread(exact)


def _relative_error(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> float:
    """The largest difference as a part of the spread; infinite where shapes or the places of NaN differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    left, right = ours.astype(np.float64), theirs.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    if same.all():
        return 0.0
    spread = _spread(right[np.isfinite(right)])
    off = np.abs(left - right)[~same]
    return float("inf") if np.isnan(off).any() else float(off.max()) / spread


def _spread(numbers: np.ndarray[Any, Any]) -> float:
    """Standard deviation; of numbers that are all the same their size, if it is above one."""
    return float(np.std(numbers)) or max(1.0, float(np.abs(numbers).max(initial=0.0)))


def _ordered(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.sort(values, axis=None)


def _other_values(tensor: torch.Tensor, number: int) -> torch.Tensor:
    """Values of the same kind: integers and truths in another order, new normal numbers."""
    if not tensor.is_floating_point():
        return tensor.flatten().roll(1).reshape(tensor.shape)
    if bool((tensor == tensor.flatten()[0]).all()):
        return tensor
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1000 + number)).to(tensor.dtype)


# --- all cases -------------------------------------------------------------------------------------------------------


def measure_apart(case: ZooCase, limit: int, *, shapes: bool = True) -> Row:
    """Measure in a process of its own; what fails is a row, too."""
    try:
        return Row(**apart(lambda: asdict(measure(case, shapes=shapes)), limit))
    except RuntimeError as error:
        return Row(case.model_class, case.arch, "failed", notes=[str(error)])


def as_table(rows: list[Row]) -> str:
    """Markdown: a line for each case, those that agree by the plain way last, and the totals."""
    lines = [
        "| model | outcome | shapes | exporter | nodes | scopes | error | s | why |",
        "|---|---|---|---|--:|---|--:|--:|---|",
    ]
    for row in sorted(rows, key=lambda row: (row.outcome == "agrees", row.exporter == "dynamo", row.arch, row.name)):
        scopes = ", ".join(f"{count} {source}" for source, count in row.sources.items())
        scopes += f", {row.unknown} unknown" if row.unknown else ""
        error = "" if row.error is None else f"{row.error:.0e}"
        notes = "; ".join(row.notes).replace("|", "\\|")
        cells = [row.name, row.outcome, row.shapes, row.exporter, row.nodes, scopes, error, f"{row.seconds:.0f}", notes]
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join([*lines, "", totals(rows)])


def totals(rows: list[Row]) -> str:
    """How many of which outcome, by which exporter, and how many operations know their module call."""
    outcomes = Counter(row.outcome for row in rows)
    exporters = Counter(row.exporter for row in rows if row.exporter)
    nodes, unknown = sum(row.nodes for row in rows), sum(row.unknown for row in rows)
    sources: Counter[str] = Counter()
    for row in rows:
        sources.update(row.sources)
    shapes = Counter(row.shapes for row in rows if row.shapes)
    worst = max((row.unknown / row.nodes for row in rows if row.nodes), default=0.0)
    return "\n".join(
        [
            f"{len(rows)} cases: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()),
            "other shapes: " + (", ".join(f"{count} {shape}" for shape, count in shapes.most_common()) or "not asked"),
            "exporters: " + ", ".join(f"{count} {exporter}" for exporter, count in exporters.most_common()),
            f"{nodes} operations: " + ", ".join(f"{count} {source}" for source, count in sources.most_common()),
            f"unknown: {unknown} ({100 * unknown / max(nodes, 1):.2f} %), at most {100 * worst:.2f} % of a model",
        ]
    )


def main() -> int:
    """Run the cases that have no row yet; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=DATA, help="cases, one JSON object a line")
    parser.add_argument("--only", nargs="*", default=[], metavar="ARCH", help="these architectures")
    parser.add_argument("--every-class", action="store_true", help="all model classes of an architecture")
    parser.add_argument(
        "--shapes", action=argparse.BooleanOptionalAction, default=True, help="sizes that may vary, too (default)"
    )
    parser.add_argument("--limit", type=int, default=600, help="seconds for one case")
    parser.add_argument("--json", type=Path, help="where rows go, one a line; cases with a row are done")
    chosen = parser.parse_args()
    known = chosen.json.read_text(encoding="utf-8").splitlines() if chosen.json and chosen.json.exists() else []
    rows = [Row(**json.loads(line)) for line in known]
    done = {(row.arch, row.name) for row in rows}
    torch.set_num_threads(1)
    # Imported here, once, and not by every process anew.
    assert mx.export, mx.RecoverScopes
    for case in read_cases(chosen.zoo, set(chosen.only), every_class=chosen.every_class):
        if (case.arch, case.model_class) in done:
            continue
        row = measure_apart(case, chosen.limit, shapes=chosen.shapes)
        rows.append(row)
        print(f"{row.name}: {row.outcome} {row.exporter} {row.seconds:.0f} s", file=sys.stderr, flush=True)
        if chosen.json:
            with chosen.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    print(as_table(rows))
    return 0 if all(row.outcome in ("agrees", "ties") for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
