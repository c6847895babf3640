"""Whether saved parameters fit a module, said in the words of somebody who knows neither file nor module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def state_dict_fault(module: nn.Module, state: Mapping[str, Any]) -> str | None:
    """What is wrong with a state dict for a module, as the end of a sentence; ``None`` if it fits.

    Args:
        module: what it is for.
        state: anything with names.
    """
    own = module.state_dict()
    if lacking := sorted(own.keys() - state.keys()):
        return f"it lacks {_few(lacking)}"
    if more := sorted(map(str, state.keys() - own.keys())):
        return f"it has {_few(more)}, which is not known here"
    for name, value in own.items():
        saved = state[name]
        if not isinstance(saved, Tensor):
            return f"its {name} is not a tensor but {type(saved).__name__}"
        if saved.shape != value.shape:
            return f"its {name} has the shape {list(saved.shape)} instead of {list(value.shape)}"
        if saved.is_floating_point() != value.is_floating_point() or saved.is_complex():
            return f"its {name} holds {saved.dtype} instead of {value.dtype}"
        if saved.is_meta:
            return f"its {name} holds no numbers"
        if not saved.isfinite().all():
            return f"its {name} is not finite"
    return None


def _few(names: list[str]) -> str:
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
