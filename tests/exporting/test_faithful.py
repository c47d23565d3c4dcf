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
from modelexport_passes.exporting.record import record_of


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


def test_a_length_that_the_graph_holds_for_one_size_only_does_not_vary() -> None:
    """Torch exports this for any length and keeps, without a word, the branch for lengths in whole blocks."""
    from transformers import BertConfig, BertModel

    class InBlocks(BertModel):
        def forward(self, input_ids: Any = None, **_: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            hidden: Any = super().forward(input_ids)[0]
            if missing := -hidden.shape[1] % 8:
                hidden = torch.nn.functional.pad(hidden, (0, 0, 0, missing))
            return {"blocks": hidden.view(hidden.shape[0], -1, 8, hidden.shape[2])}

    model = InBlocks(BertConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    exported = mx.export_hf(model.eval(), inputs={"input_ids": torch.randint(0, 99, (2, 16))})
    (tokens,) = exported.graph.inputs
    assert tokens.shape is not None
    assert [isinstance(size, int) for size in tokens.shape] == [False, True]
    record = record_of(exported)
    assert record is not None
    assert record.notes == ["lengths are the example's: the model makes constants of them, or branches by them"]


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (torch.ones(2, 1), torch.ones(2), "shape"),
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0]), "off"),
        (torch.tensor([1, 3]), torch.tensor([1, 2]), "off"),
        (torch.tensor([2.1e6]), torch.tensor([2.2e6]), "off"),
    ],
)
def test_what_counts_as_different(ours: torch.Tensor, theirs: torch.Tensor, message: str) -> None:
    """Shapes, the places of what is no number, and more than a thousandth of the spread."""
    with pytest.raises(mx.ModelExportError, match=message):
        check_same([ours], [theirs])
    check_same([ours], [ours])


def test_a_single_number_is_compared_by_its_size() -> None:
    """A loss in the millions has no spread, and is rounded as any large number is."""
    check_same([torch.tensor([2211321.5])], [torch.tensor([2211322.25])])


def test_numbers_that_are_drawn_are_the_same_in_every_run() -> None:
    """And torch's own source of them is left as it was."""
    before = torch.random.get_rng_state()
    first, again = (results_of(torch.nn.Dropout(), (torch.ones(50),), {}) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(before, torch.random.get_rng_state())
