"""Attributes in which like modules differ: they become attributes of the function, and every call passes its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from modelexport_passes.outlining.canonical import is_constant, plain_value
from modelexport_passes.outlining.flow import Op
from modelexport_passes.unique_names import Names

Given = Mapping[str, ir.Attr]
"""Name of an attribute -> what an operation or a call has for it."""


def differing(rows: Sequence[Sequence[Given]]) -> tuple[dict[tuple[int, str], str], list[dict[str, ir.Attr]]]:
    """Find the attributes that are not the same in all calls of a body.

    Attributes that are equal to each other in every call are one.

    Args:
        rows: for each item of the body, its attributes in each call.

    Returns:
        Item and name of each attribute that differs -> name of the function's attribute that it refers to; and for each
        call what it passes.
    """
    slots: dict[tuple[int, str], str] = {}
    passed: list[dict[str, ir.Attr]] = [{} for _ in rows[0]] if rows else []
    names = Names()
    known: dict[tuple[object, ...], str] = {}
    for at, row in enumerate(rows):
        for name in row[0]:
            column = [given[name] for given in row]
            values = tuple(plain_value(attribute) for attribute in column)
            if len(set(values)) == 1:
                continue
            if values not in known:
                known[values] = names.take(name)
                for attributes, attribute in zip(passed, column, strict=True):
                    attributes[known[values]] = attribute
            slots[at, name] = known[values]
    return slots, passed


def liftable(op: Op) -> Given:
    """The attributes of an operation that may become a function's: plain ones, and not what a Constant holds.

    An operation with bodies keeps its own: how many values a body takes is no matter of a call.
    """
    if op.has_bodies or is_constant(op) or not op.node.attributes:
        return {}
    return {name: attribute for name, attribute in op.node.attributes.items() if plain_value(attribute) is not None}
