"""``pipeline.yaml`` -> `PipelineConfig`: every part checked, every pass built, all problems in one error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelexport_passes.config.document import Document, as_list, as_mapping, load_document
from modelexport_passes.config.factory import check_factory
from modelexport_passes.config.options import build_pass
from modelexport_passes.config.overrides import apply_overrides, step_ids
from modelexport_passes.config.problems import ConfigFileError, DocumentPath, Problem, render_path
from modelexport_passes.config.schema import ExportSection, InputSection, PipelineSection
from modelexport_passes.config.validation import check_value
from modelexport_passes.errors import ConfigError, MissingDependencyError
from modelexport_passes.registry import Registry

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class ModelInput:
    """An .onnx file."""

    path: Path


@dataclass(frozen=True)
class ExportInput:
    """A torch model to export.

    Attributes:
        factory: ``package.module:function``.
        folder: where its module is looked for first.
        factory_options: keyword arguments of the factory.
        export_options: keyword arguments of `modelexport_passes.export`.
    """

    factory: str
    folder: Path
    factory_options: dict[str, Any] = field(default_factory=dict[str, Any])
    export_options: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class StepConfig:
    """One step: its id, the name its pass was asked for by, the options as given, and the pass."""

    id: str
    pass_name: str
    options: dict[str, Any]
    pass_: ir.passes.PassBase


@dataclass(frozen=True)
class PipelineConfig:
    """A checked pipeline file. All paths are relative to the file's folder, or absolute."""

    file: Path
    input: ModelInput | ExportInput | None
    steps: list[StepConfig]
    output: Path | None
    report: Path | None
    verify_each: Literal["none", "structure"]


def load_pipeline(path: Path | str, overrides: Mapping[str, Any] | None = None) -> PipelineConfig:
    """Read and check a pipeline file. Imports the passes it names, runs nothing.

    Raises:
        ConfigFileError: all that is wrong with it, one line each.
        MissingDependencyError: a pass needs a package that is not installed.
    """
    document = load_document(Path(path))
    apply_overrides(document, overrides or {})
    section, problems = check_value(PipelineSection, (), document)
    if section is None:
        # The passes are still worth checking: all errors are told at once.
        raise ConfigFileError([*problems, *_problems_of_passes(document)])
    return _Resolver(document, section).resolve()


def _problems_of_passes(document: Document) -> list[Problem]:
    """Problems of the steps of a file that has others too, as far as the steps can be made out."""
    top = as_mapping(document.value) or {}
    folder = Path(document.file).parent
    try:
        registry = Registry(folder / str(name) for name in as_list(top.get("pass_dirs")) or [])
    except ConfigError:
        return []  # told when the file's other problems are gone; names cannot be looked up without it
    problems: list[Problem] = []
    for index, item in enumerate(as_list(top.get("steps")) or []):
        step = as_mapping(item) or {}
        if isinstance(step.get("pass"), str) and as_mapping(step.get("with") or {}) is not None:
            problems += _build_step(registry, step["pass"], index, document)[2]
    return problems


def _build_step(
    registry: Registry, name: str, index: int, document: Document
) -> tuple[ir.passes.PassBase | None, dict[str, Any], list[Problem]]:
    try:
        pass_class = registry.load(name)
    except ConfigError as error:
        path = ("steps", index, "pass")
        return None, {}, [Problem(document.place_of(path), render_path(path), str(error))]
    except MissingDependencyError as error:
        place = document.place_of(("steps", index, "pass"))
        raise MissingDependencyError(f"{place}: steps[{index}].pass: {error}") from error
    return build_pass(pass_class, ("steps", index, "with"), document)


class _Resolver:
    """Turns the sections of a file into a `PipelineConfig`, collecting problems on the way."""

    def __init__(self, document: Document, section: PipelineSection) -> None:
        self.document = document
        self.section = section
        self.folder = Path(document.file).parent
        self.problems: list[Problem] = []

    def resolve(self) -> PipelineConfig:
        section = self.section
        source = self._input(section.input) if section.input else None
        steps = self._steps()
        output = self._target(section.output.path, ("output", "path")) if section.output else None
        report = self._target(section.report.json_, ("report", "json")) if section.report else None
        if output is not None and output == report:
            self._problem(("report", "json"), "is the same file as output.path; write it elsewhere")
        if self.problems:
            raise ConfigFileError(self.problems)
        return PipelineConfig(Path(self.document.file), source, steps, output, report, section.verify_each)

    def _problem(self, path: DocumentPath, text: str) -> None:
        self.problems.append(Problem(self.document.place_of(path), render_path(path), text))

    def _checked(self, path: DocumentPath, check: Callable[[], object]) -> None:
        try:
            check()
        except ConfigError as error:
            self._problem(path, str(error))

    def _input(self, section: InputSection) -> ModelInput | ExportInput | None:
        if (section.export is None) == (section.model is None):
            self._problem(("input",), "expected exactly one of export and model")
            return None
        if section.export is not None:
            return self._export(section.export)
        path = self.folder / str(section.model)
        if not path.is_file():
            self._problem(("input", "model"), f"file {str(path)!r} does not exist")
        return ModelInput(path)

    def _export(self, section: ExportSection) -> ExportInput:
        self._checked(("input", "export", "factory"), lambda: check_factory(section.factory, self.folder))
        options = {name: getattr(section, name) for name in sorted(section.model_fields_set - {"factory", "with_"})}
        return ExportInput(section.factory, self.folder, section.with_ or {}, options)

    def _steps(self) -> list[StepConfig]:
        registry = self._registry()
        if registry is None:
            return []
        ids = step_ids(self.document.value["steps"])
        steps: list[StepConfig] = []
        for index, (section, step_id) in enumerate(zip(self.section.steps, ids, strict=True)):
            if step_id in ids[:index]:
                self._problem(("steps", index, "id"), f"{step_id!r} is the id of steps[{ids.index(step_id)}] too")
            if "." in (section.id or ""):
                self._problem(("steps", index, "id"), f"{section.id!r} has a dot, which overrides cannot address")
            built, options, problems = _build_step(registry, section.pass_, index, self.document)
            self.problems += problems
            if built is not None:
                steps.append(StepConfig(step_id, section.pass_, options, built))
        if not self.section.steps:
            self._problem(("steps",), "is empty; expected at least one step, such as - pass: validate")
        return steps

    def _registry(self) -> Registry | None:
        missing = False
        for index, name in enumerate(self.section.pass_dirs):
            if not (self.folder / name).is_dir():
                missing = True
                self._problem(("pass_dirs", index), f"directory {str(self.folder / name)!r} does not exist")
        if missing:
            return None
        try:
            return Registry(self.folder / name for name in self.section.pass_dirs)
        except ConfigError as error:
            self._problem(("pass_dirs",), str(error))
            return None

    def _target(self, name: str, path: DocumentPath) -> Path:
        target = self.folder / name
        if target.is_dir():
            self._problem(path, f"{str(target)!r} is a directory; expected the path of a file")
        return target
