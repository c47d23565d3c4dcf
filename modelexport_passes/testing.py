"""For people who write passes: before / after tests of a pass, in the ONNX text format.

Example::

    def test_relu_of_relu_is_one_relu():
        '''A Relu of a Relu is one Relu.'''
        assert_rewrites(
            MergeRelu(),
            before="g (float[N] x) => (float[N] y) { a = Relu(x)  y = Relu(a) }",
            after="g (float[N] x) => (float[N] y) { y = Relu(x) }",
        )
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence

import onnx
import onnx_ir as ir

from modelexport_passes.scopes.copying import copy_model

DEFAULT_HEADER = '<ir_version: 10, opset_import: ["": 20]>'
"""What is put before a text that holds a graph only."""


def model_of(text: str | ir.Model) -> ir.Model:
    """The model of a text in the ONNX text format; `DEFAULT_HEADER` is added to one that starts with its graph.

    Raises:
        ValueError: it is not in the format, or the model is not valid; with what the parser says.
    """
    if isinstance(text, ir.Model):
        return text
    full = text if text.lstrip().startswith("<") else f"{DEFAULT_HEADER}\n{text}"
    try:
        proto = onnx.parser.parse_model(full)
    except onnx.parser.ParseError as error:
        raise ValueError(f"not a model in ONNX text format: {error}\n{full}") from error
    return ir.from_proto(proto)


def assert_rewrites(
    pass_: ir.passes.PassBase,
    before: str | ir.Model,
    after: str | ir.Model,
    *,
    metadata: Sequence[str] = (),
) -> ir.passes.PassResult:
    """Check that a pass turns one model into another, says honestly whether it changed anything, and settles.

    Models are compared by structure: operators, attributes, wiring, order, the names and types of inputs, outputs and
    initializers, functions. Names of nodes and of values in between may differ. What is checked besides:

    - the result is valid (``onnx.checker``);
    - ``modified`` is true if and only if ``before`` and ``after`` differ;
    - a second run changes nothing, and says so.

    Args:
        pass_: the pass; it is run on a copy if ``before`` is a model.
        before: ONNX text or a model.
        after: ONNX text or a model.
        metadata: keys of node metadata to compare too (the text format has none: give models for these).

    Returns:
        what the pass returned, to check more of it.

    Raises:
        AssertionError: with a diff of the two models, where they differ.
    """
    start = model_of(before) if isinstance(before, str) else copy_model(before)
    expected = canonical_text(model_of(after), metadata=metadata)
    original = canonical_text(start, metadata=metadata)
    result = pass_(start)
    got = canonical_text(result.model, metadata=metadata)
    assert got == expected, _difference("the result is not as expected", expected, got)
    onnx.checker.check_model(ir.to_proto(result.model))  # pyright: ignore[reportUnknownMemberType]
    changed = got != original
    assert result.modified == changed, f"modified is {result.modified}, but the model {_has(changed)} changed"
    again = pass_(result.model)
    second = canonical_text(again.model, metadata=metadata)
    assert second == got, _difference("the second run changes its own result", got, second)
    assert not again.modified, "modified is True for the second run, which changed nothing"
    return result


def assert_unchanged(pass_: ir.passes.PassBase, model: str | ir.Model) -> ir.passes.PassResult:
    """Check that a pass leaves a model as it is, and says so: `assert_rewrites` with ``after`` equal to ``before``."""
    return assert_rewrites(pass_, model, model)


def canonical_text(model: ir.Model, *, metadata: Sequence[str] = ()) -> str:
    """A model as text, one line per node, in which names that do not matter are numbered.

    Two models have the same text exactly if they have the same structure (see `assert_rewrites`).
    """
    lines = [f"opset {domain or 'ai.onnx'} {version}" for domain, version in sorted(model.opset_imports.items())]
    lines += _graph_lines(model.graph, {}, metadata, "")
    for function in sorted(model.functions.values(), key=lambda function: function.identifier()):
        lines.append(f"function {'::'.join(part for part in function.identifier() if part)}")
        lines += [
            f"  attribute {name}: {_attribute_text(value)}" for name, value in sorted(function.attributes.items())
        ]
        lines += _graph_lines(function.graph, {}, metadata, "  ")
    return "\n".join(lines)


def _graph_lines(graph: ir.Graph, names: dict[ir.Value, str], metadata: Sequence[str], indent: str) -> Iterator[str]:
    names = dict(names)
    names.update({value: f"%{value.name}" for value in (*graph.inputs, *graph.initializers.values())})
    names.update({value: f"%{value.name}" for value in graph.outputs if value not in names})
    number = len(names)
    for value in graph.inputs:
        yield f"{indent}input {names[value]}: {value.type} {value.shape}"
    for value in sorted(graph.initializers.values(), key=lambda value: value.name or ""):
        content = _content(value.const_value)[:64] if value.const_value is not None else "no value"
        yield f"{indent}initializer {names[value]}: {value.dtype} {value.shape} = {content}"
    for node in graph:
        for output in node.outputs:
            if output not in names and output.name:
                number += 1
                names[output] = f"%{number}"
        yield from _node_lines(node, names, metadata, indent)
    for value in graph.outputs:
        yield f"{indent}output {names[value]}: {value.type} {value.shape}"


def _node_lines(node: ir.Node, names: dict[ir.Value, str], metadata: Sequence[str], indent: str) -> Iterator[str]:
    shown: Callable[[ir.Value | None], str] = lambda value: "_" if value is None else names.get(value, "_")  # noqa: E731
    operator = "::".join(part for part in node.op_identifier() if part)
    outputs, inputs = ", ".join(map(shown, node.outputs)), ", ".join(map(shown, node.inputs))
    extra = "".join(f" {key}={node.metadata_props[key]!r}" for key in metadata if key in node.metadata_props)
    yield f"{indent}{outputs} = {operator}({inputs}){extra}"
    for name, attribute in sorted(node.attributes.items()):
        if attribute.type is ir.AttributeType.GRAPH:
            yield f"{indent}  {name}:"
            yield from _graph_lines(attribute.as_graph(), names, metadata, f"{indent}    ")
        elif attribute.type is ir.AttributeType.GRAPHS:
            for graph in attribute.as_graphs():
                yield f"{indent}  {name}:"
                yield from _graph_lines(graph, names, metadata, f"{indent}    ")
        else:
            yield f"{indent}  {name}: {_attribute_text(attribute)}"


def _attribute_text(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return f"@{attribute.ref_attr_name}"
    if attribute.type is ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{tensor.dtype} {tensor.shape} {_content(tensor)}"
    return f"{attribute.type.name} {attribute.value!r}"  # the value of a function's own attribute is its default


def _content(tensor: ir.TensorProtocol) -> str:
    return repr(tensor.numpy().tolist()) if tensor.dtype is ir.DataType.STRING else tensor.tobytes().hex()


def _difference(what: str, expected: str, got: str) -> str:
    lines = difflib.unified_diff(expected.splitlines(), got.splitlines(), "expected", "got", lineterm="", n=3)
    return "\n".join([what, *lines])


def _has(changed: bool) -> str:
    return "has" if changed else "has not"
