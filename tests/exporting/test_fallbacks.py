"""Exporters tried one after another, and what a trace leaves in a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modelexport_passes as mx
from modelexport_passes.exporting.attempts import Attempt, first_that_works
from modelexport_passes.exporting.record import record_of
from modelexport_passes.exporting.state import state_kept
from modelexport_passes.validation.session import open_session, run_session


def attempt(name: str, *, error: Exception | None = None) -> Attempt[str]:
    def run() -> str:
        if error is not None:
            raise error
        return f"by {name}"

    return Attempt(name, run, f"scopes of {name}")


def caused(text: str) -> Exception:
    """An error three wrappers deep, as torch raises them."""
    error: Exception = KeyError("inner\nmore lines")
    for wrapper in ("wrapper", text):
        outer = RuntimeError(wrapper)
        outer.__cause__ = error
        error = outer
    return error


def test_the_first_attempt_that_works_needs_no_words() -> None:
    """Nothing is noted, and what would come after it is not tried."""
    done = first_that_works([attempt("a"), attempt("b", error=AssertionError("tried"))])
    assert (done.name, done.exported, done.notes) == ("a", "by a", [])


def test_a_fallback_says_why_and_what_it_means_for_scopes() -> None:
    """The innermost cause in one line, then the one that was taken."""
    done = first_that_works([attempt("a", error=caused("outer")), attempt("b")])
    assert done.exported == "by b"
    assert done.notes == ["a failed: KeyError: 'inner\\nmore lines'", "b taken: scopes of b"]


def test_when_none_works_each_cause_is_told_and_the_first_is_written_where_the_caller_says(tmp_path: Path) -> None:
    """One line for all; the first failure's whole traceback goes into the file asked for, and nowhere without one."""
    attempts = [attempt("a", error=caused("outermost")), attempt("b", error=ValueError("bad value"))]
    report = tmp_path / "new" / "error.txt"
    with pytest.raises(mx.ModelExportError, match=r"a: KeyError: .*; b: ValueError: bad value.*new/error.txt"):
        first_that_works(attempts, report)
    assert "outermost" in report.read_text()
    with pytest.raises(mx.ModelExportError, match=r"bad value \(error_report: PATH writes the full traceback\)"):
        first_that_works(attempts)
    (tmp_path / "file").write_text("")
    with pytest.raises(mx.ModelExportError, match=r"full traceback not written to .*file/error.txt"):
        first_that_works(attempts, tmp_path / "file" / "error.txt")


class Branching(torch.nn.Module):
    """Takes a branch by its data in numpy's hands, which only a trace of torch's runs gets through."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) if x.numpy().sum() > 0 else x


def test_auto_takes_torchscript_where_dynamo_fails() -> None:
    """The record says which, why, and where the scopes come from; the scopes are there."""
    model = mx.export(Branching(), (torch.ones(2, 3),), exporter="auto")
    record = record_of(model)
    assert record is not None
    assert record.exporter == "torchscript"
    why, why_not_by_example, taken, asked = record.notes
    assert why.startswith("dynamo failed: ")
    assert why_not_by_example.startswith("dynamo+example failed: ")
    assert "numpy" in why
    assert taken.startswith("torchscript taken: scopes are read from the names of operations")
    assert asked.startswith("the branches of the example are the graph's; asked in test_fallbacks.py:")
    assert {scope.path for node in model.graph if (scope := mx.scope_of(node))} == {"linear"}


class Summing(torch.nn.Module):
    """Adds rows to those that an index names."""

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x).index_add(0, index, x * 2)


def test_torchscript_adds_all_rows_of_an_index_that_occurs_twice() -> None:
    """The exporter's own translation keeps one of them."""
    x, index = torch.randn(4, 3), torch.tensor([1, 1, 3, 1])
    model = mx.export(Summing(), (x, index), exporter="torchscript")
    (found,) = run_session(open_session(model), {"x": x.numpy(), "index": index.numpy()})
    np.testing.assert_allclose(found, Summing()(x, index).numpy(), atol=1e-6)


class Remembering(torch.nn.Module):
    """Keeps tensors of the run in itself, in a buffer, in an object of its own, and in a table that this holds."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: Any = None
        self.notes: Any = type("Notes", (), {})()
        self.notes.table = {}
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.cache is None:
            self.cache = x * 2
            self.notes.first = self.cache
            self.notes.table["sum"] = self.cache + self.notes.table.get("sum", 0)
            self.seen = x + 1
        return self.notes.table["sum"] + self.notes.first + self.seen


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_what_a_trace_leaves_in_a_model_goes_again(exporter: Any) -> None:
    """Torch's own results are recorded from a model as it was, not from one with a trace's tensors in it."""
    module = Remembering()
    record = record_of(mx.export(module, (torch.ones(2),), exporter=exporter))
    assert record is not None
    assert record.outputs[0].tolist() == [6.0, 6.0]
    assert module.notes.table == {}, "the run that gives torch's results leaves nothing either"


def doubled(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    return output * 2


class SettingUp(torch.nn.Module):
    """Sets itself up in its first run: a flag, and a hook that doubles what a part gives."""

    def __init__(self) -> None:
        super().__init__()
        self.part = torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "ready"):
            self.ready = True
            self.part.register_forward_hook(doubled)
        return self.part(x)


def test_a_model_that_sets_itself_up_does_so_once() -> None:
    """The flag goes with the hook: otherwise the next run would add a second one."""
    module = SettingUp()
    record = record_of(mx.export(module, (torch.ones(2),)))
    assert record is not None
    assert record.outputs[0].tolist() == module(torch.ones(2)).tolist() == [2.0, 2.0]


def test_state_is_kept_when_the_trace_fails() -> None:
    """As it was before: attributes, buffers, attributes of objects that modules hold."""
    module = Remembering()

    def trace() -> None:
        with state_kept(module):
            module(torch.ones(2))
            raise ValueError("trace")

    with pytest.raises(ValueError, match="trace"):
        trace()
    assert module.cache is None
    assert module.seen.tolist() == [0.0, 0.0]
    assert not hasattr(module.notes, "first")
    assert module.notes.table == {}


def test_translations_are_for_dynamo() -> None:
    """An option that would be ignored is refused."""
    with pytest.raises(mx.ConfigError, match="translations are read by dynamo only"):
        mx.export(torch.nn.ReLU(), (torch.ones(2),), exporter="torchscript", translations={"aten::relu": len})
