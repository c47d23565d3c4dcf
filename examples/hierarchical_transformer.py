"""A small transformer whose modules are worth keeping: blocks, attention heads and feed-forwards below a root.

``factory`` is what ``pipeline.yaml`` exports. Run this file to see the module tree and one forward pass::

    python examples/hierarchical_transformer.py
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class AttentionHead(nn.Module):
    """Single-head self-attention with its own projections."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.scale = 1.0 / math.sqrt(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, sequence, hidden]`` to the same shape."""
        scores = self.query(x) @ self.key(x).transpose(-2, -1) * self.scale
        return torch.softmax(scores, dim=-1) @ self.value(x)


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(hidden, inner)
        self.activation = nn.ReLU()
        self.linear2 = nn.Linear(inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, sequence, hidden]`` to the same shape."""
        return self.linear2(self.activation(self.linear1(x)))


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each with a residual connection and a norm."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.attention = AttentionHead(hidden)
        self.norm1 = nn.LayerNorm(hidden)
        self.feed_forward = FeedForward(hidden, inner)
        self.norm2 = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, sequence, hidden]`` to the same shape."""
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed_forward(x))


class TestTransformer(nn.Module):
    """Embedding, blocks, mean pooling over the sequence, and a classifier."""

    __test__ = False  # the name starts like a pytest class

    def __init__(self, vocabulary: int = 100, hidden: int = 32, layers: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(TransformerBlock(hidden, 4 * hidden) for _ in range(layers))
        self.output = nn.Linear(hidden, classes)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Token ids ``[batch, sequence]`` to logits ``[batch, classes]``."""
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.output(x.mean(dim=1))


def factory(layers: int = 2, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model in eval mode, the same weights for the same seed, and its example inputs."""
    generator = torch.Generator().manual_seed(seed)
    model = TestTransformer(layers=layers).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 1.0 if name.startswith("embedding") else parameter.shape[-1] ** -0.5
            centre = 1.0 if ".norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))
    return model, (torch.randint(0, 100, (2, 8), generator=generator),)


if __name__ == "__main__":
    transformer, inputs = factory()
    print(transformer)
    print(transformer(*inputs))
