"""Loading and saving: nothing lost, nothing copied without need, nothing broken by a crash."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelexport_passes.errors import ModelExportError
from modelexport_passes.exporting import saving
from modelexport_passes.exporting.files import load, save
from modelexport_passes.exporting.saving import to_proto

WEIGHTS = {"w": np.arange(4096, dtype=np.float32).reshape(64, 64), "b": np.ones(64, np.float32)}


def proto_of(weights: dict[str, np.ndarray] = WEIGHTS) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="mm"),
        helper.make_node("Add", ["h", "b"], ["y"], name="add"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def write(proto: onnx.ModelProto, path: Path, *, external: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)
    return path


def weights_in(path: Path) -> dict[str, np.ndarray]:
    """What onnx itself, and not our loader, reads from the files."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def files_in(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def assert_weights(path: Path, expected: dict[str, np.ndarray]) -> None:
    found = weights_in(path)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


class TestLoad:
    def test_external_weights_are_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A loaded model maps its weights when they are first looked at, also after a change of directory."""
        write(proto_of(), tmp_path / "m.onnx", external=True)
        monkeypatch.chdir(tmp_path)
        model = load("m.onnx")
        monkeypatch.chdir("/")
        tensor = model.graph.initializers["w"].const_value
        assert isinstance(tensor, ir.ExternalTensor)
        assert tensor.raw is None
        np.testing.assert_array_equal(tensor.numpy(), WEIGHTS["w"])

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "there is no such file; .* has other.onnx"),
            (b"", "not an ONNX model: no IR version or no graph in its 0 bytes"),
            (b"hello world", "not an ONNX model, or cut short \\(11 bytes\\)"),
            (proto_of().SerializeToString()[:-40], "not an ONNX model"),
        ],
    )
    def test_what_is_not_a_model_is_refused(self, tmp_path: Path, content: bytes | None, said: str) -> None:
        """A missing, empty, foreign or truncated file is one clear error."""
        (tmp_path / "other.onnx").touch()
        if content is not None:
            (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(ModelExportError, match=said):
            load(tmp_path / "m.onnx")

    def test_what_would_be_lost_is_refused(self, tmp_path: Path) -> None:
        """Everything that onnx_ir drops or rejects is named, in one error."""
        proto = proto_of()
        dense = numpy_helper.from_array(np.ones(1, np.float32), "sp")
        proto.graph.sparse_initializer.append(
            helper.make_sparse_tensor(dense, numpy_helper.from_array(np.zeros(1, np.int64), "i"), [4])
        )
        proto.graph.node.append(helper.make_node("Neg", ["y"], ["h"], name="again"))
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32)))
        proto.graph.node[0].metadata_props.add(key="k", value="1")
        proto.graph.node[0].metadata_props.add(key="k", value="2")
        map_type = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        proto.graph.output.append(helper.make_value_info("z", helper.make_sequence_type_proto(map_type)))
        path = tmp_path / "m.onnx"
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(ModelExportError) as caught:
            load(path)
        for part in ("1 sparse initializers", "'sp'", "initializers without a name", "Map type of value 'z'"):
            assert part in str(caught.value)
        for part in ("metadata key of node 'mm'", "value 'h' in graph 'g' is declared again by node 'again' (Neg)"):
            assert part in str(caught.value)

    @pytest.mark.parametrize("depth", ["subgraph", "function"])
    def test_losses_are_found_at_every_level(self, tmp_path: Path, depth: str) -> None:
        """Subgraphs and functions are looked through as the main graph is."""
        proto = proto_of()
        bad = helper.make_node("Constant", [], ["c"], name="bad")
        attribute = bad.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
        attribute.sparse_tensor.values.data_type = TensorProto.FLOAT
        if depth == "subgraph":
            body = helper.make_graph([bad], "body", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])])
            proto.graph.node.append(helper.make_node("If", ["x"], ["q"], name="if", then_branch=body, else_branch=body))
        else:
            opset = [helper.make_opsetid("", 20)]
            proto.functions.append(helper.make_function("d", "f", [], ["c"], [bad], opset))
        path = tmp_path / "m.onnx"
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(ModelExportError, match="sparse tensor in attribute 'sparse_value' of node 'bad'"):
            load(path)

    def test_faults_of_data_files_are_told_at_once(self, tmp_path: Path) -> None:
        """A missing, short or hard-linked data file is an error of loading, not of a later pass."""
        path = write(proto_of(), tmp_path / "m.onnx", external=True)
        data = tmp_path / "m.onnx.data"
        os.link(data, tmp_path / "second_name")
        with pytest.raises(ModelExportError, match=r"has 2 hard links.*copy the file"):
            load(path)
        (tmp_path / "second_name").unlink()
        data.write_bytes(data.read_bytes()[:-1])
        with pytest.raises(
            ModelExportError, match=r"'b' are in 'm.onnx.data', which is too short: 16639 bytes, needed 16640"
        ):
            load(path)
        data.unlink()
        with pytest.raises(ModelExportError, match=r"'m.onnx.data', which is missing; put it beside the model"):
            load(path)

    def test_the_collector_is_back_on(self, tmp_path: Path) -> None:
        """Garbage collection is off only while loading, whether that succeeds or not."""
        proto = proto_of()
        proto.functions.append(helper.make_function("d", "f", [], ["nobody"], [], [helper.make_opsetid("", 20)]))
        path = write(proto, tmp_path / "m.onnx")
        with pytest.raises(ModelExportError, match="value 'nobody' is used and never made"):
            load(path)
        assert gc.isenabled()


class TestSave:
    def test_a_small_model_is_one_file(self, tmp_path: Path) -> None:
        """Weights that were in memory stay in the model file; missing directories are made."""
        source = write(proto_of(), tmp_path / "m.onnx")
        save(load(source), tmp_path / "new" / "deep" / "m.onnx")
        assert list(files_in(tmp_path / "new")) == ["deep/m.onnx"]
        saved = onnx.load(tmp_path / "new/deep/m.onnx")
        del saved.graph.value_info[:]  # onnx_ir adds the types of initializers
        assert saved == onnx.load(source)

    def test_a_large_model_has_its_weights_beside_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Past the limit, all but the small tensors go to the data file; a tensor used twice is written once."""
        monkeypatch.setattr(saving, "INLINE_LIMIT", 1000)
        model = load(write(proto_of(), tmp_path / "m.onnx"))
        shared = model.graph.initializers["w"].const_value
        assert shared is not None
        twin = ir.Value(name="twin", const_value=shared, shape=ir.Shape([64, 64]), type=ir.TensorType(shared.dtype))
        model.graph.register_initializer(twin)
        target = tmp_path / "out" / "big.onnx"
        save(model, target)
        assert {name: len(data) for name, data in files_in(target.parent).items() if name != "big.onnx"} == {
            "big.onnx.data": WEIGHTS["w"].nbytes
        }
        assert_weights(target, {**WEIGHTS, "twin": WEIGHTS["w"]})
        assert model.graph.initializers["w"].const_value is shared

    def test_external_weights_in_the_same_directory_are_referenced(self, tmp_path: Path) -> None:
        """No second copy is made of data that already lies in the target's directory."""
        source = write(proto_of(), tmp_path / "m.onnx", external=True)
        save(load(source), tmp_path / "tagged.onnx")
        assert sorted(files_in(tmp_path)) == ["m.onnx", "m.onnx.data", "tagged.onnx"]
        assert_weights(tmp_path / "tagged.onnx", WEIGHTS)

    def test_external_weights_from_elsewhere_are_copied(self, tmp_path: Path) -> None:
        """A model saved into another directory does not need its old one."""
        source = write(proto_of(), tmp_path / "a" / "m.onnx", external=True)
        save(load(source), tmp_path / "b" / "n.onnx")
        for path in (tmp_path / "a").iterdir():
            path.unlink()
        assert sorted(files_in(tmp_path / "b")) == ["n.onnx", "n.onnx.data"]
        assert_weights(tmp_path / "b" / "n.onnx", WEIGHTS)

    def test_saving_over_the_file_it_came_from(self, tmp_path: Path) -> None:
        """A model can be changed, saved over itself, looked at, and saved again."""
        path = write(proto_of(), tmp_path / "m.onnx", external=True)
        model = load(path)
        doubled = {**WEIGHTS, "b": WEIGHTS["b"] * 2}
        model.graph.initializers["b"].const_value = ir.tensor(doubled["b"], name="b")
        for _ in range(2):
            save(model, path)
            assert_weights(path, doubled)
        np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), WEIGHTS["w"])  # type: ignore[union-attr]

    def test_repeating_a_save_gives_the_same_bytes(self, tmp_path: Path) -> None:
        """The data file's name does not depend on how often one has saved."""
        model = load(write(proto_of(), tmp_path / "a" / "m.onnx", external=True))
        save(model, tmp_path / "b" / "m.onnx")
        first = files_in(tmp_path / "b")
        save(model, tmp_path / "b" / "m.onnx")
        assert files_in(tmp_path / "b") == first

    def test_other_weights_take_a_fresh_data_file(self, tmp_path: Path) -> None:
        """Data is never overwritten in place: the old file goes once no model needs it, and stays while one does."""
        other = {name: array + 1 for name, array in WEIGHTS.items()}
        third = {name: array + 2 for name, array in WEIGHTS.items()}
        target = tmp_path / "out" / "m.onnx"
        save(load(write(proto_of(), tmp_path / "1" / "m.onnx", external=True)), target)
        save(load(write(proto_of(other), tmp_path / "2" / "m.onnx", external=True)), target)
        assert sorted(files_in(target.parent)) == ["m.onnx", "m.onnx.1.data"]
        assert_weights(target, other)
        save(load(target), target.with_name("sibling.onnx"))
        save(load(write(proto_of(third), tmp_path / "3" / "m.onnx", external=True)), target)
        assert sorted(files_in(target.parent)) == ["m.onnx", "m.onnx.1.data", "m.onnx.2.data", "sibling.onnx"]
        assert_weights(target, third)
        assert_weights(target.with_name("sibling.onnx"), other)

    @pytest.mark.parametrize("moment", ["data", "model", "rename"])
    @pytest.mark.parametrize("exception", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    def test_a_failed_save_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, exception: BaseException
    ) -> None:
        """A failure or interruption at any step leaves the same files with the same bytes, and no others."""
        target = tmp_path / "out" / "m.onnx"
        other = {name: array + 1 for name, array in WEIGHTS.items()}
        save(load(write(proto_of(), tmp_path / "1" / "m.onnx", external=True)), target)
        model = load(write(proto_of(other), tmp_path / "2" / "m.onnx", external=True))
        before = files_in(tmp_path)

        def fail(*_args: object, **_kwargs: object) -> None:
            raise exception

        points = {
            "data": (ir.ExternalTensor, "tofile"),
            "model": (saving, "_write_synced"),
            "rename": (Path, "replace"),
        }
        expected = ModelExportError if isinstance(exception, OSError) else KeyboardInterrupt
        with monkeypatch.context() as patch:
            patch.setattr(points[moment][0], points[moment][1], fail)
            with pytest.raises(expected):
                save(model, target)
            with pytest.raises(expected):
                save(model, tmp_path / "new" / "m.onnx")
        assert files_in(tmp_path) == before
        assert not (tmp_path / "new").exists()
        assert not [path for path in target.parent.iterdir() if path.name.endswith(".tmp")]
        save(model, target)
        assert_weights(target, other)

    def test_a_weight_without_data_is_refused(self, tmp_path: Path) -> None:
        """onnx_ir would leave it out of the file with a warning."""
        model = load(write(proto_of(), tmp_path / "m.onnx"))
        model.graph.initializers["w"].const_value = None
        with pytest.raises(ModelExportError, match="initializer 'w' has no data"):
            save(model, tmp_path / "n.onnx")
        assert sorted(files_in(tmp_path)) == ["m.onnx"]

    def test_mode_is_kept(self, tmp_path: Path) -> None:
        """A replaced file keeps its permissions; a new one has those of the umask, not of a temporary file."""
        model = load(write(proto_of(), tmp_path / "m.onnx"))
        umask = os.umask(0o022)
        try:
            save(model, tmp_path / "n.onnx")
            assert (tmp_path / "n.onnx").stat().st_mode & 0o777 == 0o644
            (tmp_path / "n.onnx").chmod(0o600)
            save(model, tmp_path / "n.onnx")
            assert (tmp_path / "n.onnx").stat().st_mode & 0o777 == 0o600
        finally:
            os.umask(umask)


def test_to_proto_leaves_the_model_alone(tmp_path: Path) -> None:
    """References stand in the protobuf only."""
    model = load(write(proto_of(), tmp_path / "m.onnx"))
    value = model.graph.initializers["w"]
    before = value.const_value
    reference = ir.ExternalTensor("d", 0, 8, ir.DataType.FLOAT, shape=ir.Shape([2]), name="w", base_dir=tmp_path)
    proto = to_proto(model, [(value, reference)])
    assert proto.graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert value.const_value is before


@pytest.mark.parametrize("length", [8, 15, 17, 1 << 40])
def test_a_length_that_is_not_the_tensors_is_refused(tmp_path: Path, length: int) -> None:
    """A short one would be filled with zeros, a long one reads what is another's."""
    weights = {"w": np.ones((2, 2), np.float32), "b": np.ones(64, np.float32)}
    path = write(proto_of(weights), tmp_path / "m.onnx", external=True)
    proto = onnx.load(path, load_external_data=False)
    (entry,) = [entry for entry in proto.graph.initializer[0].external_data if entry.key == "length"]
    entry.value = str(length)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelExportError, match=rf"'w' is said to have {length} bytes of data, .* say 16"):
        load(path)


def test_a_negative_size_is_refused(tmp_path: Path) -> None:
    """It would end before it begins, and no data file would be looked at for it."""
    path = write(proto_of(), tmp_path / "m.onnx", external=True)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        tensor.dims[:] = [-4]
        del tensor.external_data[1:]
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelExportError, match=r"the tensor '[wb]' has a negative size or offset"):
        load(path)


@pytest.mark.parametrize("uncommon", [False, True])
def test_external_data_of_a_functions_default_is_checked(tmp_path: Path, *, uncommon: bool) -> None:
    """By either reader: a location outside of the model's directory is refused wherever a tensor is."""
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    folder = tmp_path / "model"
    folder.mkdir()
    body = [helper.make_node("Neg", ["x"], ["y"])]
    function = helper.make_function("d", "f", ["x"], ["y"], body, [helper.make_opsetid("", 20)])
    default = function.attribute_proto.add(name="table", type=onnx.AttributeProto.TENSOR)
    default.t.CopyFrom(TensorProto(data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL))
    default.t.external_data.add(key="location", value="../secret")
    proto = proto_of()
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("d", 1))
    if uncommon:
        proto.graph.quantization_annotation.add(tensor_name="h").quant_parameter_tensor_names.add(key="K", value="b")
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelExportError, match=r"'../secret', which is not below the model's directory"):
        load(folder / "m.onnx")
