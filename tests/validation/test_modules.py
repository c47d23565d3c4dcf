"""The proof of scopes by numbers: what is right is proven, and whatever is put in the wrong place is found."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import modelexport_passes as mx
from modelexport_passes.builtin.validate import Modules
from modelexport_passes.errors import ConfigError, VerificationError
from modelexport_passes.exporting.module_calls import recorded_calls
from modelexport_passes.exporting.record import TorchRun, record_of, set_record
from modelexport_passes.exporting.tensor_store import TensorStore
from modelexport_passes.scopes.scope import Frame, Scope, Source, set_scope
from modelexport_passes.validation import intermediates
from modelexport_passes.validation.module_verdicts import ModuleProof, Verdict
from modelexport_passes.validation.modules import prove_against
from modelexport_passes.validation.tensor_matching import TensorMatcher
from tests.zoo import TensorsOut, build, zoo_cases


class Branch(nn.Module):
    """A linear layer, and an activation that works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.activation = nn.Linear(6, 6), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.linear(x)) * 2.0


class Net(nn.Module):
    """Two branches of one shape, a layer that is used twice, and one that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.again, self.rest = Branch(), Branch(), nn.Linear(6, 6), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.again(self.again(self.left(x) + self.right(x)).tanh()))


@functools.cache
def exported(make: Callable[[], nn.Module], *shape: int, optimize: bool = False) -> ir.Model:
    """The module exported by name, the quickest way; not to be changed."""
    torch.manual_seed(0)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    model = mx.export(make().eval(), (x,), exporter="torchscript", optimize=optimize)
    mx.RecoverScopes()(model)
    model.ir_version = 10
    return model


def net() -> ir.Model:
    """A model to change, with scopes that are right."""
    return copy_of(exported(Net, 3, 6))


def copy_of(model: ir.Model) -> ir.Model:
    copy = model.clone()
    record = record_of(model)
    assert record is not None
    set_record(copy, record)
    for node in copy.graph:  # the exporter's name for the second call reads like an attribute's
        if (node.name or "").startswith("/again_1/"):
            root = scope(copy.graph[0]).frames[0]
            set_scope(node, mx.Scope((root, Frame("again", "torch.nn.modules.linear.Linear", 1))))
    return copy


def proof_of(model: ir.Model, **options: int) -> ModuleProof:
    record = record_of(model)
    assert record is not None
    assert record.run is not None
    return prove_against(model, record.run, record.inputs, **options)


def verdicts(proof: ModuleProof) -> dict[str, str]:
    return {one.call: one.verdict.value for one in proof.verdicts}


def scope(node: ir.Node) -> Scope:
    found = mx.scope_of(node)
    assert found is not None
    return found


RIGHT = {
    "left.linear": "proven",
    "left.activation": "proven",
    "left": "proven",
    "right.linear": "proven",
    "right.activation": "proven",
    "right": "proven",
    "again": "proven",
    "again@1": "proven",
    "rest": "unchanged",
    "the root": "proven",
}


def test_right_scopes_are_proven() -> None:
    """Every call that computes something is, in place or not, first call or second; in the order of their returns."""
    proof = proof_of(net())
    assert list(verdicts(proof).items()) == list(RIGHT.items())
    assert proof.leaking == []
    assert proof.not_called == ()


def test_functions_are_looked_through() -> None:
    """The outlined model is proven as the flat one is, and neither is changed."""
    model = net()
    mx.Outline()(model)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert model.functions
    assert verdicts(proof_of(model)) == RIGHT
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_any_one_operation_in_any_other_module_is_found() -> None:
    """Whatever operation is given to whatever other call: a verdict turns, or a value crosses an edge unasked."""
    model = net()
    scopes = {str(scope(node)): scope(node) for node in model.graph}
    operations = [node for node in model.graph if node.op_type != "Constant"]
    tried = 0
    for node in operations:
        own = scope(node)
        for other in scopes.values():
            if other == own:
                continue
            set_scope(node, other)
            proof = proof_of(model)
            assert proof.of(Verdict.DIFFERENT) or proof.leaking, f"{node.name} as {other}"
            set_scope(node, own)
            tried += 1
    assert tried > 30


def test_results_that_others_make_are_different() -> None:
    """Two layers of one shape in each other's place: both are told, and where their results are made."""
    model = net()
    swap = {"left.linear": "right.linear", "right.linear": "left.linear"}
    by_path = {scope(node).path: scope(node) for node in model.graph}
    for node in list(model.graph):
        if scope(node).path in swap:
            set_scope(node, by_path[swap[scope(node).path]])
    different = {one.call: one.reason for one in proof_of(model).of(Verdict.DIFFERENT)}
    assert different.keys() == {"left.linear", "right.linear"}
    assert "in right > right.linear" in different["left.linear"]
    assert "in left > left.linear" in different["right.linear"]


def test_calls_of_one_module_are_told_apart() -> None:
    """The two calls of a layer with their indices exchanged are different, though path, class and weights are right."""
    model = net()
    for node in model.graph:
        *above, last = scope(node).frames
        if last.path == "again":
            set_scope(node, mx.Scope((*above, last._replace(call=1 - last.call))))
    assert {one.call for one in proof_of(model).of(Verdict.DIFFERENT)} == {"again", "again@1"}


def test_a_path_that_is_no_module_is_different() -> None:
    """Scopes may only name modules of the torch model; calls that torch did not make are told apart."""
    model = net()
    frames = scope(model.graph[0]).frames
    set_scope(model.graph[0], mx.Scope((*frames, Frame("left.linear.ghost"))))
    set_scope(model.graph[1], mx.Scope((*scope(model.graph[1]).frames, Frame("rest", call=4))))
    proof = proof_of(model)
    assert verdicts(proof)["left.linear.ghost"] == "different"
    assert proof.not_called == ("rest@4",)


def test_wrong_numbers_are_told_where_they_begin() -> None:
    """A changed weight: the call that has it and those around it; what works on its result has other input."""
    model = net()
    bias = model.graph.initializers["right.linear.bias"]
    assert bias.const_value is not None
    bias.const_value = ir.tensor(bias.const_value.numpy() + 0.5, name=bias.name)
    proof = proof_of(model)
    assert [one.call for one in proof.of(Verdict.DIFFERENT)] == ["right.linear", "right", "the root"]
    assert [one.call for one in proof.of(Verdict.OTHER_INPUT)] == ["right.activation", "again", "again@1"]


class Noisy(nn.Module):
    """A layer behind random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.before(x) + torch.randn(3, 6))


def test_what_follows_from_random_numbers_is_not_compared() -> None:
    """The model draws its own: what comes before is proven, what comes after neither proven nor wrong."""
    proof = proof_of(exported(Noisy, 3, 6))
    assert verdicts(proof) == {"before": "proven", "after": "random", "the root": "random"}


def test_a_result_in_another_shape_is_the_result() -> None:
    """Optimizers merge a Reshape at the end of a module with the next one."""
    array = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    with TensorStore() as tensors:
        key = tensors.add(array)
        matcher = TensorMatcher(tensors, tensors, ordered=False)
        assert matcher.equals_of(array.T.reshape(2, 12)) == [key]
        assert matcher.may_equal(np.dtype(np.float32), (2, 12))
        assert not matcher.may_equal(np.dtype(np.float32), (2, 13))
        assert TensorMatcher(tensors, tensors).equals_of(array.reshape(2, 12)) == []


def test_unknown_scopes_prove_nothing_and_are_not_wrong() -> None:
    """A call whose result is made by an operation of unknown scope is not found."""
    model = net()
    for node in model.graph:
        if scope(node).path == "left.linear":
            set_scope(node, None)
    found = verdicts(proof_of(model))
    assert found.pop("left.linear") == "not found"
    assert found == {call: verdict for call, verdict in RIGHT.items() if call != "left.linear"}


def given_to(frames: int, source: Source, path: str, op_type: str) -> ir.Model:
    """The operation of this type in a call is given to a caller of the call, so many frames from the root."""
    model = net()
    (node,) = (node for node in model.graph if node.op_type == op_type and scope(node).frames[-1].path == path)
    set_scope(node, mx.Scope(scope(node).frames[:frames], source))
    return model


def test_concluded_operations_of_a_caller_complete_a_region() -> None:
    """The end of a branch was concluded to be in the root at least: that is not wrong, and no proof of its own."""
    proof = proof_of(given_to(1, Source.DATAFLOW, "left", "Mul"))
    assert verdicts(proof) == RIGHT | {"left": "completed"}
    assert verdicts(proof_of(given_to(1, Source.NAME, "left", "Mul"))) == RIGHT | {"left": "different"}


def test_operations_of_unknown_scope_complete_a_region() -> None:
    """Nothing told where the end of a branch was made."""
    model = net()
    (mul,) = (node for node in model.graph if node.op_type == "Mul" and scope(node).path == "left")
    set_scope(mul, None)
    assert verdicts(proof_of(model)) == RIGHT | {"left": "completed"}


def test_a_call_that_was_concluded_to_be_somewhere_in_its_caller_is_not_wrong() -> None:
    """Nothing in a file may tell an activation, which has no parameters."""
    proof = proof_of(given_to(2, Source.DATAFLOW, "left.activation", "Relu"))
    assert verdicts(proof) == RIGHT | {"left.activation": "within its caller"}
    exact = proof_of(given_to(2, Source.NAME, "left.activation", "Relu"))
    assert verdicts(exact) == RIGHT | {"left.activation": "different"}


def test_operations_of_other_calls_complete_no_region() -> None:
    """What was concluded to be in the other branch is in the wrong place."""
    model = given_to(1, Source.DATAFLOW, "left", "Mul")
    (relu,) = (node for node in model.graph if scope(node).frames[-1].path == "left.activation")
    (other,) = (node for node in model.graph if scope(node).frames[-1].path == "right.activation")
    set_scope(relu, scope(other).with_source(Source.DATAFLOW))
    found = verdicts(proof_of(model))
    assert (found["left"], found["left.activation"]) == ("different", "different")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one value at a time the model runs in as many stretches, and the verdicts are the same."""
    model = net()
    sessions: list[int] = []
    opened = intermediates.open_session

    def open_session(model: ir.Model) -> object:
        sessions.append(len(model.graph.outputs))
        return opened(model)

    monkeypatch.setattr(intermediates, "open_session", open_session)
    assert verdicts(proof_of(model, memory=1)) == RIGHT
    assert set(sessions) == {1}
    alone = len(sessions)
    sessions.clear()
    assert verdicts(proof_of(model)) == RIGHT
    assert sessions == [alone]


class ConvNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
        nn.init.uniform_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


def test_fused_modules_are_proven_together() -> None:
    """The operation that an optimizer made of two modules proves the one that has it; the other has no nodes."""
    found = verdicts(proof_of(exported(ConvNorm, 1, 2, 5, 5, optimize=True)))
    assert found == {"conv": "fused", "norm": "no nodes", "the root": "proven"}


class Still(nn.Module):
    """One part that returns the same number everywhere, and one whose results are of order 1e-30."""

    def __init__(self) -> None:
        super().__init__()
        self.dead, self.tiny = nn.ReLU(), nn.Linear(4, 4, bias=False)
        with torch.no_grad():
            self.tiny.weight *= 1e-30

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.dead(-x * x), self.tiny(x)


def test_equality_must_show_something() -> None:
    """A constant result is told as one; a tiny one is proven by its digits, and zeros do not pass for it."""
    model = exported(Still, 3, 4)
    assert verdicts(proof_of(model)) == {"dead": "constant", "tiny": "proven", "the root": "proven"}
    copy = copy_of(model)
    (weight,) = (value for value in copy.graph.initializers.values() if value.shape and len(value.shape) == 2)
    weight.const_value = ir.tensor(np.zeros((4, 4), np.float32), name=weight.name)
    assert verdicts(proof_of(copy))["tiny"] == "different"


@dataclasses.dataclass
class Result:
    values: dict[str, tuple[Tensor, ...]]
    note: str = ""


class Nested(nn.Module):
    def forward(self, x: Tensor, *, scale: Tensor) -> Result:
        y = x * scale
        return Result({"a": (y, y.to(torch.complex64)), "b": (x,)})


def test_calls_are_recorded_as_they_were_made() -> None:
    """Keyword inputs, nested results, complex numbers; what was given is recorded before it is changed in place."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.act = Nested(), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.inner(x, scale=torch.tensor(-2.0)).values["a"][0])

    x = torch.linspace(-1, 1, 6)
    with recorded_calls(TorchRun(Outer(), (x,))) as recording:
        outer, inner, act = recording.calls
        loaded = {call: [recording.tensors.load(key) for key in call.returned] for call in recording.calls}
        taken = [recording.tensors.load(key) for key in act.took]
    assert (inner.caller, act.caller, inner.took[0]) == (outer, outer, outer.took[0])
    assert [array.shape for array in loaded[inner]] == [(6,), (6, 2), (6,)]
    assert inner.returned[2] in inner.took
    np.testing.assert_array_equal(taken[0], -2 * x.numpy())
    np.testing.assert_array_equal(loaded[act][0], np.maximum(-2 * x.numpy(), 0))


def test_the_wrapper_around_the_root_is_left_out() -> None:
    """With a root, paths and calls are those below it."""
    wrapper = nn.Sequential(nn.Identity(), Branch(), nn.Identity())
    with recorded_calls(TorchRun(wrapper, (torch.ones(1, 6),), root="1")) as recording:
        assert [str(call) for call in recording.calls] == ["the root", "linear", "activation"]


def test_a_model_that_kept_tensors_without_values_is_refused() -> None:
    """An export leaves no trace in the model's cache; where another tool left one, nothing can be recorded."""

    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(4.0))
            self.cache: dict[str, Tensor] = {}

        def forward(self, x: Tensor) -> Tensor:
            if "table" not in self.cache:
                self.cache["table"] = self.weight * 2
            return x + self.cache["table"]

    module, x = Cached(), torch.ones(2, 4)
    model = mx.export(module, (x,))
    assert mx.Validate(modules=True)(model).figures["modules_proven"] == "1/1"  # type: ignore[attr-defined]
    with FakeTensorMode(allow_non_fake_inputs=True):
        module.cache["table"] = torch.ones(4)
    with pytest.raises(ConfigError, match="tensors without values"):
        mx.Validate(modules=True)(model)
    fresh = TorchRun(Cached(), (x,))
    assert mx.Validate(modules=True, run=fresh)(model).figures["modules_proven"] == "1/1"  # type: ignore[attr-defined]


class TestMatching:
    def matches(self, array: np.ndarray, reference: np.ndarray, *, ordered: bool = True) -> bool:
        with TensorStore() as tensors:
            key = tensors.add(reference)
            return TensorMatcher(tensors, [key], ordered=ordered).equals_of(array) == [key]

    def test_masked_elements_do_not_hide_the_others(self) -> None:
        """The spread is that of the ordinary elements: beside -3.4e38 a difference of 1 is still one."""
        reference = np.array([0.1, 0.7, -3.4e38, 0.3, -np.inf], np.float32)
        assert self.matches(reference * np.float32(1 + 1e-6), reference)
        assert not self.matches(reference + np.float32(0.1), reference)
        assert not self.matches(np.where(reference < -1, 0, reference), reference)

    def test_integers_are_equal_or_not(self) -> None:
        """Tolerance is for rounding."""
        reference = np.arange(100_000)
        assert self.matches(reference, reference)
        assert not self.matches(reference + (reference == 7), reference)

    def test_order_matters_unless_it_is_left_out(self) -> None:
        """The same elements in another order are the same only where that is asked for."""
        reference = np.random.default_rng(0).standard_normal((8, 9)).astype(np.float32)
        assert not self.matches(reference[::-1], reference)
        assert self.matches(reference[::-1], reference, ordered=False)
        assert not self.matches(reference[::-1] * 1.01, reference, ordered=False)


class TestValidate:
    def test_the_proof_is_in_the_report(self) -> None:
        """How many of the calls that can be compared are proven, and which calls are what."""
        outcome = mx.Validate(modules=True)(net())
        assert outcome.figures["modules_proven"] == "9/9"  # type: ignore[attr-defined]
        assert outcome.figures["modules"] == {  # type: ignore[attr-defined]
            "calls": {"proven": 9, "unchanged": 1},
            "not_found": [],
            "edges": [],
            "not_called": [],
        }

    def test_what_differs_is_an_error_that_lists_all(self) -> None:
        """One line for each call."""
        model = net()
        for node in model.graph:
            set_scope(node, mx.Scope((*scope(node).frames[:1], Frame("left", "Branch"))))
        with pytest.raises(VerificationError) as caught:
            mx.Validate(modules=True, hierarchy=False)(model)
        lines = str(caught.value).splitlines()
        assert lines[0] == "validate: 7 faults"
        assert lines[1].startswith("  module: left.linear: what it returned is made elsewhere: ")

    def test_edges_are_noted_or_errors(self) -> None:
        """The middle of a computation given to a neighbour leaves all results where they are: an edge tells."""
        model = net()
        own = mx.Scope(scope(model.graph[0]).frames[:2])
        (add,) = (node for node in model.graph if node.op_type == "Add")
        set_scope(add, own)
        outcome = mx.Validate(modules=True)(model)
        assert outcome.figures["modules_proven"] == "9/9"  # type: ignore[attr-defined]
        (note,) = outcome.notes  # type: ignore[attr-defined]
        assert note.startswith("module-edge: left: '/right/Mul_output_0' enters it; '/Add_output_0' leaves it")
        with pytest.raises(VerificationError, match="module-edge: left: "):
            mx.Validate(modules=Modules(edges="error"))(model)

    def test_without_the_torch_model_there_is_nothing_to_compare_with(self) -> None:
        """A model that was not exported in this run needs ``run``."""
        model = net()
        record = record_of(model)
        assert record is not None
        fresh = model.clone()
        with pytest.raises(ConfigError, match=r"modules needs the torch model.*run=TorchRun"):
            mx.Validate(modules=True)(fresh)
        assert mx.Validate(modules=True, run=record.run)(fresh).figures["modules_proven"] == "9/9"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("arch", "proven"), [("bert", 40), ("t5", 79), ("mixtral", 28)])
def test_real_models_are_proven_whole(arch: str, proven: int) -> None:
    """Every module call that computes something, and nothing else at the edges of blocks than torch has there."""
    (case,) = zoo_cases((arch,))
    module, inputs = build(case)
    wrapper = TensorsOut(module, list(inputs)).eval()
    model = mx.export(wrapper, tuple(inputs.values()), exporter="torchscript", root="model")
    proof = proof_of(model)
    assert len(proof.of(Verdict.PROVEN)) == proven
    assert proof.of(Verdict.DIFFERENT, Verdict.NOT_FOUND, Verdict.CONSTANT) == []
