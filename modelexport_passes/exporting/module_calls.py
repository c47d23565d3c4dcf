"""What every module call of a torch model takes and returns, by forward hooks: no exporter is asked."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from modelexport_passes.errors import ConfigError, ModelExportError, root_cause
from modelexport_passes.exporting.plain_modules import plain_modules
from modelexport_passes.exporting.record import TorchRun
from modelexport_passes.exporting.state import state_kept
from modelexport_passes.exporting.tensor_store import TensorStore
from modelexport_passes.scopes.class_names import class_name


@dataclass(eq=False)
class ModuleCall:
    """One execution of one module instance.

    Attributes:
        paths: the names that the instance has below the root, the first one first; an instance may have several.
        class_name: qualified.
        call: which call of the instance it is.
        caller: the call that it was made in; None for the first.
        took: keys of the tensors it was given.
        returned: keys of the tensors it returned, depth first.
        ended: how many calls had returned when it did; -1 if it never did.
    """

    paths: tuple[str, ...]
    class_name: str
    call: int
    caller: ModuleCall | None = field(repr=False)
    took: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    ended: int = -1

    @property
    def computed(self) -> tuple[str, ...]:
        """Keys of what it returned and was not given, each once."""
        return tuple(key for key in dict.fromkeys(self.returned) if key not in self.took)

    def __str__(self) -> str:
        name = self.paths[0] or "the root"
        return f"{name}@{self.call}" if self.call else name


@dataclass(frozen=True)
class Recording:
    """The module calls of one run.

    Attributes:
        calls: in the order in which they began.
        paths: every module's every name below the root, called or not.
        tensors: what the calls took and returned, by key.
    """

    calls: list[ModuleCall]
    paths: frozenset[str]
    tensors: TensorStore


@contextlib.contextmanager
def recorded_calls(run: TorchRun) -> Generator[Recording]:
    """Run a torch model once and record all its module calls; what was recorded is there inside the ``with``.

    Call indices count as ``torch.export`` counts them: per module, over the whole run. Complex tensors are kept as ONNX
    has them, pairs of real numbers; sparse and nested ones are passed over.

    Raises:
        ModelExportError: the model does not run.
        ConfigError: the model has kept tensors without values from its export, and computes nothing with them.
    """
    with plain_modules(run.module), TensorStore() as tensors:
        names = _names(run.module, run.root)
        recorder = _Recorder(names, tensors)
        args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (run.args, dict(run.kwargs)))
        with torch.no_grad(), state_kept(run.module), hooked(names, recorder.enter, recorder.leave):
            _run(run.module, args, kwargs)
        calls = [call for call in recorder.calls if _is_below_root(call)]
        paths = frozenset(path for paths in names.values() for path in paths)
        yield Recording(calls, paths, tensors)


def _run(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    try:
        module(*args, **kwargs)
    except ConfigError:
        raise
    # The model's own code runs here, and torch's, and both may raise anything.
    except Exception as error:
        said = f"the torch model {type(module).__name__} does not run on its example inputs: {root_cause(error)}"
        raise ModelExportError(said) from error


def graph_inputs(run: TorchRun, names: Sequence[str]) -> dict[str, Any]:
    """The tensors that a torch model is called with as inputs of a graph, matched in order.

    Raises:
        ConfigError: there are not as many of them as names.
    """
    tensors = [*tensors_in((run.args, dict(run.kwargs)))]
    if len(tensors) != len(names):
        raise ConfigError(f"{len(tensors)} example tensors for {len(names)} graph inputs ({', '.join(names)})")
    return {name: _array(tensor) for name, tensor in zip(names, tensors, strict=True)}


def _names(module: torch.nn.Module, root: str) -> dict[torch.nn.Module, tuple[str, ...]]:
    """Each module -> its names, relative to the root; names outside the root stand behind ``^``."""
    names: dict[torch.nn.Module, list[str]] = {}
    modules = cast("Iterator[tuple[str, torch.nn.Module]]", module.named_modules(remove_duplicate=False))
    for path, submodule in modules:
        names.setdefault(submodule, []).append(path)
    return {submodule: tuple(_relative(path, root) for path in paths) for submodule, paths in names.items()}


def _relative(path: str, root: str) -> str:
    if not root:
        return path
    if path == root or path.startswith(f"{root}."):
        return path[len(root) :].removeprefix(".")
    return f"^{path}"


def _is_below_root(call: ModuleCall) -> bool:
    """Whether the root was running: a wrapper around it, and what that calls beside it, is no part of the model."""
    running: ModuleCall | None = call
    while running is not None:
        if "" in running.paths:
            return True
        running = running.caller
    return False


class _Recorder:
    def __init__(self, names: Mapping[torch.nn.Module, tuple[str, ...]], tensors: TensorStore) -> None:
        self.names = names
        self.tensors = tensors
        self.calls: list[ModuleCall] = []
        self._running: list[tuple[torch.nn.Module, ModuleCall]] = []
        self._counts: Counter[torch.nn.Module] = Counter()
        self._ended = 0

    def enter(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        caller = self._running[-1][1] if self._running else None
        call = ModuleCall(self.names[module], class_name(type(module)), self._counts[module], caller)
        # Taken now: the module may work in place on what it is given.
        call.took = self._keep((args, kwargs))
        self._counts[module] += 1
        self._running.append((module, call))
        self.calls.append(call)

    def leave(self, module: torch.nn.Module, _args: Any, _kwargs: Any, result: Any) -> None:
        while self._running:  # a call that ended in an error, which its caller caught, never left
            running, call = self._running.pop()
            if running is module:
                call.returned = self._keep(result)
                call.ended = self._ended
                self._ended += 1
                return

    def _keep(self, value: Any) -> tuple[str, ...]:
        return tuple(self.tensors.add(_array(tensor)) for tensor in tensors_in(value))


@contextlib.contextmanager
def hooked(
    modules: Iterable[torch.nn.Module],
    enter: Callable[[torch.nn.Module, Any, Any], None],
    leave: Callable[[torch.nn.Module, Any, Any, Any], None],
) -> Generator[None]:
    """Have a call of any of these modules told as it begins (args, kwargs) and as it returns (and what it returns)."""
    handles: list[Any] = []
    try:
        for module in modules:
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every dense tensor in a value, depth first: in tuples, lists, mappings, dataclasses, and what pytree knows."""
    if isinstance(value, torch.Tensor):
        if value.layout is torch.strided and not value.is_nested and value.device.type != "meta":
            yield value
    elif isinstance(value, Mapping):
        for item in cast("Mapping[Any, Any]", value).values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in cast("list[Any]", value):
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for one in dataclasses.fields(value):
            yield from tensors_in(getattr(value, one.name))
    else:
        leaves = pytree.tree_leaves(value)
        if leaves and leaves[0] is not value:
            for leaf in leaves:
                yield from tensors_in(leaf)


def _array(tensor: torch.Tensor) -> Any:
    if isinstance(tensor, FakeTensor):
        raise ConfigError(
            "the torch model has kept tensors without values that the exporter gave it (a cache filled while it was "
            "traced); give run=TorchRun(a model made anew, args)"
        )
    tensor = tensor.detach().cpu()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return ir.tensor(tensor.resolve_neg().contiguous()).numpy()
