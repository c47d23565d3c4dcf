"""How much of what ``recover-scopes`` says is true: every node against the exporter's own module stack.

    python -m benchmarks.attribution                        # the bundled sample, about a minute per architecture
    python -m benchmarks.attribution --archs bert,swinv2
    python -m benchmarks.attribution --zoo PATH --json out.json --keep DIR

Each architecture is exported in a process of its own, with a time limit. A node is *right* when its whole stack is: all
modules from the root on, each with the number of its call. It is of the right *module* when the innermost call is right
and the stack is not; an *ancestor* when it was given to a module call further up its true stack; and *wrong*
otherwise. Nodes that the exporter made outside of every module have no truth and are counted by themselves.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty

import onnx
import onnx_ir as ir
import torch

from benchmarks.attribution_truth import KINDS, export_with_truth, forget, truths, wrapped
from modelexport_passes import RecoverScopes
from modelexport_passes.scopes.scope import SCOPE_KEY, Frame, Scope, format_frames, scope_of
from modelexport_passes.scopes.walk import owned_nodes
from tests.zoo import DATA, ZooCase

Models = dict[str, onnx.ModelProto]


@dataclass(frozen=True)
class Row:
    """One model under one condition.

    Attributes:
        arch: the architecture.
        condition: what recovery had to go by.
        nodes: nodes with a truth.
        right: nodes whose whole stack is right.
        module: nodes whose innermost module call is right, and the stack around it is not.
        ancestor: nodes given to a module call further up their true stack.
        wrong: nodes given to another module call.
        unknown: nodes given to none.
        exact: nodes that recovery calls exact.
        inferred: nodes that recovery calls inferred.
        exact_and_wrong: nodes called exact that are not right.
        untold: nodes without a truth.
        seconds: what recovery took.
        misses: the most frequent wrong answers, as "true stack -> given stack (op type)".
    """

    arch: str
    condition: str
    nodes: int
    right: int
    module: int
    ancestor: int
    wrong: int
    unknown: int
    exact: int
    inferred: int
    exact_and_wrong: int
    untold: int
    seconds: float
    misses: dict[str, int]


def _recorded(models: Models, kind: str) -> tuple[ir.Model, RecoverScopes]:
    return ir.from_proto(models[kind]), RecoverScopes()


def _alone(models: Models, kind: str) -> ir.Model:
    model = ir.from_proto(models[kind])
    for node in owned_nodes(model.graph):
        node.metadata_props.pop(SCOPE_KEY, None)
    return model


def _nameless(models: Models, kind: str, *, parameters: bool) -> ir.Model:
    model = ir.from_proto(onnx.ModelProto.FromString(models[kind].SerializeToString()))  # renaming reaches the proto
    forget(model, parameters=parameters)
    return model


def _module(case: ZooCase) -> torch.nn.Module:
    return wrapped(case)[0]


CONDITIONS: dict[str, Callable[[Models, ZooCase], tuple[ir.Model, RecoverScopes]]] = {
    "dynamo, mx.export": lambda models, _: _recorded(models, "dynamo"),
    "dynamo, file alone": lambda models, _: (_alone(models, "dynamo"), RecoverScopes()),
    "dynamo optimized, mx.export": lambda models, _: _recorded(models, "dynamo-optimized"),
    "dynamo optimized, file alone": lambda models, _: (_alone(models, "dynamo-optimized"), RecoverScopes()),
    "torchscript, mx.export": lambda models, _: _recorded(models, "torchscript"),
    "torchscript, module": lambda models, case: (
        _alone(models, "torchscript"),
        RecoverScopes(module=_module(case)),
    ),
    "torchscript, file alone": lambda models, _: (_alone(models, "torchscript"), RecoverScopes()),
    "torchscript, parameter names only": lambda models, _: (
        _nameless(models, "torchscript", parameters=False),
        RecoverScopes(),
    ),
    "dynamo, parameter names only": lambda models, _: (
        _nameless(models, "dynamo", parameters=False),
        RecoverScopes(),
    ),
    "dynamo optimized, no names, reference": lambda models, _: (
        _nameless(models, "dynamo-optimized", parameters=True),
        RecoverScopes(reference=_recorded(models, "dynamo")[0]),
    ),
    "torchscript, no names, reference": lambda models, _: (
        _nameless(models, "torchscript", parameters=True),
        RecoverScopes(reference=_recorded(models, "torchscript")[0]),
    ),
    "torchscript, no names, dynamo's reference": lambda models, _: (
        _nameless(models, "torchscript", parameters=True),
        RecoverScopes(reference=_recorded(models, "dynamo")[0]),
    ),
}
"""What recovery has to go by -> the model in that state and the pass that shall recover it."""


def measure(models: Models, case: ZooCase, conditions: Sequence[str]) -> Iterator[Row]:
    """One row for each condition that the exported models allow."""
    for condition in conditions:
        needed = {"torchscript" if condition.startswith("torchscript") else "dynamo"}
        if "optimized" in condition:
            needed.add("dynamo-optimized")
        if "dynamo's reference" in condition:
            needed.add("dynamo")
        if needed <= models.keys():
            model, recover = CONDITIONS[condition](models, case)
            yield _compare(case.arch, condition, model, recover)


def _compare(arch: str, condition: str, model: ir.Model, recover: RecoverScopes) -> Row:
    true = truths(model.graph)
    started = time.perf_counter()
    recover(model)
    seconds = time.perf_counter() - started
    verdicts: Counter[str] = Counter()
    misses: Counter[str] = Counter()
    for node, truth in true.items():
        scope = scope_of(node)
        verdict = _verdict(truth, scope)
        verdicts[verdict] += 1
        if scope is not None:
            verdicts["exact" if scope.source.exact else "inferred"] += 1
            verdicts["exact_and_wrong"] += scope.source.exact and verdict != "right"
        if verdict != "right":
            misses[
                f"{_short(truth)} -> {_short(_text(scope))} ({node.op_type}, {scope.source if scope else 'unknown'})"
            ] += 1
    return Row(
        arch,
        condition,
        nodes=len(true),
        **{key: verdicts[key] for key in ("right", "module", "ancestor", "wrong", "unknown", "exact", "inferred")},
        exact_and_wrong=verdicts["exact_and_wrong"],
        untold=sum(1 for _ in owned_nodes(model.graph)) - len(true),
        seconds=round(seconds, 3),
        misses=dict(misses.most_common(20)),
    )


def _text(scope: Scope | None) -> str:
    # Classes are not compared: a file alone does not tell them.
    return "?" if scope is None else format_frames(tuple(Frame(frame.path, call=frame.call) for frame in scope.frames))


def _short(stack: str) -> str:
    """The stack without the classes that are not compared, and without frames whose path the next one repeats."""
    frames = stack.split("/") if stack.startswith("?:") else [stack]
    paths = [frame.removeprefix("?:") for frame in frames]
    return (
        " > ".join(
            path
            for path, below in zip(paths, [*paths[1:], ""], strict=True)
            if path and not below.startswith(f"{path}.")
        )
        or "the root"
    )


def _verdict(truth: str, scope: Scope | None) -> str:
    if scope is None:
        return "unknown"
    given = _text(scope)
    if given == truth:
        return "right"
    *above, innermost = truth.split("/")
    if given.rpartition("/")[2] == innermost:
        return "module"
    return "ancestor" if given.rpartition("/")[2] in above else "wrong"


# --- running ---------------------------------------------------------------------------------------------------------


def exported(case: ZooCase, keep: Path | None, failures: list[str]) -> Models:
    """All kinds of the case, from the directory of kept exports where they are there."""
    models: Models = {}
    for exporter, kinds in {"dynamo": KINDS[:2], "torchscript": KINDS[2:]}.items():
        paths = {kind: keep / f"{case.arch}.{kind}.onnx" for kind in kinds} if keep else {}
        failed = keep / f"{case.arch}.{exporter}.failed" if keep else None
        if paths and all(path.exists() for path in paths.values()):
            models |= {kind: onnx.load(path) for kind, path in paths.items()}
            continue
        if failed is not None and failed.exists():
            failures.append(f"{case.arch}, {exporter}: {failed.read_text()}")
            continue
        try:
            made = export_with_truth(case, exporter)
        # Exporters raise anything; a model that does not export is a row of the report, not the end of it.
        except Exception as error:  # noqa: BLE001
            text = f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"[:200]
            failures.append(f"{case.arch}, {exporter}: {text}")
            if failed is not None:
                failed.write_text(text)
            continue
        models |= made
        for kind, path in paths.items():
            onnx.save(made[kind], path)
    return models


def _child(
    case: ZooCase, conditions: Sequence[str], keep: Path | None, answers: multiprocessing.Queue[tuple[str, object]]
) -> None:
    failures: list[str] = []
    models = exported(case, keep, failures)
    for failure in failures:
        answers.put(("failure", failure))
    for row in measure(models, case, conditions):
        answers.put(("row", row))
    answers.put(("end", None))


def run(case: ZooCase, conditions: Sequence[str], keep: Path | None, limit: float) -> tuple[list[Row], list[str]]:
    """The rows of one case and what failed, from a process of its own."""
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[tuple[str, object]] = context.Queue()
    process = context.Process(target=_child, args=(case, conditions, keep, answers))
    process.start()
    deadline = time.monotonic() + limit
    rows: list[Row] = []
    failures: list[str] = []
    while True:
        try:
            kind, answer = answers.get(timeout=1.0)
        except Empty:
            if process.is_alive() and time.monotonic() < deadline:
                continue
            failures.append(f"{case.arch}: " + ("no answer in time" if process.is_alive() else "the process failed"))
            break
        if kind == "end":
            break
        if isinstance(answer, Row):
            rows.append(answer)
        else:
            failures.append(str(answer))
    process.kill()
    process.join()
    return rows, failures


def table(rows: Sequence[Row]) -> str:
    """The summary: one line per condition over all models, as markdown."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.condition].append(row)
    columns = ["input", "models", "nodes", *_SHARES, "exact and wrong", "untold", "s per 1000 nodes"]
    lines = [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    for condition in CONDITIONS:
        group = groups.get(condition)
        if not group:
            continue
        nodes = sum(row.nodes for row in group)
        shares = [f"{100 * sum(getattr(row, key) for row in group) / max(nodes, 1):.2f} %" for key in _SHARES]
        exact_and_wrong, untold = sum(row.exact_and_wrong for row in group), sum(row.untold for row in group)
        seconds = 1000 * sum(row.seconds for row in group) / max(nodes + untold, 1)
        lines.append(
            f"| {condition} | {len(group)} | {nodes} | {' | '.join(shares)} | {exact_and_wrong} | {untold} "
            f"| {seconds:.3f} |"
        )
    return "\n".join(lines)


_SHARES = ("right", "module", "ancestor", "wrong", "unknown")


def zoo(path: Path, archs: Sequence[str]) -> list[ZooCase]:
    """The cases of a zoo file, or those named; keys that a case does not need are ignored."""
    cases: dict[str, ZooCase] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        fields = {key: row[key] for key in ZooCase.__dataclass_fields__}
        cases.setdefault(row["arch"], ZooCase(**fields))
    unknown = [arch for arch in archs if arch not in cases]
    if unknown:
        raise SystemExit(f"{path} has no {', '.join(unknown)}; it has {', '.join(cases)}")
    return [cases[arch] for arch in archs or cases]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the summary, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=DATA, help="file of cases; the bundled sample by default")
    parser.add_argument("--archs", default="", help="only these, separated by commas")
    parser.add_argument("--condition", action="append", default=[], help="only those whose name contains this; repeat")
    parser.add_argument("--keep", type=Path, help="directory in which exports are kept and found again")
    parser.add_argument("--limit", type=float, default=600, help="seconds per architecture")
    parser.add_argument("--json", type=Path, help="write every row here")
    parser.add_argument("--misses", type=int, default=0, help="print this many of the most frequent misses of each row")
    options = parser.parse_args(arguments)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    wanted = options.condition
    conditions = [name for name in CONDITIONS if not wanted or any(word in name for word in wanted)]
    rows: list[Row] = []
    failures: list[str] = []
    for case in zoo(options.zoo, [arch for arch in options.archs.split(",") if arch]):
        done, failed = run(case, conditions, options.keep, options.limit)
        rows += done
        failures += failed
        for row in done:
            print(
                f"{row.arch:24} {row.condition:40} {row.nodes:6} nodes",
                *(f"{key} {getattr(row, key)}" for key in (*_SHARES, "exact_and_wrong", "seconds")),
                sep="  ",
                file=sys.stderr,
                flush=True,
            )
            for miss, count in list(row.misses.items())[: options.misses]:
                print(f"    {count:5} {miss}", file=sys.stderr)
    print(table(rows))
    print(*(f"- no result: {failure}" for failure in failures), sep="\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
