"""The proof of scopes by numbers, for many sets of scopes of one case: torch runs once, and each graph runs once."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from benchmarks.exports import Models, graph_inputs, torch_run
from modelexport_passes.exporting.module_calls import Recording, recorded_calls
from modelexport_passes.exporting.record import TorchRun
from modelexport_passes.scopes.scope import Scope, set_scope
from modelexport_passes.scopes.walk import owned_nodes
from modelexport_passes.validation.module_judge import Judge
from modelexport_passes.validation.module_regions import Regions
from modelexport_passes.validation.module_verdicts import ModuleProof
from modelexport_passes.validation.modules import MEMORY
from modelexport_passes.validation.observed_values import Observed, observe
from tests.zoo import ZooCase


@dataclass
class Referee:
    """Judges scopes of the exports of one case.

    Attributes:
        models: the exports.
        run: the torch model.
        recording: its run.
    """

    models: Models
    run: TorchRun
    recording: Recording
    _observed: dict[str, tuple[ir.Model, Observed]] = field(default_factory=dict[str, tuple[ir.Model, Observed]])

    def judge(self, kind: str, scopes: Sequence[Scope | None]) -> ModuleProof:
        """The verdicts on these scopes of the operations of an export, in the order in which they stand.

        Raises:
            VerificationError: onnxruntime does not run the export.
        """
        model, observed = self.observed(kind)
        for node, scope in zip(owned_nodes(model.graph), scopes, strict=True):
            set_scope(node, scope)
        return Judge(self.recording, Regions.of(model), observed).proof()

    def observed(self, kind: str) -> tuple[ir.Model, Observed]:
        """The export and what it computes."""
        if kind not in self._observed:
            model = ir.from_proto(self.models[kind])
            outputs = list(model.graph.outputs)
            observed = observe(model, graph_inputs(model, self.run), self.recording, tolerance=None, memory=MEMORY)
            model.graph.outputs.clear()
            model.graph.outputs.extend(outputs)
            self._observed[kind] = model, observed
        return self._observed[kind]


@contextlib.contextmanager
def referee(case: ZooCase, models: Models) -> Generator[Referee]:
    """The referee over a case's exports."""
    run = torch_run(case)
    with recorded_calls(run) as recording:
        yield Referee(models, run, recording)
