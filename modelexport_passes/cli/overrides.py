"""``--set KEY=VALUE``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelexport_passes.errors import ConfigError


def read_overrides(items: Sequence[str]) -> dict[str, Any]:
    """Address -> value; the value is read as YAML, so ``--set steps.outline.with.modules='["*.Block"]'`` is a list.

    Raises:
        ConfigError: an item is not ``KEY=VALUE``, or its value is not YAML.
    """
    if not items:
        return {}
    from modelexport_passes.config.document import parse_document

    values: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {item}: expected KEY=VALUE, such as steps.tags.with.key=x")
        values[key] = parse_document(text, f"--set {key}").value if text.strip() else None
    return values
