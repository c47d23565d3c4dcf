"""Two models compute the same: compared output by output, bit by bit, and by distance where bits may differ.

A distance is told relative to the spread (standard deviation) of the output it is a distance to. An absolute tolerance
proves nothing on an output of 1e-6, and fails on one of 1e6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from modelexport_passes.errors import VerificationError
from modelexport_passes.progress import tell
from modelexport_passes.validation.inputs import input_sets
from modelexport_passes.validation.session import Array, open_session, run_session

HALF_TOLERANCE = 2e-2
TOLERANCE = 1e-4
"""Relative to the spread of the output: float32 through a few hundred operations, computed in another order."""

_ROUNDING = 4
"""Units of rounding of an output's largest value that no tolerance is below: a spread may itself be rounding noise."""

_WANTED_SETS = 2


@dataclass(frozen=True)
class Difference:
    """How one output differs from its reference.

    Attributes:
        output: name of the graph output.
        bit_equal: same type, shape and bits (NaN is equal to the same NaN).
        max_abs: largest absolute difference; infinite where types or shapes differ or only one is NaN.
        relative: ``max_abs`` over the standard deviation of the reference.
        text: what differs other than numbers, "" otherwise.
        half: the outputs have 16 bits or fewer.
        floor: a difference up to this is rounding, whatever the spread.
    """

    output: str
    bit_equal: bool
    max_abs: float
    relative: float
    text: str = ""
    half: bool = False
    floor: float = 0.0

    def within(self, tolerance: float | None) -> bool:
        """Whether the relative difference is at most ``tolerance``; None takes the default of the output's type."""
        if tolerance is None:
            tolerance = HALF_TOLERANCE if self.half else TOLERANCE
        return self.bit_equal or self.max_abs <= self.floor or self.relative <= tolerance

    def __str__(self) -> str:
        if self.bit_equal:
            return f"output {self.output!r} is bit-equal"
        if self.text:
            return f"output {self.output!r}: {self.text}"
        return f"output {self.output!r} differs by up to {self.max_abs:.3g}, {self.relative:.3g} of its spread"


def compare_outputs(names: Sequence[str], actual: Sequence[Any], expected: Sequence[Any]) -> list[Difference]:
    """Compare outputs with their references, one by one; an output that is a sequence item by item.

    Raises:
        VerificationError: there are not as many of one as of the other.
    """
    if len(actual) != len(expected):
        raise VerificationError(f"{len(actual)} outputs ({', '.join(names)}), the reference has {len(expected)}")
    return [
        difference
        for name, ours, theirs in zip(names, actual, expected, strict=True)
        for difference in _compare(name, ours, theirs)
    ]


def _compare(name: str, actual: object, expected: object) -> Iterator[Difference]:
    if isinstance(actual, list) and isinstance(expected, list):
        ours, theirs = cast("list[Any]", actual), cast("list[Any]", expected)
        if len(ours) != len(theirs):
            text = f"a sequence of {len(ours)}, expected {len(theirs)}"
            yield Difference(name, bit_equal=False, max_abs=np.inf, relative=np.inf, text=text)
            return
        for index, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            yield from _compare(f"{name}[{index}]", left, right)
    elif actual is None or expected is None:
        same = actual is expected
        distance = 0.0 if same else np.inf
        yield Difference(name, same, distance, distance, "" if same else "is there on one side only")
    else:
        yield compare_arrays(name, np.asarray(cast("Any", actual)), np.asarray(cast("Any", expected)))


def compare_arrays(name: str, actual: Array, expected: Array) -> Difference:
    """Compare one output with its reference."""
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        text = f"is {actual.dtype}{list(actual.shape)}, expected {expected.dtype}{list(expected.shape)}"
        return Difference(name, bit_equal=False, max_abs=np.inf, relative=np.inf, text=text)
    half = actual.dtype.kind not in "biuSUO" and actual.dtype.itemsize <= 2
    if actual.dtype.kind in "SUO":
        same = bool(np.array_equal(actual, expected))
        distance = 0.0 if same else np.inf
        return Difference(name, same, distance, distance, "" if same else "its text differs")
    if _bits_equal(actual, expected):
        return Difference(name, bit_equal=True, max_abs=0.0, relative=0.0, half=half)
    ours, theirs = _as_numbers(actual), _as_numbers(expected)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(ours - theirs)
    # Equal infinities, and NaN on both sides, are no difference; NaN on one side is an infinite one.
    distance[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0.0
    distance[np.isnan(distance)] = np.inf
    largest = float(distance.max(initial=0.0))
    floor = rounding_floor(actual.dtype, theirs)
    return Difference(name, False, largest, _relative(largest, theirs), half=half, floor=floor)


def rounding_floor(dtype: np.dtype[Any], numbers: Array) -> float:
    """A few units of rounding of the largest finite number; 0 for a type that does not round."""
    finite = numbers[np.isfinite(numbers)]
    if dtype.kind in "biu" or not finite.size:
        return 0.0
    bits = dtype.itemsize * (4 if dtype.kind == "c" else 8)
    unit = 2.0 ** -{64: 52, 32: 23}.get(bits, 10)  # shorter ones, as bfloat16, have a coarse tolerance of their own
    return _ROUNDING * unit * float(np.abs(finite).max())


def _bits_equal(actual: Array, expected: Array) -> bool:
    left, right = np.ascontiguousarray(actual), np.ascontiguousarray(expected)
    return bool(np.array_equal(left.reshape(-1).view(np.uint8), right.reshape(-1).view(np.uint8)))


def _as_numbers(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _relative(largest: float, reference: Array) -> float:
    if largest == 0.0:
        return 0.0
    finite = reference[np.isfinite(reference)]
    spread = float(finite.std()) if finite.size else 0.0
    if spread == 0.0 and finite.size:
        spread = float(np.abs(finite).max())  # an output of one number, or constant
    return largest / spread if spread else float(np.inf)


# --- two models ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """What comparing two models found.

    Attributes:
        differences: one per output and set of inputs.
        sizes: the shapes of each set of inputs that both models ran with.
        notes: what a person should know, such as inputs that had to be made.
    """

    differences: tuple[Difference, ...]
    sizes: tuple[dict[str, tuple[int, ...]], ...]
    notes: tuple[str, ...] = ()

    @property
    def bit_equal(self) -> bool:
        """Whether all outputs are."""
        return all(difference.bit_equal for difference in self.differences)

    @property
    def max_abs(self) -> float:
        """The largest absolute difference of all outputs."""
        return max((difference.max_abs for difference in self.differences), default=0.0)

    @property
    def relative(self) -> float:
        """The largest difference relative to its output's spread."""
        return max((difference.relative for difference in self.differences), default=0.0)

    def failures(self, tolerance: float | None, *, bit_equal: bool) -> list[Difference]:
        """The differences that are too large."""
        return [one for one in self.differences if not one.bit_equal and (bit_equal or not one.within(tolerance))]


def compare_models(
    model: ir.Model, reference: ir.Model, given: dict[str, Array] | None = None, *, seed: int = 0
) -> Comparison:
    """Run a model and its reference on the same inputs.

    ``given`` is the first set of inputs, where it is known. To it, or alone, come made ones: two sets with different
    sizes where dimensions are symbolic. Sizes that the reference itself does not run with prove nothing and are
    passed over.

    Raises:
        VerificationError: inputs or outputs have other names, a model does not run, or no inputs could be made.
    """
    _same_names(model.graph.inputs, reference.graph.inputs, "inputs")
    _same_names(model.graph.outputs, reference.graph.outputs, "outputs")
    names = [value.name or "" for value in reference.graph.outputs]
    notes: list[str] = []
    # One session after the other: both at once would hold all weights twice.
    ran = _run_reference(reference, given, seed, notes)
    session = open_session(model)
    found: list[Difference] = []
    for number, (inputs, expected) in enumerate(ran):
        tell("parity: sets of inputs compared", number, len(ran))
        found += compare_outputs(names, run_session(session, inputs), expected)
    return Comparison(tuple(found), tuple(_sizes(inputs) for inputs, _ in ran), tuple(notes))


def _run_reference(
    reference: ir.Model, given: dict[str, Array] | None, seed: int, notes: list[str]
) -> list[tuple[dict[str, Array], list[Any]]]:
    """The inputs that a reference runs with, and what it answers.

    Raises:
        VerificationError: it does not load, or runs with none of the inputs.
    """
    tell("parity: sets of inputs that the reference ran with", 0)
    session = open_session(reference, "the reference")
    ran: list[tuple[dict[str, Array], list[Any]]] = []
    if given is not None:
        ran.append((given, run_session(session, given, "the reference")))
        tell("parity: sets of inputs that the reference ran with", len(ran))
    refused: str = ""
    for inputs in _made(reference, seed, notes, required=given is None):
        if len(ran) >= _WANTED_SETS:
            break
        sizes = _sizes(inputs)
        if any(sizes == _sizes(before) for before, _ in ran):
            continue
        try:
            ran.append((inputs, run_session(session, inputs, f"the reference with made inputs {sizes}")))
            tell("parity: sets of inputs that the reference ran with", len(ran))
        except VerificationError as error:
            refused = str(error)
    if not ran:
        raise VerificationError(
            f"parity: the reference runs with none of the inputs made for it, last: {refused}; give inputs: FILE.npz"
        )
    return ran


def compare_with_record(model: ir.Model, inputs: dict[str, Array], outputs: Sequence[Array]) -> Comparison:
    """Run a model on inputs whose outputs are known from elsewhere, such as from torch.

    Raises:
        VerificationError: the model does not run on them, or has another number of outputs.
    """
    names = [value.name or "" for value in model.graph.outputs]
    actual = run_session(open_session(model), inputs)
    return Comparison(tuple(compare_outputs(names, actual, outputs)), (_sizes(inputs),))


def _made(reference: ir.Model, seed: int, notes: list[str], *, required: bool) -> Iterator[dict[str, Array]]:
    try:
        yield from input_sets(reference, seed)
    except VerificationError as error:
        if required:
            raise
        notes.append(f"compared with the given inputs only: {error}")


def _sizes(inputs: dict[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in inputs.items()}


def _same_names(ours: Iterable[ir.Value], theirs: Iterable[ir.Value], what: str) -> None:
    left, right = [value.name or "" for value in ours], [value.name or "" for value in theirs]
    if left != right:
        raise VerificationError(
            f"parity: the {what} are {', '.join(left)}; those of the reference are {', '.join(right)}"
        )
