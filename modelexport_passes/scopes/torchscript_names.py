"""Scopes from node names of torch's TorchScript exporter: ``/layers.0/attention/query/MatMul``.

Each part is the *tail* of a module's path: what begins at its last atom that is not a number (``net.1.0`` for
``model.net.1.0``). A container that is never called leaves no part. The exporter numbers the calls that have operations
of their own per chain of tails, and writes the number on the last part only: ``/b_1/Add`` is the second call of ``/b``,
``/b/l_1/Gemm`` the second of ``/b/l``, in whichever call of ``b`` that was. Which it was, the order of operations tells
(`modelexport_passes.scopes.calls`); which module a tail means, the modules that are known (`ModuleNames`) and the
parameters that its operations read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from modelexport_passes.scopes.calls import Call, Event, call_frames, call_tree
from modelexport_passes.scopes.merged_calls import merged_calls
from modelexport_passes.scopes.module_names import ModuleNames, tail
from modelexport_passes.scopes.open_paths import contradicted_calls, doubtful_calls, given_to_callers
from modelexport_passes.scopes.parameters import ParameterOwners
from modelexport_passes.scopes.scope import Scope, Source
from modelexport_passes.scopes.traced_calls import TracedCall, numbers_by_trace, paths_by_trace

_REPLACED = re.compile(r"[A-Z][A-Za-z0-9]*(_\d+)?_(?!output_\d)\w+")
_NUMBERED = re.compile(r"(.+)_(\d+)")

_Chain = tuple[str, ...]


def scopes_from_names(
    nodes: Iterable[ir.Node], modules: ModuleNames, owners: ParameterOwners, traced: TracedCall | None = None
) -> dict[ir.Node, Scope]:
    """The scope of each node whose name tells it.

    Args:
        nodes: in the order of the graph.
        modules: those that are known.
        owners: of the graph's parameters.
        traced: the calls of the run that the names are of, if it was recorded.
    """
    parts = _all_parts(nodes, modules, owners.prefix)
    reads = list(map(owners.read, parts))
    chains = _Chains(parts.values(), modules)
    events: dict[ir.Node, Event] = {}
    owned: list[list[str]] = []
    own = _Own(parts.values(), reads, owners, modules)
    for (node, told), read in zip(parts.items(), reads, strict=True):
        of_modules = owners.of_all(read) if read else []
        chain = chains.read(told, of_modules)
        if chain is not None:
            events[node] = _event(node, chain, read, own.hints(read, chain[0]) if of_modules else ())
            owned.append(of_modules)
    root, innermost = call_tree(list(events.values()))
    resolution = _Resolution(root, modules, owned)
    resolution.resolve({} if traced is None else paths_by_trace(root, traced, tail))
    strangers = contradicted_calls(list(events), innermost, resolution.paths, resolution.unconfirmed, owners)
    moved = given_to_callers(strangers, innermost)
    paths = resolution.paths
    numbers = {} if traced is None else numbers_by_trace(root, paths, traced)
    merged = merged_calls(list(events), innermost, root, paths) if traced is None else {}
    framed = call_frames(root, innermost, paths, modules.classes, merged, numbers)
    made: dict[tuple[Call, bool], Scope] = {}  # operations of a call share their scope
    scopes: dict[ir.Node, Scope] = {}
    for index, (node, call, (frames, concluded)) in enumerate(zip(events, innermost, framed, strict=True)):
        key = call, concluded or index in moved
        if key not in made:
            made[key] = Scope(frames, Source.DATAFLOW if key[1] else resolution.sources[call])
        scopes[node] = made[key]
    return scopes


def _all_parts(nodes: Iterable[ir.Node], modules: ModuleNames, prefix: str) -> dict[ir.Node, _Chain]:
    """The parts of each name that the exporter gave.

    Its names end in the operator. One that a quantizer replaced keeps the name it had, with something behind it
    (``/query/MatMul_quant`` of a MatMulInteger): it counts where the exporter's own names stand beside it, or where
    every part is the end of a known module's path.
    """
    start = f"{prefix}/"
    chains: dict[str, _Chain] = {"": ()}  # operations of one call have one
    split: list[tuple[ir.Node, _Chain, str, bool]] = []
    for node in nodes:
        name = node.name
        if name and name.startswith(start):
            above, _, last = name[len(prefix) :].rpartition("/")
            chain = chains.get(above)
            if chain is None:
                chain = chains[above] = tuple(above[1:].split("/"))
            split.append((node, chain, last, last.startswith(node.op_type)))
    own = {chain for _, chain, _, is_own in split if is_own}
    return {
        node: chain
        for node, chain, last, is_own in split
        if is_own or (_REPLACED.fullmatch(last) and (chain in own or all(map(modules.with_tail, chain))))
    }


class _Own:
    """Parameters that operations of one place read: a tied one tells no more than that some module has it."""

    def __init__(
        self,
        names: Iterable[_Chain],
        reads: Sequence[Sequence[ir.Value]],
        owners: ParameterOwners,
        modules: ModuleNames,
    ) -> None:
        self._owners = owners
        self._modules = modules
        self._place: dict[ir.Value, _Chain | None] = {}  # None where several read it
        self._told: dict[tuple[str, ...], dict[str, str | None]] = {}
        places: dict[_Chain, _Chain] = {}
        for told, read in zip(names, reads, strict=True):
            if read:
                place = places.get(told)
                if place is None:
                    place = places[told] = tuple(map(_unnumbered, told))
                for value in read:
                    self._place[value] = place if self._place.get(value, place) == place else None

    def hints(self, read: Sequence[ir.Value], tails: _Chain) -> tuple[str | None, ...]:
        """For each tail the one module that owns, or holds the owners of, what is read here and in no other place."""
        alone = [value for value in read if self._place[value] is not None]
        owners = tuple(dict.fromkeys(self._owners.of_all(alone)))
        if not owners:
            return ()
        told = self._modules.by_end(owners[0]) if len(owners) == 1 else self._by_end(owners)
        return tuple(map(told.get, tails))

    def _by_end(self, owners: tuple[str, ...]) -> Mapping[str, str | None]:
        found = self._told.get(owners)
        if found is None:
            found = self._told[owners] = {}
            for end, path in (told for owner in owners for told in self._modules.by_end(owner).items()):
                found[end] = path if found.get(end, path) == path else None
        return found


def _unnumbered(part: str) -> str:
    numbered = _NUMBERED.fullmatch(part)
    return part if numbered is None else numbered[1]


def _event(node: ir.Node, chain: tuple[_Chain, int], read: Sequence[ir.Value], hints: tuple[str | None, ...]) -> Event:
    tails, number = chain
    return Event(
        tails,
        number if tails else None,
        node.op_type,
        tuple([value.name for value in read]) if read else (),
        ends=node.op_type != "Constant",
        hints=hints,
    )


class _Reading(NamedTuple):
    """Tails and number of a call, as parts of a name may be read.

    Attributes:
        module: with the last part as a module's; None if there is none.
        call: with the number of the last part as that of the call; None if it has none.
    """

    module: tuple[_Chain, int] | None
    call: tuple[_Chain, int] | None


class _Chains:
    """Reading the parts of names as tails, the last one with the number of the call."""

    def __init__(self, names: Iterable[_Chain], modules: ModuleNames) -> None:
        self._modules = modules
        # In the order of their first operations.
        self._names = {name: place for place, name in enumerate(dict.fromkeys(names))}
        self._calls: dict[_Chain, bool] = {}
        self._readings: dict[_Chain, _Reading] = {}
        # Only the last part carries a number: what stands before another part is a tail as it is.
        self._tails = {name[:end] for name in self._names for end in range(1, len(name))}

    def read(self, parts: _Chain, owners: Sequence[str]) -> tuple[_Chain, int] | None:
        reading = self._readings.get(parts)
        if reading is None:
            reading = self._readings[parts] = self._reading(parts)
        if reading.call is not None and self._is_call(parts, reading.call[0], owners):
            return reading.call
        return reading.module

    def _reading(self, parts: _Chain) -> _Reading:
        """What these parts say, whatever is read there."""
        if self._modules.complete and not all(self._modules.with_tail(part) for part in parts[:-1]):
            return _Reading(None, None)
        if not parts:
            return _Reading(((), 0), None)
        last = parts[-1]
        known = not self._modules.complete or self._modules.with_tail(last)
        numbered = _NUMBERED.fullmatch(last)
        return _Reading(
            (parts, 0) if known else None,
            None if numbered is None else ((*parts[:-1], numbered[1]), int(numbered[2])),
        )

    def _is_call(self, parts: _Chain, called: _Chain, owners: Sequence[str]) -> bool:
        """Whether ``lin_1`` is the second call of ``lin``, and not a module of that name."""
        is_module = bool(self._modules.with_tail(parts[-1])) or parts in self._tails
        known = bool(self._modules.with_tail(called[-1]))
        could_be_call = known if self._modules.complete else self._after_others(parts, called)
        if is_module and could_be_call:
            own = {end for owner in owners for end, _ in self._modules.ends(owner)}
            return called[-1] in own and parts[-1] not in own
        return could_be_call

    def _after_others(self, parts: _Chain, called: _Chain) -> bool:
        """Whether ``lin_2`` begins behind ``lin_1``, and that behind ``lin``, as the calls of ``lin`` do."""
        if parts not in self._calls:
            number = int(parts[-1][len(called[-1]) + 1 :])
            before = called if number == 1 else (*called[:-1], f"{called[-1]}_{number - 1}")
            behind = before in self._names and self._names[before] < self._names[parts]
            # What begins earlier was read earlier: one step, not one for each call.
            self._calls[parts] = behind and (number == 1 or self._after_others(before, called))
        return self._calls[parts]


class _Resolution:
    """Which module each call is a call of, from the root down."""

    def __init__(self, root: Call, modules: ModuleNames, owners: Sequence[Sequence[str]]) -> None:
        self._root = root
        self._modules = modules
        self._owners = owners
        self.paths: dict[Call, str] = {}
        self.sources: dict[Call, Source] = {}
        self._below: dict[Call, set[str]] = {}
        self.unconfirmed: dict[Call, Sequence[str]] = {}
        """Calls whose path is their caller's and their own end, and no more: with the known modules of that end."""

    def resolve(self, told: Mapping[Call, str]) -> None:
        """Find the module of each call but those of which it is told."""
        root = self._root
        self.paths[root] = ""
        self.sources[root] = Source.NAME
        calls = list(root.walk())
        for call in calls:
            assert call.parent is not None
            path, source = told.get(call), Source.NAME
            if path is None:
                path, source = self._module(call, self.paths[call.parent])
            self.paths[call] = path
            self.sources[call] = source
        doubtful = doubtful_calls(self.paths, self.unconfirmed, tail)
        for call in calls:
            assert call.parent is not None
            source = Source.DATAFLOW if call in doubtful else self.sources[call]
            self.sources[call] = _weaker(source, self.sources[call.parent])

    def _module(self, call: Call, parent: str) -> tuple[str, Source]:
        key = call.key
        direct = _direct(parent, key)
        known = self._modules.with_tail(key)
        is_known = direct in self._modules.classes and tail(direct) == key
        if len(known) == 1 and self._modules.complete:
            return known[0], Source.NAME
        votes = self._votes(call)
        if len(known) == 1 and self._inside(call, parent, direct, votes):
            return known[0], Source.NAME
        if self._modules.complete and is_known:
            # A parameter that two modules share has one owner by name; the caller's own module is the one it calls.
            if direct not in votes:
                self.unconfirmed[call] = known
            return direct, Source.NAME
        if votes and direct not in votes:
            below = "" if not parent else f"{parent}."
            return max(votes, key=lambda path: (path.startswith(below), votes[path])), Source.PARAMETER
        if not votes:
            self.unconfirmed[call] = known
        if is_known or votes:
            return direct, Source.NAME
        inside = self._inside(call, parent, direct, votes)
        if len(inside) == 1:
            return inside[0], Source.NAME
        if inside or (known and self._modules.complete):
            return self._next(call, inside or known), Source.DATAFLOW
        return direct, Source.NAME

    def _inside(self, call: Call, parent: str, direct: str, votes: Collection[str]) -> Sequence[str]:
        """The modules below the caller that it may be a call of; ``direct``: what the caller itself may have."""
        inside = self._modules.below(parent, call.key)
        if self._modules.complete:
            return inside
        # What a call reads nothing of is not what it is a call of where the caller calls that one's holder, too.
        inside = [path for path in inside if path == direct or path in votes or not self._holder_is_called(path, call)]
        if direct in inside or not inside:
            return inside
        # All that is known here has parameters, and who has them reads them: what reads none is another module.
        return [path for path in inside if path in votes or path not in self._claimed]

    def _holder_is_called(self, path: str, call: Call) -> bool:
        """Whether the caller of a call calls the holder of this module as well, itself or further down."""
        assert call.parent is not None
        below = self._below.get(call.parent)
        if below is None:
            below = self._below[call.parent] = {one.key for one in call.parent.walk()}
        holder = path.removesuffix(call.key).removesuffix(".")
        return tail(holder) in below

    @functools.cached_property
    def _claimed(self) -> Collection[str]:
        """Modules that a call of their end reads parameters of."""
        return {path for call in self._root.walk() for path in self._votes(call)}

    def _votes(self, call: Call) -> dict[str, int]:
        """The modules of a call's tail that hold what its operations read, and how many times they are read."""
        read: dict[str, int] = {}
        for index in call.events:
            for owner in self._owners[index]:
                read[owner] = read.get(owner, 0) + 1
        votes: dict[str, int] = {}
        for owner, count in read.items():
            for end, path in self._modules.ends(owner):
                if end == call.key:
                    votes[path] = votes.get(path, 0) + count
        return votes

    def _next(self, call: Call, candidates: Sequence[str]) -> str:
        """Modules that nothing tells apart are taken to run in the order in which they stand in the model."""
        assert call.parent is not None
        taken = [self.paths[other] for other in call.parent.children if other in self.paths]
        left = [path for path in candidates if path not in taken]
        return (left or list(candidates))[0]


def _weaker(one: Source, other: Source) -> Source:
    return other if one is not other and other.rank > one.rank else one


def _direct(parent: str, part: str) -> str:
    """The path of a module that its parent holds itself: an item of a Sequential repeats the parent's name."""
    last = tail(parent) if parent else ""
    if last and part.startswith(last + ".") and part[len(last) + 1 :].replace(".", "").isdecimal():
        return parent + part[len(last) :]
    return f"{parent}.{part}" if parent else part
