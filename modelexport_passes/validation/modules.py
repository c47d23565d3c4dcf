"""The proof of scopes by numbers: what each module call returned in torch, its region of the model computes.

No metadata of any exporter is trusted. The torch model runs once with hooks; the ONNX model runs, on the same inputs,
with its inner values exposed; each tensor that a call returned is looked for among the values that its region makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import onnx_ir as ir

from modelexport_passes.errors import MissingDependencyError
from modelexport_passes.inlining.inline import inline
from modelexport_passes.scopes.copying import copy_model
from modelexport_passes.validation.inputs import real_inputs
from modelexport_passes.validation.module_judge import Judge
from modelexport_passes.validation.module_regions import Regions
from modelexport_passes.validation.module_verdicts import ModuleProof
from modelexport_passes.validation.observed_values import observe
from modelexport_passes.validation.session import Array

if TYPE_CHECKING:
    from modelexport_passes.exporting.module_calls import Recording
    from modelexport_passes.exporting.record import TorchRun

MEMORY = 512 << 20
"""Bytes of inner values that are held at a time."""


def prove_against(
    model: ir.Model,
    run: TorchRun,
    inputs: Mapping[str, Array] | None = None,
    *,
    tolerance: float | None = None,
    memory: int = MEMORY,
) -> ModuleProof:
    """Run a torch model, and compare what its module calls return with what the regions of a model make.

    Args:
        model: flat or with functions; left as it is.
        run: the torch model and what to call it with.
        inputs: the same inputs by graph input name; matched in order if None or empty.
        tolerance: see `prove_modules`.
        memory: see `prove_modules`.

    Raises:
        ConfigError: the inputs of ``run`` do not match those of the graph.
        MissingDependencyError: torch is not installed.
        VerificationError: onnxruntime does not load or run the model.
    """
    try:
        from modelexport_passes.exporting.module_calls import graph_inputs, recorded_calls
    except ImportError as error:
        advice = "pip install modelexport-passes[torch]"
        raise MissingDependencyError(f"validate: modules needs {error.name!r}, not installed; {advice}") from error
    if not inputs:
        inputs = graph_inputs(run, [value.name or "" for value in real_inputs(model)])
    with recorded_calls(run) as recording:
        return prove_modules(model, inputs, recording, tolerance=tolerance, memory=memory)


def prove_modules(
    model: ir.Model,
    inputs: Mapping[str, Array],
    recording: Recording,
    *,
    tolerance: float | None = None,
    memory: int = MEMORY,
) -> ModuleProof:
    """Compare what the regions of a model make with what the module calls of the torch model returned.

    Args:
        model: flat or with functions; left as it is.
        inputs: graph input name -> array: those of the recorded run.
        recording: the torch model's run.
        tolerance: largest difference, relative to the spread of the tensor; by default 1e-4, and 2e-2 for 16 bits.
        memory: bytes of inner values to hold at a time.

    Raises:
        VerificationError: onnxruntime does not load or run the model.
    """
    flat = copy_model(model)
    inline(flat, lambda _: True)
    regions = Regions.of(flat)
    return Judge(recording, regions, observe(flat, inputs, recording, tolerance=tolerance, memory=memory)).proof()
