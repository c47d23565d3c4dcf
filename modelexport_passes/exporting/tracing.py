"""Which module calls a model makes while it is traced, by forward hooks, and which of them its results depend on."""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from typing import Any, cast

import torch

from modelexport_passes.exporting.module_calls import hooked, tensors_in
from modelexport_passes.scopes.traced_calls import TracedCall


@contextlib.contextmanager
def traced_calls(model: torch.nn.Module) -> Generator[list[TracedCall]]:
    """Record the calls of the model itself, with those made in them, as often as it is traced meanwhile.

    Scripted modules take no hooks: their calls are not recorded.
    """
    recorder = _Recorder(model)
    with hooked(recorder.paths, recorder.enter, recorder.leave):
        yield recorder.found


class _Recorder:
    def __init__(self, model: torch.nn.Module) -> None:
        modules = cast("Iterator[tuple[str, torch.nn.Module]]", model.named_modules())
        scripted = cast("type", torch.jit.ScriptModule)  # pyright: ignore[reportPrivateImportUsage]
        self.paths = {module: path for path, module in modules if not isinstance(module, scripted)}
        self.found: list[TracedCall] = []
        self._running: list[TracedCall] = []
        self._counts: Counter[str] = Counter()
        self._returned: dict[TracedCall, list[Any]] = {}

    def enter(self, module: torch.nn.Module, _args: Any, _kwargs: Any) -> None:
        if _is_tracing():
            path = self.paths[module]
            call = TracedCall(path, self._counts[path])
            self._counts[path] += 1
            (self._running[-1].made if self._running else self.found).append(call)
            self._running.append(call)

    def leave(self, module: torch.nn.Module, _args: Any, _kwargs: Any, result: Any) -> None:
        while _is_tracing() and self._running:  # a call that failed, which its caller caught, never left
            call = self._running.pop()
            if call.path == self.paths[module]:
                self._returned[call] = _traced_values([result])
                break
        if not self._running and self._returned:
            self._mark_unused()

    def _mark_unused(self) -> None:
        """Once all has run: a call whose results are on no way to the model's leaves nothing in a file."""
        needed = _needed(self._returned[self.found[-1]])
        for call, values in self._returned.items():
            call.used = not values or any(value.unique() in needed for value in values)
        self._returned.clear()


def _is_tracing() -> bool:
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def _traced_values(results: list[Any]) -> list[Any]:
    """The values of a trace that tensors stand for; none where one of them is not told.

    Torch names a value after the variable that holds its tensor where it is asked for: no variable here holds one.
    """
    return _values_of(list(tensors_in(results)))


def _values_of(tensors: list[torch.Tensor]) -> list[Any]:
    # Torch has no public word for it.
    value_of = getattr(importlib.import_module("torch._C"), "_get_value_trace", None)
    try:
        return [] if value_of is None else list(map(value_of, tensors))
    except RuntimeError:
        return []


def _needed(values: Iterable[Any]) -> set[int]:
    """The numbers of all values that these are computed from."""
    found: set[int] = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if value.unique() not in found:
            found.add(value.unique())
            stack.extend(_read_by(value.node()))
    return found


def _read_by(node: Any) -> Iterator[Any]:
    """What a node of a trace reads, and what the bodies in it read."""
    yield from node.inputs()
    for block in node.blocks():
        yield from block.outputs()
        for inner in block.nodes():
            yield from _read_by(inner)
