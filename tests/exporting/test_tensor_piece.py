"""Large tensors are written from where they are: the bytes are onnx_ir's, and none of them is copied on the way."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from onnx_ir import tensor_adapters

import modelexport_passes as mx
from modelexport_passes.exporting.writer import model_pieces

N = 2048
ONES: Any = np.ones((N, 4), np.float32)


def graph_of(*tensors: ir.TensorProtocol) -> ir.Model:
    """A model that has these initializers."""
    values = [
        ir.Value(name=f"w{index}", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape([N, 4]))
        for index, tensor in enumerate(tensors)
    ]
    return ir.Model(ir.Graph([], [], nodes=[], initializers=values, name="g", opset_imports={"": 20}), ir_version=10)


def lazy() -> ir.TensorProtocol:
    array = np.arange(N * 4, dtype=np.float32).reshape(N, 4)
    return ir.LazyTensor(lambda: ir.tensor(array), dtype=ir.DataType.FLOAT, shape=ir.Shape([N, 4]))


TENSORS: dict[str, Callable[[], ir.TensorProtocol]] = {
    "float": lambda: ir.tensor(np.arange(N * 4, dtype=np.float32).reshape(N, 4)),
    "transposed": lambda: ir.tensor(np.arange(N * 4, dtype=np.float32).reshape(4, N).T),
    "bfloat16": lambda: ir.tensor(ONES.astype(ml_dtypes.bfloat16)),
    "float16": lambda: ir.tensor(ONES.astype(np.float16)),
    "bool": lambda: ir.tensor(ONES.astype(bool)),
    "complex": lambda: ir.tensor(ONES.astype(np.complex64)),
    "int4": lambda: ir.Tensor(ONES.astype(ml_dtypes.int4), dtype=ir.DataType.INT4),
    "documented": lambda: ir.Tensor(ONES, doc_string="why", metadata_props={"b": "2", "a": "1"}),
    "protobuf": lambda: ir.TensorProtoTensor(numpy_helper.from_array(ONES)),
    "lazy": lazy,
    "torch": lambda: tensor_adapters.TorchTensor(torch.ones(N, 4)),
    "torch parameter, transposed": lambda: tensor_adapters.TorchTensor(torch.nn.Parameter(torch.rand(4, N)).T),
    "torch bfloat16": lambda: tensor_adapters.TorchTensor(torch.ones(N, 4, dtype=torch.bfloat16)),
    "torch float8": lambda: tensor_adapters.TorchTensor(torch.ones(N, 4).to(torch.float8_e4m3fn)),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_the_bytes_are_those_of_onnx_ir(tmp_path: Path, kind: str) -> None:
    """For tensors of every origin and type, and for one that two initializers share."""
    tensor = TENSORS[kind]()
    model = graph_of(tensor, tensor)
    model.graph.initializers["w0"].meta["note"] = "of no consequence to the file"
    wanted = ir.to_proto(model).SerializeToString(deterministic=True)
    pieces = model_pieces(model)
    assert b"".join(map(bytes, pieces)) == wanted
    assert sum(map(len, pieces)) == len(wanted)
    mx.save(model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == wanted


def test_a_tensor_that_is_not_what_it_says_is_not_written(tmp_path: Path) -> None:
    """Fewer bytes than its type and shape say would shift all that follows; nothing is left behind."""
    short = ir.LazyTensor(lambda: ir.tensor(np.ones(7, np.float32)), dtype=ir.DataType.FLOAT, shape=ir.Shape([N, 4]))
    with pytest.raises(mx.ModelExportError, match=r"initializer 'w0' has 28 bytes of data.* say 32768"):
        mx.save(graph_of(short), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


class Wide(torch.nn.Module):
    """Six matrices of 4 MB."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(6)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One after the other."""
        return self.layers(x)


def test_a_model_just_exported_is_saved_with_less_than_its_largest_tensor_in_memory(tmp_path: Path) -> None:
    """Notes that torch's exporter leaves on values change no byte of the file, and cost no copy."""
    model = mx.export(Wide().eval(), (torch.ones(1, 1024),))
    mx.save(model, tmp_path / "warm.onnx")
    tracemalloc.start()
    mx.save(model, tmp_path / "m.onnx")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * 4 * 1024 * 1024
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)


RESIDENT = """
import sys
from pathlib import Path
from typing import Any
import numpy as np
import onnx_ir as ir
import modelexport_passes as mx

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

def save(count, name):
    values = []
    for index in range(count):
        tensor = ir.tensor(np.full((2048, 2048), index, np.float32))
        value = ir.Value(name=f"w{index}", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
        value.meta["node"] = object()
        values.append(value)
    graph = ir.Graph([], [], nodes=[], initializers=values, name="g", opset_imports={"": 20})
    before = peak()
    mx.save(ir.Model(graph, ir_version=10), f"{sys.argv[1]}/{name}.onnx")
    return peak() - before

save(0, "small")
print(save(12, "large"))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_resident_memory_stays_while_weights_are_written(tmp_path: Path) -> None:
    """Twelve weights of 16 MB, 192 MB together, are saved with less than one and a half of them in memory."""
    done = subprocess.run([sys.executable, "-c", RESIDENT, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 24 << 10
