"""What a torch model at hand tells of its modules: their paths, their classes, and whose parameters they own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def module_classes(model: torch.nn.Module) -> dict[str, str]:
    """Path -> qualified class of every module, an instance under each of its names."""
    modules = dict(model.named_modules(remove_duplicate=False))  # pyright: ignore[reportUnknownArgumentType]
    return {path: f"{type(module).__module__}.{type(module).__qualname__}" for path, module in modules.items()}
