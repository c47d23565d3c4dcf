"""From what the operations of a model make to a verdict on each module call. Nothing is run here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from modelexport_passes.validation.module_regions import CallKey, Regions
from modelexport_passes.validation.module_verdicts import CallVerdict, ModuleProof, Verdict
from modelexport_passes.validation.observed_values import Observed
from modelexport_passes.validation.tensor_matching import is_telling

if TYPE_CHECKING:
    from modelexport_passes.exporting.module_calls import ModuleCall, Recording

_Found = tuple[Verdict, str]

_ORDER = (
    Verdict.UNCHANGED,
    Verdict.NO_NODES,
    Verdict.WITHIN,
    Verdict.NOT_FOUND,
    Verdict.CONSTANT,
    Verdict.FUSED,
    Verdict.PROVEN,
    Verdict.COMPLETED,
    Verdict.RANDOM,
    Verdict.OTHER_INPUT,
    Verdict.DIFFERENT,
)
"""Of the tensors that a call returned, the one with the last of these decides: results that nothing used are gone."""


@dataclass
class Judge:
    """Finds the verdict of each call.

    Attributes:
        recording: the torch model's run.
        regions: of the model.
        observed: what the model computes.
    """

    recording: Recording
    regions: Regions
    observed: Observed

    def __post_init__(self) -> None:
        self._keys = {call: self._keys_of(call) for call in self.recording.calls}
        self._calls = {key: call for call, keys in self._keys.items() for key in keys}
        self._computing: dict[str, list[ModuleCall]] = {}
        self._taking: dict[str, list[ModuleCall]] = {}
        for call in self.recording.calls:
            for key in call.computed:
                self._computing.setdefault(key, []).append(call)
            for key in dict.fromkeys(call.took):
                self._taking.setdefault(key, []).append(call)
        self._telling: dict[str, bool] = {}
        self._given = {key for value in self.observed.compared for key in self.observed.compared[value].equals}

    def proof(self) -> ModuleProof:
        """The verdicts on all calls, and on regions that no call has."""
        found: dict[ModuleCall, _Found] = {}
        for call in self.recording.calls:
            found[call] = self._settled(call, found)
        # As they returned: a call whose numbers are wrong comes before those that they made wrong.
        ended = sorted(self.recording.calls, key=lambda call: call.ended)
        verdicts = [
            CallVerdict(str(call), call.class_name, *found[call], leaks=tuple(self._leaks(call))) for call in ended
        ]
        not_called: list[str] = []
        for key in self.regions:
            if key in self._calls:
                continue
            if key.path in self.recording.paths:
                not_called.append(str(key))
            else:
                reason = "the torch model has no module of that path"
                verdicts.append(CallVerdict(str(key), "?", Verdict.DIFFERENT, reason))
        return ModuleProof(tuple(verdicts), tuple(not_called))

    def _keys_of(self, call: ModuleCall) -> tuple[CallKey, ...]:
        """A call's region. Of an instance with several names any of theirs: hooks do not tell which one was used."""
        if len(call.paths) == 1:
            return (CallKey(call.paths[0], call.call),)
        return tuple(key for key in self.regions if key.path in call.paths)

    def _settled(self, call: ModuleCall, found: Mapping[ModuleCall, _Found]) -> _Found:
        caller = found.get(call.caller) if call.caller is not None else None
        # Choices among equals come in another order: what the caller makes of them is right.
        harmless = caller is not None and caller[0] in (Verdict.PROVEN, Verdict.COMPLETED)
        results: list[_Found] = []
        for key in call.computed:
            verdict, reason = self._of_tensor(call, key)
            if verdict is Verdict.DIFFERENT and reason.endswith(_INSTEAD) and harmless:
                verdict, reason = Verdict.NOT_FOUND, f"{reason}; its caller's result is right all the same"
            results.append((verdict, reason))
        return max(results, key=lambda one: _ORDER.index(one[0]), default=(Verdict.UNCHANGED, ""))

    def _of_tensor(self, call: ModuleCall, key: str) -> _Found:
        keys = self._keys[call]
        makers = self.observed.makers.get(key, [])
        if any(self.regions.holds(value, keys) for value in makers):
            return (Verdict.PROVEN if self._tells(key) else Verdict.CONSTANT), ""
        empty = not any(one in self.regions for one in keys)
        absent = (Verdict.NO_NODES, "") if empty else (Verdict.NOT_FOUND, "the model makes no such tensor")
        if not self._tells(key):
            return absent
        if makers and self._is_completed(call, keys, makers):
            return Verdict.WITHIN if empty else Verdict.COMPLETED, ""
        if makers:
            return self._made_elsewhere(call, key, makers, absent)
        if any(self.regions.holds(value, keys) for value in self.observed.shuffled.get(key, ())):
            return Verdict.PROVEN, "in another order or shape"
        fused = next((other for other in self._made_of(call, key) if self._makes_any(keys, other)), None)
        if fused is not None:
            return Verdict.FUSED, f"fused with {fused}"
        if empty:
            return absent
        if excuse := self._excuse(call, keys):
            return excuse
        nearly = next((value for value in self.observed.near.get(key, ()) if self.regions.holds(value, keys)), None)
        if nearly is not None:
            return Verdict.NOT_FOUND, f"{nearly.name!r} equals it but for what may be rounding: more than the tolerance"
        wrong = self._instead(keys, key)
        return (Verdict.DIFFERENT, f"{wrong.name!r} {_INSTEAD}") if wrong is not None else absent

    def _is_completed(self, call: ModuleCall, keys: Collection[CallKey], makers: Sequence[ir.Value]) -> bool:
        """Whether concluded operations of its callers make what a call returned, and its region has part in it."""
        callers = {key for other in _running(call) for key in self._keys[other]}
        took = set(call.took)
        return any(
            self.regions.completes(value, keys, callers, lambda one: self._is_known(one, took)) for value in makers
        )

    def _excuse(self, call: ModuleCall, keys: Collection[CallKey]) -> _Found | None:
        """Why a call that returned what the model does not make is not to blame; None if it is.

        Nothing wrong can hide behind another's fault: of the calls that were given what the model makes, among which
        the root is, one at least returned what the model does not make.
        """
        if any(value in self.regions.random for value in self.regions.leaving(keys)):
            return Verdict.RANDOM, "follows from random numbers"
        missing = (key for key in call.took if key not in self._given and key not in self.observed.shuffled)
        if any(map(self._tells, missing)) and any(map(self._is_unlike, self.regions.entering(keys))):
            return Verdict.OTHER_INPUT, "was given what the model does not make"
        return None

    def _is_unlike(self, value: ir.Value) -> bool:
        """Whether a value that depends on the inputs of the graph equals nothing that torch computed."""
        looked = self.observed.compared.get(value)
        return value in self.regions.varying and (looked is None or not looked.equals)

    def _made_elsewhere(self, call: ModuleCall, key: str, makers: Sequence[ir.Value], absent: _Found) -> _Found:
        """What it means that only operations of other modules make a tensor that a call returned."""
        places: dict[str, ir.Value] = {}
        above = _running(call)
        beside = [other for other in self._computing[key] if other not in above and call not in _running(other)]
        for value in makers:
            owner = self.regions.innermost(value)
            if owner is None:
                return Verdict.NOT_FOUND, f"{value.name!r}, which equals it, is of unknown scope"
            if any(self.regions.holds(value, self._keys[other]) for other in beside):
                return absent  # one operation for several calls that return equal tensors
            if absent[0] is Verdict.NO_NODES and self.regions.is_constant(value):
                return absent  # folded, and what it was folded into has these numbers again
            if self._is_swallowed(owner):
                return absent[0], f"fused with {owner}"
            places.setdefault(self.regions.chain(value), value)
        where = "; ".join(f"{value.name!r} in {chain}" for chain, value in places.items())
        return Verdict.DIFFERENT, f"what it returned is made elsewhere: {where}"

    def _is_swallowed(self, owner: CallKey) -> bool:
        """Whether nothing makes what this call itself returned: then its operations do the work of others as well."""
        call = self._calls.get(owner)
        return call is not None and bool(call.computed) and not any(map(self.observed.makers.get, call.computed))

    def _made_of(self, call: ModuleCall, key: str) -> Iterator[ModuleCall]:
        """The calls that worked on a tensor which the model does not make, and on what they made of it, and so on."""
        seen: set[ModuleCall] = _running(call)
        waiting = [key]
        while waiting:
            for other in self._taking.get(waiting.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    yield other
                    waiting += [one for one in other.computed if not self.observed.makers.get(one)]

    def _makes_any(self, keys: Collection[CallKey], call: ModuleCall) -> bool:
        return any(
            self.regions.holds(value, keys)
            for key in call.computed
            if self._tells(key)
            for value in self.observed.makers.get(key, ())
        )

    def _instead(self, keys: Collection[CallKey], key: str) -> ir.Value | None:
        """A value that leaves the region, of a returned tensor's type and shape, that equals none that was returned."""
        kind = self.recording.tensors.kind(key)
        for value in self.regions.leaving(keys):
            looked = self.observed.compared.get(value)
            if looked is not None and looked.kind == kind and not any(map(self._tells, looked.equals)):
                return value
        return None

    def _leaks(self, call: ModuleCall) -> Iterator[str]:
        """What crosses the edge of a call's region and was neither given to the call nor returned by it."""
        keys = self._keys[call]
        if "" in call.paths or not any(key in self.regions.nodes for key in keys):
            return
        # Of an instance with several names the regions of all its calls are one.
        calls = [call] if len(call.paths) == 1 else self.recording.calls
        known = {key for one in calls if one.paths == call.paths for key in (*one.took, *one.returned)}
        for way, values in (("enters", self.regions.entering(keys)), ("leaves", self.regions.leaving(keys))):
            for value in values:
                if value in self.regions.varying and not self._is_known(value, known):
                    yield f"{value.name!r} {way} it"

    def _is_known(self, value: ir.Value, keys: AbstractSet[str]) -> bool:
        looked = self.observed.compared.get(value)
        if looked is not None and (not looked.telling or not keys.isdisjoint(looked.equals)):
            return True
        return any(value in self.observed.shuffled.get(key, ()) for key in keys)

    def _tells(self, key: str) -> bool:
        if key not in self._telling:
            self._telling[key] = is_telling(self.recording.tensors.load(key))
        return self._telling[key]


_INSTEAD = "leaves it, which is not what the module returned"


def _running(call: ModuleCall) -> set[ModuleCall]:
    """A call and those that it was made in."""
    found: set[ModuleCall] = set()
    running: ModuleCall | None = call
    while running is not None:
        found.add(running)
        running = running.caller
    return found
