"""Savers that are killed, interrupted or not alone: a file is the old model or the new one, with its own weights.

The counts are small here; ``MX_RACES=10`` runs ten times as many.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import modelexport_passes as mx
from modelexport_passes.exporting import saving
from tests.exporting.test_files import proto_of, write

TIMES = int(os.environ.get("MX_RACES", "1"))
SIZE = 1 << 16

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and locks of POSIX")

SAVER = """
import signal, sys, numpy as np, onnx_ir as ir
import modelexport_passes as mx
from modelexport_passes.exporting import saving
saving.INLINE_LIMIT = 1000

def model(number):
    tensor = ir.tensor(np.full(1 << 16, number, np.float32))
    value = ir.Value(name="w", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
    graph = ir.Graph([], [], nodes=[], initializers=[value], name=f"g{number}", opset_imports={"": 20})
    return ir.Model(graph, ir_version=10)

models = [model(int(sys.argv[2]) + index) for index in range(3)]
signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does
print("ready", flush=True)
try:
    for turn in range(int(sys.argv[3])):
        mx.save(models[turn % 3], sys.argv[1])
except KeyboardInterrupt:
    sys.exit(130)
"""


def saver(target: Path, first: int, turns: int) -> subprocess.Popen[str]:
    """A process that saves three models in turn; it has begun when this returns."""
    command = [sys.executable, "-c", SAVER, str(target), str(first), str(turns)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


class Replaced(Exception):  # noqa: N818 - what a reader may meet while others save
    """The data of a loaded model was replaced before it was looked at: told, and not read wrongly."""


def assert_whole(target: Path) -> None:
    """The weights are those of the model that says so in the name of its graph."""
    model = mx.load(target)
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    try:
        tensor.numpy()
    except mx.ModelExportError as error:
        raise Replaced from error
    assert np.unique(tensor.numpy()).tolist() == [int(str(model.graph.name).removeprefix("g"))]


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("sent", "count"), [(signal.SIGKILL, 6), (signal.SIGINT, 30), (signal.SIGTERM, 10)])
def test_a_killed_saver_leaves_a_whole_model(tmp_path: Path, sent: signal.Signals, count: int) -> None:
    """At random moments; and what a killed one left in the making is gone after the next save there."""
    target = tmp_path / "m.onnx"
    saver(target, 0, 1).wait()
    for turn in range(count * TIMES):
        process = saver(target, 3 * turn, 1000)
        time.sleep(random.Random(turn).uniform(0, 0.05))
        process.send_signal(sent)
        process.communicate()
        assert_whole(target)
    saver(target, 0, 1).wait()
    assert_whole(target)
    assert len(list(tmp_path.iterdir())) == 2, sorted(tmp_path.iterdir())


KILLED = """
import os, signal
def killed_behind(holder, step):
    real = getattr(holder, step)
    def behind(*args, **kwargs):
        real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(holder, step, behind)
from pathlib import Path
from modelexport_passes.exporting import data_files, saving
"""


@pytest.mark.parametrize(
    "step", ["data_files.os, 'link'", "saving, 'settle_data'", "saving, 'superseded'", "saving, 'sync_directory'"]
)
@pytest.mark.parametrize("behind", [False, True])
def test_what_a_saver_had_placed_when_it_was_killed_is_removed_by_the_next(
    tmp_path: Path, step: str, *, behind: bool
) -> None:
    """Before the model is in its place, its data goes; behind that, the old model's. A neighbour's data stays."""
    target, neighbour = tmp_path / "m.onnx", tmp_path / "n.onnx"
    for path in (target, neighbour):
        assert saver(path, 0, 1).wait() == 0
    where = "Path, 'replace'" if behind else step
    # The intent is put in its place by a rename, too: that of the model is the first onto the target.
    hook = f"killed_behind({where})" if not behind else REPLACED
    for turn in range(3):
        code = f"{KILLED}{hook}\n{SAVER}"
        command = [sys.executable, "-c", code, str(target), str(10 * turn + 1), "1"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
        assert_whole(target)
    assert saver(target, 5, 1).wait() == 0
    assert_whole(target)
    assert_whole(neighbour)
    assert len(list(tmp_path.iterdir())) == 4, sorted(tmp_path.iterdir())


REPLACED = """
replace = Path.replace
def replaced(path, target):
    result = replace(path, target)
    if str(target).endswith("m.onnx"):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
Path.replace = replaced
"""


def test_an_intent_that_is_none_of_ours_removes_nothing(tmp_path: Path) -> None:
    """Whatever a directory of that name says, only data files that no model mentions and that are the same go."""
    target = tmp_path / "m.onnx"
    assert saver(target, 0, 1).wait() == 0
    data = tmp_path / "m.onnx.data"
    other = tmp_path / "other.data"
    other.write_bytes(b"mine")
    identity = [data.stat().st_dev, data.stat().st_ino]
    theirs = [other.stat().st_dev, other.stat().st_ino]
    entries = ["", "{", "[]", "7", "null", '{"target": 7, "data": null, "model": null, "old": {}}']
    entries += [
        json.dumps({"target": name, "data": made, "model": None, "old": {}})
        for name in ("m.onnx", "other", "../m.onnx", "..", "m.onnx\0", "x" * 5000)
        for made in (identity, theirs)
    ]
    for number, text in enumerate(entries):
        staging = tmp_path / f".m.onnx.mx-{number:08d}.tmp"
        staging.mkdir()
        (staging / "intent.json").write_text(text)
    assert saver(tmp_path / "new.onnx", 3, 1).wait() == 0
    assert_whole(target)
    assert other.read_bytes() == b"mine"
    assert not hidden(tmp_path)


def test_savers_at_one_path_take_turns(tmp_path: Path) -> None:
    """Six at once: each save is whole, and only the data of the last one stays."""
    target = tmp_path / "m.onnx"
    for turn in range(2 * TIMES):
        processes = [saver(target, 10 * number, 12) for number in range(6)]
        while any(process.poll() is None for process in processes):
            if target.exists():
                with contextlib.suppress(Replaced):
                    assert_whole(target)
        assert [process.wait() for process in processes] == [0] * 6, [p.communicate()[1] for p in processes]
        assert_whole(target)
        assert len(list(tmp_path.iterdir())) == 2, f"turn {turn}: {sorted(tmp_path.iterdir())}"


@pytest.mark.parametrize(
    "step", ["settle_data", "identity_of", "superseded", "sync_directory", "clear_away", "replace", "unlink"]
)
def test_an_interrupt_behind_any_step_leaves_a_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Right after a step has done its work, and before anybody could take note of it."""
    monkeypatch.setattr(saving, "INLINE_LIMIT", 1000)
    target = tmp_path / "m.onnx"
    models: list[ir.Model] = []
    for number in range(2):
        tensor = ir.tensor(np.full(SIZE, number, np.float32))
        value = ir.Value(name="w", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape([SIZE]))
        graph = ir.Graph([], [], nodes=[], initializers=[value], name=f"g{number}", opset_imports={"": 20})
        models.append(ir.Model(graph, ir_version=10))
    mx.save(models[0], target)
    holder = Path if step in ("replace", "unlink") else saving
    real = getattr(holder, step)

    def interrupted(*args: object, **kwargs: object) -> object:
        real(*args, **kwargs)
        monkeypatch.setattr(holder, step, real)
        raise KeyboardInterrupt

    monkeypatch.setattr(holder, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        mx.save(models[1], target)
    assert_whole(target)
    assert not hidden(tmp_path)
    mx.save(models[1], target)
    assert_whole(target)


def test_a_model_in_memory_never_reads_the_weights_of_another(tmp_path: Path) -> None:
    """After two saves to its path its data is gone, and each way of reading says so."""
    weights = [{"w": np.full((64, 64), number, np.float32), "b": np.ones(64, np.float32)} for number in range(3)]
    sources = [
        mx.load(write(proto_of(each), tmp_path / f"{n}" / "m.onnx", external=True)) for n, each in enumerate(weights)
    ]
    target = tmp_path / "out" / "m.onnx"
    mx.save(sources[0], target)
    held = mx.load(target)
    for source in sources[1:]:
        mx.save(source, target)
    tensor = held.graph.initializers["w"].const_value
    assert tensor is not None
    for read in (tensor.numpy, tensor.tobytes, lambda: np.asarray(tensor), lambda: mx.save(held, tmp_path / "n.onnx")):
        with pytest.raises(
            mx.ModelExportError, match=r"'[wb]' was in .*m.onnx.data, which is gone; load the model again"
        ):
            read()


def test_data_that_was_changed_in_place_is_not_read(tmp_path: Path) -> None:
    """By anybody: the same name is not the same data."""
    path = write(proto_of(), tmp_path / "m.onnx", external=True)
    held = mx.load(path)
    data = tmp_path / "m.onnx.data"
    content = data.read_bytes()
    data.unlink()
    data.write_bytes(content[::-1])
    tensor = held.graph.initializers["w"].const_value
    assert tensor is not None
    with pytest.raises(mx.ModelExportError, match="has been replaced or changed since the model was loaded"):
        tensor.numpy()
    with pytest.raises(mx.ModelExportError, match="has been replaced or changed since the model was loaded"):
        mx.save(held, tmp_path / "n.onnx")


def test_data_that_was_read_before_stays_readable(tmp_path: Path) -> None:
    """What is mapped belongs to the file that it was mapped from."""
    path = write(proto_of(), tmp_path / "m.onnx", external=True)
    tensor = mx.load(path).graph.initializers["w"].const_value
    assert tensor is not None
    before = tensor.numpy().copy()
    (tmp_path / "m.onnx.data").unlink()
    np.testing.assert_array_equal(tensor.numpy(), before)
