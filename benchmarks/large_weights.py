"""Memory and disk that weights outside of the file cost: load, outline and save a model with gigabytes of them.

    python -m benchmarks.large_weights            # 4 GB
    python -m benchmarks.large_weights --gb 16

The data file is a hole as large as asked for, so it takes no disk; a pass that read it would show as memory all the
same. Printed is the largest memory of the process beside that with the same graph and tiny weights, and what was
written beside the input.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

import onnx

import modelexport_passes as mx
from benchmarks.apart import apart
from benchmarks.deep_model import deepened, exported_llama

NODES = 5_000
_TABLE = "embed_tokens.weight"


def with_large_table(proto: onnx.ModelProto, gigabytes: float, folder: Path) -> None:
    """Let the table of embeddings have so much data, outside of the file."""
    (table,) = [tensor for tensor in proto.graph.initializer if tensor.name == _TABLE]
    width = table.dims[1]
    rows = int(gigabytes * (1 << 30)) // (4 * width)
    with (folder / "weights").open("wb") as file:
        file.truncate(rows * width * 4)
    table.Clear()
    table.name, table.data_type = _TABLE, onnx.TensorProto.FLOAT
    table.dims.extend([rows, width])
    table.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "weights"), ("offset", "0"), ("length", str(rows * width * 4))):
        table.external_data.add(key=key, value=value)
    for info in proto.graph.value_info:
        if info.name == _TABLE:
            info.type.tensor_type.shape.dim[0].dim_value = rows


def outlined(source: Path, target: Path) -> int:
    """Outline from file to file; the most memory that the process had, in bytes."""
    model = mx.load(source)
    for step in (mx.RecoverScopes(), mx.InjectTags(), mx.Outline(), mx.Validate()):
        step(model)
    mx.save(model, target)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=4.0, help="size of the weights")
    options = parser.parse_args()
    _ = (mx.load, mx.save, mx.RecoverScopes, mx.InjectTags, mx.Outline, mx.Validate)
    peaks: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for gigabytes in (0.0001, options.gb):
            proto = deepened(exported_llama(), NODES)
            with_large_table(proto, gigabytes, folder)
            onnx.save_model(proto, folder / "model.onnx")
            del proto
            peaks.append(apart(lambda: outlined(folder / "model.onnx", folder / "outlined.onnx"), 600))
        written = sorted(path.name for path in folder.iterdir())
    print(
        f"{options.gb:g} GB of weights: {(peaks[1] - peaks[0]) / 1e6:.1f} MB more memory; files: {', '.join(written)}"
    )


if __name__ == "__main__":
    main()
