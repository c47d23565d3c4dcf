"""The sections of ``pipeline.yaml`` and what each key takes. The JSON schema and the checks both come from here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Identifier = Annotated[str, Field(min_length=1)]
Axes = dict[int, str | None]
Translations = dict[Identifier, Identifier]
Exporter = Literal[
    "dynamo", "dynamo+transformers", "dynamo+transformers+example", "dynamo+example", "torchscript", "auto"
]
_TRANSLATIONS = "Operator of torch (aten::cummax) -> package.module:function that writes it in ONNX."
_TRACES = "Stack traces on operations: with files relative to their package (relative), as torch has them, or none."
_ERROR_REPORT = "File for the whole traceback if the export fails."


class Section(BaseModel):
    """A mapping whose keys are all known."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=False)


class ExportSection(Section):
    """A torch model to export: the function that makes it, and the options of `modelexport_passes.export`."""

    factory: Identifier = Field(
        description="package.module:function, beside the file or installed; returns (model, args[, kwargs])."
    )
    with_: dict[str, Any] | None = Field(None, alias="with", description="Keyword arguments of the factory.")
    exporter: Exporter = Field("dynamo", description="torch's exporter.")
    opset: int | None = Field(None, description="Opset version of the exported model; the exporter's own if not given.")
    dynamic_shapes: dict[str, Axes | None] | None = Field(
        None, description="Name of a forward argument -> axis -> name of the dynamic dimension."
    )
    input_names: list[str] | None = Field(None, description="Names of the graph's inputs.")
    output_names: list[str] | None = Field(None, description="Names of the graph's outputs.")
    optimize: bool = Field(False, description="Let torch's exporter optimize the graph.")
    root: str | None = Field(None, description="Path of the submodule to take as the root, for a model in a wrapper.")
    translations: Translations | None = Field(None, description=_TRANSLATIONS)
    traces: Literal["keep", "relative", "drop"] = Field("relative", description=_TRACES)
    error_report: Identifier | None = Field(None, description=_ERROR_REPORT)


class HfSection(Section):
    """A Hugging Face model to export, with the options of `modelexport_passes.export_hf`."""

    model: Identifier = Field(description="A folder beside the file, or the name of a model on the hub.")
    task: Identifier | None = Field(
        None, description="Such as fill-mask or text-generation-with-past; the class of the weights if not given."
    )
    part: Literal["encoder", "decoder", "decoder-with-past"] | None = Field(
        None, description="Part of an encoder-decoder model; the whole without a cache if not given."
    )
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        None, description="Of the weights; the one they were saved in if not given."
    )
    prepare: bool | None = Field(
        None,
        description="Let transformers compute ahead what exporters cannot follow; as a fallback if not given.",
    )
    dynamic: bool = Field(True, description="Let batch and sequence lengths vary.")
    revision: Identifier | None = Field(None, description="Branch, tag or commit on the hub.")
    trust_remote_code: bool = Field(False, description="Run code that comes with the weights.")
    exporter: Exporter = Field("auto", description="torch's exporter.")
    opset: int | None = Field(None, description="Opset version of the exported model; the exporter's own if not given.")
    optimize: bool = Field(False, description="Let torch's exporter optimize the graph.")
    translations: Translations | None = Field(None, description=_TRANSLATIONS)
    traces: Literal["keep", "relative", "drop"] = Field("relative", description=_TRACES)
    error_report: Identifier | None = Field(None, description=_ERROR_REPORT)


class InputSection(Section):
    """Where the model comes from: exactly one of the three."""

    export: ExportSection | None = Field(None, description="Export a torch model.")
    hf: HfSection | None = Field(None, description="Export a Hugging Face model.")
    model: Identifier | None = Field(None, description="Path of an .onnx file.")


class PassSection(Section):
    """A pass and its options."""

    pass_: Identifier = Field(
        alias="pass",
        description="A built-in pass, dist/name, the file stem in a pass_dir, or package.module:Class.",
    )
    with_: dict[str, Any] | None = Field(None, alias="with", description="Options of the pass (mx-pipeline show PASS).")


class StepSection(PassSection):
    """One pass and its options."""

    id: Annotated[str, Field(pattern=r"^[^.\s]+$")] | None = Field(
        None, description="Name of the step in reports and overrides; by default the pass name."
    )


class OutputSection(Section):
    """Where the model goes, when every step has succeeded."""

    path: Identifier = Field(description="Path of the .onnx file to write.")


class ReportSection(Section):
    """Where the run report goes."""

    json_: Identifier = Field(alias="json", description="Path of the JSON report to write.")


class PipelineSection(Section):
    """A pipeline file."""

    version: Literal[1] = Field(description="Version of this file format.")
    input: InputSection | None = Field(None, description="Where the model comes from; may be given at run time.")
    steps: list[StepSection] = Field(min_length=1, description="The passes, in order.")
    output: OutputSection | None = Field(None, description="Where the model goes.")
    report: ReportSection | None = Field(None, description="Where the report goes.")
    pass_dirs: list[Identifier] = Field(default_factory=list, description="Directories of passes of your own.")
    verify_each: Literal["none", "structure"] = Field(
        "structure", description="What is checked after each step that changed the model."
    )
