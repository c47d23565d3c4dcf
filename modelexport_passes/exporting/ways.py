"""The ways to export one model: torch's exporters, each undisturbed by the one before."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree

from modelexport_passes.errors import innermost
from modelexport_passes.exporting.attempts import Attempt
from modelexport_passes.exporting.dynamo import (
    DynamoOptions,
    export_dynamo,
    export_dynamo_as_transformers,
    export_dynamo_by_example,
    exported_program_of,
    record_scopes,
)
from modelexport_passes.exporting.faithful import ONE_SIZE, check_elsewhere
from modelexport_passes.exporting.huggingface.patches import masks_as_called, transformers_model
from modelexport_passes.exporting.plain_modules import plain_modules
from modelexport_passes.exporting.state import state_kept
from modelexport_passes.exporting.torchscript import export_torchscript

Exporter = Literal[
    "dynamo", "dynamo+transformers", "dynamo+transformers+example", "dynamo+example", "torchscript", "auto"
]

_CONSTANT = re.compile(rf"inferred a static shape|Constraints violated|specialized it to be a constant|{ONE_SIZE}")
"""What torch says, or `check_elsewhere`, where a size that may vary is a constant in the model's code."""

BY_EXAMPLE = ("dynamo+transformers+example", "dynamo+example", "torchscript")
"""Exporters whose graph holds the way that the example takes through the model."""

_REWRITTEN = "scopes are torch's own; operations that a rewrite of the captured graph made are inferred"

_NAMED = "scopes are read from the names of operations, resolved with the model's modules, the rest inferred"

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Sizes:
    """Which sizes may vary in the graph.

    Attributes:
        shapes: as for ``torch.export``: per input, axis -> name of the dimension.
        others: positional arguments of other sizes, to compare a captured program with the model on the first that the
            model takes.
        notes: what there is to know of this choice.
    """

    shapes: Any
    others: Callable[[], Iterator[tuple[Any, ...]]] = tuple[tuple[Any, ...], ...]().__iter__
    notes: tuple[str, ...] = ()


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
    """The ways to export one model with the same arguments.

    Attributes:
        model: in the mode it shall be exported in.
        args: positional example inputs.
        kwargs: named example inputs.
        options: what is asked of torch's exporter.
        translations: operators that have one of their own.
        sizes: which may vary, by preference: where the model's code makes constants of them, dynamo tries the next.
    """

    model: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: DynamoOptions
    translations: dict[Callable[..., Any], Callable[..., Any]]
    sizes: Sequence[Sizes]

    def attempts(self, exporter: Exporter) -> list[Attempt[Captured]]:
        """The one asked for; for ``auto`` all that there are for this model, in the order in which to try them."""
        every = [self._attempt("dynamo", Ways._dynamo, "")]
        if transformers_model(self.model) is not None:
            every.append(self._attempt("dynamo+transformers", Ways._dynamo_as_transformers, _REWRITTEN))
            # A model that asks for values is likely to do other things that a rewrite mends.
            rewritten = functools.partial(Ways._by_example, rewritten=True)
            every.append(self._attempt("dynamo+transformers+example", rewritten, _REWRITTEN))
        plain = functools.partial(Ways._by_example, rewritten=False)
        every.append(self._attempt("dynamo+example", plain, "scopes are torch's own"))
        every.append(self._attempt("torchscript", Ways._torchscript, _NAMED))
        return [attempt for attempt in every if exporter in ("auto", attempt.name)]

    def _attempt(self, name: str, way: Callable[[Ways], Captured], scopes: str) -> Attempt[Captured]:
        def undisturbed(sizes: Sizes) -> Captured:
            with _silent(name), plain_modules(self.model), state_kept(self.model), masks_as_called():
                options: DynamoOptions = {**self.options, "dynamic_shapes": sizes.shapes}
                captured = way(dataclasses.replace(self, options=options, sizes=[sizes]))
            return dataclasses.replace(captured, notes=[*captured.notes, *sizes.notes])

        def run() -> Captured:
            # A trace takes any size; what it makes constants of it does not say.
            *wanted, last = self.sizes[:1] if name == "torchscript" else self.sizes
            for sizes in wanted:
                try:
                    return undisturbed(sizes)
                # torch raises what it finds in classes of all kinds. Where it is not about sizes other ways may do
                # better, but before a trace, which lets sizes vary and its branches not, it is tried with fixed ones.
                except Exception as error:
                    if name not in BY_EXAMPLE and not _CONSTANT.search(str(innermost(error))):
                        raise
            return undisturbed(last)

        return Attempt(name, run, scopes)

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
        model, notes = export_torchscript(self.model, self.args, self.kwargs, **self.options)
        return Captured(self, model, (self.args, self.kwargs), notes)

    def _recorded(self, program: torch.onnx.ONNXProgram, notes: list[str]) -> Captured:
        captured = exported_program_of(program)
        with state_kept(self.model):
            for sizes in self.sizes:
                check_elsewhere(captured, self.model, sizes.others())
        record_scopes(program)
        example = captured.example_inputs or (self.args, self.kwargs)
        return Captured(self, program.model, example, [*notes, *_ones_that_vary(program.model, example)])


@contextlib.contextmanager
def _silent(exporter: str) -> Generator[None]:
    """What exporters and models print while a model is captured is not the caller's output; what matters is raised."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if exporter != "torchscript":
            yield
            return
        # Its compiled part prints the whole graph when it fails, past Python's streams.
        kept = os.dup(1)
        try:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def _ones_that_vary(model: ir.Model, example: Arguments) -> Iterator[str]:
    """Axes that may vary and are 1 in the example: where torch broadcasts, it takes such a size for a constant."""
    tensors = [leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, torch.Tensor)]
    if len(tensors) != len(model.graph.inputs):
        return
    for value, tensor in zip(model.graph.inputs, tensors, strict=True):
        sizes = value.shape or ()
        axes = [axis for axis, size in enumerate(sizes) if not isinstance(size, int) and tensor.shape[axis] == 1]
        if axes:
            said = f"input {value.name!r}: axes {axes} may vary and are 1 in the example"
            yield f"{said}; torch may have made a constant of that, so give an example with 2 or more"
