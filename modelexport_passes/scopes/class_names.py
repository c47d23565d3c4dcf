"""Qualified names of module classes, and the classes of torch's own that stand in a model's place."""

from __future__ import annotations

from modelexport_passes.scopes.scope import UNKNOWN_CLASS

_GRAPH_MODULE = "torch.fx.graph_module.GraphModule"
_GRAPH_MODULE_IMPL = f"{_GRAPH_MODULE}.__new__.<locals>."
_EXPORT_WRAPPER = "torch.export."


def class_name(kind: type) -> str:
    """The qualified name of a module's class: ``torch.nn.modules.linear.Linear``.

    `torch.fx.GraphModule` makes a class for each instance and gives it the name of the class that was traced; its
    qualified name is ``torch.fx.graph_module.`` and that name.
    """
    name = f"{kind.__module__}.{kind.__qualname__}"
    return f"{kind.__module__}.{kind.__name__}" if name.startswith(_GRAPH_MODULE_IMPL) else name


def readable_class_name(name: str) -> str:
    """A class name as torch's exporter writes it, in the form that scopes have.

    ``torch.export`` puts a function's local class around some models, and that says nothing of the model: its name is
    `UNKNOWN_CLASS`.
    """
    if "<locals>" not in name:
        return name
    if name.startswith(_GRAPH_MODULE_IMPL):
        return _GRAPH_MODULE
    return UNKNOWN_CLASS if name.startswith(_EXPORT_WRAPPER) else name
