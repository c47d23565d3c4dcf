"""Which module calls a model makes while it is traced, by forward hooks."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator
from typing import Any

import torch

from modelexport_passes.scopes.traced_calls import TracedCall


@contextlib.contextmanager
def traced_calls(model: torch.nn.Module) -> Generator[list[TracedCall]]:
    """Record the calls of the model itself, with those made in them, as often as it is traced meanwhile."""
    paths = {module: path for path, module in model.named_modules()}
    found: list[TracedCall] = []
    running: list[TracedCall] = []
    counts: Counter[str] = Counter()

    def enter(module: torch.nn.Module, _args: Any) -> None:
        if torch.jit.is_tracing():
            call = TracedCall(paths[module], counts[paths[module]])
            counts[call.path] += 1
            (running[-1].made if running else found).append(call)
            running.append(call)

    def leave(module: torch.nn.Module, _args: Any, _result: Any) -> None:
        # A call that ended in an error, which its caller caught, never left.
        while torch.jit.is_tracing() and running and running.pop().path != paths[module]:
            pass

    handles: list[Any] = []
    try:
        for module in paths:
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
        yield found
    finally:
        for handle in handles:
            handle.remove()
