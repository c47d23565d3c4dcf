"""What there is to know about a pass: for ``mx-pipeline list`` and ``show``, and for the catalogue in ``passes/``."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelexport_passes.config.options import REQUIRED, Option, options_of
from modelexport_passes.registry import PassEntry


@dataclass(frozen=True)
class PassInfo:
    """A pass, described.

    Attributes:
        name: how a pipeline names it.
        owner: who provides it.
        doc: its class docstring, without the part about options.
        options: its options.
    """

    name: str
    owner: str
    doc: str
    options: list[Option]

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        first = self.doc.partition("\n\n")[0]
        return " ".join(first.split())

    def to_json(self) -> dict[str, Any]:
        """The description as JSON-able values."""
        options = [
            {
                "name": option.name,
                "expected": option.expected,
                "required": option.default is REQUIRED,
                "default": default_text(option),
                "doc": option.doc,
            }
            for option in self.options
        ]
        return {"name": self.name, "owner": self.owner, "summary": self.summary, "doc": self.doc, "options": options}


def describe_pass(entry: PassEntry) -> PassInfo:
    """Import a pass and describe it.

    Raises:
        ConfigError, MissingDependencyError: it cannot be imported.
    """
    pass_class = entry.load()
    doc = inspect.cleandoc(pass_class.__doc__ or "")
    doc = re.sub(r"\n*^(Attributes|Args):\n(?:    .*\n?|\n)*", "\n\n", doc + "\n", flags=re.MULTILINE).strip()
    return PassInfo(entry.name, entry.owner, doc, options_of(pass_class))


def default_text(option: Option) -> str | None:
    """The default as it would be written in YAML; None for an option that must be given."""
    if option.default is REQUIRED:
        return None
    return _yaml(option.default)


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, list | tuple | set | frozenset):
        items: list[str] = [_yaml(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        return f"[{', '.join(items)}]"
    if dataclasses.is_dataclass(value):
        parts = [f"{field.name}: {_yaml(getattr(value, field.name))}" for field in dataclasses.fields(value)]
        return f"{{{', '.join(parts)}}}"
    return str(value)


def markdown(passes: Sequence[PassInfo]) -> str:
    """A catalogue of passes, as Markdown."""
    lines: list[str] = []
    for info in passes:
        lines += [f"### `{info.name}`", "", info.summary, ""]
        if info.options:
            lines += ["| option | takes | default | meaning |", "|---|---|---|---|"]
        for option in info.options:
            default = default_text(option)
            shown = "required" if default is None else f"`{default}`"
            cells = (f"`{option.name}`", option.expected, shown, option.doc)
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines += [""] if info.options else ["No options.", ""]
    return "\n".join(lines)
