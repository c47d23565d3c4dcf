"""How much smaller the graph of a deep model gets when its layers share one function.

    python -m benchmarks.shrinking             # 8 and 32 layers, some minutes: the exporter is what takes them
    python -m benchmarks.shrinking 8 32 80

The model is a Llama of tiny width; the graph without its weights has the size that one of any width has.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import transformers

import modelexport_passes as mx
from benchmarks.sharing import graph_bytes


def measure(layers: int) -> tuple[int, int, int]:
    """Bytes of the graph without weights: as exported, with ``modules: all`` and with ``modules: auto``."""
    options: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": layers,
        "vocab_size": 32,
        "use_cache": False,
        "attn_implementation": "eager",
    }
    config = transformers.LlamaConfig(**options)
    model = transformers.LlamaModel(config).eval()
    exported = mx.export(model, kwargs={"input_ids": torch.ones(1, 8, dtype=torch.long)})
    sizes = [graph_bytes(exported)]
    for modules in ("all", "auto"):
        outlined = exported.clone()
        mx.Outline(modules=modules)(outlined)
        sizes.append(graph_bytes(outlined))
    return sizes[0], sizes[1], sizes[2]


def main() -> None:
    """Print a line for each depth."""
    print("| layers | exported, kB | all modules | outermost blocks |\n|--:|--:|--:|--:|")
    for layers in [int(argument) for argument in sys.argv[1:]] or [8, 32]:
        plain, everything, blocks = measure(layers)
        print(f"| {layers} | {plain / 1e3:.0f} | 1/{plain / everything:.2f} | 1/{plain / blocks:.2f} |", flush=True)


if __name__ == "__main__":
    main()
