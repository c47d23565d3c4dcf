"""`Problem`: one thing that a check found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with a model.

    Attributes:
        check: short name of the rule that is broken, such as ``duplicate-node-name``.
        where: the graph, function or node.
        text: what is wrong there.
        fatal: False for what is legal ONNX and yet makes some tool fail; told, and no reason to reject the model.
    """

    check: str
    where: str
    text: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.check}: {self.where}: {self.text}"
