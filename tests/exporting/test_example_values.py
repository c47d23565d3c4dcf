"""Dynamo with the example's answers: branches by data, numbers read from tensors, sizes that depend on values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import modelexport_passes as mx
from modelexport_passes.exporting.example_values import answered, answers_of
from modelexport_passes.exporting.record import record_of
from modelexport_passes.validation.session import open_session, run_session


class Reading(torch.nn.Module):
    """Branches by a truth, loops over a list of numbers, and makes tensors of lengths that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.linear(x) if bool((x > 0).any()) else x
        parts = [part.sum(0) for part in torch.split(y, [row[0] + row[1] for row in lengths.tolist()])]
        found = x[x > 0]
        if found.shape[0] > 1:
            found = found * 2
        highest = torch.tensor([found.max(), found.min()])
        return torch.stack(parts), found, highest


def reading() -> tuple[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return Reading().eval(), (torch.randn(4, 3, generator=generator), torch.tensor([[1, 0], [1, 2]]))


def assert_as_torch(exported: Any, module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    given = {str(value.name): tensor.numpy() for value, tensor in zip(exported.graph.inputs, args, strict=False)}
    with torch.no_grad():
        expected = module(*args)
    for ours, theirs in zip(run_session(open_session(exported), given), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)


def test_the_branches_of_the_example_are_the_graphs() -> None:
    """What a trace would give, with dynamo's scopes; the record names the places where values were asked for."""
    module, args = reading()
    exported = mx.export(module, args, exporter="auto")
    record = record_of(exported)
    assert record is not None
    assert record.exporter == "dynamo+example"
    assert record.notes[0].startswith("dynamo failed: ")
    assert "the branches of the example are the graph's" in record.notes[-1]
    assert "test_example_values.py:" in record.notes[-1]
    assert {scope.path for node in exported.graph if (scope := mx.scope_of(node))} == {"", "linear"}
    assert_as_torch(exported, module, args)


def test_what_no_branch_needs_stays_as_the_data_make_it() -> None:
    """Other values that take the same branches: as many as are found, and the highest of them."""
    module, (x, lengths) = reading()
    exported = mx.export(module, (x, lengths), exporter="dynamo+example")
    others = torch.randn(4, 3, generator=torch.Generator().manual_seed(7))
    assert (others > 0).sum() != (x > 0).sum()
    assert_as_torch(exported, module, (others, lengths))


class Naming(torch.nn.Module):
    """Asks for the number of a module in the text of its name, as mixtures of experts do."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = torch.nn.ModuleDict({f"expert_{number}": torch.nn.Linear(3, 3) for number in range(3)})

    def forward(self, x: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.experts[f"expert_{number}"](x) for number in chosen)


def test_a_number_in_a_text_is_the_examples() -> None:
    """A tensor that is captured would be named after its type."""
    module, args = Naming().eval(), (torch.ones(2, 3), torch.tensor([2, 0]))
    exported = mx.export(module, args, exporter="dynamo+example")
    paths = [scope.path for node in exported.graph if (scope := mx.scope_of(node)) and scope.path]
    assert list(dict.fromkeys(paths)) == ["experts.expert_2", "experts.expert_0"]
    assert_as_torch(exported, module, args)


class Padded(torch.nn.Module):
    """Fills up to whole frames, by a number that a tensor holds, as codecs for audio do."""

    def __init__(self) -> None:
        super().__init__()
        self.frame: Any
        self.before: Any
        self.register_buffer("frame", torch.tensor(4))
        self.register_buffer("before", torch.tensor(1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        missing: Any = torch.ceil(x.shape[-1] / self.frame).to(torch.int64) * self.frame - x.shape[-1]
        both = torch.nn.functional.pad(x, (self.before, missing))
        one = torch.nn.functional.pad(x, (0, missing)).view(x.shape[0], -1, 4)
        return (both, both * 2 if both.shape[-1] > 8 else both, one, torch.tensor([2, missing]), x[0, missing])


def test_a_tensor_among_sizes_is_read_as_one() -> None:
    """Torch reads it without asking in Python; among positions and elements it stays a value of the graph."""
    module, args = Padded().eval(), (torch.randn(2, 6),)
    exported = mx.export(module, args, exporter="dynamo+example")
    assert_as_torch(exported, module, args)


class Asking(torch.nn.Module):
    """Asks once for each of ``times``, in one line."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + sum(float(x[number]) for number in range(self.times))


@pytest.mark.parametrize(("times", "message"), [(1, "asks less often"), (3, "asks more often")])
def test_answers_to_other_questions_are_refused(times: int, message: str) -> None:
    """A capture that takes another way than the run would get answers to what it did not ask."""
    module = Asking()
    answers = answers_of(module, (torch.arange(3.0),), {})
    module.times = times
    with answered(module, answers), pytest.raises(mx.ModelExportError, match=rf"test_example_values.py:\d+ {message}"):
        module(torch.arange(3.0))
    assert "forward" not in vars(module)
