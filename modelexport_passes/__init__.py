"""Keep the modules of a torch model in its ONNX file: scopes, tags and local functions, as composable passes.

Importing this package imports nothing heavy; each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelexport_passes.builtin.apply_inside import ApplyInside
    from modelexport_passes.builtin.hoist_invariants import HoistInvariants
    from modelexport_passes.builtin.inject_tags import InjectTags
    from modelexport_passes.builtin.inline import Inline
    from modelexport_passes.builtin.outline import Outline
    from modelexport_passes.builtin.recover_scopes import RecoverScopes
    from modelexport_passes.builtin.replace import Replace
    from modelexport_passes.builtin.validate import Validate
    from modelexport_passes.errors import ConfigError, MissingDependencyError, ModelExportError, VerificationError
    from modelexport_passes.exporting.export import export
    from modelexport_passes.exporting.files import load, save
    from modelexport_passes.exporting.huggingface.export_hf import export_hf
    from modelexport_passes.modules_as_functions import export_modules_as_functions
    from modelexport_passes.pass_base import ModelPass, Outcome, RunContext
    from modelexport_passes.pipeline.pipeline import Pipeline, RunResult
    from modelexport_passes.pipeline.report import RunReport
    from modelexport_passes.pipeline.step import Step
    from modelexport_passes.pipeline.step_error import StepError
    from modelexport_passes.scopes.scope import Frame, Scope, scope_of
    from modelexport_passes.surgery.extract import extract

__version__ = "0.1.0"

__all__ = [
    "ApplyInside",
    "ConfigError",
    "Frame",
    "HoistInvariants",
    "InjectTags",
    "Inline",
    "MissingDependencyError",
    "ModelExportError",
    "ModelPass",
    "Outcome",
    "Outline",
    "Pipeline",
    "RecoverScopes",
    "Replace",
    "RunContext",
    "RunReport",
    "RunResult",
    "Scope",
    "Step",
    "StepError",
    "Validate",
    "VerificationError",
    "export",
    "export_hf",
    "export_modules_as_functions",
    "extract",
    "load",
    "save",
    "scope_of",
]

_HOME = {
    "builtin.apply_inside": ("ApplyInside",),
    "builtin.hoist_invariants": ("HoistInvariants",),
    "builtin.inject_tags": ("InjectTags",),
    "builtin.inline": ("Inline",),
    "builtin.outline": ("Outline",),
    "builtin.recover_scopes": ("RecoverScopes",),
    "builtin.replace": ("Replace",),
    "builtin.validate": ("Validate",),
    "errors": ("ConfigError", "MissingDependencyError", "ModelExportError", "VerificationError"),
    "exporting.export": ("export",),
    "exporting.files": ("load", "save"),
    "exporting.huggingface.export_hf": ("export_hf",),
    "modules_as_functions": ("export_modules_as_functions",),
    "pass_base": ("ModelPass", "Outcome", "RunContext"),
    "pipeline.pipeline": ("Pipeline", "RunResult"),
    "pipeline.report": ("RunReport",),
    "pipeline.step": ("Step",),
    "pipeline.step_error": ("StepError",),
    "scopes.scope": ("Frame", "Scope", "scope_of"),
    "surgery.extract": ("extract",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})
