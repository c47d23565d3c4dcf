"""Key-value caches as named tensors: ``past_key_values.{layer}.key`` in, ``present.{layer}.key`` out."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from modelexport_passes.errors import ModelExportError


def empty_cache() -> Any:
    """A cache whose every layer keeps all keys and values; a window is applied by the mask."""
    return _cache_utils().DynamicCache()


def filled_cache(tensors: Mapping[str, torch.Tensor], prefix: str, middle: str = "") -> Any:
    """The cache that tensors named ``{prefix}.{layer}{middle}.key`` and ``.value`` are.

    The layers are given their tensors, where the cache's own way would join them to empty ones.
    """
    utils = _cache_utils()
    cache = utils.DynamicCache()
    layer = 0
    while (key := tensors.get(f"{prefix}.{layer}{middle}.key")) is not None:
        filled = utils.DynamicLayer()
        filled.lazy_initialization(key, key)
        filled.keys, filled.values = key, tensors[f"{prefix}.{layer}{middle}.value"]
        cache.layers.append(filled)
        layer += 1
    return cache


def cache_tensors(cache: Any, prefix: str, middle: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Keys and values of all layers, by name.

    Raises:
        ModelExportError: a layer holds something else, such as the state of a state space model.
    """
    layers = getattr(cache, "layers", None)
    if layers is None:
        raise ModelExportError(f"export_hf: the cache is a {type(cache).__name__}; expected keys and values by layer")
    for number, layer in enumerate(layers):
        if not isinstance(getattr(layer, "keys", None), torch.Tensor):
            what = f"layer {number} of the cache is a {type(layer).__name__}, which holds no keys and values"
            raise ModelExportError(f"export_hf: {what}; export without cache (task without '-with-past')")
        yield f"{prefix}.{number}{middle}.key", layer.keys
        yield f"{prefix}.{number}{middle}.value", layer.values


def _cache_utils() -> Any:
    return importlib.import_module("transformers.cache_utils")
