"""Where calls are written out, and what comes of each."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from modelexport_passes.inlining.originals import Originals
from modelexport_passes.unique_names import Names


@dataclass
class Site:
    """Where a call is written out.

    Attributes:
        names: names of values that are taken there.
        node_names: names of nodes that are taken there.
        originals: values of the original graph that bodies have copies of; None where they cannot be restored.
        inside: the place is itself a function body.
        stand_ins: operations written out there that the original had not; they go if nothing reads them.
    """

    names: Names
    node_names: Names
    originals: Originals | None
    inside: bool
    stand_ins: list[ir.Node] = field(default_factory=list[ir.Node])


@dataclass
class Instance:
    """A call written out.

    Attributes:
        nodes: in order.
        outputs: one for each output of the call; None where the function returns an input that the call leaves out.
    """

    nodes: list[ir.Node] = field(default_factory=list[ir.Node])
    outputs: list[ir.Value | None] = field(default_factory=list["ir.Value | None"])
