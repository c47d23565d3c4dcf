"""What a hard case is, and the text in which its expected scopes are written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Calls = Mapping[str, str]
"""Chain of module calls below the root (``block@1 > block.linear@1``; ``""`` is the root) -> operations made there.

The operations of one call are op types in sorted order, ``*n`` behind those that occur n times. `Constant` is left
out: where a constant belongs follows from its users.
"""


@dataclass(frozen=True)
class Case:
    """A tiny module in which one thing goes wrong when it is not handled.

    Attributes:
        name: unique; the tests' id.
        module: makes the module; called under a fixed seed.
        args: its example inputs.
        plain: the expected scopes of a plain export.
        optimised: the expected scopes of an export with the exporter's optimizer; None where they are as in `plain`.
        functions: class name -> how many functions `outline` makes of it, for every class that gets one.
        optimised_functions: the same for the optimised export; None where they are as in `functions`.
        dynamic_shapes: as for ``torch.export``.
        kwargs: its named example inputs.
        xfail: check -> why it cannot pass yet: a test's name, or that name and `` optimised`` or `` plain``.
    """

    name: str
    module: Callable[[], nn.Module]
    args: tuple[Tensor, ...]
    plain: Calls
    optimised: Calls | None = None
    functions: Mapping[str, int] = field(default_factory=dict[str, int])
    optimised_functions: Mapping[str, int] | None = None
    dynamic_shapes: Any = None
    kwargs: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    xfail: Mapping[str, str] = field(default_factory=dict[str, str])

    def expected(self, *, optimised: bool) -> Calls:
        """The scopes that an export shall have."""
        return self.optimised if optimised and self.optimised is not None else self.plain

    def expected_functions(self, *, optimised: bool) -> Mapping[str, int]:
        """The functions that outlining all modules shall make."""
        return self.optimised_functions if optimised and self.optimised_functions is not None else self.functions

    def build(self) -> nn.Module:
        """The module in eval mode, the same weights each time, no two trainable ones equal."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = self.module().eval()
            with torch.no_grad():
                for parameter in filter(lambda parameter: parameter.requires_grad, module.parameters()):
                    parameter.add_(0.1 * torch.randn(parameter.shape))
        return module


def normal(*shape: int) -> Tensor:
    """An input tensor, the same for the same shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
