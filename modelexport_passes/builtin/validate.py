"""``validate``: show that the model is valid, keeps its hierarchy, and computes what its reference computes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import onnx_ir as ir

from modelexport_passes.errors import ConfigError, VerificationError
from modelexport_passes.exporting.loading import load
from modelexport_passes.exporting.record import ExportRecord, record_of
from modelexport_passes.garbage import collector_paused
from modelexport_passes.pass_base import Figure, ModelPass, Outcome, RunContext
from modelexport_passes.validation.checker import run_checker
from modelexport_passes.validation.functions import check_functions
from modelexport_passes.validation.hierarchy import check_hierarchy
from modelexport_passes.validation.input_files import read_inputs
from modelexport_passes.validation.module_verdicts import COMPARABLE, SHOWN_BY_NUMBERS, Verdict
from modelexport_passes.validation.modules import prove_against
from modelexport_passes.validation.parity import Comparison, compare_models, compare_with_record
from modelexport_passes.validation.problem import Problem
from modelexport_passes.validation.session import Array, open_session
from modelexport_passes.validation.structure import check_structure

if TYPE_CHECKING:
    from modelexport_passes.exporting.record import TorchRun

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What the model must compute the same as.

    Attributes:
        reference: ``input`` (the pipeline's input), ``torch`` (what the torch model returned at export), the path of
            another .onnx file, or a list of these.
        bit_equal: outputs must equal those of an ONNX reference bit for bit, with optimizations off on both sides. If
            not, and always for torch, they must be within ``tolerance``.
        tolerance: largest difference, relative to the standard deviation of the output; by default 1e-4, and 2e-2 for
            types of 16 bits.
        inputs: an .npz file of graph input name -> array. Without it: the inputs of the export, where the model comes
            from one, and made ones.
        seed: for made inputs.
    """

    reference: str | list[str] = "input"
    bit_equal: bool = True
    tolerance: float | None = None
    inputs: str | None = None
    seed: int = 0

    @property
    def references(self) -> list[str]:
        """``reference`` as a list."""
        return [self.reference] if isinstance(self.reference, str) else list(self.reference)


@dataclass(frozen=True, kw_only=True)
class Modules:
    """How the results of module calls are compared with torch.

    Attributes:
        tolerance: largest difference, relative to the standard deviation of the tensor; by default 1e-4, and 2e-2 for
            types of 16 bits.
        memory_mb: MiB of inner values to hold at a time; the model runs in as many stretches as that takes.
        edges: what to do where a value enters a region that its call was not given, or leaves it and was not returned.
            ``error`` finds single misplaced operations, and is right for plain exports; ``note``, as optimizers share
            operations between modules.
    """

    tolerance: float | None = None
    memory_mb: int = 512
    edges: Literal["note", "error"] = "note"


@dataclass(frozen=True, kw_only=True)
class Validate(ModelPass):
    """Check a model, all at once; a model that fails any check is an error that lists every failure.

    Changes nothing. Visits: main graph, subgraphs, functions.

    Attributes:
        checker: the ONNX checker with strict shape inference, and the rules for names, order, captures, functions and
            calls that it does not know.
        hierarchy: scopes and tags read, stand where they belong, agree with each other and with the functions.
        session: onnxruntime loads the model. ``parity`` and ``modules`` run it anyway. Its loading is quadratic in the
            number of nodes: minutes for 100,000.
        parity: what the model must compute the same as; None compares with nothing.
        modules: prove the scopes: for each module call of the torch model, the operations of that scope must make what
            the call returned. True, or how to compare.
        run: the torch model and its inputs, where the model was not exported in this run.

    Raises:
        VerificationError: a check failed.
        ConfigError: ``parity`` or ``modules`` ask for a reference that there is none of.
    """

    name: ClassVar[str] = "validate"

    checker: bool = True
    hierarchy: bool = True
    session: bool = False
    parity: Parity | None = None
    modules: bool | Modules = False
    run: TorchRun | None = None

    _context: ClassVar[RunContext | None] = None

    def __post_init__(self) -> None:
        for option, kind in (("parity", Parity), ("modules", Modules)):
            value = getattr(self, option)
            if isinstance(value, Mapping):
                object.__setattr__(self, option, _made_from(option, kind, cast("Mapping[str, Any]", value)))

    def bind(self, context: RunContext) -> Self:
        """The same pass, with the pipeline's input and export at hand for ``parity``."""
        bound = copy.copy(self)
        object.__setattr__(bound, "_context", context)
        return bound

    def call(self, model: ir.Model) -> Outcome:
        """Run the checks that are asked for; what the model computes is compared only if it is sound otherwise."""
        outcome = Outcome(model, modified=False)
        checks: list[Figure] = []
        problems = self._check(model, outcome, checks)
        repeated = any(problem.check == "node-name" for problem in problems)
        if self.session and not repeated:  # onnxruntime looks no further than a repeated name
            checks.append("session")
            problems += _tried("session", partial(open_session, model))
        sound = not any(problem.fatal for problem in problems)
        for reference in self.parity.references if self.parity and sound else []:
            check = f"parity with {reference}"
            checks.append(check)
            problems += _tried(check, partial(self._compare, model, reference, outcome))
        if self.modules and sound:
            checks.append("modules")
            problems += self._prove(model, outcome)
        outcome.figures["checks"] = checks
        problems = list(dict.fromkeys(problems))
        outcome.notes.extend(str(problem) for problem in problems if not problem.fatal)
        left_out = ["session"] if self.session and repeated else []
        left_out += [] if sound else [name for name in ("parity", "modules") if getattr(self, name)]
        _raise_for([problem for problem in problems if problem.fatal], left_out)
        return outcome

    @collector_paused()
    def _check(self, model: ir.Model, outcome: Outcome, checks: list[Figure]) -> list[Problem]:
        """What can be said of the model without running it."""
        problems: list[Problem] = []
        if self.checker:
            checks.append("checker")
            problems += [*check_structure(model), *check_functions(model)]
            if not any(problem.fatal for problem in problems):
                problems += run_checker(model)  # its words for what we found already would only repeat it
        if self.hierarchy:
            checks.append("hierarchy")
            counts, found = check_hierarchy(model)
            problems += found
            outcome.figures.update(nodes=counts.nodes, tagged=counts.tagged, unknown=counts.unknown, calls=counts.calls)
        return problems

    def _prove(self, model: ir.Model, outcome: Outcome) -> Iterator[Problem]:
        options = self.modules if isinstance(self.modules, Modules) else Modules()
        record = self._context.export if self._context else record_of(model)
        run = self.run or (record.run if record else None)
        if run is None:
            raise ConfigError(
                "validate: modules needs the torch model: export it in this run (input: export: ...), or give "
                "run=TorchRun(module, args) in Python"
            )
        inputs = record.inputs if record is not None and self.run is None else None
        try:
            proof = prove_against(model, run, inputs, tolerance=options.tolerance, memory=options.memory_mb << 20)
        except VerificationError as error:
            yield Problem("modules", "the model", str(error))
            return
        outcome.figures["modules_proven"] = f"{len(proof.of(*SHOWN_BY_NUMBERS))}/{len(proof.of(*COMPARABLE))}"
        outcome.figures["modules"] = {
            "calls": dict(proof.counts),
            "not_found": [str(one) for one in proof.of(Verdict.NOT_FOUND)],
            "edges": [f"{one.call}: {leak}" for one in proof.leaking for leak in one.leaks],
            "not_called": list(proof.not_called),
        }
        outcome.notes.extend(f"not found: {one}" for one in proof.of(Verdict.NOT_FOUND))
        yield from (Problem("module", one.call, one.reason) for one in proof.of(Verdict.DIFFERENT))
        for one in proof.leaking:
            yield Problem("module-edge", one.call, "; ".join(one.leaks), fatal=options.edges == "error")

    def _compare(self, model: ir.Model, reference: str, outcome: Outcome) -> None:
        assert self.parity is not None
        inputs = read_inputs(self.parity.inputs) if self.parity.inputs else None
        record = self._context.export if self._context else record_of(model)
        if reference == "torch":
            comparison = _against_torch(model, record)
            outcome.figures["torch_rel_diff"] = comparison.relative
            failures = comparison.failures(self.parity.tolerance, bit_equal=False)
        else:
            comparison = self._against_model(model, reference, inputs, record)
            outcome.figures["bit_equal"] = comparison.bit_equal and bool(outcome.figures.get("bit_equal", True))
            outcome.figures["max_abs_diff"] = max(
                comparison.max_abs, float(str(outcome.figures.get("max_abs_diff", 0)))
            )
            failures = comparison.failures(self.parity.tolerance, bit_equal=self.parity.bit_equal)
        outcome.notes.extend(comparison.notes)
        if failures:
            raise VerificationError("; ".join(map(str, failures)))

    def _against_model(
        self, model: ir.Model, reference: str, inputs: dict[str, Array] | None, record: ExportRecord | None
    ) -> Comparison:
        assert self.parity is not None
        if inputs is None and record is not None and record.inputs:
            inputs = record.inputs
        if reference != "input":
            other = load(Path(reference))
        elif self._context is not None:
            other = self._context.input_model()
        else:
            raise ConfigError(
                "validate: parity with the pipeline's input is known only inside a pipeline; give reference: FILE.onnx"
            )
        return compare_models(model, other, inputs, seed=self.parity.seed)


def _made_from(option: str, kind: type[Any], given: Mapping[str, Any]) -> Any:
    known = [one.name for one in fields(kind)]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ConfigError(f"validate: {option} has no option {unknown[0]!r}; there are {', '.join(known)}")
    return kind(**given)


def _against_torch(model: ir.Model, record: ExportRecord | None) -> Comparison:
    if record is None:
        raise ConfigError(
            "validate: parity with torch needs a model that was exported in this run (input: export: ...); "
            "give reference: input or a file"
        )
    if not record.outputs:
        raise ConfigError(f"validate: parity with torch: torch's outputs are not known: {'; '.join(record.notes)}")
    return compare_with_record(model, record.inputs, record.outputs)


def _tried(check: str, action: Callable[[], object]) -> Iterator[Problem]:
    """A failed verification as a problem, to be told together with the others. Other errors pass."""
    try:
        action()
    except VerificationError as error:
        yield Problem(check, "the model", str(error))


def _raise_for(problems: list[Problem], left_out: list[str]) -> None:
    if not problems:
        return
    # Modules are listed to the last: which of them are right is what was asked.
    modules = [problem for problem in problems if problem.check in ("module", "module-edge")]
    others = [problem for problem in problems if problem not in modules]
    lines = [str(problem) for problem in others[:_SHOWN]]
    if len(others) > _SHOWN:
        lines.append(f"... and {len(others) - _SHOWN} more")
    lines += map(str, modules)
    for check in left_out:
        verb = "were" if check == "modules" else "was"
        lines.append(f"{check} {verb} not checked: an unsound model has nothing to compare")
    count = "1 fault" if len(problems) == 1 else f"{len(problems)} faults"
    raise VerificationError("\n".join([f"validate: {count}", *(f"  {line}" for line in lines)]))
