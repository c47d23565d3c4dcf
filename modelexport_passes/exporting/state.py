"""A model's state across an export: what a trace leaves in a model goes again."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any, cast

import torch
from torch._subclasses.fake_tensor import FakeTensor


@contextmanager
def state_kept(model: torch.nn.Module) -> Generator[None]:
    """Give every module its attributes back as they were, hooks and the content of lists, dicts and buffers included.

    Buffers, and tensors that are plain attributes or held in lists and dicts, get their content back to the bit.
    Parameters are not copied: a model that writes its own parameters while it runs keeps what it wrote. The state of
    torch's random numbers on the CPU is given back, too.

    Models fill caches while they run, and set themselves up when they first do. What a trace puts there has no data, or
    is one trace's own: it would be in the results of the next run, and in the next trace.
    """
    holders = list(_holders(model))
    dicts = [(holder, dict(holder)) for holder in holders if isinstance(holder, dict)]
    lists = [(holder, list(holder)) for holder in holders if isinstance(holder, list)]
    contents = [(storage, storage.clone()) for storage in _written_storages(model, holders)]
    try:
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            yield
    finally:
        for storage, before in contents:
            if not torch.equal(_bytes(storage), _bytes(before)):
                storage.copy_(before)
        for holder, content in dicts:
            if holder.keys() != content.keys() or any(holder[name] is not content[name] for name in content):
                holder.clear()
                holder.update(content)
        for holder, content in lists:
            if len(holder) != len(content) or any(one is not other for one, other in zip(holder, content, strict=True)):
                holder[:] = content


def _written_storages(
    model: torch.nn.Module, holders: Iterable[dict[Any, Any] | list[Any]]
) -> list[torch.UntypedStorage]:
    """The memory of all tensors that a model holds, without that of its parameters."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters() if _has_memory(parameter)}
    held = [value for holder in holders for value in (holder.values() if isinstance(holder, dict) else holder)]
    found: dict[int, torch.UntypedStorage] = {}
    for tensor in [*model.buffers(), *held]:
        if isinstance(tensor, torch.Tensor) and _has_memory(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                found.setdefault(storage.data_ptr(), storage)
    return list(found.values())


def _has_memory(tensor: torch.Tensor) -> bool:
    """Tensors of other layouts, without data, or of classes that wrap tensors have no memory of their own to copy."""
    plain = type(tensor) is torch.Tensor or isinstance(tensor, torch.nn.Parameter | torch.nn.Buffer)
    return plain and not isinstance(tensor, FakeTensor) and tensor.layout == torch.strided and not tensor.is_meta


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


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
