"""Functions that a pipeline file names: found without running them, and called; above all ``input.export.factory``."""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
from collections.abc import Callable, Generator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, cast

from modelexport_passes.config.problems import did_you_mean
from modelexport_passes.errors import ConfigError, MissingDependencyError, ModelExportError


def check_factory(factory: str, folder: Path) -> None:
    """Find a factory without importing it: its module lies beside the file or is installed, and binds its name.

    Args:
        factory: ``package.module:function``.
        folder: the folder of the pipeline file, searched first.

    Raises:
        ConfigError: it cannot be found.
    """
    module_name, _, function = factory.partition(":")
    if not all(part.isidentifier() for part in (function, *module_name.split("."))):
        raise ConfigError(f"got {factory!r}; expected package.module:function")
    spec = _find(module_name, folder)
    if spec is None:
        raise ConfigError(f"module {module_name!r} is neither beside the file ({folder}) nor installed")
    if spec.origin is None or not spec.origin.endswith(".py"):
        return
    names = _bound_names(Path(spec.origin))
    if names is not None and function not in names:
        raise ConfigError(f"{spec.origin} has no {function!r}{did_you_mean(function, names)}")


def call_factory(factory: str, folder: Path, options: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Import a factory and call it.

    Returns:
        the torch model, the positional and the named example inputs of its forward.

    Raises:
        MissingDependencyError: its module, or one that it imports, is not installed.
        ModelExportError: it fails, or returns something else.
    """
    what = f"input.export.factory {factory}"
    with importable(folder):
        make = load_function(factory, what)
        try:
            made = make(**options)
        except Exception as error:
            # A factory is foreign code and may raise anything; all of it means that there is no model to work on.
            raise ModelExportError(f"{what}: {type(error).__name__}: {error}") from error
    return _unpacked(factory, made)


def load_function(reference: str, what: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names, imported.

    Raises:
        MissingDependencyError: its module, or one that it imports, is not installed.
        ConfigError: it is no function.
    """
    module_name, _, function = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        advice = "install it (torch: pip install modelexport-passes[torch])"
        raise MissingDependencyError(f"{what}: {error}; {advice}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ConfigError(f"{what}: {function!r} is not a function")
    return found


def _unpacked(factory: str, made: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    parts: tuple[Any, ...] = cast("tuple[Any, ...]", made) if isinstance(made, tuple) else (made,)
    if len(parts) == 2 and isinstance(parts[1], tuple):
        return parts[0], cast("tuple[Any, ...]", parts[1]), {}
    if len(parts) == 3 and isinstance(parts[1], tuple) and isinstance(parts[2], dict):
        return parts[0], cast("tuple[Any, ...]", parts[1]), cast("dict[str, Any]", parts[2])
    got = ", ".join(type(part).__name__ for part in parts)
    expected = "expected (model, args) or (model, args, kwargs) with args a tuple and kwargs a dict"
    raise ConfigError(f"input.export.factory {factory} returned ({got}); {expected}")


@contextlib.contextmanager
def importable(folder: Path) -> Generator[None]:
    """Search the folder first, for as long as what comes from it runs: it may import its neighbours late."""
    sys.path.insert(0, str(folder.resolve()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))


def _find(module_name: str, folder: Path) -> ModuleSpec | None:
    """The spec of a dotted module name. ``importlib.util.find_spec`` would import its packages; this does not."""
    locations: list[str] = [str(folder.resolve()), *sys.path]
    spec: ModuleSpec | None = None
    parts = module_name.split(".")
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), locations)
        if spec is None:
            return None
        locations = list(spec.submodule_search_locations or [])
    return spec


def _bound_names(path: Path) -> set[str] | None:
    """Names that a module binds at its top level; None if that cannot be told without running it."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: {error.msg}") from error
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return None if names & {"*", "__getattr__"} else names
