"""The error of a step that failed: which step, which pass, and the reason in one line."""

from __future__ import annotations

import re

import onnx_ir as ir

from modelexport_passes.errors import (
    ConfigError,
    MissingDependencyError,
    ModelExportError,
    VerificationError,
    in_a_line,
)
from modelexport_passes.pipeline.step import Step


class StepError(ModelExportError):
    """A step failed.

    Also an instance of the class of what stopped it, where that is one of ours: ``except VerificationError`` works
    around a pipeline too, and the exit code is that of the reason.

    Attributes:
        step_id: which step.
        pass_name: which pass.
        reason: what the pass raised, without the wrappers around it.
    """

    def __init__(self, step: Step, reason: BaseException) -> None:
        told = _line(reason).removeprefix(f"{step.shown_name}: ")
        super().__init__(f"step {step.id!r} ({step.shown_name}) failed: {told}")
        self.step_id = step.id
        self.pass_name = step.shown_name
        self.reason = reason


class StepVerificationError(StepError, VerificationError):
    """A step found that the model is not valid or not the same, or left it so."""


class StepDependencyError(StepError, MissingDependencyError):
    """A step needs what is not installed."""


class StepConfigError(StepError, ConfigError):
    """A step found at work that its options are wrong for this model."""


_KINDS: dict[type[ModelExportError], type[StepError]] = {
    VerificationError: StepVerificationError,
    MissingDependencyError: StepDependencyError,
    ConfigError: StepConfigError,
}


def step_error(step: Step, error: BaseException) -> StepError:
    """The error of a step, from what running it raised."""
    reason = _unwrapped(error)
    for kind, made in _KINDS.items():
        if isinstance(reason, kind):
            return made(step, reason)
    return StepError(step, reason)


def _unwrapped(error: BaseException) -> BaseException:
    """onnx_ir says ``<... object at 0x...>`` and keeps the reason in ``__cause__``, up to three times over."""
    wrappers = (ir.passes.PassError, ir.passes.InvariantError)
    while isinstance(error, wrappers) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _line(reason: BaseException) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", in_a_line(reason))
