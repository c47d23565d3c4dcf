"""A model while it is captured: modules that torch captures without their place in the model are plain ones meanwhile.

torch's exporter records no call of a `torch.fx.GraphModule` or of what `torch.compile` returns
(``torch/fx/experimental/proxy_tensor.py``, ``_ModuleStackTracer.call_module``), so operations in them would seem to be
of the caller; a trace refuses compiled code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, cast

import torch

from modelexport_passes.scopes.class_names import class_name


def without_compilation(model: torch.nn.Module) -> torch.nn.Module:
    """The module itself, out of what `torch.compile` puts around it."""
    inner: object = getattr(model, "_orig_mod", None)
    if type(model).__name__ == "OptimizedModule" and isinstance(inner, torch.nn.Module):
        return without_compilation(inner)
    return model


@contextlib.contextmanager
def plain_modules(model: torch.nn.Module) -> Generator[None]:
    """Let compiled modules be what was compiled, and graph modules plain ones with the same ``forward``.

    A model that is itself a graph module, and whose nodes say which modules they came from, is left: torch's exporter
    takes over what they say.
    """
    with contextlib.ExitStack() as undo:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if (inner := without_compilation(child)) is not child:
                    undo.callback(parent.register_module, name, child)
                    parent.register_module(name, inner)
        for module in list(model.modules()):
            attributes = vars(module)
            if attributes.get("_compiled_call_impl") is not None:  # ``module.compile()``
                undo.callback(attributes.__setitem__, "_compiled_call_impl", attributes["_compiled_call_impl"])
                attributes["_compiled_call_impl"] = None
            if isinstance(module, torch.fx.GraphModule) and not (module is model and _tells_modules(module)):
                kind = type(module)
                undo.callback(setattr, module, "__class__", kind)
                cast("Any", module).__class__ = _plain_class(kind)
        yield


def _tells_modules(module: torch.fx.GraphModule) -> bool:
    return any(node.meta.get("nn_module_stack") for node in module.graph.nodes)


def _plain_class(kind: type[torch.fx.GraphModule]) -> type[torch.nn.Module]:
    package, _, name = class_name(kind).rpartition(".")
    return type(name, (torch.nn.Module,), {"forward": kind.forward, "__module__": package, "__qualname__": name})
