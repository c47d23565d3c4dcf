"""Whether a torch model or a reference file that was handed in is the model of the file: told by their weights.

A weight of the file matches one that is handed in by name and extent, or by its values (`scopes.values`). Without a
single match what was handed in tells nothing of the file, and everything concluded from it would be wrong. Where an
exporter renamed all weights and changed their values (it folds norms), most of their extents have to be there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import onnx_ir as ir

from modelexport_passes.errors import ModelExportError
from modelexport_passes.fast_nodes import initializers_of
from modelexport_passes.scopes.modules import PartOfModel, TorchModule
from modelexport_passes.scopes.prefixes import common_prefix
from modelexport_passes.scopes.values import signature, signatures

_Extent = tuple[int, ...]
_STATE_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
"""A name of a state dict: exporters' own names are others."""


def fitting(module: TorchModule, graph: ir.Graph) -> TorchModule:
    """The module as it lies in the file: itself, or as a part of the model that the file holds.

    Raises:
        ModelExportError: none of the file's weights is one of the module's, by name or by value.
    """
    state = {name: tensor for name, tensor in module.state_dict().items() if tensor.numel() > 1}
    weights = _weights(graph)
    if not state or not weights:
        return module  # nothing to measure
    extents = {name: _extent(tensor.shape) for name, tensor in state.items()}
    written = common_prefix(list(graph), graph.initializers)
    names = {str(value.name).removeprefix(written): value for value in weights}
    if any(_is_named_by(name, extents, value) for name, value in names.items()):
        return module
    prefix = _prefix(names, extents)
    if prefix is not None:
        return PartOfModel(module, prefix)
    told = {signature(t.detach().cpu().float().numpy()) for t in state.values() if t.is_floating_point()} - {None}
    if told and not told.isdisjoint(signatures(weights).values()):
        return module
    if _fits_by_extent(weights, set(extents.values())):
        return module
    raise ModelExportError(
        f"recover-scopes: the module {type(module).__name__} does not fit the file: none of its {len(state)} "
        f"parameters (first {next(iter(state))!r}) is among the file's {len(weights)} weights (first "
        f"{weights[0].name!r}), by name and size or by value; expected the model that was exported, or a part of it; "
        "leave module out to read the file alone"
    )


def check_reference(reference: ir.Graph, graph: ir.Graph) -> None:
    """Check that a reference is the same model.

    Raises:
        ModelExportError: none of the file's weights is one of the reference's, by name or by value.
    """
    ours, theirs = _weights(graph), _weights(reference)
    if not ours or not theirs:
        return
    extents = {str(value.name): _extent_of(value) for value in theirs}
    if any(extents.get(str(value.name)) == _extent_of(value) for value in ours):
        return
    told = set(signatures(theirs).values())
    if told and not told.isdisjoint(signatures(ours).values()):
        return
    if _fits_by_extent(ours, set(extents.values())):
        return
    raise ModelExportError(
        f"recover-scopes: the reference does not fit the file: none of its {len(theirs)} weights (first "
        f"{theirs[0].name!r}) is among the file's {len(ours)} (first {ours[0].name!r}), by name and size or by value; "
        "expected another export of the same model"
    )


def _fits_by_extent(weights: Sequence[ir.Value], extents: AbstractSet[_Extent]) -> bool:
    """Whether weights that an exporter folded and renamed may be these: one that took in a norm keeps its extent."""
    if any(_STATE_NAME.fullmatch(str(value.name)) for value in weights):
        return False
    return 2 * sum(_extent_of(value) in extents for value in weights) >= len(weights)


def _weights(graph: ir.Graph) -> list[ir.Value]:
    """Initializers that may be weights: more than one element."""
    return [v for v in initializers_of(graph) if v.const_value is not None and v.const_value.size > 1]


def _is_named_by(name: str, extents: Mapping[str, _Extent], value: ir.Value) -> bool:
    """Whether a weight has the name of a parameter, be it with a suffix of a tool's (``fc.weight_quantized``)."""
    if name in extents:
        return extents[name] == _extent_of(value)
    stem = name
    while "_" in stem:
        stem = stem.rpartition("_")[0]
        if stem in extents:
            return True
    return False


def _prefix(names: Mapping[str, ir.Value], extents: Mapping[str, _Extent]) -> str | None:
    """What stands before the module's own names in the file: the path that it has in a larger model."""
    found: Counter[str] = Counter()
    for name, value in names.items():
        parts = name.split(".")
        for at in range(1, len(parts)):
            own = ".".join(parts[at:])
            if extents.get(own) == _extent_of(value):
                found[".".join(parts[:at])] += 1
    if not found:
        return None
    (best, count), *others = found.most_common(2)
    unambiguous = not others or others[0][1] < count
    return best if unambiguous and 2 * count > len(extents) else None


def _extent_of(value: ir.Value) -> _Extent:
    tensor = value.const_value
    return () if tensor is None else _extent(tensor.shape)


def _extent(sizes: Iterable[object]) -> _Extent:
    """The sizes in order, whatever was transposed."""
    return tuple(sorted(int(str(size)) for size in sizes))
