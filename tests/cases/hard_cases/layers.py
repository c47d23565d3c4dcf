"""Cases from torch's own layers, and control flow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.cases.hard_cases.case import Case, normal

X = (normal(2, 4),)
LIST = "parametrizations.weight"


class SelfAttention(nn.Module):
    """``out_proj`` of torch's attention is never called: its operation belongs to the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        # with weights: the path without them is one fused operation
        return self.attention(x, x, x, need_weights=True)[0]


class Parametrised(nn.Module):
    """A weight that is computed at each call adds modules inside the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([parametrizations.weight_norm(nn.Linear(4, 4)) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Recurrent(nn.Module):
    """Optional inputs in the middle are left empty and keep their place."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.gru = nn.GRU(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.lstm(x)[0])[0]


class ConvNorm(nn.Module):
    """A convolution and its norm, twice: the optimizer makes one operation of each pair."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(2)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(3) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)).relu()
        return x


class Branch(nn.Module):
    """Chooses at run time; both branches read values from around them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return torch.cond(x.sum() > 0, lambda a, b: a * b, lambda a, b: a - b, (x, y))


class Conditional(nn.Module):
    """Two modules with an ``If`` in each."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([Branch(), Branch()])

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.branches:
            x = branch(x)
        return x


class Step(nn.Module):
    """Runs a cumulative product and adds a linear layer's result."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        from torch._higher_order_ops.scan import scan

        def combine(carry: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
            following = carry * 0.5 + row
            return following, following + 0.0

        _, rows = scan(combine, torch.zeros(4), self.linear(x))
        return rows


class Scanned(nn.Module):
    """A ``Scan`` inside a module."""

    def __init__(self) -> None:
        super().__init__()
        self.step = Step()

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x).relu()


class Repeat(nn.Module):
    """Doubles until large."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        from torch._higher_order_ops.while_loop import while_loop

        y = self.linear(x)
        _, result = while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, v * 2.0 + 1.0), (torch.tensor(0), y))
        return result


class Looped(nn.Module):
    """A ``Loop`` inside a module."""

    def __init__(self) -> None:
        super().__init__()
        self.repeat = Repeat()

    def forward(self, x: Tensor) -> Tensor:
        return self.repeat(x).relu()


class Region(nn.Module):
    """A block that is compiled once for all its instances."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    @torch.compiler.nested_compile_region
    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x + self.linear(x)


class CompiledRegions(nn.Module):
    """The exporter traces the first block and uses it for the others, which have weights of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Region() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x.relu()


NO_MODULES_IN_REGIONS = "torch records no module inside a compiled region, and the owner of a weight is not asked yet"

CASES = (
    Case(
        "compiled_regions",
        CompiledRegions,
        X,
        plain={
            "blocks.0": "Add",
            "blocks.0 > blocks.0.linear": "Gemm",
            "blocks.1": "Add",
            "blocks.1 > blocks.1.linear": "Gemm",
            "blocks.2": "Add",
            "blocks.2 > blocks.2.linear": "Gemm",
            "": "Relu",
        },
        functions={"Region": 1, "Linear": 1},
        xfail={"scopes": NO_MODULES_IN_REGIONS, "functions": NO_MODULES_IN_REGIONS},
    ),
    Case(
        "self_attention",
        SelfAttention,
        (normal(2, 3, 4),),
        plain={
            "attention": "Add Concat*6 Gather*3 Gemm Identity*2 MatMul*3 Mul Reshape*6 Softmax Squeeze Transpose*9 "
            "Unsqueeze"
        },
        optimised={
            "attention": "Add Gather*3 Gemm MatMul*3 Mul Reshape*6 Softmax Squeeze Transpose*7 Unsqueeze",
        },
        functions={"MultiheadAttention": 1},
    ),
    Case(
        "parametrised",
        Parametrised,
        X,
        plain={
            "layers.0": "Gemm",
            f"layers.0 > layers.0.{LIST} > layers.0.{LIST}.0": "Div Mul ReduceL2 Reshape",
            "layers.1": "Gemm",
            f"layers.1 > layers.1.{LIST} > layers.1.{LIST}.0": "Div Mul ReduceL2 Reshape",
        },
        optimised={"layers.0": "Gemm", "layers.1": "Gemm"},
        functions={"ParametrizedLinear": 1, "ParametrizationList": 1, "_WeightNorm": 1},
        optimised_functions={"ParametrizedLinear": 1},
    ),
    Case(
        "recurrent",
        Recurrent,
        (normal(2, 3, 4),),
        # the exporter writes the reordering of gates as arithmetic on weights; constants of the first serve both
        plain={
            "lstm": "Concat*8 Expand*2 LSTM Mul*21 Reshape*2 Shape*2 Slice*22 Transpose*3 Unsqueeze*3",
            "gru": "Concat*7 Expand GRU Mul*13 Reshape*2 Shape*2 Slice*17 Transpose*3 Unsqueeze*3",
        },
        optimised={"lstm": "LSTM Reshape Transpose*2", "gru": "GRU Reshape Transpose*2"},
        functions={"LSTM": 1, "GRU": 1},
    ),
    Case(
        "conv_norm",
        ConvNorm,
        (normal(1, 3, 6, 6),),
        plain={
            "convs.0": "CastLike Conv Expand*2 Shape",
            "norms.0": "BatchNormalization",
            "convs.1": "CastLike Conv Expand*2 Shape",
            "norms.1": "BatchNormalization",
            "": "Relu*2",
        },
        # the fused operation carries the norm's metadata; the owner of its kernel is the convolution
        optimised={"convs.0": "Conv", "convs.1": "Conv", "": "Relu*2"},
        functions={"Conv2d": 1, "BatchNorm2d": 1},
        optimised_functions={"Conv2d": 1},
    ),
    Case(
        "conditional",
        Conditional,
        X,
        plain={
            "branches.0": "Cast Greater If Mul ReduceSum Sub",
            "branches.0 > branches.0.linear": "Gemm",
            "branches.1": "Cast Greater If Mul ReduceSum Sub",
            "branches.1 > branches.1.linear": "Gemm",
        },
        optimised={
            "branches.0": "Greater If Mul ReduceSum Sub",
            "branches.0 > branches.0.linear": "Gemm",
            "branches.1": "Greater If Mul ReduceSum Sub",
            "branches.1 > branches.1.linear": "Gemm",
        },
        functions={"Branch": 1, "Linear": 1},
    ),
    Case(
        "scanned",
        Scanned,
        X,
        plain={"step": "Add*2 Concat Expand Mul Scan", "step > step.linear": "Gemm", "": "Relu"},
        optimised={"step": "Add Identity Mul Scan", "step > step.linear": "Gemm", "": "Relu"},
        functions={"Step": 1, "Linear": 1},
    ),
    Case(
        "looped",
        Looped,
        X,
        plain={"repeat": "Add*2 Identity Less*2 Loop Mul", "repeat > repeat.linear": "Gemm", "": "Relu"},
        optimised={"repeat": "Add*2 Less Loop Mul", "repeat > repeat.linear": "Gemm", "": "Relu"},
        functions={"Repeat": 1, "Linear": 1},
    ),
)
