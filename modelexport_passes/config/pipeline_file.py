"""``pipeline.yaml`` -> `PipelineConfig`: every part checked, every pass built, all problems in one error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelexport_passes.config.document import Document, as_list, as_mapping, load_document
from modelexport_passes.config.factory import check_factory
from modelexport_passes.config.options import build_named
from modelexport_passes.config.overrides import apply_overrides, step_ids
from modelexport_passes.config.problems import ConfigFileError, DocumentPath, Problem, render_path
from modelexport_passes.config.schema import ExportSection, HfSection, InputSection, PipelineSection
from modelexport_passes.config.validation import check_value, value_at
from modelexport_passes.errors import ConfigError
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
class HfInput:
    """A Hugging Face model to export.

    Attributes:
        model: path of a folder, or the name of a model.
        folder: where the modules of translations are looked for first.
        export_options: keyword arguments of `modelexport_passes.export_hf`.
    """

    model: str
    folder: Path
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
    input: ModelInput | ExportInput | HfInput | None
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
    return _Resolver(document).resolve()


class _Resolver:
    """Turns a document into a `PipelineConfig`, collecting problems on the way.

    The whole document is checked first; then each part that is right in itself is resolved, whatever is wrong with the
    others, so that one run tells everything.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.folder = Path(document.file).parent
        self.problems: list[Problem] = []

    def resolve(self) -> PipelineConfig:
        section, self.problems = check_value(PipelineSection, (), self.document)
        source = self._input()
        steps = self._steps()
        output = self._target("output", "path")
        report = self._target("report", "json")
        if output is not None and output == report:
            self._problem(("report", "json"), "is the same file as output.path; write it elsewhere")
        if self.problems:
            raise ConfigFileError(self.problems)
        return PipelineConfig(Path(self.document.file), source, steps, output, report, section.verify_each)

    def _problem(self, path: DocumentPath, text: str) -> None:
        self.problems.append(Problem(self.document.place_of(path), render_path(path), text))

    def _part(self, annotation: Any, *path: str | int) -> Any:
        """The value at a path, read as a type; None if it is not there or not right (then that is told already)."""
        if path not in self.document.marks or value_at(self.document.value, path) is None:
            return None
        return check_value(annotation, path, self.document)[0]

    def _input(self) -> ModelInput | ExportInput | HfInput | None:
        section: InputSection | None = self._part(InputSection, "input")
        if section is None:
            return None
        if sum(part is not None for part in (section.export, section.hf, section.model)) != 1:
            self._problem(("input",), "expected exactly one of export, hf and model")
            return None
        if section.export is not None:
            return self._export(section.export)
        if section.hf is not None:
            return self._hf(section.hf)
        path = self.folder / str(section.model)
        if not path.is_file():
            self._problem(("input", "model"), f"file {str(path)!r} does not exist")
        return ModelInput(path)

    def _export(self, section: ExportSection) -> ExportInput:
        try:
            check_factory(section.factory, self.folder)
        except ConfigError as error:
            self._problem(("input", "export", "factory"), str(error))
        self._check_translations("export", section.translations)
        return ExportInput(
            section.factory, self.folder, section.with_ or {}, self._options(section, "factory", "with_")
        )

    def _hf(self, section: HfSection) -> HfInput:
        self._check_translations("hf", section.translations)
        beside = self.folder / section.model
        return HfInput(str(beside) if beside.is_dir() else section.model, self.folder, self._options(section, "model"))

    def _options(self, section: ExportSection | HfSection, *others: str) -> dict[str, Any]:
        """What the file gives of the export's options; paths are relative to the file."""
        options = {name: getattr(section, name) for name in sorted(section.model_fields_set - {*others})}
        if section.error_report is not None:
            options["error_report"] = self.folder / section.error_report
        return options

    def _check_translations(self, form: str, translations: Mapping[str, str] | None) -> None:
        for operator, function in (translations or {}).items():
            try:
                check_factory(function, self.folder)
            except ConfigError as error:
                self._problem(("input", form, "translations", operator), str(error))

    def _steps(self) -> list[StepConfig]:
        items = as_list((as_mapping(self.document.value) or {}).get("steps")) or []
        registry = self._registry()
        if registry is None:
            return []
        ids = step_ids(items)
        steps: list[StepConfig] = []
        for index, step_id in enumerate(ids):
            if step_id in ids[:index]:
                self._problem(("steps", index, "id"), f"{step_id!r} is the id of steps[{ids.index(step_id)}] too")
            step = self._step(registry, index, step_id)
            if step is not None:
                steps.append(step)
        return steps

    def _step(self, registry: Registry, index: int, step_id: str) -> StepConfig | None:
        name: str | None = self._part(str, "steps", index, "pass")
        if name is None:
            return None
        built, problems = build_named(name, ("steps", index), self.document, registry.load)
        self.problems += problems
        options: dict[str, Any] = self._part(dict[str, Any], "steps", index, "with") or {}
        return None if built is None else StepConfig(step_id, name, options, built)

    def _registry(self) -> Registry | None:
        names: list[str] = self._part(list[str], "pass_dirs") or []
        missing = [index for index, name in enumerate(names) if not (self.folder / name).is_dir()]
        for index in missing:
            self._problem(("pass_dirs", index), f"directory {str(self.folder / names[index])!r} does not exist")
        if missing:
            return None
        try:
            return Registry(self.folder / name for name in names)
        except ConfigError as error:
            self._problem(("pass_dirs",), str(error))
            return None

    def _target(self, section: str, key: str) -> Path | None:
        name: str | None = self._part(str, section, key)
        if name is None:
            return None
        target = self.folder / name
        if target.is_dir():
            self._problem((section, key), f"{str(target)!r} is a directory; expected the path of a file")
        return target
