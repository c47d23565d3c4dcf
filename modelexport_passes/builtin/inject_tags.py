"""``inject-tags``: every operation carries its scope as a metadata entry that consumers read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from modelexport_passes.errors import ConfigError
from modelexport_passes.pass_base import ModelPass, Outcome
from modelexport_passes.scopes.scope import SCOPE_KEY
from modelexport_passes.scopes.tags import (
    DEFAULT_KEY,
    DEFAULT_TEMPLATE,
    check_template,
    remember_template,
    retag,
    tag_templates,
)
from modelexport_passes.scopes.walk import all_nodes

METADATA_IR_VERSION = 10
"""The first IR version with metadata on nodes (onnx.proto)."""


@dataclass(frozen=True, kw_only=True)
class InjectTags(ModelPass):
    """Write each operation's module call into its metadata.

    Before -> after::

        MatMul node_linear_3    ->    MatMul node_linear_3
                                          hierarchy_tag: /Net/Block.layers.0/Linear.query

    An operation whose scope is unknown gets no tag. Tags follow when ``outline`` or ``inline`` move an operation.
    The model's IR version is raised to 10 where it is lower: older ones have no metadata on nodes.

    Visits: main graph, subgraphs, functions.

    Attributes:
        key: the metadata key to write.
        template: what to write, over {tag}, {path}, {class}, {qualified_class}, {classes}, {depth}, {call}, {source}.
    """

    name: ClassVar[str] = "inject-tags"

    key: str = DEFAULT_KEY
    template: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        if not self.key or self.key == SCOPE_KEY:
            raise ConfigError(f"inject-tags: key {self.key!r}; expected a metadata key other than {SCOPE_KEY}")
        check_template(self.template)

    def call(self, model: ir.Model) -> Outcome:
        """Tag every node that has a scope."""
        nodes = list(all_nodes(model))
        changed = retag(nodes, {self.key: self.template})
        tagged = sum(1 for node in nodes if self.key in node.metadata_props)
        modified = changed > 0
        if tag_templates(model).get(self.key) != self.template:
            remember_template(model, self.key, self.template)
            modified = True
        if model.ir_version < METADATA_IR_VERSION and tagged:
            model.ir_version = METADATA_IR_VERSION
            modified = True
        figures = {"tagged": tagged, "untagged": len(nodes) - tagged}
        return Outcome(model, modified, figures=dict(figures))
