"""A model as deep as one likes, as torch would export it: the last block of a real export, written out again and again.

torch needs minutes for a thousand operations; measuring speed at a million needs another way. The copies are what the
exporter writes for a further layer: nodes, values and weights of their own, metadata that names the layer, and fx nodes
that are numbered on.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers

from tests.zoo import TensorsOut, randomise

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
NEEDED = ("pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy")
"""The metadata that tells modules. With all that torch writes, a million nodes are more than protobuf can hold."""

_LAYERS = 3
_OPTIONS: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": _LAYERS,
    "vocab_size": 32,
    "attn_implementation": "eager",
}


@dataclass(frozen=True)
class Base:
    """A real export of few layers.

    Attributes:
        model: with three layers.
        layers: what an exporter calls the list of them: ``layers`` or the end of a longer path.
    """

    model: onnx.ModelProto
    layers: str

    def layer(self, number: int) -> str:
        """How names and metadata call a layer."""
        return f"{self.layers}.{number}"


def exported_llama(*, optimize: bool = False) -> Base:
    """A tiny Llama as ``torch.onnx.export`` writes it."""
    model = transformers.LlamaModel(transformers.LlamaConfig(**_OPTIONS, use_cache=False)).eval()
    randomise(model, torch.Generator().manual_seed(0))  # exporters write equal parameters once
    tokens = torch.ones(1, 8, dtype=torch.long)
    program = torch.onnx.export(model, kwargs={"input_ids": tokens}, dynamo=True, optimize=optimize, verbose=False)
    assert program is not None
    return Base(program.model_proto, "layers")


def exported_bert() -> Base:
    """A tiny BERT as the TorchScript exporter writes it, which knows modules by the names of nodes alone."""
    model = transformers.BertModel(transformers.BertConfig(**_OPTIONS)).eval()
    randomise(model, torch.Generator().manual_seed(0))
    tokens = torch.ones(1, 8, dtype=torch.long)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        module = TensorsOut(model, ["input_ids", "attention_mask"])
        torch.onnx.export(module, (tokens, tokens), path, dynamo=False)
        return Base(onnx.load(path), "layer")


def deepened(base: Base, nodes: int, *, metadata: Iterable[str] | None = NEEDED) -> onnx.ModelProto:
    """The same model with as many layers as make it ``nodes`` operations, or a few less.

    Args:
        base: what is made deep.
        nodes: how many operations there shall be.
        metadata: the keys that nodes and values keep; None for all.
    """
    deep = onnx.ModelProto()
    deep.CopyFrom(base.model)
    graph = deep.graph
    if metadata is not None:
        keep = frozenset(metadata)
        for entry in (*graph.node, *graph.value_info):
            kept = [prop for prop in entry.metadata_props if prop.key in keep]
            del entry.metadata_props[:]
            entry.metadata_props.extend(kept)
    last = base.layer(_LAYERS - 1)
    block = [node for node in graph.node if _belongs(node, last)]
    tail = list(graph.node)[list(graph.node).index(block[-1]) + 1 :]
    del graph.node[len(graph.node) - len(tail) :]
    made = {name for node in block for name in node.output}
    taken, given = _ends(base, block, tail)
    values = {info.name: info for info in graph.value_info}
    weights = _own_weights(base.model.graph, block)
    own = {*made, *(tensor.name for tensor in weights)}
    before = given
    kinds = Counter(_kind(name)[0] for name in {_fx_name(node) for node in block})
    copies = (nodes - len(graph.node) - len(tail)) // len(block)
    for copy in range(copies):
        more = {kind: kinds[kind] * (copy + 1) for kind in kinds}
        layer = _Layer(last, base.layer(_LAYERS + copy), own, {taken: before}, more)
        graph.node.extend(layer.nodes(block))
        graph.initializer.extend(layer.weights(weights))
        graph.value_info.extend(layer.value(values[name]) for name in own if name in values)
        before = layer.name(given)
    for node in tail:
        for at, name in enumerate(node.input):
            node.input[at] = before if name == given else name
        _count_on(node, {kind: kinds[kind] * copies for kind in kinds})
    for output in graph.output:
        output.name = before if output.name == given else output.name
    graph.node.extend(tail)
    return deep


def _belongs(node: onnx.NodeProto, layer: str) -> bool:
    """Whether an operation is of a layer, by its metadata or its name."""
    return f"'{layer}'" in _scopes(node) or f"/{layer}/" in node.name


def _own_weights(graph: onnx.GraphProto, block: list[onnx.NodeProto]) -> list[onnx.TensorProto]:
    """What only a block reads."""
    inside = Counter(name for node in block for name in node.input)
    everywhere = Counter(name for node in graph.node for name in node.input)
    return [tensor for tensor in graph.initializer if 0 < everywhere[tensor.name] == inside[tensor.name]]


def _scopes(node: onnx.NodeProto) -> str:
    return next((entry.value for entry in node.metadata_props if entry.key == NAME_SCOPES), "")


def _fx_name(node: onnx.NodeProto) -> str:
    """The fx node that it was made from: the last of its scopes; empty without any."""
    return _scopes(node)[:-2].rpartition("'")[2]


def _kind(name: str) -> tuple[str, int]:
    """``add_12`` -> ``add``, 12. Torch numbers the fx nodes of each kind through all layers."""
    kind, _, number = name.rpartition("_")
    return (kind, int(number)) if kind and number.isdecimal() else (name, 0)


def _count_on(node: onnx.NodeProto, more: dict[str, int]) -> None:
    """Let the fx node of a node have the number that it has behind so many more of its kind."""
    for entry in node.metadata_props:
        name = _fx_name(node)
        if entry.key == NAME_SCOPES and name:
            kind, number = _kind(name)
            number += more.get(kind, 0)
            entry.value = f"{entry.value[: -2 - len(name)]}{kind}{f'_{number}' if number else ''}']"


def _ends(base: Base, block: list[onnx.NodeProto], tail: list[onnx.NodeProto]) -> tuple[str, str]:
    """The value that a block takes from the block before, and the one that it gives."""
    nodes = base.model.graph.node
    before = {name for node in nodes if _belongs(node, base.layer(_LAYERS - 2)) for name in node.output}
    made = {name for node in block for name in node.output}
    constants = {name for node in nodes if node.op_type == "Constant" for name in node.output}
    (taken,) = {name for node in block for name in node.input if name in before} - constants - _helpers(nodes)
    (given,) = {name for node in tail for name in node.input if name in made}
    return taken, given


def _helpers(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """What is computed from constants alone."""
    found: set[str] = set()
    for node in nodes:
        if all(name in found for name in node.input):
            found.update(node.output)
    return found


class _Layer:
    """A further layer: the names and the metadata of the last one with another number."""

    def __init__(self, last: str, path: str, own: set[str], ends: dict[str, str], more: dict[str, int]) -> None:
        self._last = re.compile(rf"\b{re.escape(last)}\b")
        self._path = path
        self._number = path.rpartition(".")[2]
        self._more = more
        self._own = own
        self._ends = ends

    def name(self, name: str) -> str:
        """Of a value: another one if it is of the layer."""
        return self._another(name) if name in self._own else self._ends.get(name, name)

    def nodes(self, block: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
        for original in block:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            node.name = self._another(node.name)
            node.input[:] = [self.name(name) for name in node.input]
            node.output[:] = [self.name(name) for name in node.output]
            for entry in node.metadata_props:
                entry.value = self._renamed(entry.value)
            _count_on(node, self._more)
            yield node

    def weights(self, weights: Iterable[onnx.TensorProto]) -> Iterator[onnx.TensorProto]:
        for original in weights:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(original)
            tensor.name = self.name(tensor.name)
            yield tensor

    def value(self, original: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
        value = onnx.ValueInfoProto()
        value.CopyFrom(original)
        value.name = self.name(value.name)
        for entry in value.metadata_props:
            entry.value = self._renamed(entry.value)
        return value

    def _another(self, name: str) -> str:
        """The name with the path of this layer, or its number where the name says no path."""
        renamed = self._renamed(name)
        return renamed if renamed != name else f"{name}_{self._number}"

    def _renamed(self, text: str) -> str:
        return self._last.sub(self._path, text)
