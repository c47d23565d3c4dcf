"""How much of what ``recover-scopes`` says is true: every node against the exporter's own module stack.

    python -m benchmarks.attribution                        # the bundled sample, about a minute per architecture
    python -m benchmarks.attribution --archs bert,swinv2
    python -m benchmarks.attribution --zoo PATH --keep DIR --json out.json
    python -m benchmarks.attribution --files a.onnx b.onnx  # what is told of any files; there is no truth for them

Each architecture is measured in a process of its own, with a time limit. A node is *right* when its whole stack is: all
modules from the root on, each with the number of its call. It is of the right *module* when the innermost call is right
and the stack is not; an *ancestor* when it was given to a module call further up its true stack; and *wrong*
otherwise. Nodes that the exporter made outside of every module have no truth and are counted by themselves.

The last columns are the referee's, who asks no exporter: of the module *calls* that have nodes and returned something
that tells, how many are *proven* by numbers, how many *completed* by operations that were concluded to be in a caller
or are of unknown scope, and how many have nodes in truth and were given *none*.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import onnx
import onnx_ir as ir
import transformers

import modelexport_passes as mx
from benchmarks.apart import apart
from benchmarks.attribution_truth import forget, truths, wrapped
from benchmarks.exports import Home, Models, add_options, chosen_cases, home_of, recorded
from benchmarks.referee import Referee, referee
from modelexport_passes import RecoverScopes
from modelexport_passes.pass_base import Outcome
from modelexport_passes.scopes.scope import SCOPE_KEY, Frame, Scope, format_frames, parse_scope, scope_of
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.validation.module_verdicts import COMPARABLE, SHOWN_BY_NUMBERS, Verdict
from tests.zoo import ZooCase


@dataclass
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
        calls: module calls that have nodes and returned something that tells; None if the referee was not asked.
        proven: those of them that are proven.
        completed: those that are with operations of unknown scope, or whose scope was concluded as far as a caller.
        none: calls that have nodes in truth and none here.
        unproven: what was found about the others of them.
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
    calls: int | None = None
    proven: int = 0
    completed: int = 0
    none: int = 0
    unproven: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Condition:
    """What recovery has to go by.

    Attributes:
        kind: the export it is tried on.
        prepare: the exports and the case -> the model in that state, and the pass that shall recover it.
        reference: the export that is beside it, if any.
    """

    kind: str
    prepare: Callable[[Models, ZooCase], tuple[ir.Model, RecoverScopes]]
    reference: str | None = None


def _told(kind: str) -> Condition:
    return Condition(kind, lambda models, case: (recorded(models[kind], kind, case), RecoverScopes()))


def _file(kind: str) -> Condition:
    return Condition(kind, lambda models, _: (_alone(models[kind]), RecoverScopes()))


def _parameters(kind: str) -> Condition:
    return Condition(kind, lambda models, _: (_nameless(models[kind], parameters=False), RecoverScopes()))


def _reference(kind: str, other: str) -> Condition:
    def prepare(models: Models, case: ZooCase) -> tuple[ir.Model, RecoverScopes]:
        beside = recorded(models[other], other, case)
        return _nameless(models[kind], parameters=True), RecoverScopes(reference=beside)

    return Condition(kind, prepare, other)


CONDITIONS = {
    "dynamo, mx.export": _told("dynamo"),
    "dynamo, file alone": _file("dynamo"),
    "dynamo optimized, mx.export": _told("dynamo-optimized"),
    "dynamo optimized, file alone": _file("dynamo-optimized"),
    "torchscript, mx.export": _told("torchscript"),
    "torchscript, module": Condition(
        "torchscript",
        lambda models, case: (_alone(models["torchscript"]), RecoverScopes(module=wrapped(case)[0])),
    ),
    "torchscript, file alone": _file("torchscript"),
    "torchscript, parameter names only": _parameters("torchscript"),
    "dynamo, parameter names only": _parameters("dynamo"),
    "dynamo optimized, no names, reference": _reference("dynamo-optimized", "dynamo"),
    "torchscript, no names, reference": _reference("torchscript", "torchscript"),
    "torchscript, no names, dynamo's reference": _reference("torchscript", "dynamo"),
}


def _alone(proto: onnx.ModelProto) -> ir.Model:
    model = ir.from_proto(proto)
    for node in owned_nodes(model.graph):
        node.metadata_props.pop(SCOPE_KEY, None)
    return model


def _nameless(proto: onnx.ModelProto, *, parameters: bool) -> ir.Model:
    model = ir.from_proto(onnx.ModelProto.FromString(proto.SerializeToString()))  # renaming reaches the proto
    forget(model, parameters=parameters)
    return model


def measure(models: Models, case: ZooCase, conditions: Sequence[str], judge: Referee | None) -> Iterator[Row]:
    """One row for each condition that the exported models allow."""
    true_calls: dict[str, set[str]] = {}
    for name in conditions:
        condition = CONDITIONS[name]
        if condition.kind not in models or (condition.reference or condition.kind) not in models:
            continue
        model, recover = condition.prepare(models, case)
        true = truths(model.graph)
        row = _compare(case.arch, name, model, recover, true)
        if judge is not None:
            if condition.kind not in true_calls:
                stacks = [true.get(node) for node in owned_nodes(model.graph)]
                told = [None if stack is None else parse_scope(f"export|{stack}") for stack in stacks]
                proof = judge.judge(condition.kind, told)
                true_calls[condition.kind] = {one.call for one in proof.of(*COMPARABLE)}
            _prove(row, model, judge, condition.kind, true_calls[condition.kind])
        yield row


def _prove(row: Row, model: ir.Model, judge: Referee, kind: str, true_calls: set[str]) -> None:
    proof = judge.judge(kind, [scope_of(node) for node in owned_nodes(model.graph)])
    row.calls = len(proof.of(*COMPARABLE))
    row.proven = len(proof.of(*SHOWN_BY_NUMBERS))
    row.completed = len(proof.of(Verdict.COMPLETED))
    row.none = len(true_calls & {one.call for one in proof.of(Verdict.NO_NODES, Verdict.WITHIN)})
    others = proof.of(Verdict.NOT_FOUND, Verdict.DIFFERENT)
    row.unproven = [f"{one.verdict}: {one}" for one in others][:50]


def _compare(arch: str, condition: str, model: ir.Model, recover: RecoverScopes, true: dict[ir.Node, str]) -> Row:
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
        right=verdicts["right"],
        module=verdicts["module"],
        ancestor=verdicts["ancestor"],
        wrong=verdicts["wrong"],
        unknown=verdicts["unknown"],
        exact=verdicts["exact"],
        inferred=verdicts["inferred"],
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


def measure_case(case: ZooCase, conditions: Sequence[str], home: Home, *, proof: bool) -> dict[str, Any]:
    """The rows of one case, and what failed with its cause."""
    found = home.exports(case)
    failures = [f"{case.arch}, {exporter}: {text}" for exporter, text in found.failures.items()]
    if proof and found.models:
        try:
            with referee(case, found.models) as judge:
                return {
                    "rows": [asdict(row) for row in measure(found.models, case, conditions, judge)],
                    "failures": failures,
                }
        except mx.ModelExportError as error:
            failures.append(f"{case.arch}, proof of module calls: {error}")
    return {"rows": [asdict(row) for row in measure(found.models, case, conditions, None)], "failures": failures}


def table(rows: Sequence[Row]) -> str:
    """The summary: one line per condition over all models, as markdown."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.condition].append(row)
    columns = [
        "input",
        "models",
        "nodes",
        *_SHARES,
        "exact and wrong",
        "calls",
        "proven",
        "completed",
        "none",
        "untold",
    ]
    columns.append("s per 1000 nodes")
    lines = [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    for condition in CONDITIONS:
        group = groups.get(condition)
        if not group:
            continue
        nodes = sum(row.nodes for row in group)
        shares = [_percent(sum(getattr(row, key) for row in group), nodes) for key in _SHARES]
        calls = sum(row.calls or 0 for row in group)
        proven = _percent(sum(row.proven for row in group), calls) if calls else ""
        completed = _percent(sum(row.completed for row in group), calls) if calls else ""
        untold = sum(row.untold for row in group)
        seconds = 1000 * sum(row.seconds for row in group) / max(nodes + untold, 1)
        cells = [
            condition,
            len(group),
            nodes,
            *shares,
            sum(row.exact_and_wrong for row in group),
            calls,
            proven,
            completed,
        ]
        cells += [sum(row.none for row in group), untold, f"{seconds:.3f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


_SHARES = ("right", "module", "ancestor", "wrong", "unknown")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.2f} %"


def files_table(paths: Sequence[Path]) -> str:
    """What is told of files that have no truth, as markdown."""
    lines = ["| file | nodes | exact | inferred | unknown | conflicts | seconds |", f"|---|{'--:|' * 6}"]
    for path in paths:
        try:
            model = mx.load(path)
        except mx.ModelExportError as error:
            lines.append(f"| {path.name} | not loaded: {error} |")
            continue
        started = time.perf_counter()
        found = cast("Outcome", RecoverScopes()(model)).figures
        seconds = time.perf_counter() - started
        cells = [path.name, sum(1 for _ in owned_nodes(model.graph))]
        cells += [found[key] for key in ("exact", "inferred", "unknown", "conflicts")]
        lines.append(f"| {' | '.join(map(str, cells))} | {seconds:.3f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the summary, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, limit=600)
    parser.add_argument("--condition", action="append", default=[], help="only those whose name contains this; repeat")
    parser.add_argument("--no-proof", action="store_true", help="do not ask the referee, which runs every model")
    parser.add_argument("--json", type=Path, help="write every row here")
    parser.add_argument("--misses", type=int, default=0, help="print this many of the most frequent misses of each row")
    parser.add_argument("--files", type=Path, nargs="+", help="these .onnx files, instead of any cases")
    options = parser.parse_args(arguments)
    if options.files:
        print(files_table(options.files))
        return
    wanted = options.condition
    conditions = [name for name in CONDITIONS if not wanted or any(word in name for word in wanted)]
    rows: list[Row] = []
    failures: list[str] = []
    home = home_of(options)
    _ = transformers.PreTrainedModel  # imported before forking, it is imported once
    for case in chosen_cases(options):
        try:
            answer = apart(lambda: measure_case(case, conditions, home, proof=not options.no_proof), options.limit)  # noqa: B023
        except RuntimeError as error:
            failures.append(f"{case.arch}: {error}")
            continue
        done = [Row(**row) for row in answer["rows"]]
        rows += done
        failures += answer["failures"]
        for row in done:
            _print_row(row, options.misses)
    print(table(rows))
    print(*(f"- no result: {failure}" for failure in failures), sep="\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _print_row(row: Row, misses: int) -> None:
    figures = [f"{key} {getattr(row, key)}" for key in (*_SHARES, "exact_and_wrong", "seconds")]
    proven = "" if row.calls is None else f"proven {row.proven} of {row.calls}, none {row.none}"
    print(f"{row.arch:24} {row.condition:40} {row.nodes:6} nodes", *figures, proven, sep="  ", file=sys.stderr)
    for miss, count in list(row.misses.items())[:misses]:
        print(f"    {count:5} {miss}", file=sys.stderr)
    for text in row.unproven[:misses]:
        print(f"          {text}", file=sys.stderr)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
