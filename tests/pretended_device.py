"""A device that is not there: its tensors hold numbers, and what mixes devices fails as on a GPU.

The tensors say that they are on torch's device ``meta``, which has no numbers of its own; what they hold lies
in the processor's memory. With them, code that makes a tensor on the wrong device is found without a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
_aten: Any = torch.ops.aten
_MOVES = (_aten._to_copy.default, _aten.copy_.default)
_INDEXED = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)
"""A GPU takes indices from the processor, too."""


class Elsewhere(Tensor):
    """A tensor of the pretended device."""

    inner: Tensor
    is_meta = False  # pyright: ignore[reportAssignmentType,reportIncompatibleVariableOverride]

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        return Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner: Tensor):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __getitem__(self, key: Any) -> Tensor:
        """A list of indices goes to the device."""
        parts = key if isinstance(key, tuple) else (key,)
        moved = [torch.tensor(part, device=DEVICE) if isinstance(part, list) else part for part in parts]
        return super().__getitem__(tuple(moved))

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("A tensor of the pretended device has no numpy array; use Tensor.cpu() first.")

    def new_tensor(self, data: Any, **kwargs: Any) -> Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **kwargs})

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.detach().__reduce_ex__(protocol)  # files are read with map_location="cpu"

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.inner!r})"


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = {id(leaf.inner): leaf for leaf in leaves if isinstance(leaf, Elsewhere)}
    here = [leaf for leaf in leaves if not isinstance(leaf, Elsewhere)]
    if any(leaf.is_meta and leaf.numel() for leaf in here):
        raise RuntimeError(f"{func} takes a tensor that was made of numbers in a way that is not known here.")
    if there and any(leaf.dim() > 0 for leaf in here) and func not in (*_MOVES, *_INDEXED):
        raise RuntimeError(f"{func} mixes devices: {[(type(leaf).__name__, leaf.shape) for leaf in leaves]}")
    goes = _destination(func, leaves, kwargs, bool(there))
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map(lambda x: x.inner if isinstance(x, Elsewhere) else x, (args, kwargs))
    found = func(*args, **kwargs)
    return tree_map(lambda x: _wrap(x, there) if goes and isinstance(x, Tensor) else x, found)


def _destination(func: Any, leaves: list[Tensor], kwargs: dict[str, Any], any_there: bool) -> bool:
    """Whether the results are on the pretended device."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"]) == DEVICE
    return isinstance(leaves[0], Elsewhere) if func in _MOVES else any_there


def _wrap(x: Tensor, there: dict[int, Elsewhere]) -> Tensor:
    """What was changed in place is the tensor that it was."""
    return there[id(x)] if id(x) in there else Elsewhere(x)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _made_of_numbers(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``torch.tensor`` and the like, which fill a tensor below the operations."""

    def make(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if isinstance(data, Elsewhere):
            return data.to(device=device, **kwargs)
        made = function(data, *args, **kwargs)
        return made if device is None else made.to(device)

    return make


def _moved_in_place(apply: Callable[..., Any]) -> Callable[..., Any]:
    """As on a GPU, a module's parameters stay the same objects where it moves."""

    def moved(*args: Any, **kwargs: Any) -> Any:
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return apply(*args, **kwargs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    return moved


@contextlib.contextmanager
def pretended() -> Iterator[torch.device]:
    """As long as the context lasts there is a second device, which this is."""
    with contextlib.ExitStack() as stack:
        for name in ("tensor", "as_tensor"):
            replaced = _made_of_numbers(getattr(torch, name))
            stack.enter_context(mock.patch.object(torch, name, replaced))
        load = torch.load
        read = lambda *args, **kwargs: load(*args, **{**kwargs, "map_location": "cpu"})  # noqa: E731
        stack.enter_context(mock.patch.object(torch, "load", read))
        stack.enter_context(_Operations())
        stack.enter_context(mock.patch.object(nn.Module, "_apply", _moved_in_place(nn.Module._apply)))
        yield DEVICE
