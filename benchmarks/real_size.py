"""What stands around the passes costs on models of real size: export, save, parity, proof, beside other tools.

    python -m benchmarks.real_size                                   # all models and rows: an hour, 16 GB
    python -m benchmarks.real_size --models bert,gpt2 --rows save    # some of them
    python -m benchmarks.real_size --json figures.json

Models are built from configurations with random weights (`benchmarks.real_models`). Each side is measured in a process
of its own: CPU seconds, and the largest memory above that before the measured step. All sides are measured several
times in turn (``--repeat``), and of each the least counts. The rows without a model:

- *pipeline*: `benchmarks.speed`, the pipeline / onnx_ir's load and save at 100,000 nodes, for three exporters;
- *inline*: / onnx.inliner at 10,000 nodes, in a process that has done nothing else; with imports, and without them;
- *resident*: memory after importing, loading and saving a model; beside onnx_ir.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Figures = dict[str, float]

PER_MODEL = ("save", "export", "parity", "proof")
ALONE = ("inline", "resident", "pipeline")
ALL_MODELS = ("gpt2", "bert", "vit", "clip", "t5", "convnext", "resnet50", "qwen", "llama", "experts", "unet")
NODES = 10_000
_MB = 1e6

# --- one side, in a process of its own -------------------------------------------------------------------------------


def _status(key: str) -> int:
    """A size from the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measured(step: Callable[[], Any]) -> Figures:
    """CPU seconds of a step, and its peak of memory above the start in MB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # lets the peak begin at what is resident now
    before, started = _status("VmRSS"), _cpu()
    step()
    return {"s": _cpu() - started, "MB": (_status("VmHWM") - before) / _MB}


def _built(name: str) -> tuple[Any, dict[str, Any]]:
    from benchmarks.real_models import MODELS

    return MODELS[name].build()


def _torch_program(name: str) -> Any:
    import torch

    model, inputs = _built(name)
    return torch.onnx.export(model, kwargs=inputs, dynamo=True, optimize=False, verbose=False)


def export_ours(name: str, _: Path) -> Figures:
    """``mx.export``."""
    import modelexport_passes as mx

    model, inputs = _built(name)
    export = mx.export
    return measured(lambda: export(model, kwargs=inputs))


def export_torch(name: str, _: Path) -> Figures:
    """``torch.onnx.export`` with the same options."""
    import torch

    model, inputs = _built(name)
    export = torch.onnx.export
    return measured(lambda: export(model, kwargs=inputs, dynamo=True, optimize=False, verbose=False))


def save_ours(name: str, folder: Path) -> Figures:
    """``mx.save`` of a model just exported."""
    import modelexport_passes as mx

    module, inputs = _built(name)
    model, save = mx.export(module, kwargs=inputs), mx.save
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    return measured(lambda: save(model, folder / "ours.onnx")) | {"weights": weights / _MB}


def save_torch(name: str, folder: Path) -> Figures:
    """``ONNXProgram.save`` of a model just exported."""
    program = _torch_program(name)
    return measured(lambda: program.save(folder / "theirs.onnx"))


def write_input(name: str, folder: Path) -> Figures:
    """The file that parity starts from, weights outside of it, and inputs."""
    import numpy as np

    program, (_, inputs) = _torch_program(name), _built(name)
    np.savez(folder / "inputs.npz", **{key: tensor.numpy() for key, tensor in inputs.items()})
    program.save(folder / "input.onnx", external_data=True)
    return {}


def run_alone(_: str, folder: Path) -> Figures:
    """One run of that file by onnxruntime, which parity cannot do without."""
    import numpy as np

    import modelexport_passes as mx
    from modelexport_passes.validation.session import open_session, run_session

    model, given = mx.load(folder / "input.onnx"), dict(np.load(folder / "inputs.npz"))
    inputs = {str(value.name): given[str(value.name)] for value in model.graph.inputs}
    return measured(lambda: run_session(open_session(model), inputs))


def parity(_: str, folder: Path) -> Figures:
    """The outlined model against the input it was made from."""
    import modelexport_passes as mx
    from modelexport_passes.validation.parity import compare_models

    model, reference = mx.load(folder / "input.onnx"), mx.load(folder / "input.onnx")
    for step in (mx.RecoverScopes(), mx.InjectTags(), mx.Outline()):
        step(model)
    found: list[Any] = []
    figures = measured(lambda: found.append(compare_models(model, reference)))
    if not found[0].bit_equal:
        raise SystemExit("parity: the outputs are not bit-equal")
    return figures


def proof(name: str, _: Path) -> Figures:
    """The proof of all module calls of a model just exported."""
    import modelexport_passes as mx

    module, inputs = _built(name)
    model = mx.export(module, kwargs=inputs)
    check = mx.Validate(checker=False, hierarchy=False, modules=True)
    return measured(lambda: check(model))


def write_deep(_: str, folder: Path) -> Figures:
    """The flat and the outlined file of 10,000 nodes."""
    import onnx

    import modelexport_passes as mx
    from benchmarks.deep_model import deepened, exported_llama

    onnx.save(deepened(exported_llama(), NODES), folder / "flat.onnx")
    model = mx.load(folder / "flat.onnx")
    for step in (mx.RecoverScopes(), mx.InjectTags(), mx.Outline(modules="all")):
        step(model)
    mx.save(model, folder / "outlined.onnx")
    return {}


def inline_ours(_: str, folder: Path) -> Figures:
    """Load, inline, save."""
    started = _cpu()
    import modelexport_passes as mx

    load, inline, save = mx.load, mx.Inline(), mx.save  # imported when they are asked for
    imports = _cpu() - started

    def step() -> None:
        model = load(folder / "outlined.onnx")
        inline(model)
        save(model, folder / "again.onnx")

    return _with_imports(measured(step), imports)


def inline_onnx(_: str, folder: Path) -> Figures:
    """The same with ``onnx.inliner``."""
    started = _cpu()
    import onnx
    import onnx.inliner

    imports = _cpu() - started

    def step() -> None:
        model = onnx.inliner.inline_local_functions(onnx.load(folder / "outlined.onnx"))
        onnx.save(model, folder / "again.onnx")

    return _with_imports(measured(step), imports)


def _with_imports(figures: Figures, imports: float) -> Figures:
    return figures | {"with imports": figures["s"] + imports}


def resident_ours(_: str, folder: Path) -> Figures:
    """Memory that is held after importing, loading and saving."""
    import modelexport_passes as mx

    model = mx.load(folder / "flat.onnx")
    mx.save(model, folder / "again.onnx")
    return {"MB": _status("VmRSS") / _MB}


def resident_onnx_ir(_: str, folder: Path) -> Figures:
    """The same with onnx_ir."""
    import onnx_ir as ir

    model = ir.load(folder / "flat.onnx")
    ir.save(model, folder / "again.onnx")
    return {"MB": _status("VmRSS") / _MB}


SIDES: dict[str, Callable[[str, Path], Figures]] = {
    side.__name__: side
    for side in (
        export_ours, export_torch, save_ours, save_torch, write_input, run_alone, parity, proof,
        write_deep, inline_ours, inline_onnx, resident_ours, resident_onnx_ir,
    )
}  # fmt: skip

# --- all sides -------------------------------------------------------------------------------------------------------


def in_process(side: str, model: str, folder: Path) -> Figures:
    """The figures of one side.

    Raises:
        RuntimeError: it failed, with its last line.
    """
    command = [sys.executable, "-m", "benchmarks.real_size", "--side", side, "--models", model, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"{side} {model}: {(done.stderr.splitlines() or [f'status {done.returncode}'])[-1]}")
    return json.loads(lines[-1])


def least(sides: tuple[str, ...], model: str, folder: Path, repeat: int) -> dict[str, Figures]:
    """The least of each figure of each side, which take turns."""
    runs = [{side: in_process(side, model, folder) for side in sides} for _ in range(repeat)]
    return {side: {key: min(run[side][key] for run in runs) for key in runs[0][side]} for side in sides}


Row = tuple[str, float, float]
"""What is compared, what was measured, the goal."""

_NEEDED = {
    "save": ("save_ours", "save_torch"),
    "export": ("export_ours", "export_torch"),
    "parity": ("parity", "run_alone", "save_ours", "export_ours"),
    "proof": ("proof", "export_ours"),
}


def of_model(name: str, rows: list[str], folder: Path, repeat: int) -> tuple[dict[str, Figures], list[Row]]:
    """Figures and rows of one model."""
    if "parity" in rows:
        in_process("write_input", name, folder)
    found = least(tuple(dict.fromkeys(side for row in rows for side in _NEEDED[row])), name, folder, repeat)
    made: list[Row] = []
    if "save" in rows:
        made += [
            ("mx.save / ONNXProgram.save", found["save_ours"]["s"] / found["save_torch"]["s"], 1.0),
            ("memory of mx.save / weights", found["save_ours"]["MB"] / found["save_ours"]["weights"], 0.1),
        ]
    if "export" in rows:
        made.append(("mx.export / torch.onnx.export", found["export_ours"]["s"] / found["export_torch"]["s"], 1.05))
    if "parity" in rows:
        made += [
            ("parity: peak / weights", found["parity"]["MB"] / found["save_ours"]["weights"], 1.3),
            ("parity: peak / that of one run by onnxruntime", found["parity"]["MB"] / found["run_alone"]["MB"], 1.1),
            ("parity: CPU / export", found["parity"]["s"] / found["export_ours"]["s"], 0.5),
        ]
    if "proof" in rows:
        made.append(("proof of all module calls / export", found["proof"]["s"] / found["export_ours"]["s"], 1.0))
    return found, made


def alone(row: str, folder: Path, repeat: int) -> tuple[dict[str, Figures], list[Row]]:
    """Figures and rows that are of no model of real size."""
    if row == "pipeline":
        made: list[Row] = []
        for kind, goal in (("dynamo", 0.5), ("dynamo-optimized", 0.6), ("torchscript", 0.9)):
            target = folder / f"{kind}.json"
            command = [sys.executable, "-m", "benchmarks.speed", "--nodes", "100000", "--kind", kind]
            command += ["--repeat", str(repeat), "--json", str(target)]
            subprocess.run(command, check=True, capture_output=True)
            times = json.loads(target.read_text())["100000"]
            made.append((f"pipeline / onnx_ir, {kind}", times["pipeline"]["all"] / times["onnx_ir"]["all"], goal))
        return {}, made
    in_process("write_deep", "", folder)
    if row == "inline":
        found = least(("inline_ours", "inline_onnx"), "", folder, repeat)
        ours, theirs = found["inline_ours"], found["inline_onnx"]
        return found, [
            ("inline / onnx.inliner", ours["s"] / theirs["s"], 1.0),
            ("inline / onnx.inliner, with imports", ours["with imports"] / theirs["with imports"], 1.0),
        ]
    found = least(("resident_ours", "resident_onnx_ir"), "", folder, repeat)
    ratio = found["resident_ours"]["MB"] / found["resident_onnx_ir"]["MB"]
    return found, [("resident after import, load, save / onnx_ir", ratio, 1.1)]


def chosen(text: str, known: tuple[str, ...], what: str) -> list[str]:
    """The names of an option.

    Raises:
        SystemExit: one is not known.
    """
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return names or list(known)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help=f"only these, separated by commas: {', '.join(ALL_MODELS)}")
    parser.add_argument("--rows", default="", help=f"only these: {', '.join(PER_MODEL + ALONE)}")
    parser.add_argument("--repeat", type=int, default=3, help="how often each side is measured")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options.models, options.folder)))
        return
    rows = chosen(options.rows, PER_MODEL + ALONE, "row")
    tasks: list[tuple[str, Callable[[Path], tuple[dict[str, Figures], list[Row]]]]] = []
    per_model = [row for row in rows if row in PER_MODEL]
    if per_model:
        tasks += [
            (name, lambda folder, name=name: of_model(name, per_model, folder, options.repeat))
            for name in chosen(options.models, ALL_MODELS, "model")
        ]
    tasks += [(row, lambda folder, row=row: alone(row, folder, options.repeat)) for row in rows if row in ALONE]
    figures: dict[str, Any] = {}
    print("| | what | measured | goal |\n|---|---|--:|--:|", flush=True)
    for name, task in tasks:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found, made = task(Path(folder))
            except RuntimeError as error:
                found, made = {"error": str(error)}, []
                print(f"| {name} | {error} | | |", flush=True)
        figures[name] = {"figures": found, "rows": made}
        for what, value, goal in made:
            print(f"| {name} | {what} | {value:.2f} | {goal:g} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
