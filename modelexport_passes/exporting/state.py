"""A model's state across an export: what a trace leaves in a model goes again."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any, cast

import torch


@contextmanager
def state_kept(model: torch.nn.Module) -> Generator[None]:
    """Give every module its attributes back as they were, hooks and the content of lists and dicts included.

    Models fill caches while they run, and set themselves up when they first do. What a trace puts there has no data, or
    is one trace's own: it would be in the results of the next run, and in the next trace.
    """
    holders = list(_holders(model))
    dicts = [(holder, dict(holder)) for holder in holders if isinstance(holder, dict)]
    lists = [(holder, list(holder)) for holder in holders if isinstance(holder, list)]
    try:
        yield
    finally:
        for holder, content in dicts:
            if holder.keys() != content.keys() or any(holder[name] is not content[name] for name in content):
                holder.clear()
                holder.update(content)
        for holder, content in lists:
            if len(holder) != len(content) or any(one is not other for one, other in zip(holder, content, strict=True)):
                holder[:] = content


def _holders(model: torch.nn.Module) -> Iterator[dict[Any, Any] | list[Any]]:
    """The attributes of all modules; the dicts and lists in them, and those of the plain objects that they hold."""
    seen: set[int] = set()
    for module in model.modules():
        yield vars(module)
        for value in list(vars(module).values()):
            yield from _held(value, seen)


def _held(value: object, seen: set[int]) -> Iterator[dict[Any, Any] | list[Any]]:
    attributes = _attributes_of_plain(value)
    found = [value, attributes, *(attributes or {}).values()]
    for holder in found:
        if isinstance(holder, dict | list) and id(cast("object", holder)) not in seen:
            seen.add(id(cast("object", holder)))
            yield cast("dict[Any, Any] | list[Any]", holder)


def _attributes_of_plain(value: object) -> dict[Any, Any] | None:
    """The attributes of an object that is neither module, tensor, class nor function."""
    if isinstance(value, torch.nn.Module | torch.Tensor | type | FunctionType | MethodType):
        return None
    attributes = getattr(value, "__dict__", None)
    return cast("dict[Any, Any]", attributes) if isinstance(attributes, dict) else None
