"""The exports that the benchmarks measure, made once with their truth and kept in a directory.

Attribution, sharing and the proof of module calls read the same files, so that their tables are of the same models:

    <keep>/<arch>.dynamo.onnx  <arch>.dynamo-optimized.onnx  <arch>.torchscript.onnx   each with TRUTH_KEY on its nodes
    <keep>/<arch>.<exporter>.failed                                                    why there is none
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch

from benchmarks.attribution_truth import KINDS, export_with_truth, wrapped
from modelexport_passes.errors import VerificationError
from modelexport_passes.exporting.record import TorchRun
from modelexport_passes.exporting.tracing import traced_calls
from modelexport_passes.scopes.recover import recover
from modelexport_passes.scopes.scope import set_scope
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.validation.inputs import real_inputs
from modelexport_passes.validation.session import Array, open_session, run_session
from tests.zoo import DATA, ZooCase

Models = dict[str, onnx.ModelProto]
"""Kind (`KINDS`) -> export."""

_EXPORTERS = {"dynamo": KINDS[:2], "torchscript": KINDS[2:]}


@dataclass(frozen=True)
class Home:
    """Where exports are kept.

    Attributes:
        folder: the directory; None keeps nothing.
        make: export what is not there yet.
    """

    folder: Path | None = None
    make: bool = True

    def exports(self, case: ZooCase) -> Exports:
        """All kinds of a case: those that are kept, and the others made now."""
        found = Exports()
        for exporter, kinds in _EXPORTERS.items():
            paths = {kind: self.folder / f"{case.arch}.{kind}.onnx" for kind in kinds} if self.folder else {}
            failed = self.folder / f"{case.arch}.{exporter}.failed" if self.folder else None
            if paths and all(path.exists() for path in paths.values()):
                found.models.update({kind: onnx.load(path) for kind, path in paths.items()})
            elif failed is not None and failed.exists():
                found.failures[exporter] = failed.read_text(encoding="utf-8")
            elif not self.make:
                found.failures[exporter] = "not kept"
            else:
                _make(case, exporter, found)
                for kind in kinds if self.folder else ():
                    if kind in found.models:
                        onnx.save(found.models[kind], paths[kind])
                if failed is not None and exporter in found.failures:
                    failed.write_text(found.failures[exporter], encoding="utf-8")
        return found


@dataclass
class Exports:
    """What there is of one case.

    Attributes:
        models: the exports.
        failures: exporter -> why there is none.
    """

    models: Models = field(default_factory=Models)
    failures: dict[str, str] = field(default_factory=dict[str, str])


def _make(case: ZooCase, exporter: str, found: Exports) -> None:
    try:
        found.models.update(export_with_truth(case, exporter))
    # Exporters raise anything; a model that does not export is a row of the report, not the end of it.
    except Exception as error:  # noqa: BLE001
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        found.failures[exporter] = f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def recorded(proto: onnx.ModelProto, kind: str, case: ZooCase) -> ir.Model:
    """An export as ``mx.export`` hands it out; a truth that its nodes carry stays.

    The scopes of dynamo are kept with the file. Those of TorchScript are read off its names and the calls of the trace,
    and are read again.
    """
    model = ir.from_proto(proto)
    if kind == "torchscript":
        for node in owned_nodes(model.graph):
            set_scope(node, None)
        module, args = wrapped(case)
        with traced_calls(module) as calls:
            torch.jit.trace(module, args, check_trace=False, strict=False)  # pyright: ignore[reportPrivateImportUsage]
        recover(model, source="name", module=module, traced=calls[0])
    recover(model)
    return model


# --- running ---------------------------------------------------------------------------------------------------------


def torch_run(case: ZooCase) -> TorchRun:
    """The torch model that was exported, made anew, and what it is called with."""
    return TorchRun(*wrapped(case))


def graph_inputs(model: ir.Model, run: TorchRun) -> dict[str, Array]:
    """The example inputs by graph input name, in order; an exporter leaves out the inputs that nothing reads.

    Raises:
        VerificationError: the graph's inputs are not some of the example's, in their order.
    """
    tensors = [tensor.detach().numpy() for tensor in run.args]
    wanted = real_inputs(model)
    names = [str(value.name) for value in wanted]
    choices = [
        chosen
        for chosen in combinations(tensors, len(wanted))
        if all(_fits(value, array) for value, array in zip(wanted, chosen, strict=True))
    ]
    if not choices:
        raise VerificationError(f"none of the example's inputs fit {names}")
    if len(choices) > 1:
        with torch.no_grad():
            expected = [tensor.numpy() for tensor in run.module(*(tensor.clone() for tensor in run.args))]
        session = open_session(model)
        choices.sort(
            key=lambda chosen: _distance(run_session(session, dict(zip(names, chosen, strict=True))), expected)
        )
    return dict(zip(names, choices[0], strict=True))


def _fits(value: ir.Value, array: Array) -> bool:
    if value.dtype is None or value.shape is None:
        return True
    shape = tuple(value.shape)
    if value.dtype.numpy() != array.dtype or len(shape) != array.ndim:
        return False
    return all(not isinstance(size, int) or size == given for size, given in zip(shape, array.shape, strict=True))


def _distance(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    pairs = [
        (a.astype(np.float64), b.astype(np.float64)) for a, b in zip(ours, theirs, strict=True) if a.shape == b.shape
    ]
    return sum(float(np.nan_to_num(np.abs(a - b), posinf=0, neginf=0).sum()) for a, b in pairs)


# --- options ---------------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser, *, limit: int) -> None:
    """The options that choose cases and say where their exports are."""
    parser.add_argument("--zoo", type=Path, default=DATA, help="file of cases; the bundled sample by default")
    parser.add_argument("--archs", default="", help="only these, separated by commas")
    parser.add_argument("--keep", type=Path, help="directory in which exports are kept and found again")
    parser.add_argument("--kept-only", action="store_true", help="export nothing: what is not kept is left out")
    parser.add_argument("--limit", type=int, default=limit, help="seconds per architecture")


def chosen_cases(options: argparse.Namespace) -> Iterator[ZooCase]:
    """The cases of the zoo file, the first one of each architecture, or those named."""
    cases: dict[str, ZooCase] = {}
    for line in options.zoo.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        fields = {key: row[key] for key in ZooCase.__dataclass_fields__}
        cases.setdefault(row["arch"], ZooCase(**fields))
    wanted = [arch for arch in options.archs.split(",") if arch]
    unknown = [arch for arch in wanted if arch not in cases]
    if unknown:
        raise SystemExit(f"{options.zoo} has no {', '.join(unknown)}; it has {', '.join(cases)}")
    yield from (cases[arch] for arch in wanted or cases)


def home_of(options: argparse.Namespace) -> Home:
    """Where the options say that exports are."""
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    return Home(options.keep, make=not options.kept_only)
