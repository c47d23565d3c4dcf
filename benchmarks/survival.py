"""What scopes and tags live through: other people's optimizers over real models, and the file saved behind them.

    python -m benchmarks.survival                       # the bundled sample
    python -m benchmarks.survival --archs bert,swinv2
    python -m benchmarks.survival --zoo PATH --keep DIR --json rows.jsonl

Of each export, plain, optimized by torch, and by TorchScript, every tool makes another model. A node of it is *tagged*
or not. Where one of its output names was there before, its scope is *kept*, or the node is *fused* and names the old
scope among its origins, or the scope is *lost*. A new node that reads a weight named after one module is *owned* by
that module or one above it, or *misplaced*. The model is saved and the file read again: *unsaved* counts tags that the
file does not have.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import onnx_ir as ir
import transformers

import modelexport_passes as mx
from benchmarks.apart import apart
from benchmarks.exports import Home, add_options, chosen_cases, home_of, recorded
from modelexport_passes.scopes.saved_tags import count_saved_tags, count_tags
from tests.tools.carried import OPTIMIZERS, Carried, carried
from tests.zoo import ZooCase


@dataclass
class Row:
    """One export after one tool.

    Attributes:
        arch: the architecture.
        kind: the export.
        tool: the tool.
        failure: why the tool made no model of it; empty where it did.
        before: nodes before the tool ran.
        found: its nodes by what became of their scopes.
        unsaved: tags that the saved file does not have.
    """

    arch: str
    kind: str
    tool: str
    failure: str = ""
    before: int = 0
    found: Carried = field(default_factory=Carried)
    unsaved: int = 0

    @classmethod
    def of(cls, values: dict[str, Any]) -> Row:
        """A row from what `dataclasses.asdict` made of it."""
        return cls(**{**values, "found": Carried(**values["found"])})

    def counts(self) -> dict[str, int]:
        """Column of the table -> number of nodes, or of tags."""
        found = {
            one.name: len(value) if isinstance(value := getattr(self.found, one.name), list) else value
            for one in fields(Carried)
        }
        return {"before": self.before, **found, "unsaved": self.unsaved}

    def is_clean(self) -> bool:
        """Whether the tool made a model, every node of it has a tag, and nothing is lost or misplaced."""
        found = self.found
        tagged = found.tagged == found.nodes and not self.unsaved
        return tagged and not (self.failure or found.lost or found.misplaced)


_TAG = "hierarchy_tag"


def measure(case: ZooCase, home: Home) -> Iterator[Row]:
    """One row for each kind of export and tool."""
    for kind, proto in home.exports(case).models.items():
        plain = recorded(proto, kind, case)
        mx.InjectTags()(plain)
        for name, tool in OPTIMIZERS.items():
            row = Row(case.arch, kind, name)
            try:
                model, found = carried(plain, tool())
            except mx.ModelExportError as error:
                row.failure = str(error).splitlines()[0]
            else:
                row.before, row.found, row.unsaved = count_tags(plain, [_TAG]).nodes, found, _unsaved(model)
            yield row


def _unsaved(model: ir.Model) -> int:
    """Tags that the model has and the file that it is saved as does not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "saved.onnx")
        mx.save(model, path)
        return count_tags(model, [_TAG]).tags[_TAG] - count_saved_tags(path, [_TAG]).tags[_TAG]


def table(rows: Sequence[Row]) -> str:
    """One line for each kind of export and tool, as markdown."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.tool, row.kind].append(row)
    counts = list(Row("", "", "").counts())
    columns = ["tool", "export", "models", "failed", *counts]
    lines = [f"| {' | '.join(columns)} |", f"|---|---|{'--:|' * (len(columns) - 2)}"]
    for (tool, kind), group in sorted(groups.items()):
        done = [row for row in group if not row.failure]
        sums = [sum(row.counts()[count] for row in done) for count in counts]
        lines.append(f"| {' | '.join(map(str, [tool, kind, len(done), len(group) - len(done), *sums]))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the summary, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, limit=600)
    parser.add_argument("--json", type=Path, help="write every row here, a line each")
    options = parser.parse_args(arguments)
    home = home_of(options)
    rows: list[Row] = []
    _ = transformers.PreTrainedModel  # imported before forking, it is imported once
    for case in chosen_cases(options):
        try:
            answer: list[dict[str, Any]] = apart(
                lambda: [asdict(row) for row in measure(case, home)],  # noqa: B023
                options.limit,
            )
        except RuntimeError as error:
            print(f"- no result: {case.arch}: {error}")
            continue
        measured = [Row.of(values) for values in answer]
        rows += measured
        for row in measured:
            if not row.is_clean():
                print(json.dumps(asdict(row)), file=sys.stderr, flush=True)
    print(table(rows))
    if options.json:
        options.json.write_text("".join(f"{json.dumps(asdict(row))}\n" for row in rows))


if __name__ == "__main__":
    main()
