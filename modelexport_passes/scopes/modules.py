"""What a torch model at hand tells: the paths and classes of its modules, and the factory that makes it."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Protocol, cast, runtime_checkable

from modelexport_passes.errors import ConfigError, MissingDependencyError, ModelExportError
from modelexport_passes.scopes.class_names import class_name
from modelexport_passes.scopes.scope import UNKNOWN_CLASS


@runtime_checkable
class TorchModule(Protocol):
    """What is asked of a ``torch.nn.Module``; torch itself need not be there to name the type."""

    def named_modules(self, *, remove_duplicate: bool = ...) -> Iterator[tuple[str, Any]]:
        """Path and module, the root first."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Name and tensor of each parameter and buffer."""
        ...


class PartOfModel:
    """A module at a path in a larger model of which nothing else is known.

    Attributes:
        path: the path.
    """

    def __init__(self, module: TorchModule, path: str) -> None:
        self._module = module
        self.path = path

    def named_modules(self, *, remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
        """Path and module, the root first; what lies around the module has no known class."""
        yield "", self
        parts = self.path.split(".")
        for depth in range(1, len(parts)):
            yield ".".join(parts[:depth]), self
        for path, module in self._module.named_modules(remove_duplicate=remove_duplicate):
            yield f"{self.path}.{path}" if path else self.path, module

    def state_dict(self) -> Mapping[str, Any]:
        """Name in the larger model and tensor of each parameter and buffer."""
        return {f"{self.path}.{name}": tensor for name, tensor in self._module.state_dict().items()}


def module_classes(model: TorchModule, *, aliases: bool = True) -> dict[str, str]:
    """Path -> qualified class of every module; an instance under each of its names, or with the first one only."""
    modules = model.named_modules(remove_duplicate=not aliases)
    return {
        path: UNKNOWN_CLASS if isinstance(module, PartOfModel) else class_name(module.__class__)
        for path, module in modules
    }


def make_module(factory: str) -> TorchModule:
    """Call ``package.module:function``, which lies in the working directory or is installed.

    Returns:
        what it returns, or the first part of it where that is a tuple (the factory of ``input.export`` serves as well).

    Raises:
        ConfigError: it is not of this form, there is no such function, or it returns no torch module.
        MissingDependencyError: its module, or one that it imports, is not installed.
        ModelExportError: it fails.
    """
    module_name, _, function = factory.partition(":")
    if not all(part.isidentifier() for part in (function, *module_name.split("."))):
        raise ConfigError(f"module {factory!r}: expected package.module:function")
    with _importable(os.getcwd()):
        try:
            make = getattr(importlib.import_module(module_name), function, None)
        except ImportError as error:
            raise MissingDependencyError(f"module {factory!r}: {error}; install it") from error
        if not callable(make):
            raise ConfigError(f"module {factory!r}: {module_name} has no function {function!r}")
        try:
            made: object = make()
        except Exception as error:
            # A factory is foreign code and may raise anything; all of it means that there is no model to ask.
            raise ModelExportError(f"module {factory!r}: {type(error).__name__}: {error}") from error
    first: object = cast("tuple[object, ...]", made)[0] if isinstance(made, tuple) and made else cast("object", made)
    if not isinstance(first, TorchModule):
        raise ConfigError(f"module {factory!r} returned {type(first).__name__}; expected a torch module")
    return first


@contextlib.contextmanager
def _importable(folder: str) -> Generator[None]:
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
