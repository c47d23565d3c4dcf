"""Cases about what goes into a module and what comes out of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.cases.hard_cases.case import Case, normal

X = (normal(2, 4),)


class View(nn.Module):
    """Changes the shape only."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Folded(nn.Module):
    """Computes from constants only."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(4.0))

    def forward(self) -> Tensor:
        return self.table * 2.0 + 1.0


class NoNodes(nn.Module):
    """Modules that leave no node, only a view, or only constants behind."""

    def __init__(self) -> None:
        super().__init__()
        self.identity, self.dropout, self.view, self.folded = nn.Identity(), nn.Dropout(), View(), Folded()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.view(self.dropout(self.identity(x)))) + self.folded()


class Passing(nn.Module):
    """Returns its input unchanged beside a result, and the result twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.linear(x)
        return x, y, y


class PassThrough(nn.Module):
    """A function must not hand its own input on as an output: onnxruntime refuses to load it."""

    def __init__(self) -> None:
        super().__init__()
        self.passing = Passing()

    def forward(self, x: Tensor) -> Tensor:
        same, y, again = self.passing(x.relu())
        return same * y + again


class Inner(nn.Module):
    """Hands out a value from its middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.first(x)
        return middle, self.second(middle.relu())


class IntermediateOutput(nn.Module):
    """A value inside a module is an output of the graph as well."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle, y = self.inner(x)
        return y, middle


class Nested(nn.Module):
    """Returns a dict with a tuple and a list in it."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor] | list[Tensor]]:
        a, b = self.a(x), self.b(x)
        return {"z": (b, a), "a": [a * b]}


class NestedOutputs(nn.Module):
    """Two instances with several outputs, used in another order than they are made in."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Nested(), Nested()])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out: dict[str, list[Tensor]] = {}
        for block in self.blocks:
            out = block(x)
            x = out["a"][0] - out["z"][0]
        return {"last": x, "first": out["z"][1]}


class TiedWeights(nn.Module):
    """An embedding and a head with one weight: the initializer's name is not the scope."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids))


class SharedSlots(nn.Module):
    """Two layers in a module: one weight for both in one instance, a weight for each in the other."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        if tied:
            self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class TiedInOne(nn.Module):
    """Weights are counted per place of use, so that the two instances can share one function."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(SharedSlots(tied=True), SharedSlots(tied=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class EqualWeights(nn.Module):
    """Norms whose weights are equal in value: the optimizer keeps one initializer for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4)])
        for norm in self.norms:
            norm.requires_grad_(False)  # keeps `Case.build` from making the weights differ

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.norms:
            x = norm(x).relu()
        return x


class Attention(nn.Module):
    """Uses a table and a mask that others use as well."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(4, 4)

    def forward(self, x: Tensor, cosine: Tensor, mask: Tensor) -> Tensor:
        return (self.query(x) * cosine).masked_fill(mask, -1.0)


class Rotary(nn.Module):
    """A table from positions, computed once."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.linspace(0.1, 1.0, 4))

    def forward(self, positions: Tensor) -> Tensor:
        return torch.cos(positions[:, None] * self.frequencies)


class SharedTable(nn.Module):
    """A rotary table and a mask, computed once, are inputs of every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.rotary = Rotary()
        self.layers = nn.ModuleList([Attention(), Attention()])

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        cosine, mask = self.rotary(positions), x > 1.0
        for layer in self.layers:
            x = layer(x, cosine, mask)
        return x


class MaskMaker(nn.Module):
    """Makes the mask itself, from what all layers get."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(4, 4)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        mask = torch.where(keep, 0.0, -5.0)
        return torch.softmax(self.value(x) + mask, dim=-1)


class MaskPerLayer(nn.Module):
    """The optimizer computes the mask of all layers in the first: it came from there, and it is placed above."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([MaskMaker(), MaskMaker()])

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, keep)
        return x


class Heads(nn.Module):
    """Splits the last axis, with batch and sequence read from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch, sequence, _ = x.shape
        y = self.value(x).view(batch, sequence, 2, 2).transpose(1, 2)
        return x + y.transpose(1, 2).reshape(batch, sequence, 4)


class DynamicShapes(nn.Module):
    """Sizes are read once from the graph's input, and every layer uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Heads(), Heads()])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


CASES = (
    Case(
        "no_nodes",
        NoNodes,
        X,
        # a plain export keeps the dropout as an Identity; Identity and View leave nothing
        plain={"dropout": "Identity", "linear": "Gemm", "folded": "Add Mul", "": "Add"},
        optimised={"linear": "Gemm", "": "Add"},
        functions={"Dropout": 1, "Folded": 1, "Linear": 1},
        optimised_functions={"Linear": 1},
    ),
    Case(
        "pass_through",
        PassThrough,
        X,
        plain={"": "Add Mul Relu", "passing > passing.linear": "Gemm"},
        functions={"Passing": 1, "Linear": 1},
    ),
    Case(
        "intermediate_output",
        IntermediateOutput,
        X,
        plain={"inner > inner.first": "Gemm", "inner": "Relu", "inner > inner.second": "Gemm"},
        functions={"Inner": 1, "Linear": 1},
    ),
    Case(
        "nested_outputs",
        NestedOutputs,
        X,
        plain={
            "blocks.0 > blocks.0.a": "Gemm",
            "blocks.0 > blocks.0.b": "Gemm",
            "blocks.0": "Mul",
            "blocks.1 > blocks.1.a": "Gemm",
            "blocks.1 > blocks.1.b": "Gemm",
            "blocks.1": "Mul",
            "": "Sub*2",
        },
        functions={"Nested": 1, "Linear": 1},
    ),
    Case(
        "tied_weights",
        TiedWeights,
        (torch.tensor([[1, 2, 5], [0, 3, 3]]),),
        plain={"embedding": "Gather", "head": "MatMul Transpose"},
        optimised={"embedding": "Gather", "head": "MatMul"},
        functions={"Embedding": 1, "Linear": 1},
    ),
    Case(
        "tied_in_one",
        TiedInOne,
        X,
        plain={
            "blocks > blocks.0 > blocks.0.first": "Gemm",
            "blocks > blocks.0": "Relu",
            "blocks > blocks.0 > blocks.0.second": "Gemm",
            "blocks > blocks.1 > blocks.1.first": "Gemm",
            "blocks > blocks.1": "Relu",
            "blocks > blocks.1 > blocks.1.second": "Gemm",
        },
        functions={"Sequential": 1, "SharedSlots": 1, "Linear": 1},
    ),
    Case(
        "equal_weights",
        EqualWeights,
        X,
        plain={"norms.0": "LayerNormalization", "norms.1": "LayerNormalization", "": "Relu*2"},
        functions={"LayerNorm": 1},
    ),
    Case(
        "shared_table",
        SharedTable,
        (normal(2, 4), torch.tensor([0.0, 1.0])),
        plain={
            "rotary": "Cos Mul Unsqueeze",
            "": "Greater",
            "layers.0": "CastLike Mul Where",
            "layers.0 > layers.0.query": "Gemm",
            "layers.1": "CastLike Mul Where",
            "layers.1 > layers.1.query": "Gemm",
        },
        optimised={
            "rotary": "Cos Mul Unsqueeze",
            "": "Greater",
            "layers.0": "Mul Where",
            "layers.0 > layers.0.query": "Gemm",
            "layers.1": "Mul Where",
            "layers.1 > layers.1.query": "Gemm",
        },
        functions={"Rotary": 1, "Attention": 1, "Linear": 1},
    ),
    Case(
        "mask_per_layer",
        MaskPerLayer,
        (normal(2, 4), torch.tensor([[True, False, True, True], [True, True, False, False]])),
        plain={
            "layers.0": "Add Softmax Where",
            "layers.0 > layers.0.value": "Gemm",
            "layers.1": "Add Softmax Where",
            "layers.1 > layers.1.value": "Gemm",
        },
        optimised={
            "layers.0": "Add Softmax Where",
            "layers.0 > layers.0.value": "Gemm",
            "layers.1": "Add Softmax",
            "layers.1 > layers.1.value": "Gemm",
        },
        functions={"MaskMaker": 1, "Linear": 1},
    ),
    Case(
        "dynamic_shapes",
        DynamicShapes,
        (normal(2, 3, 4),),
        # sizes of inputs are read before any module runs: torch says so with a placeholder in place of a stack
        plain={
            "": "Shape*2 Squeeze*2",
            "layers.0": "Add Concat*2 Reshape*6 Transpose*2",
            "layers.0 > layers.0.value": "Add MatMul Transpose",
            "layers.1": "Add Concat*2 Reshape*6 Transpose*2",
            "layers.1 > layers.1.value": "Add MatMul Transpose",
        },
        # the optimizer leaves one user of the sizes, the first layer
        optimised={
            "layers.0": "Add Concat*2 Reshape*2 Shape*2",
            "layers.0 > layers.0.value": "Add MatMul",
            "layers.1": "Add Reshape*2",
            "layers.1 > layers.1.value": "Add MatMul",
        },
        functions={"Heads": 1, "Linear": 1},
        dynamic_shapes=({0: "batch", 1: "sequence"},),
    ),
)
