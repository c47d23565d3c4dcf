"""The experiment this project started from: one transformer, its modules as functions in four ways, and torch's own.

::

    python examples/modules_as_functions.py               # a table
    python examples/modules_as_functions.py --markdown    # the table of docs/experiment.md

Column (e) is ``torch.onnx.export(export_modules_as_functions=True)`` on the deprecated TorchScript exporter, the only
one that still has the option. It runs in a process of its own, since torch can abort there.
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from hierarchical_transformer import factory
from rich.console import Console
from rich.table import Table

import modelexport_passes as mx

ALL = "all"
SOME = ["*.AttentionHead", "*.FeedForward"]
TAG_KEY = "hierarchy_tag"
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Column:
    """One way to export: its title, its model, and the plain model of the same exporter to compare with."""

    title: str
    model: onnx.ModelProto
    plain: onnx.ModelProto


def our_columns() -> list[Column]:
    """(a) to (d): one dynamo export, then passes."""
    model, args = factory()
    shapes = {"input_ids": {0: "batch", 1: "sequence"}}
    exported = mx.export(model, args, dynamic_shapes=shapes)
    mx.RecoverScopes()(exported)
    plain = ir.to_proto(exported)
    columns = [Column("(a) plain", plain, plain)]
    for title, passes in {
        "(b) all modules": [mx.Outline(modules=ALL)],
        "(c) AttentionHead, FeedForward": [mx.Outline(modules=SOME)],
        "(d) all modules, tags inside": [mx.InjectTags(key=TAG_KEY), mx.Outline(modules=ALL)],
    }.items():
        changed = ir.from_proto(copy.deepcopy(plain))
        for step in passes:
            step(changed)
        columns.append(Column(title, ir.to_proto(changed), plain))
    return columns


def torch_column() -> Column | str:
    """(e): torch's own option, or the last line it printed when it did not survive."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("plain.onnx", "functions.onnx")]
        command = [sys.executable, str(Path(__file__).resolve()), "--torch-to", folder]
        finished = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
        if finished.returncode:
            return (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
        plain, functions = (onnx.load(path) for path in paths)
    return Column("(e) torch, TorchScript", functions, plain)


def export_with_torch(folder: Path) -> None:
    """Write torch's plain and its function-bearing export; a model object cannot be exported with functions twice."""
    warnings.simplefilter("ignore")
    for name, as_functions in (("plain.onnx", False), ("functions.onnx", True)):
        model, args = factory()
        torch.onnx.export(
            model,
            args,
            folder / name,
            dynamo=False,
            opset_version=17,
            input_names=["input_ids"],
            dynamic_axes={"input_ids": {0: "batch", 1: "sequence"}},
            export_modules_as_functions=as_functions,
        )


def facts(column: Column) -> dict[str, str]:
    """The rows of one column."""
    nodes = [*column.model.graph.node, *(node for function in column.model.functions for node in function.node)]
    keys = {(function.domain, function.name) for function in column.model.functions}
    operations = [node for node in nodes if (node.domain, node.op_type) not in keys]
    before, after = len(column.plain.graph.node), len(column.model.graph.node)
    outputs = run(column.model)
    return {
        "Nodes in the main graph": str(after),
        "Reduction of the main graph": f"{100 * (before - after) / before:.0f} %",
        "Initializers": str(len(column.model.graph.initializer)),
        "Local functions": str(len(column.model.functions)),
        "Nodes in all, each function once": str(len(nodes)),
        "Operation types": str(len({node.op_type for node in operations})),
        "Operations that know their module": f"{sum(map(knows_module, operations))} of {len(operations)}",
        "Operations with a tag": f"{sum(map(has_tag, operations))} of {len(operations)}",
        "Runs on onnxruntime": "yes",
        "Largest difference from the plain export": difference(outputs, run(column.plain)),
        "Largest difference from torch": difference(outputs, torch_outputs()),
    }


def knows_module(node: onnx.NodeProto) -> bool:
    """Whether the node carries a scope of ours."""
    return any(entry.key == "pkg.modelexport_passes.scope" for entry in node.metadata_props)


def has_tag(node: onnx.NodeProto) -> bool:
    """Whether the node carries a tag."""
    return any(entry.key == TAG_KEY for entry in node.metadata_props)


def batches() -> Iterator[Array]:
    """Token ids of three sizes: both dimensions are dynamic."""
    generator = np.random.default_rng(0)
    for shape in ((2, 8), (1, 3), (5, 31)):
        yield generator.integers(0, 100, shape, dtype=np.int64)


def run(model: onnx.ModelProto) -> list[Array]:
    """The model's output for each batch, onnxruntime's own optimizations off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(session.run(None, {"input_ids": batch})[0]) for batch in batches()]


def torch_outputs() -> list[Array]:
    """Torch's output for each batch."""
    model, _ = factory()
    with torch.no_grad():
        return [model(torch.from_numpy(batch)).numpy() for batch in batches()]


def difference(outputs: list[Array], reference: list[Array]) -> str:
    """The largest absolute difference over all batches."""
    largest = max(float(np.abs(a - b).max()) for a, b in zip(outputs, reference, strict=True))
    equal = all(a.tobytes() == b.tobytes() for a, b in zip(outputs, reference, strict=True))
    return "0, bit-equal" if equal else f"{largest:.0e}"


def table() -> list[list[str]]:
    """Header and rows."""
    columns, torch_own = our_columns(), torch_column()
    if isinstance(torch_own, Column):
        columns.append(torch_own)
    else:
        print(f"column (e) is missing, torch's own option failed: {torch_own}", file=sys.stderr)
    by_column = [facts(column) for column in columns]
    header = ["", *(column.title for column in columns)]
    return [header, *([row, *(values[row] for values in by_column)] for row in by_column[0])]


def markdown(rows: list[list[str]]) -> str:
    """The table as GitHub Markdown."""
    header, *body = rows
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The same transformer with its modules as functions in several ways.")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--torch-to", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch_to:
        export_with_torch(options.torch_to)
    elif options.markdown:
        print(markdown(table()))
    else:
        header, *body = table()
        shown = Table(*header)
        for row in body:
            shown.add_row(*row)
        Console().print(shown)


if __name__ == "__main__":
    main()
