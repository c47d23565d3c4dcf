"""A model's state across an export: what a trace leaves in a model goes again."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

import torch


@contextmanager
def state_kept(model: torch.nn.Module) -> Generator[None]:
    """Give every module its attributes back as they were.

    Models fill caches while they run. What a trace puts there has no data, or is one trace's own: it would be in the
    results of the next run, and in the next trace.
    """
    before = [(holder, dict(holder)) for holder in _attributes(model)]
    try:
        yield
    finally:
        for holder, attributes in before:
            if holder.keys() != attributes.keys() or any(holder[name] is not attributes[name] for name in attributes):
                holder.clear()
                holder.update(attributes)


def _attributes(model: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """The attributes of all modules, their buffers, and the attributes of the plain objects that modules hold."""
    seen: set[int] = set()
    for module in model.modules():
        yield vars(module)
        yield vars(module)["_buffers"]
        for value in list(vars(module).values()):
            plain = not isinstance(value, torch.nn.Module | torch.Tensor | type | FunctionType | MethodType)
            if plain and hasattr(value, "__dict__") and isinstance(vars(value), dict) and id(value) not in seen:
                seen.add(id(value))
                yield vars(value)
