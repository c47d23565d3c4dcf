"""The JSON schema of a pipeline file, for editors: sections, and the options of each built-in pass."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from modelexport_passes.config.options import REQUIRED, options_of
from modelexport_passes.config.schema import PassSection, PipelineSection
from modelexport_passes.config.types import is_pass
from modelexport_passes.registry import BUILTIN, Registry


def json_schema() -> dict[str, Any]:
    """The schema, in a fixed order. A pass that is not built in may have any options."""
    schema = PipelineSection.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "modelexport-passes pipeline"
    registry = Registry()
    schema["$defs"]["StepSection"]["allOf"] = [
        {
            "if": {"properties": {"pass": {"const": name}}},
            "then": {"properties": {"with": _options(registry, name, schema["$defs"])}},
        }
        for name in BUILTIN
    ]
    return schema


def _options(registry: Registry, name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for option in options_of(registry.load(name)):
        if option.annotation is None:
            continue
        annotation = PassSection if is_pass(option.annotation) else option.annotation
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            found = adapter.json_schema(ref_template="#/$defs/{model}")
        except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
            continue  # a Python object: never in a file
        definitions.update(found.pop("$defs", {}))
        properties[option.name] = found | ({"description": option.doc} if option.doc else {})
        if option.default is REQUIRED:
            required.append(option.name)
    options: dict[str, Any] = {"type": ["object", "null"], "properties": properties, "additionalProperties": False}
    return options | ({"required": required} if required else {})
