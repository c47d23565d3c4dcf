"""State: what a model hands from one run to the next, such as the key-value cache of each of its layers.

A rule pairs the names of graph inputs with those of graph outputs: ``past_key_values.{i}.{kind}`` with
``present.{i}.{kind}``. ``{i}`` is the number of the layer; in the function that all layers share, names go without it,
and in one that holds several layers, each with its own state, they are numbered from 0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.errors import ConfigError
from modelexport_passes.outlining.flow import Wire
from modelexport_passes.outlining.sharing import Bodies, Column, Group
from modelexport_passes.unique_names import Names

COMMON_RULES: Mapping[str, str] = {
    "past_key_values.{i}.{kind}": "present.{i}.{kind}",
    "past_{kind}_{i}": "present_{kind}_{i}",
    "past_{i}": "present_{i}",
}
"""Names in use: Hugging Face models, encoder-decoders among them, and those that onnxruntime's tools export."""

_LAYER = "i"
_SEPARATORS = "._/-"
_LAYER_AND_SEPARATOR = re.compile(rf"[{_SEPARATORS}]?\{{{_LAYER}\}}")


class Named(NamedTuple):
    """A name that follows a rule.

    Attributes:
        rule: number of the rule.
        fields: what stands for its placeholders.
        text: the rule's name, its other placeholders filled in.
        position: which input or output of the graph it is.
    """

    rule: int
    fields: tuple[tuple[str, str], ...]
    text: str
    position: int

    @property
    def local(self) -> str:
        """The name without the layer."""
        return _LAYER_AND_SEPARATOR.sub("", self.text).lstrip(_SEPARATORS)

    def numbered(self, number: int) -> str:
        """The name with this number of a layer."""
        return self.text.replace(f"{{{_LAYER}}}", str(number))


class _Pattern:
    """A name with placeholders.

    Args:
        text: ``{i}`` stands for a number, ``{any_other_name}`` for any text.
    """

    def __init__(self, text: str) -> None:
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ConfigError(f"state: {text!r} is no name with placeholders: {error}") from error
        names = [name for _, name, _, _ in parts if name is not None]
        plain = all(name.isidentifier() for name in names) and not any(form or how for _, _, form, how in parts)
        if _LAYER not in names or len(set(names)) < len(names) or not plain:
            raise ConfigError(
                f"state: {text!r}; expected a name with {{i}} for the number of the layer, and at most one of each "
                "other placeholder"
            )
        self.names = frozenset(names)
        self._text = text
        if text == f"{{{_LAYER}}}":
            raise ConfigError(f"state: {text!r} is nothing but a number; expected a name with a number in it")
        expression = ""
        for literal, name, _, _ in parts:
            expression += re.escape(literal)
            if name is not None:
                expression += rf"(?P<{name}>\d+)" if name == _LAYER else rf"(?P<{name}>.+)"
        self._expression = re.compile(expression)

    def read(self, name: str, rule: int, position: int) -> Named | None:
        match = self._expression.fullmatch(name)
        if match is None:
            return None
        fields = match.groupdict()
        text = self._text.format(**fields | {_LAYER: f"{{{_LAYER}}}"})
        return Named(rule, tuple(sorted(fields.items())), text, position)


class StateRules:
    """Rules for the names of state.

    Args:
        rules: name of an input -> name of the output that is its next value, with the same placeholders.

    Raises:
        ConfigError: a rule cannot be read.
    """

    def __init__(self, rules: Mapping[str, str]) -> None:
        self._inputs = [_Pattern(text) for text in rules]
        self._outputs = [_Pattern(text) for text in rules.values()]
        for given, made, texts in zip(self._inputs, self._outputs, rules.items(), strict=True):
            if given.names != made.names:
                raise ConfigError(f"state: {texts[0]!r} and {texts[1]!r} have not the same placeholders")

    def find(self, graph: ir.Graph) -> State:
        """The state among the inputs and outputs of a graph."""
        return State(_find(self._inputs, graph.inputs), _find(self._outputs, graph.outputs))


def _find(patterns: Sequence[_Pattern], values: Sequence[ir.Value]) -> dict[ir.Value, Named]:
    found: dict[ir.Value, Named] = {}
    for position, value in enumerate(values) if patterns else ():
        readings = (pattern.read(str(value.name), rule, position) for rule, pattern in enumerate(patterns))
        named = next((reading for reading in readings if reading is not None), None)
        if named is not None:
            found[value] = named
    return found


@dataclass(frozen=True)
class State:
    """The state of one graph.

    Attributes:
        inputs: graph inputs that are state.
        outputs: graph outputs that are.
    """

    inputs: Mapping[ir.Value, Named]
    outputs: Mapping[ir.Value, Named]

    def of_input(self, column: Column) -> list[Named] | None:
        """What an input of a function is in each call, if it is state that has one local name in all of them."""
        return _alike([self.inputs.get(wire.value) for wire in column]) if self.inputs else None

    def of_output(self, column: Column) -> list[Named] | None:
        """What an output of a function is in each call, if it is state that has one local name in all of them."""
        return _alike([self._leaving(wire) for wire in column]) if self.outputs else None

    def _leaving(self, wire: Wire) -> Named | None:
        """The output of the graph that a value is, or that an Identity makes of it for the name alone."""
        if wire.is_output:
            return self.outputs.get(wire.value)
        named = (self.outputs.get(reader.outs[0].value) for reader in wire.readers if reader.node.op_type == "Identity")
        return next((found for found in named if found is not None), None)


def _alike(named: Sequence[Named | None]) -> list[Named] | None:
    known = [name for name in named if name is not None]
    return known if len(known) == len(named) and len({(name.rule, name.text) for name in known}) == 1 else None


def settle_results(group: Group, bodies: Bodies, state: State) -> list[list[Named]]:
    """Let what is state come last among the results of all calls, in the order of the graph's outputs.

    Returns:
        For each of these last results what it is in each call.
    """
    columns = list(zip(*(bodies.results[region] for region in group.instances), strict=True))
    found = [(at, named) for at, column in enumerate(columns) if (named := state.of_output(column)) is not None]
    if not found:
        return []
    found.sort(key=lambda item: item[1][0].position)
    last = dict(found)
    order = [*(at for at in range(len(columns)) if at not in last), *last]
    for region in group.instances:
        results = bodies.results[region]
        bodies.results[region] = [results[at] for at in order]
    return list(last.values())


def local_names(state: Sequence[Sequence[Named]], names: Names) -> list[str]:
    """Names in a function for its inputs, or its outputs, that are state: without the layer where there is but one."""
    several = Counter(named[0].text for named in state)
    seen: Counter[str] = Counter()
    found: list[str] = []
    for first, *_ in state:
        found.append(names.take(first.numbered(seen[first.text]) if several[first.text] > 1 else first.local))
        seen[first.text] += 1
    return found


def pair(inputs: Mapping[str, Sequence[Named]], outputs: Mapping[str, Sequence[Named]]) -> dict[str, str | None]:
    """Name of each input that is state -> name of the output that is its next value in every call; None without one."""
    made = {tuple((name.rule, name.fields) for name in named): text for text, named in outputs.items()}
    return {text: made.get(tuple((name.rule, name.fields) for name in named)) for text, named in inputs.items()}
