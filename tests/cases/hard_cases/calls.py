"""Cases about which call of which module an operation belongs to."""

from __future__ import annotations

from torch import Tensor, nn

from tests.cases.hard_cases.case import Case, normal

X = (normal(2, 4),)


class CalledTwice(nn.Module):
    """One linear layer, called twice: two regions with one path."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.linear(x).relu())


class Block(nn.Module):
    """A block with a child and an operation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x)


class BackToBack(nn.Module):
    """One block three times in a row, no operation between the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(self.block(x)))


class TwoModes(nn.Module):
    """An autoencoder that does one half per call."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 3)
        self.decoder = nn.Linear(3, 4)

    def forward(self, x: Tensor, decode: bool) -> Tensor:
        return self.decoder(x) if decode else self.encoder(x)


class TwoParts(nn.Module):
    """A sibling runs between two calls of one module: all nodes of the path together are not convex."""

    def __init__(self) -> None:
        super().__init__()
        self.auto = TwoModes()
        self.middle = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.auto(self.middle(self.auto(x, False)), True)


class UncalledParent(nn.Module):
    """The children of ``auto`` are called, ``auto`` is not, and a sibling runs between them."""

    def __init__(self) -> None:
        super().__init__()
        self.auto = TwoModes()
        self.middle = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.auto.decoder(self.middle(self.auto.encoder(x)))


class Caller(nn.Module):
    """Calls a module that it was handed."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Linear(4, 4)

    def forward(self, x: Tensor, other: nn.Module) -> Tensor:
        return other(self.own(x)) + 1.0


class SiblingInside(nn.Module):
    """``helper`` runs inside ``caller``, and once by itself: who called is in the stack, not in the path."""

    def __init__(self) -> None:
        super().__init__()
        self.caller = Caller()
        self.helper = Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.helper(self.caller(x, self.helper))


class Alias(nn.Module):
    """One instance under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class Containers(nn.Module):
    """A list and a dict never run; a called sequence does. Numbers and words as attribute names."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 2)})
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            x = layer(x)
        x = self.net(x)
        return self.heads["a"](x), self.heads["b"](x)


class LikeACall(nn.Module):
    """An attribute whose name looks like the second call of its neighbour."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.linear_1 = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.linear_1(self.linear(x)))


CASES = (
    Case(
        "called_twice",
        CalledTwice,
        X,
        plain={"linear": "Gemm", "": "Relu", "linear@1": "Gemm"},
        functions={"Linear": 1},
    ),
    Case(
        "back_to_back",
        BackToBack,
        X,
        plain={
            "block": "Add",
            "block > block.linear": "Gemm",
            "block@1": "Add",
            "block@1 > block.linear@1": "Gemm",
            "block@2": "Add",
            "block@2 > block.linear@2": "Gemm",
        },
        functions={"Block": 1, "Linear": 1},
    ),
    Case(
        "two_parts",
        TwoParts,
        X,
        plain={"auto > auto.encoder": "Gemm", "middle": "Gemm", "auto@1 > auto.decoder": "Gemm"},
        # the bodies are equal; that one call runs the encoder and the other the decoder is kept beside the body
        functions={"TwoModes": 1, "Linear": 1},
    ),
    Case(
        "uncalled_parent",
        UncalledParent,
        X,
        plain={"auto.encoder": "Gemm", "middle": "Gemm", "auto.decoder": "Gemm"},
        functions={"Linear": 1},
    ),
    Case(
        "sibling_inside",
        SiblingInside,
        X,
        plain={
            "caller": "Add",
            "caller > caller.own": "Gemm",
            "caller > helper": "Add",
            "caller > helper > helper.linear": "Gemm",
            "helper@1": "Add",
            "helper@1 > helper.linear@1": "Gemm",
        },
        functions={"Caller": 1, "Block": 1, "Linear": 1},
    ),
    Case(
        "alias",
        Alias,
        X,
        # torch numbers calls per name, not per instance
        plain={"first": "Gemm", "": "Relu", "second": "Gemm"},
        functions={"Linear": 1},
    ),
    Case(
        "containers",
        Containers,
        X,
        plain={
            "layers.0": "Gemm",
            "layers.1": "Gemm",
            "net > net.0": "Gemm",
            "net > net.1 > net.1.0": "Relu",
            "net > net.1 > net.1.1": "Gemm",
            "heads.a": "Gemm",
            "heads.b": "Gemm",
        },
        functions={"Linear": 1, "ReLU": 1, "Sequential": 2},
    ),
    Case(
        "like_a_call",
        LikeACall,
        X,
        plain={"linear": "Gemm", "linear_1": "Gemm", "linear@1": "Gemm"},
        functions={"Linear": 1},
    ),
)
