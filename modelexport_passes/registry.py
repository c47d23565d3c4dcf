"""Name -> pass class: built-in passes, plug-ins, files in pass directories, and import paths.

A name has one owner. Nothing is imported before a pass is asked for by name, so that listing names costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from modelexport_passes.config.problems import did_you_mean
from modelexport_passes.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    import onnx_ir as ir

    PassClass: TypeAlias = type[ir.passes.PassBase]

ENTRY_POINT_GROUP = "modelexport_passes.passes"
"""Entry points of this group are plug-in passes; the pass's name is ``distribution/entry-point-name``."""

BUILTIN = {
    "recover-scopes": "modelexport_passes.builtin.recover_scopes:RecoverScopes",
    "inject-tags": "modelexport_passes.builtin.inject_tags:InjectTags",
    "outline": "modelexport_passes.builtin.outline:Outline",
    "inline": "modelexport_passes.builtin.inline:Inline",
    "validate": "modelexport_passes.builtin.validate:Validate",
    "hoist-invariants": "modelexport_passes.builtin.hoist_invariants:HoistInvariants",
    "replace": "modelexport_passes.builtin.replace:Replace",
    "apply-inside": "modelexport_passes.builtin.apply_inside:ApplyInside",
    "strip-metadata": "modelexport_passes.builtin.strip_metadata:StripMetadata",
    "onnxslim": "modelexport_passes.builtin.optimizers:OnnxSlim",
    "onnxsim": "modelexport_passes.builtin.optimizers:OnnxSim",
    "onnxruntime": "modelexport_passes.builtin.optimizers:OnnxRuntime",
    "onnxscript-optimize": "modelexport_passes.builtin.optimizers:OnnxScriptOptimize",
    "convert-opset": "modelexport_passes.builtin.converters:ConvertOpset",
    "float16": "modelexport_passes.builtin.converters:Float16",
    "quantize-dynamic": "modelexport_passes.builtin.quantizers:QuantizeDynamic",
    "quantize-static": "modelexport_passes.builtin.quantizers:QuantizeStatic",
    "external": "modelexport_passes.builtin.external:External",
}
"""Built-in passes, in the order in which they are usually run."""


@dataclass(frozen=True)
class PassEntry:
    """A pass that can be named.

    Attributes:
        name: how a pipeline names it.
        owner: who provides it: ``built-in``, a distribution and its version, or a file.
        load: imports and returns the class.
    """

    name: str
    owner: str
    load: Callable[[], PassClass] = field(compare=False, repr=False)


class Registry:
    """The passes that one pipeline can name.

    Args:
        pass_dirs: directories whose ``.py`` files are passes, each named by its file stem.

    Raises:
        ConfigError: a directory is missing, or a name has two owners.
    """

    def __init__(self, pass_dirs: Iterable[Path] = ()) -> None:
        self._entries: dict[str, PassEntry] = {}
        for name, target in BUILTIN.items():
            self._add(PassEntry(name, "built-in", _importer(name, target)))
        for entry in (*_plug_ins(), *(entry for folder in pass_dirs for entry in _files(folder))):
            self._add(entry)

    def _add(self, entry: PassEntry) -> None:
        other = self._entries.setdefault(entry.name, entry)
        if other is not entry:
            owners = f"{other.owner} and {entry.owner}"
            raise ConfigError(f"pass {entry.name!r} has two owners: {owners}; rename one of them")

    def entries(self) -> list[PassEntry]:
        """All passes that have a name of their own: built-in first, then plug-ins, then pass directories."""
        return list(self._entries.values())

    def entry(self, name: str) -> PassEntry:
        """The pass of this name, not yet imported; ``package.module:Class`` names any ``onnx_ir`` pass class.

        Raises:
            ConfigError: there is no such pass.
        """
        if ":" in name:
            return PassEntry(name, "import path", _importer(name, name))
        if name not in self._entries:
            near = did_you_mean(name, self._entries)
            raise ConfigError(f"unknown pass {name!r}; expected one of {', '.join(self._entries)}{near}")
        return self._entries[name]

    def load(self, name: str) -> PassClass:
        """Import the pass of this name.

        Raises:
            ConfigError: there is no such pass, or it is not one.
            MissingDependencyError: its module, or one that it imports, is not installed.
        """
        return self.entry(name).load()


def _plug_ins() -> list[PassEntry]:
    found: list[PassEntry] = []
    for point in sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        if point.dist is None:
            continue
        name = f"{point.dist.name}/{point.name}"
        found.append(PassEntry(name, f"{point.dist.name} {point.dist.version}", _importer(name, point.value)))
    return sorted(found, key=lambda entry: entry.name)


def _files(folder: Path) -> list[PassEntry]:
    if not folder.is_dir():
        raise ConfigError(f"pass directory {str(folder)!r} does not exist")
    paths = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
    return [PassEntry(path.stem, str(path), _file_loader(path)) for path in paths]


def _importer(name: str, target: str) -> Callable[[], PassClass]:
    def load() -> PassClass:
        module_name, _, attribute = target.partition(":")
        module = _import(lambda: importlib.import_module(module_name), name, module_name)
        value: Any = module
        for part in attribute.split("."):
            if not hasattr(value, part):
                near = did_you_mean(part, dir(value))
                raise ConfigError(f"pass {name!r}: {module_name} has no {attribute!r}{near}")
            value = getattr(value, part)
        return _checked(value, name)

    return load


def _file_loader(path: Path) -> Callable[[], PassClass]:
    def load() -> PassClass:
        module = _import(lambda: _execute(path), path.stem, str(path))
        own = [
            value
            for value in vars(module).values()
            if inspect.isclass(value) and value.__module__ == module.__name__ and _is_pass(value)
        ]
        if len(own) != 1:
            names = ", ".join(value.__name__ for value in own) or "none"
            raise ConfigError(f"pass file {path}: expected exactly one pass class, found {names}; one pass, one file")
        return _checked(own[0], path.stem)

    return load


def _execute(path: Path) -> ModuleType:
    # Named by its place, so that two files of one stem do not meet; in sys.modules, because dataclasses look there.
    name = f"mx_pass_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import(load: Callable[[], ModuleType], name: str, where: str) -> ModuleType:
    try:
        return load()
    except ImportError as error:
        missing = error.name or str(error)
        raise MissingDependencyError(f"pass {name!r} ({where}) needs {missing!r}: {error}; install it") from error
    except Exception as error:
        raise ConfigError(f"pass {name!r} ({where}) fails on import: {type(error).__name__}: {error}") from error


def _is_pass(value: Any) -> bool:
    import onnx_ir as ir

    return inspect.isclass(value) and issubclass(value, ir.passes.PassBase)


def _checked(value: Any, name: str) -> PassClass:
    if not _is_pass(value):
        raise ConfigError(f"pass {name!r} is {value!r}; expected a subclass of onnx_ir.passes.PassBase")
    if inspect.isabstract(value):
        missing = ", ".join(sorted(value.__abstractmethods__))
        raise ConfigError(f"pass {name!r} is abstract; it lacks {missing}")
    return value
