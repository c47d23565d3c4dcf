"""Rewrites that change what a model computes are refused; the next way is taken."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import modelexport_passes as mx
from modelexport_passes.exporting import dynamo
from modelexport_passes.exporting.faithful import check_same, results_of


def test_a_rewrite_that_leaves_something_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of transformers does that was written for a model without the norms of another."""
    from tests.zoo import build, zoo_cases

    model, inputs = build(zoo_cases(("bert",))[0])

    @contextmanager
    def without_activation(inner: Any) -> Generator[dict[Any, Any]]:
        layer = inner.encoder.layer[0].intermediate
        kept, layer.intermediate_act_fn = layer.intermediate_act_fn, torch.nn.Identity()
        yield {}
        layer.intermediate_act_fn = kept

    monkeypatch.setattr(dynamo, "transformers_patches", without_activation)
    with pytest.raises(mx.ModelExportError, match=r"output 0 is \d.* of its spread off torch's"):
        mx.export_hf(model, inputs=inputs, dynamic=False, exporter="dynamo+transformers")


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (torch.ones(2, 1), torch.ones(2), "shape"),
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0]), "off"),
        (torch.tensor([1, 3]), torch.tensor([1, 2]), "off"),
    ],
)
def test_what_counts_as_different(ours: torch.Tensor, theirs: torch.Tensor, message: str) -> None:
    """Shapes, the places of what is no number, and more than a thousandth of the spread."""
    with pytest.raises(mx.ModelExportError, match=message):
        check_same([ours], [theirs])
    check_same([ours], [ours])


def test_numbers_that_are_drawn_are_the_same_in_every_run() -> None:
    """And torch's own source of them is left as it was."""
    before = torch.random.get_rng_state()
    first, again = (results_of(torch.nn.Dropout(), (torch.ones(50),), {}) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(before, torch.random.get_rng_state())
