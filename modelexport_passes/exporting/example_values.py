"""What data decide, taken from the example: branches by truths, numbers read from tensors, sizes that depend on values.

``torch.export`` stops where Python asks a tensor for its value (``if mask.any()``, ``lengths.tolist()``), and where it
must know a size that depends on values. A trace goes on with the example's answer. So does this: the model is run once,
what it asks is noted by line of code, and while it is captured the same lines get the same answers. A size is told only
where the capture cannot go on without it; elsewhere it stays what the data make it.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from modelexport_passes.errors import ModelExportError

_Place: TypeAlias = tuple[str, int]
"""File and line of the code that calls torch."""

_TORCH = str(Path(torch.__file__).parent)

_READ = frozenset({"__complex__", "__float__", "__format__", "__index__", "__int__", "item", "tolist"})
"""Methods of a tensor whose result is what the tensor holds, be it as text."""

_JUDGED = frozenset({"__bool__", "__contains__", "allclose", "equal", "is_nonzero"})
"""Functions whose result is a truth about what tensors hold."""

_CONTENT = frozenset({"__getitem__", "__setitem__", "as_tensor", "asarray", "tensor"})
"""Functions to which numbers and tensors in one list are positions or elements, not sizes."""

_SHOWN = 4
"""Places named in a note."""


@dataclass
class Answers:
    """What one run of a model was told about its data.

    Attributes:
        values: what was asked of tensors, in order, by place; the numbers of a list one by one.
        sizes: the shapes of the tensors that functions gave, in order, by place and function.
    """

    values: dict[_Place, list[Any]] = field(default_factory=lambda: defaultdict(list))
    sizes: dict[tuple[_Place, str], list[list[tuple[int, ...]]]] = field(default_factory=lambda: defaultdict(list))

    def note(self) -> str:
        """Where the graph holds the example's answers, in a line."""
        asked = f"; values were asked for in {shown_places(self.values)}" if self.values else ""
        return f"the branches of the example are the graph's{asked}"


def shown_places(found: Collection[_Place]) -> str:
    """Some of these places, and how many more there are."""
    places = [f"{Path(file).name}:{line}" for file, line in found]
    return ", ".join(places[:_SHOWN]) + (f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else "")


def answers_of(run: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Answers:
    """Run and note."""
    noted = Answers()
    copied, named = pytree.tree_map_only(torch.Tensor, torch.clone, (args, dict(kwargs)))
    with torch.no_grad(), _Noting(noted):
        run(*copied, **named)
    return noted


@contextmanager
def answered(model: torch.nn.Module, answers: Answers) -> Generator[None]:
    """Give these answers to whatever the model asks in its forward.

    Raises:
        ModelExportError: the model asks less or more often than when the answers were noted.
    """
    before = vars(model).get("forward")
    forward = model.forward

    @functools.wraps(forward)
    def asking(*args: Any, **kwargs: Any) -> Any:
        mode = _Answering(answers)
        with mode:
            result = forward(*args, **kwargs)
        mode.check_all_asked()
        return result

    model.forward = asking
    try:
        yield
    finally:
        if before is None:
            del model.forward
        else:
            model.forward = before


class _Noting(TorchFunctionMode):
    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, place = _name(func), _place(inspect.currentframe())
        args = _with_sizes_read(name, args, functools.partial(self._note_size, place))
        result = func(*args, **(kwargs or {}))
        if name in _READ or name in _JUDGED:
            self._answers.values[place] += pytree.tree_leaves(result)
        else:
            self._answers.sizes[place, name].append([tuple(tensor.shape) for tensor in _tensors(result)])
        return result

    def _note_size(self, place: _Place, size: torch.Tensor) -> Any:
        self._answers.values[place].append(size.item())
        return size


class _Answering(TorchFunctionMode):
    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers
        self._asked: Counter[_Place] = Counter()
        self._called: Counter[tuple[_Place, str]] = Counter()

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, place = _name(func), _place(inspect.currentframe())
        # What is asked nowhere in a run is asked by what captures, or on a way that is taken while capturing only.
        if (name in _READ or name in _JUDGED) and place in self._answers.values:
            return self._answer(place, [int(size) for size in args[0].shape] if name == "tolist" else [])
        if place in self._answers.values:
            args = _with_sizes_read(name, args, lambda _: self._answer(place, []))
        if func is torch.tensor and _tensors(args[0]):
            # Its kernel reads the numbers. As values of the graph they stay what the data make them.
            return _stacked(args[0]).to(**{name: kind for name, kind in (kwargs or {}).items() if name == "dtype"})
        result = func(*args, **(kwargs or {}))
        number = self._called[place, name]
        self._called[place, name] += 1
        sizes = self._answers.sizes.get((place, name), [])
        if number < len(sizes):
            for tensor, shape in zip(_tensors(result), sizes[number], strict=False):
                _tell_sizes(tensor, shape)
        return result

    def _answer(self, place: _Place, shape: list[int]) -> Any:
        """The next value, or the next ones as a list of this shape."""
        if shape:
            return [self._answer(place, shape[1:]) for _ in range(shape[0])]
        number = self._asked[place]
        self._asked[place] += 1
        values = self._answers.values[place]
        if number >= len(values):
            raise ModelExportError(f"example's answers: {_text(place)} asks more often than in a run")
        return values[number]

    def check_all_asked(self) -> None:
        """Refuse answers given in another order: then they would be answers to other questions."""
        for place, values in self._answers.values.items():
            if self._asked[place] not in (0, len(values)):
                raise ModelExportError(f"example's answers: {_text(place)} asks less often than in a run")


def _tell_sizes(tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Let torch's symbols for sizes that depend on values be known to be these, where it must know them."""
    if tensor.dim() != len(shape):
        return
    for size, known in zip(tensor.shape, shape, strict=True):
        if not isinstance(size, torch.SymInt):
            continue
        node = cast("Any", size).node
        symbols, symbol = node.shape_env, node.expr
        if symbol.is_symbol and symbols.is_unbacked_symint(symbol):
            symbols.set_real_tensor_prop_unbacked_vals(symbol, known)


def _with_sizes_read(name: str, args: tuple[Any, ...], read: Callable[[torch.Tensor], Any]) -> tuple[Any, ...]:
    """The arguments, with what ``read`` gives for each tensor that torch reads as a size.

    Such a tensor stands in a list of sizes, as ``pad(x, (2, missing))`` has one.
    """
    return tuple(
        [read(item) if _is_size(item) else item for item in cast("list[Any]", arg)] if _are_sizes(name, arg) else arg
        for arg in args
    )


def _are_sizes(name: str, arg: Any) -> bool:
    if not isinstance(arg, list | tuple) or name in _CONTENT:
        return False
    return name == "pad" or any(isinstance(item, int | torch.SymInt) for item in cast("list[Any]", arg))


def _is_size(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.ndim == 0 and not item.is_floating_point()


def _stacked(data: Any) -> torch.Tensor:
    """Numbers and tensors without axes, in nested lists, as one tensor."""
    if isinstance(data, list | tuple):
        return torch.stack([_stacked(item) for item in cast("list[Any]", data)])
    return torch.as_tensor(data)


def _place(frame: Any) -> _Place:
    """Where torch is called: some of its functions ask in turn, and not the same ones in a run and in a capture."""
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_TORCH, __file__)):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", func))


def _text(place: _Place) -> str:
    return f"{place[0]}:{place[1]}"


def _tensors(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
