"""A step of a pipeline, and composites taken apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from modelexport_passes.errors import ConfigError
from modelexport_passes.pass_base import ModelPass


@dataclass(frozen=True)
class Step:
    """A pass with a name of its own in reports.

    Attributes:
        id: unique in a pipeline.
        pass_: any onnx_ir pass.
        pass_name: how the pass was asked for; by default its own name.
        options: the options as given in a pipeline file, for the report.
    """

    id: str
    pass_: ir.passes.PassBase
    pass_name: str = ""
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def shown_name(self) -> str:
        """The name of the pass in reports and errors."""
        return self.pass_name or name_of(self.pass_)


def name_of(pass_: ir.passes.PassBase) -> str:
    """``inject-tags`` for a pass of ours, the class name for any other."""
    return pass_.name if isinstance(pass_, ModelPass) else type(pass_).__name__


def as_steps(items: Sequence[Step | ir.passes.PassBase]) -> list[Step]:
    """Steps of passes, each with an id: its own, or the pass's name, numbered where that is taken (``-2``).

    Raises:
        ConfigError: an item is not a pass, or two steps have one id.
    """
    taken = {item.id for item in items if isinstance(item, Step)}
    steps: list[Step] = []
    for item in items:
        if isinstance(item, Step):
            steps.append(item)
            continue
        if not isinstance(item, ir.passes.PassBase):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without types
            raise ConfigError(f"pipeline: {item!r} is not a pass; expected onnx_ir passes (an instance, not the class)")
        step_id = _free(name_of(item), taken)
        taken.add(step_id)
        steps.append(Step(step_id, item))
    ids = [step.id for step in steps]
    twice = sorted({step_id for step_id in ids if ids.count(step_id) > 1})
    if twice:
        raise ConfigError(f"pipeline: two steps have the id {', '.join(twice)}; give each its own")
    return steps


def _free(name: str, taken: set[str]) -> str:
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


@dataclass
class Loop:
    """A composite being taken apart: whether a round of it changed anything decides if there is another."""

    modified: bool = False


def leaves(step: Step, loops: tuple[Loop, ...] = ()) -> Iterator[tuple[Step, tuple[Loop, ...]]]:
    """The passes to run for a step, one by one: a ``Sequential`` or ``PassManager`` is taken apart.

    The consumer sets ``modified`` of the loops it was given with a leaf when that leaf changed the model: it decides,
    as in ``PassManager``, whether another round is run. A leaf's id is ``step.round.index-name``, the round left out
    where there is only one.
    """
    composite = step.pass_
    if not isinstance(composite, ir.passes.Sequential) or not _plain(composite):
        yield step, loops
        return
    manager = composite if isinstance(composite, ir.passes.PassManager) else None
    rounds = manager.steps if manager else 1
    for number in range(rounds):
        loop = Loop()
        prefix = f"{step.id}.{number}" if rounds > 1 else step.id
        for index, child in enumerate(composite.passes):
            leaf = Step(f"{prefix}.{index}-{name_of(child)}", child)
            yield from leaves(leaf, (*loops, loop))
        if manager and manager.early_stop and not loop.modified:
            return


def passes_of(pass_: ir.passes.PassBase) -> Iterator[ir.passes.PassBase]:
    """The passes of a composite, at any depth; the pass itself if it is none."""
    if isinstance(pass_, ir.passes.Sequential) and _plain(pass_):
        for child in pass_.passes:
            yield from passes_of(child)
    else:
        yield pass_


def _plain(composite: ir.passes.Sequential) -> bool:
    """Whether running its passes one by one is what it does itself: no method of it is overridden."""
    own = ir.passes.PassManager if isinstance(composite, ir.passes.PassManager) else ir.passes.Sequential
    return all(
        getattr(type(composite), name) is getattr(own, name) for name in ("__call__", "call", "requires", "ensures")
    )
