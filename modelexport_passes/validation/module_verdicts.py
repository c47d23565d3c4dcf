"""What the proof of scopes finds about each module call."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """What was found about one module call."""

    PROVEN = "proven"
    """Its region makes what the call returned."""
    FUSED = "fused"
    """Its region makes what the next calls made of what it returned, and nothing makes that itself: an optimizer has
    put them together (Conv and BatchNorm)."""
    COMPLETED = "completed"
    """Its region makes what the call returned together with operations whose scope is unknown, or was concluded as far
    as a caller of it: none of another call takes part."""
    CONSTANT = "constant"
    """Its region makes what the call returned, and that is one number over and over, which shows nothing."""
    UNCHANGED = "unchanged"
    """It returned what it was given, or no tensor: there is nothing to make."""
    NO_NODES = "no nodes"
    """No operation has its scope, and there is none that should."""
    WITHIN = "within its caller"
    """No operation has its scope: what it returned is made by operations whose scope was concluded as far as a caller
    of it."""
    NOT_FOUND = "not found"
    """It has operations, and the model makes nothing that can be compared with what it returned."""
    RANDOM = "random"
    """What it returned follows from random numbers that the model draws anew: there is nothing to compare with."""
    OTHER_INPUT = "other input"
    """It was given something else than in torch, and returned something else: what made that has a verdict of its
    own."""
    DIFFERENT = "different"
    """What it returned is made elsewhere, or its region makes something else in its place, or works on after it."""


SHOWN_BY_NUMBERS = (Verdict.PROVEN, Verdict.FUSED)
"""Verdicts that prove the scope of a region."""

COMPARABLE = (*SHOWN_BY_NUMBERS, Verdict.COMPLETED, Verdict.NOT_FOUND, Verdict.DIFFERENT)
"""Verdicts on calls that left operations and returned something that tells."""


@dataclass(frozen=True)
class CallVerdict:
    """What was found about one module call.

    Attributes:
        call: path and, from the second call on, ``@`` and its index.
        class_name: qualified.
        verdict: what was found.
        reason: why, where that is not plain.
        leaks: values that cross the edge of its region and that the call was neither given nor returned. In a plain
            export they mean that operations of other calls are counted in, or own ones left out. Optimizers make them
            too: one operation for two calls that compute the same.
    """

    call: str
    class_name: str
    verdict: Verdict
    reason: str = ""
    leaks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.call} ({self.class_name.rpartition('.')[2]}): {self.reason or self.verdict}"


@dataclass(frozen=True)
class ModuleProof:
    """What was found about all module calls.

    Attributes:
        verdicts: in the order in which the calls returned in torch.
        not_called: calls that scopes name and that torch did not make in this run (an expert that none chose).
    """

    verdicts: tuple[CallVerdict, ...]
    not_called: tuple[str, ...] = ()

    def of(self, *verdicts: Verdict) -> list[CallVerdict]:
        """The calls with one of these verdicts."""
        return [one for one in self.verdicts if one.verdict in verdicts]

    @property
    def leaking(self) -> list[CallVerdict]:
        """The calls whose region has an edge that the call had not."""
        return [one for one in self.verdicts if one.leaks]

    @property
    def counts(self) -> dict[str, int]:
        """Verdict -> number of calls; those that there are none of left out."""
        counted = Counter(one.verdict for one in self.verdicts)
        return {verdict.value: counted[verdict] for verdict in Verdict if counted[verdict]}
