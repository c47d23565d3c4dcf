"""The ways to export one model: torch's exporters, each undisturbed by the one before."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import onnx_ir as ir
import torch

from modelexport_passes.exporting.attempts import Attempt
from modelexport_passes.exporting.dynamo import (
    DynamoOptions,
    export_dynamo,
    export_dynamo_as_transformers,
    export_dynamo_by_example,
    exported_program_of,
    record_scopes,
)
from modelexport_passes.exporting.huggingface.patches import masks_as_called, transformers_model
from modelexport_passes.exporting.state import state_kept
from modelexport_passes.exporting.torchscript import export_torchscript

Exporter = Literal[
    "dynamo", "dynamo+transformers", "dynamo+transformers+example", "dynamo+example", "torchscript", "auto"
]

BY_EXAMPLE = ("dynamo+transformers+example", "dynamo+example", "torchscript")
"""Exporters whose graph holds the way that the example takes through the model."""

_REWRITTEN = "scopes are torch's own; operations that a rewrite of the captured graph made are inferred"

_NAMED = "scopes are read from the names of operations, resolved with the model's modules, the rest inferred"

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Captured:
    """What an exporter gave.

    Attributes:
        ways: what it was given.
        model: the ONNX model.
        example: the arguments in the form in which the exporter took them.
        notes: what there is to know, a line each.
    """

    ways: Ways
    model: ir.Model
    example: Arguments
    notes: list[str]


@dataclass(frozen=True)
class Ways:
    """The ways to export one model with the same arguments."""

    model: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: DynamoOptions
    translations: dict[Callable[..., Any], Callable[..., Any]]

    def attempts(self, exporter: Exporter) -> list[Attempt[Captured]]:
        """The one asked for; for ``auto`` all that there are for this model, in the order in which to try them."""
        theirs = transformers_model(self.model) is not None
        every = [self._attempt("dynamo", self._dynamo, "")]
        if theirs:
            every.append(self._attempt("dynamo+transformers", self._dynamo_as_transformers, _REWRITTEN))
            # A model that asks for values is likely to do other things that a rewrite mends.
            rewritten = functools.partial(self._by_example, rewritten=True)
            every.append(self._attempt("dynamo+transformers+example", rewritten, _REWRITTEN))
        plain = functools.partial(self._by_example, rewritten=False)
        every.append(self._attempt("dynamo+example", plain, "scopes are torch's own"))
        every.append(self._attempt("torchscript", self._torchscript, _NAMED))
        return [attempt for attempt in every if exporter in ("auto", attempt.name)]

    def _attempt(self, name: str, way: Callable[[], Captured], scopes: str) -> Attempt[Captured]:
        return Attempt(name, self._undisturbed(way), scopes)

    def _undisturbed(self, way: Callable[[], Captured]) -> Callable[[], Captured]:
        def run() -> Captured:
            with state_kept(self.model), masks_as_called():
                return way()

        return run

    def _dynamo(self) -> Captured:
        captured = export_dynamo(self.model, self.args, self.kwargs, translations=self.translations, **self.options)
        return self._recorded(*captured)

    def _dynamo_as_transformers(self) -> Captured:
        program = export_dynamo_as_transformers(
            self.model, self.args, self.kwargs, translations=self.translations, **self.options
        )
        return self._recorded(program, [])

    def _by_example(self, *, rewritten: bool) -> Captured:
        captured = export_dynamo_by_example(
            self.model,
            self.args,
            self.kwargs,
            rewritten=rewritten,
            translations=self.translations,
            **self.options,
        )
        return self._recorded(*captured)

    def _torchscript(self) -> Captured:
        model = export_torchscript(self.model, self.args, self.kwargs, **self.options)
        return Captured(self, model, (self.args, self.kwargs), [])

    def _recorded(self, program: torch.onnx.ONNXProgram, notes: list[str]) -> Captured:
        record_scopes(program)
        example = exported_program_of(program).example_inputs
        return Captured(self, program.model, example or (self.args, self.kwargs), notes)
