"""Scopes from another file of the same model: an old, optimized or quantized one regains those of a fresh export.

The two graphs are laid side by side in the order in which the model ran. Operations are the same that make a value of
the same name or read a weight of the same values; between two such pairs the stretches are aligned by operators and the
shapes of weights. What an operation of the file has no counterpart for was made of what stands in the gap.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

import onnx_ir as ir

from modelexport_passes.scopes.parameters import VIEWS, read_initializers
from modelexport_passes.scopes.scope import Frame, Scope, Source, common_frames, scope_of
from modelexport_passes.scopes.values import signatures

_SMALL = 250_000
"""Cells of a table that is filled in full; longer stretches are aligned block by block."""

_PASSED_OVER = 2
"""Operations that an optimizer may have folded into the one before them, in a row: BatchNormalization, Mul and Add."""


@dataclass(frozen=True)
class _Side:
    """One of the two graphs: its operations in order, without constants and views of weights.

    Attributes:
        nodes: the operations.
        weights: per operation, the signatures of the weights it reads.
        tokens: per operation, what it is aligned by.
    """

    nodes: list[ir.Node]
    weights: list[tuple[Hashable, ...]]
    tokens: list[Hashable]


def scopes_from_reference(graph: ir.Graph, reference: ir.Graph) -> dict[ir.Node, Scope]:
    """The scope of each operation of a graph that has a counterpart in the reference.

    Args:
        graph: of the file without scopes.
        reference: the main graph of a model whose nodes have scopes.
    """
    mine, theirs = _side(graph), _side(reference)
    named = _by_name(mine, theirs)
    sure = dict(_increasing(named | _by_weight(mine, theirs, named)))
    pairs = _increasing(sure | _by_wiring(mine, theirs, sure))
    found: dict[int, tuple[int, Source]] = {left: (right, _source(left, named, sure)) for left, right in pairs}
    weighted = _aligned_weights(mine, theirs, pairs)
    for left, right in _aligned(mine, theirs, weighted):
        found.setdefault(left, (right, Source.DATAFLOW))
    return _scopes(mine, theirs, found)


def _source(place: int, named: Mapping[int, int], sure: Mapping[int, int]) -> Source:
    if place not in sure:
        return Source.DATAFLOW
    return Source.NAME if place in named else Source.PARAMETER


def _side(graph: ir.Graph) -> _Side:
    known = signatures(graph.initializers.values())
    nodes: list[ir.Node] = []
    weights: list[tuple[Hashable, ...]] = []
    tokens: list[Hashable] = []
    constant: set[ir.Value] = set()
    for node in graph:
        if node.op_type == "Constant" or (node.op_type in VIEWS and _views_weight(node, constant)):
            constant.update(node.outputs)
            continue
        read = list(read_initializers(node))
        nodes.append(node)
        weights.append(tuple(known[value] for value in read if value in known))
        shapes = [tuple(sorted(size for size in _shape(value) if size > 1)) for value in read]
        large = tuple(shape for shape in shapes if len(shape) > 1)
        tokens.append(("weights", large) if large else node.op_type)
    return _Side(nodes, weights, tokens)


def _views_weight(node: ir.Node, constant: set[ir.Value]) -> bool:
    value = node.inputs[0] if node.inputs else None
    return value is not None and (value.is_initializer() or value in constant)


def _shape(value: ir.Value) -> Sequence[int]:
    return value.shape.numpy() if value.shape is not None and value.shape.is_static() else ()


# --- pairs -----------------------------------------------------------------------------------------------------------

_Pairs = list[tuple[int, int]]


def _by_name(mine: _Side, theirs: _Side) -> dict[int, int]:
    """Operations of one operator that make a value of one name."""
    places = {str(value.name): place for place, node in enumerate(theirs.nodes) for value in node.outputs if value.name}
    found: dict[int, int] = {}
    for place, node in enumerate(mine.nodes):
        for value in node.outputs:
            other = places.get(str(value.name))
            if other is not None and theirs.nodes[other].op_type == node.op_type:
                found[place] = other
    return found


def _by_weight(mine: _Side, theirs: _Side, taken: Mapping[int, int]) -> dict[int, int]:
    """Operations that read a weight of the same values; where several do, in order, if they are as many."""
    readers = _readers(theirs)
    found: dict[int, int] = {}
    for told, places in _readers(mine).items():
        others = readers.get(told, [])
        if len(others) == len(places):
            found |= {left: right for left, right in zip(places, others, strict=True) if left not in taken}
    return found


def _by_wiring(mine: _Side, theirs: _Side, pairs: Mapping[int, int]) -> dict[int, int]:
    """Operations whose values are taken at the same input of two that are the same, and so on backwards.

    A few operations of the reference may be passed over on the way: what an optimizer has folded into the one before.
    """
    ours = {node: place for place, node in enumerate(mine.nodes)}
    others = {node: place for place, node in enumerate(theirs.nodes)}
    found: dict[int, int] = {}
    taken = set(pairs.values())
    stack = sorted(pairs.items())
    while stack:
        left, right = stack.pop()
        one, other = mine.nodes[left], theirs.nodes[right]
        same = one.op_type == other.op_type and len(one.inputs) == len(other.inputs)
        for a, b in zip(one.inputs, other.inputs, strict=same):
            producer = a.producer() if a is not None else None
            place = ours.get(producer) if producer is not None else None
            if place is not None and place not in pairs and place not in found:
                match = _behind(theirs, others, b, mine.tokens[place])
                if match is not None and match not in taken:
                    found[place] = match
                    taken.add(match)
                    stack.append((place, match))
            if not same:
                break
    return found


def _behind(side: _Side, places: Mapping[ir.Node, int], value: ir.Value | None, token: Hashable) -> int | None:
    """The operation of this token that makes a value, or what it is made of by operations that nothing else uses."""
    for _ in range(_PASSED_OVER + 1):
        producer = value.producer() if value is not None else None
        place = places.get(producer) if producer is not None else None
        if producer is None or place is None:
            return None
        if side.tokens[place] == token:
            return place
        value = producer.inputs[0] if producer.inputs else None
        if value is None or len(value.uses()) > 1:
            return None
    return None


def _readers(side: _Side) -> dict[Hashable, list[int]]:
    readers: dict[Hashable, list[int]] = defaultdict(list)
    for place, told in enumerate(side.weights):
        for one in told:
            readers[one].append(place)
    return readers


def _increasing(pairs: Mapping[int, int]) -> _Pairs:
    """The longest chain of pairs that are in the same order on both sides."""
    tails: list[int] = []
    last: list[int] = []
    before: dict[int, int | None] = {}
    for left in sorted(pairs):
        place = bisect_left(tails, pairs[left])
        before[left] = last[place - 1] if place else None
        tails[place : place + 1] = [pairs[left]]
        last[place : place + 1] = [left]
    chain: _Pairs = []
    at = last[-1] if last else None
    while at is not None:
        chain.append((at, pairs[at]))
        at = before[at]
    return chain[::-1]


# --- alignment -------------------------------------------------------------------------------------------------------


def _aligned_weights(mine: _Side, theirs: _Side, pairs: _Pairs) -> _Pairs:
    """The pairs, and between them the operations that read weights, aligned by the shapes of these."""
    found: _Pairs = list(pairs)
    for (a, b), (c, d) in _stretches(pairs, len(mine.nodes), len(theirs.nodes)):
        left = [place for place in range(a, b) if isinstance(mine.tokens[place], tuple)]
        right = [place for place in range(c, d) if isinstance(theirs.tokens[place], tuple)]
        tokens = [mine.tokens[place] for place in left], [theirs.tokens[place] for place in right]
        found += [(left[i], right[j]) for i, j in _common_subsequence(*tokens)]
    return sorted(found)


def _aligned(mine: _Side, theirs: _Side, pairs: _Pairs) -> _Pairs:
    """The pairs, and all that aligns between them."""
    found: _Pairs = list(pairs)
    for (a, b), (c, d) in _stretches(pairs, len(mine.nodes), len(theirs.nodes)):
        found += [(a + i, c + j) for i, j in _common_subsequence(mine.tokens[a:b], theirs.tokens[c:d])]
    return sorted(found)


def _stretches(pairs: _Pairs, left: int, right: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """What stands between the pairs on both sides, the ends included; empty ones left out."""
    bounds = [(-1, -1), *pairs, (left, right)]
    between = [((a + 1, c), (b + 1, d)) for (a, b), (c, d) in pairwise(bounds)]
    return [(mine, theirs) for mine, theirs in between if mine[0] < mine[1] and theirs[0] < theirs[1]]


def _common_subsequence(left: Sequence[Hashable], right: Sequence[Hashable]) -> _Pairs:
    """The longest sequence that both hold, as pairs of places."""
    if len(left) * len(right) > _SMALL:
        blocks = SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
        return [(block.a + i, block.b + i) for block in blocks for i in range(block.size)]
    lengths = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in range(len(left) - 1, -1, -1):
        row, below = lengths[i], lengths[i + 1]
        for j in range(len(right) - 1, -1, -1):
            row[j] = below[j + 1] + 1 if left[i] == right[j] else max(below[j], row[j + 1])
    found: _Pairs = []
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j] and lengths[i][j] == lengths[i + 1][j + 1] + 1:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif lengths[i + 1][j] >= lengths[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


# --- scopes ----------------------------------------------------------------------------------------------------------


def _scopes(mine: _Side, theirs: _Side, found: Mapping[int, tuple[int, Source]]) -> dict[ir.Node, Scope]:
    stacks = [scope.frames if (scope := scope_of(node)) is not None else () for node in theirs.nodes]
    scopes: dict[ir.Node, Scope] = {}
    for place, (other, source) in found.items():
        if stacks[other]:
            scopes[mine.nodes[place]] = Scope(stacks[other], source)
    for place, (other, source) in found.items():
        _pair_inputs(mine.nodes[place], theirs.nodes[other], source, scopes)
    ordered = sorted((place, other) for place, (other, _) in found.items())
    for (a, b), (c, d) in _gaps(ordered, len(mine.nodes), len(theirs.nodes)):
        frames = _of_gap(stacks, c, d)
        if frames:
            scopes |= {mine.nodes[place]: Scope(frames, Source.DATAFLOW) for place in range(a, b)}
    return scopes


def _pair_inputs(mine: ir.Node, theirs: ir.Node, source: Source, scopes: dict[ir.Node, Scope]) -> None:
    """Constants and views of weights that stand at the same inputs of two operations that are the same."""
    stack = [(mine, theirs)]
    while stack:
        left, right = stack.pop()
        if left.op_type != right.op_type or len(left.inputs) != len(right.inputs):
            continue
        for a, b in zip(left.inputs, right.inputs, strict=True):
            one, other = (None if value is None else value.producer() for value in (a, b))
            if one is None or other is None or one.op_type != other.op_type or one in scopes:
                continue
            scope = scope_of(other)
            if scope is not None and (one.op_type == "Constant" or one.op_type in VIEWS):
                scopes[one] = scope.with_source(source)
                stack.append((one, other))


def _gaps(pairs: _Pairs, left: int, right: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    bounds = [(-1, -1), *pairs, (left, right)]
    between = [((a + 1, c), (b + 1, d)) for (a, b), (c, d) in pairwise(bounds)]
    return [(mine, theirs) for mine, theirs in between if mine[0] < mine[1]]


def _of_gap(stacks: Sequence[tuple[Frame, ...]], start: int, end: int) -> tuple[Frame, ...]:
    """The module call of what stands in a gap of the reference; where it is empty, of what stands around it."""
    inside = [frames for frames in stacks[start:end] if frames]
    around = [frames for frames in (*stacks[max(start - 1, 0) : start], *stacks[end : end + 1]) if frames]
    return common_frames(inside or around) if inside or around else ()
