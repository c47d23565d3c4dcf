"""Which operations draw random numbers: they are neither copied nor moved, and no two runs of a model need be equal."""

from __future__ import annotations

import onnx_ir as ir

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_TRAINING_MODE = 2
"""The input of a Dropout that says whether it drops anything; without it, it does not."""


def draws_random_numbers(node: ir.Node) -> bool:
    """Whether a node is one of onnx's own operations that draw random numbers."""
    if node.op_type in _RANDOM:
        return node.domain == ""
    if node.op_type != "Dropout" or node.domain != "":
        return False
    return len(node.inputs) > _TRAINING_MODE and node.inputs[_TRAINING_MODE] is not None
