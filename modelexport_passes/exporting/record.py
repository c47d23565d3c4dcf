"""What an export from torch leaves beside the model: example inputs, torch's own outputs, how it was exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    import torch

RECORD_KEY = "modelexport_passes.export"


@dataclass(frozen=True)
class TorchRun:
    """A torch model and what to call it with: what was exported, to be run again where modules are compared.

    Attributes:
        module: the model, in the mode it was exported in.
        args: positional inputs.
        kwargs: named inputs.
        root: path of the submodule that is the root of all scopes; "" for the model itself.
    """

    module: torch.nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    root: str = ""


class OutputsOnDemand(Sequence["np.ndarray[Any, Any]"]):
    """What torch returns: the model is run when somebody asks first, and once."""

    def __init__(self, run: Callable[[], list[np.ndarray[Any, Any]]]) -> None:
        """Keep what runs the model."""
        self._run = run
        self._outputs: list[np.ndarray[Any, Any]] | None = None

    def _known(self) -> list[np.ndarray[Any, Any]]:
        if self._outputs is None:
            self._outputs = self._run()
        return self._outputs

    def __getitem__(self, index: Any) -> Any:
        """One output, or several."""
        return cast("Any", self._known()[index])

    def __len__(self) -> int:
        """How many there are."""
        return len(self._known())

    def __iter__(self) -> Iterator[np.ndarray[Any, Any]]:
        """All, in the order of the graph's outputs."""
        return iter(self._known())


@dataclass(frozen=True)
class ExportRecord:
    """Facts of one export, kept in memory with the model (``model.meta``), never saved.

    Attributes:
        exporter: the exporter that made the model, ``dynamo`` or ``torchscript``.
        inputs: graph input name -> example input.
        outputs: what the torch model returned for ``inputs``, in the order of the graph's outputs; empty when torch's
            results cannot be put in that order (then ``notes`` says so). After an export the model is run when this is
            first read, with the state that it has then.
        notes: one line for each thing a person should know, such as why a fallback was taken.
        seconds: wall-clock time of the export.
        run: the torch model with the example inputs it was exported with.
    """

    exporter: str
    inputs: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict[str, "np.ndarray[Any, Any]"])
    outputs: Sequence[np.ndarray[Any, Any]] = field(
        default_factory=list["np.ndarray[Any, Any]"], repr=False, compare=False
    )
    notes: list[str] = field(default_factory=list[str])
    seconds: float = 0.0
    run: TorchRun | None = field(default=None, repr=False, compare=False)


def record_of(model: ir.Model) -> ExportRecord | None:
    """The record of the export that made this model, if it was exported in this process."""
    record = cast("object", model.meta.get(RECORD_KEY))  # pyright: ignore[reportUnknownMemberType]
    return record if isinstance(record, ExportRecord) else None


def set_record(model: ir.Model, record: ExportRecord) -> None:
    """Keep a record with the model."""
    model.meta[RECORD_KEY] = record
