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
    dicts = [(holder, dict(holder)) for holder in _dicts(model)]
    lists = [(holder, list(holder)) for holder in _lists(model)]
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


def _dicts(model: torch.nn.Module) -> Iterator[dict[Any, Any]]:
    """The attributes of all modules and of the plain objects that they hold, and dicts among them: buffers, hooks."""
    seen: set[int] = set()
    for module in model.modules():
        yield vars(module)
        for value in list(vars(module).values()):
            inner = cast("dict[Any, Any]", value) if isinstance(value, dict) else _attributes_of_plain(value)
            if inner is not None and id(inner) not in seen:
                seen.add(id(inner))
                yield inner


def _lists(model: torch.nn.Module) -> Iterator[list[Any]]:
    for module in model.modules():
        for value in list(vars(module).values()):
            if isinstance(value, list):
                yield cast("list[Any]", value)


def _attributes_of_plain(value: object) -> dict[Any, Any] | None:
    """The attributes of an object that is neither module, tensor, class nor function."""
    if isinstance(value, torch.nn.Module | torch.Tensor | type | FunctionType | MethodType):
        return None
    attributes = getattr(value, "__dict__", None)
    return cast("dict[Any, Any]", attributes) if isinstance(attributes, dict) else None
