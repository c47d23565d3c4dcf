"""What counts as equal, which inputs are made, and that a difference is found wherever it hides."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from modelexport_passes.errors import VerificationError
from modelexport_passes.exporting import saving
from modelexport_passes.exporting.files import load, save
from modelexport_passes.validation import parity, session
from modelexport_passes.validation.inputs import index_bound, input_sets
from modelexport_passes.validation.parity import compare_arrays, compare_models, compare_outputs, compare_with_record

NAN = float("nan")


def parsed(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


class TestArrays:
    @pytest.mark.parametrize(
        ("actual", "expected", "bit_equal", "max_abs"),
        [
            ([1.0, NAN], [1.0, NAN], True, 0.0),
            ([0.0], [-0.0], False, 0.0),
            ([1.0, np.inf], [2.0, np.inf], False, 1.0),
            ([1.0, NAN], [1.0, 2.0], False, np.inf),
            ([np.inf, 1.0], [-np.inf, 1.0], False, np.inf),
        ],
    )
    def test_bits_and_distance(
        self, actual: list[float], expected: list[float], bit_equal: bool, max_abs: float
    ) -> None:
        """Bits decide equality; NaN on one side or the wrong infinity is infinitely far, zeros of two signs are not."""
        found = compare_arrays("y", np.array(actual, np.float32), np.array(expected, np.float32))
        assert (found.bit_equal, found.max_abs) == (bit_equal, max_abs)

    def test_distance_is_relative_to_spread(self) -> None:
        """The same relative error is judged the same at 1e-8 and at 1e8; an absolute tolerance would not."""
        reference = np.linspace(-1, 1, 101)
        for scale in (1e-8, 1.0, 1e8):
            close = compare_arrays("y", scale * reference * (1 + 1e-6), scale * reference)
            far = compare_arrays("y", scale * reference * (1 + 1e-2), scale * reference)
            assert close.within(None)
            assert not far.within(None)
            assert close.relative == pytest.approx(1e-6 / reference.std(), rel=1e-3)

    def test_half_types_have_their_own_tolerance(self) -> None:
        """An error of 1e-2 is fine in 16 bits and not in 32."""
        reference = np.linspace(-1, 1, 101)
        for dtype, fine in ((np.float16, True), (np.float32, False)):
            assert compare_arrays("y", (reference + 5e-3).astype(dtype), reference.astype(dtype)).within(None) is fine

    def test_types_shapes_text_and_sequences(self) -> None:
        """Another type or shape is a difference even where values agree; sequences are compared item by item."""
        one = np.ones(2, np.float32)
        assert "is float64[2], expected float32[2]" in str(compare_arrays("y", one.astype(np.float64), one))
        assert "is float32[2, 1], expected float32[2]" in str(compare_arrays("y", one[:, None], one))
        assert not compare_arrays("y", np.array(["a"]), np.array(["b"])).within(1e9)
        names = [
            found.output for found in compare_outputs(["s"], [[one, one]], [[one, one + 1]]) if not found.bit_equal
        ]
        assert names == ["s[1]"]
        with pytest.raises(VerificationError, match=r"1 outputs \(y\), the reference has 2"):
            compare_outputs(["y"], [one], [one, one])


class TestInputs:
    TABLES = """
    <ir_version: 10, opset_import: ["" : 20, "m" : 1]>
    g (int64[batch, seq] ids, int32[batch, seq] types, int64[batch, total] mask, float[batch, seq, 3] f, bool[seq] keep,
       float[50, 2] words, float[7, 2] kinds, float[9, 2] spare) => (float[batch, seq, 2] y)
    { a = m.Embed (ids, words)  c = Cast <to = 7> (types)  b = Gather (kinds, c)  d = Gather (spare, ids)
      y = Add (a, b) }
    <domain: "m", opset_import: ["" : 20, "m" : 1]> Embed (i, table) => (o) { o = m.Inner (table, i) }
    <domain: "m", opset_import: ["" : 20]> Inner (t, j) => (o) { k = Identity (j) o = Gather (t, k) }
    """

    def model(self) -> ir.Model:
        model = parsed(self.TABLES)
        model.graph.inputs[2].shape = ir.Shape(["batch", "past + seq"])
        return model

    def test_integers_stay_inside_the_tables_they_index(self) -> None:
        """The bound is the smallest table, found through casts and into nested functions."""
        model = self.model()
        bounds = {value.name: index_bound(model, value) for value in model.graph.inputs[:5]}
        assert bounds == {"ids": 9, "types": 7, "mask": None, "f": None, "keep": None}
        for inputs in input_sets(model):
            assert inputs["ids"].max() < 9
            assert inputs["types"].max() < 7
            assert set(np.unique(inputs["mask"])) <= {0, 1}
            assert inputs["mask"][:, 0].all()

    def test_dimensions_of_one_name_have_one_size(self) -> None:
        """Also inside expressions; the sets differ in size, and the same seed gives the same arrays."""
        sets = list(input_sets(self.model()))
        for inputs in sets:
            batch, seq = inputs["ids"].shape
            assert inputs["types"].shape == (batch, seq)
            assert inputs["f"].shape == (batch, seq, 3)
            assert inputs["mask"].shape[0] == batch
            assert inputs["mask"].shape[1] > seq
            assert inputs["keep"].shape == (seq,)
        assert [inputs["ids"].shape for inputs in sets] == [(2, 5), (3, 8), (2, 64), (1, 224), (1, 1)]
        again = list(input_sets(self.model()))
        for left, right in zip(sets, again, strict=True):
            assert all(np.array_equal(left[name], right[name]) for name in left)

    def test_static_models_have_one_set(self) -> None:
        """There is nothing to vary."""
        model = parsed('<ir_version: 10, opset_import: ["" : 20]> g (float[2, 3] x) => (float[2, 3] y) { y = Neg (x) }')
        assert [inputs["x"].shape for inputs in input_sets(model)] == [(2, 3)]

    def test_what_cannot_be_made_is_said(self) -> None:
        """A sequence input needs a file."""
        model = parsed(
            '<ir_version: 10, opset_import: ["" : 20]> g (seq(float[n]) x) => (int64 y) { y = SequenceLength (x) }'
        )
        with pytest.raises(VerificationError, match=r"no inputs can be made for 'x'.*give inputs: FILE.npz"):
            list(input_sets(model))


MLP = """
<ir_version: 10, opset_import: ["" : 20]> g (float[n, 4] x) => (float[n, 4] y) <float[4, 4] w, float[4] b>
{ h = MatMul (x, w)  i = Add (h, b)  y = Tanh (i) }
"""


def mlp() -> ir.Model:
    model = parsed(MLP.replace("<float[4, 4] w, float[4] b>", ""))
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 4)), ("b", (4,))):
        tensor = ir.tensor(rng.standard_normal(shape).astype(np.float32), name=name)
        value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype))
        for node in model.graph:
            for slot, used in enumerate(node.inputs):
                if used is not None and used.name == name:
                    node.replace_input_with(slot, value)
        model.graph.register_initializer(value)
    return model


class TestModels:
    def test_equal_models_are_bit_equal(self) -> None:
        """Two sets of inputs with different sizes are run."""
        found = compare_models(mlp(), mlp())
        assert found.bit_equal
        assert len(set(map(str, found.sizes))) == 2

    def test_one_bit_in_one_weight_is_found(self) -> None:
        """The smallest change of one weight breaks bit-equality and stays within tolerance."""
        changed = mlp()
        array = changed.graph.initializers["b"].const_value.numpy().copy()  # type: ignore[union-attr]
        array[2] = np.nextafter(array[2], np.float32(9))
        changed.graph.initializers["b"].const_value = ir.tensor(array, name="b")
        found = compare_models(changed, mlp())
        assert not found.bit_equal
        assert found.failures(None, bit_equal=True)
        assert not found.failures(None, bit_equal=False)

    def test_a_size_baked_in_is_found(self) -> None:
        """A model that is right only for the example's own sizes fails on the second set."""
        text = '<ir_version: 10, opset_import: ["" : 20]> g (float[n, 4] x) => (float[m, 4] y) <int64[2] s = {%s, 4}>'
        reference = parsed(text % "-1" + "{ y = Reshape (x, s) }")
        baked = parsed(text % "3" + "{ y = Reshape (x, s) }")
        given = {"x": np.ones((3, 4), np.float32)}
        with pytest.raises(VerificationError, match="onnxruntime does not run the model: "):
            compare_models(baked, reference, given)

    def test_sizes_that_the_reference_refuses_prove_nothing(self) -> None:
        """They are passed over, and no set at all is an error that tells what to do."""
        text = '<ir_version: 10, opset_import: ["" : 20]> g (float[n, m] x) => (float[k, %s] y) <int64[2] s = {-1, %s}>'
        picky = text % (32, 32) + "{ y = Reshape (x, s) }"
        found = compare_models(parsed(picky), parsed(picky))
        assert [sizes["x"] for sizes in found.sizes] == [(2, 64), (1, 224)]
        impossible = text % (997, 997) + "{ y = Reshape (x, s) }"
        with pytest.raises(VerificationError, match=r"none of the inputs made .* give inputs: FILE.npz"):
            compare_models(parsed(impossible), parsed(impossible))

    def test_other_inputs_or_outputs_are_refused(self) -> None:
        """Comparing by position would hide a renamed input."""
        renamed = mlp()
        renamed.graph.inputs[0].name = "z"
        with pytest.raises(VerificationError, match="the inputs are z; those of the reference are x"):
            compare_models(renamed, mlp())

    def test_a_record_is_compared_with(self) -> None:
        """Outputs known from elsewhere are compared with in order."""
        x = np.ones((1, 4), np.float32)
        [y] = session.run_session(session.open_session(mlp()), {"x": x})
        assert compare_with_record(mlp(), {"x": x}, [y]).bit_equal
        assert compare_with_record(mlp(), {"x": x}, [y + 1]).failures(None, bit_equal=False)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float8e4m3fn", "float16"])
    def test_types_that_numpy_lacks(self, dtype: str) -> None:
        """bfloat16 and float8 go in and come out, and a difference in them is found."""
        text = f'<ir_version: 10, opset_import: ["" : 20]> g ({dtype}[n] x) => ({dtype}[n] y) <float[1] s = {{%s}}>'
        text += "{ f = Cast <to = 1> (x) h = Mul (f, s) y = CastLike (h, x) }"
        found = compare_models(parsed(text % 2), parsed(text % 2))
        assert found.bit_equal
        assert found.differences[0].half
        changed = compare_models(parsed(text % 2.5), parsed(text % 2))
        assert changed.failures(None, bit_equal=False)

    @pytest.mark.parametrize("where", ["one directory", "two directories", "too large for memory"])
    def test_weights_of_any_size_and_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
        """A session reads weights where they are, in one directory or in two, and takes more than protobuf can hold."""
        monkeypatch.setattr(saving, "_SMALL", 0)
        monkeypatch.setattr(saving, "INLINE_LIMIT", 0)
        reference, other = mlp(), mlp()
        other.graph.initializers["b"].const_value = ir.tensor(np.full(4, 3, np.float32), name="b")
        save(reference, tmp_path / "a" / "m.onnx")
        save(other, tmp_path / "b" / "m.onnx")
        model = load(tmp_path / "a" / "m.onnx")
        assert (tmp_path / "a" / "m.onnx.data").exists()
        if where == "two directories":
            for target, source in ((model, load(tmp_path / "b" / "m.onnx")), (reference, other)):
                target.graph.initializers["b"].const_value = source.graph.initializers["b"].const_value
        if where == "too large for memory":
            monkeypatch.setattr(session, "INLINE_LIMIT", 0)
            monkeypatch.setattr(session, "to_proto", None)  # bytes in memory would not do
            model = mlp()
        before = sorted(tmp_path.rglob("*"))
        assert compare_models(model, reference).bit_equal
        assert sorted(tmp_path.rglob("*")) == before


class TestWeights:
    """Sessions read weights where they are."""

    @staticmethod
    def with_weight(weight: ir.TensorProtocol) -> ir.Model:
        model = parsed('<ir_version: 10, opset_import: ["" : 20]> agraph (float[2,1024] x) => (float[2,1024] y) '
                       "<float[1024] w = {0}> { y = Add(x, w) }")  # fmt: skip
        model.graph.initializers["w"].const_value = weight
        return model

    def test_large_weights_do_not_pass_through_protobuf(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What onnxruntime loads carries the graph alone, and the session lives longer than the model's arrays."""
        sizes: list[int] = []
        to_proto = session.to_proto

        def measured(model: ir.Model, instead: saving.Instead = ()) -> onnx.ModelProto:
            proto = to_proto(model, instead)
            sizes.append(proto.ByteSize())
            return proto

        monkeypatch.setattr(session, "to_proto", measured)
        weight = np.arange(1024, dtype=np.float32)
        expected = weight + 1
        opened = session.open_session(self.with_weight(ir.tensor(weight.copy(), name="w")))
        (y,) = session.run_session(opened, {"x": np.ones((2, 1024), np.float32)})
        assert sizes[0] < 1024
        np.testing.assert_array_equal(y, np.stack([expected, expected]))

    @pytest.mark.parametrize("name", ["bfloat16", "float16", "double", "int64"])
    def test_arrays_made_on_demand_live_as_long_as_the_session(self, name: str) -> None:
        """The runtime reads an array in place, of any type, that nobody else holds."""
        model = parsed(
            f'<ir_version: 10, opset_import: ["" : 20]> agraph (int64[1] x) => ({name}[1,4096] y) '
            f"<{name}[1,4096] w = {{0}}> {{ y = Gather <axis = 0> (w, x) }}"
        )
        dtype = ir.DataType[name.upper()]
        weight = np.arange(4096).reshape(1, 4096).astype(dtype.numpy())
        model.graph.initializers["w"].const_value = ir.LazyTensor(
            lambda: ir.tensor(weight.copy()), dtype=dtype, shape=ir.Shape(weight.shape)
        )
        opened = session.open_session(model)
        others = [np.full(weight.shape, 7, weight.dtype) for _ in range(50)]
        (y,) = session.run_session(opened, {"x": np.zeros(1, np.int64)})
        assert others
        np.testing.assert_array_equal(y, weight)

    def test_one_session_after_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The reference's session is gone when that of the model opens."""
        opened: list[weakref.ref[object]] = []
        alive: list[bool] = []
        open_session = parity.open_session

        def watched(model: ir.Model, what: str = "the model") -> object:
            alive.extend(before() is not None for before in opened)
            made = open_session(model, what)
            opened.append(weakref.ref(made))
            return made

        monkeypatch.setattr(parity, "open_session", watched)
        weight = ir.tensor(np.arange(1024, dtype=np.float32), name="w")
        assert compare_models(self.with_weight(weight), self.with_weight(weight)).bit_equal
        assert alive == [False]
