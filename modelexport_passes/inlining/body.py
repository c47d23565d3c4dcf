"""What is the same of a function body in all copies of it: looked up once, and not at every call."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.scopes.ledger import MODULE_KEY, ORIGIN_KEY
from modelexport_passes.scopes.scope import SCOPE_KEY
from modelexport_passes.scopes.walk import has_bodies


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """What a body says of some of its nodes.

    Attributes:
        scope: the text of their scope in the body; empty if they have none.
        metadata: all that they have besides.
    """

    scope: str
    metadata: dict[str, str]


class Part(NamedTuple):
    """A node of a body.

    Attributes:
        node: the node.
        callee: the function that it calls, if that is to be written out.
        inputs: what it reads.
        outputs: what it makes, each with its name.
        attributes: what every copy has; None if they differ, for there are references or bodies among them.
        name: its name, or its operator.
        description: its scope and metadata; nodes of which a body says the same share it.
        origin: the value that it is a copy of; empty if of none.
    """

    node: ir.Node
    callee: ir.OperatorIdentifier | None
    inputs: tuple[ir.Value | None, ...]
    outputs: tuple[tuple[ir.Value, str | None], ...]
    attributes: dict[str, ir.Attr] | None
    name: str
    description: Description
    origin: str


def parts_of(nodes: Iterable[ir.Node], called: Container[ir.OperatorIdentifier]) -> list[Part]:
    """The parts of a body.

    Args:
        nodes: of the body, in order.
        called: the functions that are to be written out.
    """
    descriptions: dict[tuple[str, ...], Description] = {}
    parts: list[Part] = []
    for node in nodes:
        attributes = node.attributes.data
        fixed = not has_bodies(node) and not any(attribute.is_ref() for attribute in attributes.values())
        metadata, identifier = dict(node.metadata_props), node.op_identifier()
        scope, origin = metadata.pop(SCOPE_KEY, ""), metadata.pop(ORIGIN_KEY, "")
        said = (scope, *metadata, *metadata.values())
        parts.append(
            Part(
                node,
                identifier if identifier in called else None,
                tuple(node.inputs),
                tuple((value, value.name) for value in node.outputs),
                attributes if fixed else None,
                node.name or node.op_type,
                descriptions.setdefault(said, Description(scope, metadata)),
                origin,
            )
        )
    return parts


@dataclass(frozen=True, slots=True)
class Body:
    """A function body.

    Attributes:
        function: whose.
        parts: its nodes, in order.
        inputs: the function's.
        outputs: the function's.
        defaults: its attributes that a call need not pass.
        is_module: it is a module's that was outlined: what it says of its nodes is all that there is to say.
    """

    function: ir.Function
    parts: list[Part]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    defaults: dict[str, ir.Attr]
    is_module: bool

    @classmethod
    def of(cls, function: ir.Function, called: Container[ir.OperatorIdentifier]) -> Body:
        """The body of a function; ``called`` as for `parts_of`."""
        return cls(
            function,
            parts_of(function, called),
            tuple(function.inputs),
            tuple(function.outputs),
            {name: attribute for name, attribute in function.attributes.items() if attribute.value is not None},
            MODULE_KEY in function.metadata_props,
        )
