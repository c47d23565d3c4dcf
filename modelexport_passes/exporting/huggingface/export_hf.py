"""``mx.export_hf``: a Hugging Face model by name or in memory -> plain ONNX with named inputs, outputs and scopes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import onnx_ir as ir
import torch

from modelexport_passes.errors import ConfigError, ModelExportError, root_cause
from modelexport_passes.exporting.attempts import Attempt
from modelexport_passes.exporting.dynamo import DynamoOptions
from modelexport_passes.exporting.export import check_exporter, export_first
from modelexport_passes.exporting.huggingface.decoder import cached_decoder
from modelexport_passes.exporting.huggingface.encoder_decoder import seq2seq_part
from modelexport_passes.exporting.huggingface.flat import Flat, by_argument, named_tensors
from modelexport_passes.exporting.huggingface.inputs import example_inputs
from modelexport_passes.exporting.huggingface.loading import WITH_PAST, load_model
from modelexport_passes.exporting.huggingface.signature import Signature
from modelexport_passes.exporting.huggingface.sizes import Axes, other_sizes
from modelexport_passes.exporting.huggingface.whole import prepared_whole, whole
from modelexport_passes.exporting.stack_traces import TraceMode
from modelexport_passes.exporting.state import state_kept
from modelexport_passes.exporting.translations.table import translation_table
from modelexport_passes.exporting.ways import BY_EXAMPLE, Captured, Exporter, Sizes, Ways

_WRAPPED = "model"
"""Path of the model in `Flat`."""

_LENGTHS_FIXED = "lengths are the example's: the model makes constants of them, or branches by them"
_SIZES_FIXED = "sizes are the example's: the model makes constants of them, or branches by them"

Part = Literal["encoder", "decoder", "decoder-with-past"]


def export_hf(
    model: str | os.PathLike[str] | torch.nn.Module,
    *,
    task: str | None = None,
    part: Part | None = None,
    inputs: Mapping[str, torch.Tensor] | None = None,
    prepare: bool | None = None,
    dynamic: bool = True,
    dtype: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    exporter: Exporter = "auto",
    opset: int | None = None,
    optimize: bool = False,
    translations: Mapping[Any, Callable[..., Any]] | None = None,
    traces: TraceMode = "relative",
    error_report: str | os.PathLike[str] | None = None,
) -> ir.Model:
    """Export a Hugging Face model; every node carries the scope of the module call it came from.

    Inputs and outputs have the names that the model gives them (``input_ids``, ``last_hidden_state``, nested ones as
    ``hidden_states.0``). With a task that ends in ``-with-past`` a decoder takes its cache, ``past_key_values.0.key``,
    and gives it, ``present.0.key``; one graph serves for a first run, on a cache of length 0, and for every later one.

    Args:
        model: a local folder or the name of a model on the hub, or a model of transformers (then ``task`` says only
            whether it has a cache).
        task: such as ``fill-mask``, ``text-generation-with-past``; None for the class that the weights were saved from.
        part: of an encoder-decoder model: ``encoder``, ``decoder`` (the first run) or ``decoder-with-past`` (every
            later one). None for the whole model without a cache.
        inputs: example inputs by name, where those made from the configuration do not do.
        prepare: let transformers compute ahead what the model computes from its inputs with loops over the data, such
            as the positions in images; the results become inputs of the graph. None: where dynamo fails without. For
            the whole model.
        dynamic: let batch and sequence lengths vary, where the model's code makes no constants of them (the record's
            notes say so); an example of one row is given a second one. False for the sizes of the example.
        dtype: of the weights; None for the one they were saved in.
        revision: branch, tag or commit on the hub.
        trust_remote_code: run code that comes with the weights.
        exporter: see `export`; ``auto`` tries prepared inputs before the example's branches, as
            ``dynamo+transformers+prepared``.
        opset: see `export`.
        optimize: see `export`.
        translations: see `export`.
        traces: see `export`.
        error_report: see `export`.

    Returns:
        The model; see `export`.

    Raises:
        ConfigError: the task or part is not known or not the model's; inputs are needed.
        MissingDependencyError: transformers is not installed.
        ModelExportError: the model cannot be loaded, does not run on the inputs, or is taken by no exporter.
    """
    if isinstance(model, torch.nn.Module):
        if dtype is not None:
            raise ConfigError("export_hf: dtype is for models that are loaded; this one is, in its own")
        loaded = model
    else:
        loaded = load_model(model, task, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code)
    check_exporter(exporter, loaded, translations, traces)
    signature = _signature(loaded, task, part, inputs, prepare=prepare is True)
    if dynamic:
        signature = signature.with_second_row()
    options = _Options(exporter, dynamic, opset, optimize, translation_table(translations))
    prepared: Callable[[], Signature] | None = None
    if prepare is None and exporter == "auto" and part is None and not _cached(task):
        prepared = functools.partial(prepared_whole, loaded, signature.inputs)
    exported = export_first(_attempts(signature, prepared, options), _WRAPPED, traces, error_report)
    _name_as_in_model(exported)
    return exported


@dataclass(frozen=True)
class _Options:
    """How to export, whatever the signature."""

    exporter: Exporter
    dynamic: bool
    opset: int | None
    optimize: bool
    translations: dict[Callable[..., Any], Callable[..., Any]]

    def ways(self, signature: Signature) -> Ways:
        names = list(signature.inputs)
        flat = Flat(signature.model, names, signature.run).eval()
        options: DynamoOptions = {
            "opset": self.opset,
            "dynamic_shapes": None,
            "input_names": names,
            "output_names": _output_names(signature),
            "optimize": self.optimize,
        }
        return Ways(flat, tuple(signature.inputs.values()), {}, options, self.translations, self._sizes(signature))

    def _sizes(self, signature: Signature) -> list[Sizes]:
        """What varies, by preference. A cache whose lengths are fixed would be of no use."""
        if not self.dynamic:
            return [Sizes(None)]
        names = list(signature.inputs)
        if not signature.may_be_fixed:
            return [Sizes(by_argument(signature.axes, names))]

        def varying(axes: Axes, *notes: str) -> Sizes:
            def others() -> Iterator[tuple[torch.Tensor, ...]]:
                return (tuple(made.values()) for _, made in other_sizes(signature.inputs, axes))

            return Sizes(by_argument(axes, names), others, notes)

        batches = {name: _batch_of(axes) for name, axes in signature.axes.items()}
        return [
            varying(signature.axes),
            varying(batches, _LENGTHS_FIXED),
            Sizes(None, notes=(_SIZES_FIXED,)),
        ]


def _batch_of(axes: Mapping[int, str]) -> Mapping[int, str]:
    return {axis: symbol for axis, symbol in axes.items() if symbol == "batch"}


def _attempts(
    signature: Signature, prepared: Callable[[], Signature] | None, options: _Options
) -> Iterator[Attempt[Captured]]:
    """Those of `export`; before those that know one way through the model, the example's, prepared inputs."""
    every = options.ways(signature).attempts(options.exporter)
    yield from (attempt for attempt in every if attempt.name not in BY_EXAMPLE)
    if prepared is not None:
        prepare = prepared

        def run() -> Captured:
            (rewritten,) = options.ways(prepare()).attempts("dynamo+transformers")
            return rewritten.run()

        scopes = "what transformers computed ahead are inputs of the graph; scopes are torch's own"
        yield Attempt("dynamo+transformers+prepared", run, scopes)
    yield from (attempt for attempt in every if attempt.name in BY_EXAMPLE)


def _name_as_in_model(exported: ir.Model) -> None:
    """Take the wrapper out of the names of weights."""
    prefix = f"{_WRAPPED}."
    for value in list(exported.graph.initializers.values()):
        name = str(value.name)
        if name.startswith(prefix) and name.removeprefix(prefix) not in exported.graph.initializers:
            value.name = name.removeprefix(prefix)


def _signature(
    model: torch.nn.Module,
    task: str | None,
    part: Part | None,
    inputs: Mapping[str, torch.Tensor] | None,
    *,
    prepare: bool,
) -> Signature:
    encodes = bool(getattr(cast("Any", model).config, "is_encoder_decoder", False))
    if part is not None and not encodes:
        raise ConfigError(f"export_hf: part {part!r} is for encoder-decoder models; {type(model).__name__} is none")
    if prepare and (_cached(task) or part is not None):
        raise ConfigError("export_hf: prepare is for whole models, without part and without '-with-past'")
    if part is not None:
        return seq2seq_part(model, part, inputs)
    if _cached(task):
        if encodes:
            expected = "part: encoder, decoder or decoder-with-past"
            raise ConfigError(f"export_hf: {type(model).__name__} has its cache in parts of their own; give {expected}")
        return cached_decoder(model, inputs)
    given = dict(inputs) if inputs is not None else example_inputs(model)
    return prepared_whole(model, given) if prepare else whole(model, given)


def _cached(task: str | None) -> bool:
    return task is not None and task.endswith(WITH_PAST)


def _output_names(signature: Signature) -> list[str]:
    """The names of what the model returns, found by running it once."""
    try:
        with torch.no_grad(), state_kept(signature.model):
            results = signature.run(**{name: tensor.clone() for name, tensor in signature.inputs.items()})
    # The model's own code runs here, and may raise anything.
    except Exception as error:
        what = ", ".join(f"{name}{list(tensor.shape)}" for name, tensor in signature.inputs.items())
        text = f"export_hf: {type(signature.model).__name__} does not run on {what}: {root_cause(error)}"
        raise ModelExportError(f"{text}; give inputs={{name: tensor}}") from error
    names = [name for name, _ in named_tensors(results)]
    return [f"output.{name}" if name in signature.inputs else name for name in names]
