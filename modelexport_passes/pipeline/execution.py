"""Running the steps of a pipeline on a model, leaf by leaf."""

from __future__ import annotations

import time
from collections.abc import Sequence

import onnx_ir as ir

from modelexport_passes.errors import VerificationError
from modelexport_passes.pass_base import ModelPass, Outcome, RunContext
from modelexport_passes.pipeline.observer import Observer
from modelexport_passes.pipeline.report import Counts, RunReport, StepReport, count
from modelexport_passes.pipeline.step import Step, leaves
from modelexport_passes.pipeline.step_error import step_error
from modelexport_passes.validation.functions import check_functions
from modelexport_passes.validation.problem import Problem
from modelexport_passes.validation.structure import check_structure

_SHOWN = 5


class Execution:
    """One run of some steps.

    Args:
        context: what only the pipeline knows; passes are bound to it.
        observers: told of each step.
        verify: check the structure after each step that changed the model.
    """

    def __init__(self, context: RunContext, observers: Sequence[Observer], *, verify: bool) -> None:
        self._context = context
        self._observers = observers
        self._verify = verify
        self._known: frozenset[Problem] = frozenset()

    def run(self, steps: Sequence[Step], model: ir.Model, report: RunReport) -> ir.Model:
        """Run the steps, writing what each did into the report.

        Raises:
            StepError: a step failed. The model is left as that step left it.
        """
        if self._verify:
            # A step is blamed for what it breaks, not for what came in broken.
            self._known = _problems(model)
            report.input.notes.extend(f"came in: {problem}" for problem in sorted(self._known)[:_SHOWN])
        before = report.input.counts
        for step in steps:
            for leaf, loops in leaves(step):
                for observer in self._observers:
                    observer.step_started(leaf)
                model, done = self._run_leaf(leaf, model, before)
                for loop in loops:
                    loop.modified |= done.modified
                report.steps.append(done)
                before = done.after
                for observer in self._observers:
                    observer.step_finished(leaf, done, model)
        return model

    def _run_leaf(self, step: Step, model: ir.Model, before: Counts) -> tuple[ir.Model, StepReport]:
        started = time.perf_counter()
        try:
            pass_ = step.pass_.bind(self._context) if isinstance(step.pass_, ModelPass) else step.pass_
            result = pass_(model)
        except Exception as error:
            # A pass is foreign code and may raise anything; the engine's part is to say which step it was.
            raise step_error(step, error) from error
        seconds = time.perf_counter() - started
        after = count(result.model)
        figures = dict(result.figures) if isinstance(result, Outcome) else {}
        notes = list(result.notes) if isinstance(result, Outcome) else []
        modified = result.modified
        if not modified and after != before:
            notes.append(f"the pass said that it changed nothing, but {_difference(before, after)}")
            modified = True
        verified = "none"
        if self._verify and modified:
            self._check(step, result.model)
            verified = "structure"
        done = StepReport(
            step.id, step.shown_name, step.options, seconds, modified, before, after, verified, figures, notes
        )
        return result.model, done

    def _check(self, step: Step, model: ir.Model) -> None:
        new = sorted(_problems(model) - self._known)
        if new:
            more = f" and {len(new) - _SHOWN} more" if len(new) > _SHOWN else ""
            told = "; ".join(map(str, new[:_SHOWN]))
            raise step_error(step, VerificationError(f"it left the model not valid: {told}{more}"))


def _problems(model: ir.Model) -> frozenset[Problem]:
    return frozenset(problem for problem in (*check_structure(model), *check_functions(model)) if problem.fatal)


def _difference(before: Counts, after: Counts) -> str:
    names = ("nodes", "function_nodes", "functions", "initializers")
    pairs = [(name, getattr(before, name), getattr(after, name)) for name in names]
    return ", ".join(f"{name.replace('_', ' ')} went from {old} to {new}" for name, old, new in pairs if old != new)
