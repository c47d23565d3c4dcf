"""``inject-tags``: every operation carries its scope as a metadata entry that consumers read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from modelexport_passes.errors import ConfigError
from modelexport_passes.garbage import collector_paused
from modelexport_passes.pass_base import Figure, ModelPass, Outcome
from modelexport_passes.scopes.scope import SCOPE_KEY
from modelexport_passes.scopes.splits import assign_splits, check_splits
from modelexport_passes.scopes.tags import (
    DEFAULT_KEY,
    DEFAULT_TEMPLATE,
    METADATA_IR_VERSION,
    PRESETS,
    check_template,
    remember_template,
    retag_counted,
    tag_templates,
)
from modelexport_passes.scopes.walk import all_nodes

__all__ = ["InjectTags", "Preset"]

Preset = Literal["default", "htp", "winml", "layer_ann", "namespace", "split_assignments"]
"""A reader of module paths; what each reads is in ``docs/tags.md``."""


@dataclass(frozen=True, kw_only=True)
class InjectTags(ModelPass):
    """Write each operation's module call into its metadata.

    Before -> after::

        MatMul node_linear_3    ->    MatMul node_linear_3
                                          hierarchy_tag: /Net/Block.layers.0/Linear.query

    An operation whose scope is unknown gets no tag. Tags follow when ``outline`` or ``inline`` move an operation.
    The model's IR version is raised to 10 where it is lower: older ones have no metadata on nodes.

    With ``presets`` or ``templates``, ``key`` and ``template`` are written only if they are not the defaults.

    Visits: main graph, subgraphs, functions. (``split_assignments``: main graph and subgraphs.)

    Attributes:
        key: the metadata key to write.
        template: what to write there, over {tag}, {path}, {class}, {qualified_class}, {classes}, {depth}, {call},
            {source}, {htp}, {htp_depth}, {namespace}, {node}, {op}.
        presets: readers to write for, each under its own keys and in its own form.
        templates: further metadata keys and what to write there.
        splits: for ``split_assignments``: into how many parts to divide the repeated blocks, or module path -> part.
    """

    name: ClassVar[str] = "inject-tags"

    key: str = DEFAULT_KEY
    template: str = DEFAULT_TEMPLATE
    presets: list[Preset] | None = None
    templates: dict[str, str] | None = None
    splits: int | dict[str, int] | None = None

    def __post_init__(self) -> None:
        for name in self.presets or ():
            if name != "split_assignments" and name not in PRESETS:
                raise ConfigError(
                    f"inject-tags: preset {name!r}; expected one of {', '.join(PRESETS)}, split_assignments"
                )
        if ("split_assignments" in (self.presets or ())) != (self.splits is not None):
            raise ConfigError("inject-tags: splits and the preset split_assignments go together; give both or neither")
        if self.splits is not None:
            check_splits(self.splits)
        for key, template in self._templates().items():
            if not key or key.startswith("pkg.modelexport_passes."):
                raise ConfigError(
                    f"inject-tags: key {key!r}; expected a metadata key other than {SCOPE_KEY} and its like"
                )
            check_template(template)

    def _templates(self) -> dict[str, str]:
        """Metadata key -> template of everything to write."""
        given = [PRESETS[name] for name in self.presets or () if name in PRESETS]
        if self.templates:
            given.append(self.templates)
        own = {self.key: self.template}
        if (self.presets is None and not self.templates) or own != {DEFAULT_KEY: DEFAULT_TEMPLATE}:
            given.append(own)
        found: dict[str, str] = {}
        for templates in given:
            for key, template in templates.items():
                if found.setdefault(key, template) != template:
                    text = f"{found[key]!r} and {template!r} are both to be written under {key!r}"
                    raise ConfigError(f"inject-tags: {text}; give one of them another key with templates")
        return found

    @collector_paused()
    def call(self, model: ir.Model) -> Outcome:
        """Tag every node that has a scope."""
        templates = self._templates()
        changed = 0 if self.splits is None else assign_splits(model, self.splits)
        nodes = all_nodes(model)
        done = retag_counted(nodes, templates)
        changed += done.changed
        known = tag_templates(model)
        for key, template in templates.items():
            if known.get(key) != template:
                remember_template(model, key, template)
                changed += 1
        if model.ir_version < METADATA_IR_VERSION and any(done.tagged.values()):
            model.ir_version = METADATA_IR_VERSION
            changed += 1
        scoped = done.scoped if templates else sum([SCOPE_KEY in node.metadata_props for node in nodes])
        figures: dict[str, Figure] = {"tagged": scoped, "untagged": len(nodes) - scoped}
        if len(done.tagged) != 1 or self.splits is not None:
            figures["keys"] = dict(done.tagged)
        return Outcome(model, changed > 0, figures=figures)
