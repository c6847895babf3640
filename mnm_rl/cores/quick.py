"""What acting through a whole rollout may leave out at every step, because it holds for all of them.

Dimensions: ``B`` batch, ``O`` output size of a core, ``A`` actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from mnm_rl.kernels import cpu, departure
from mnm_rl.kernels.departures import HOOKS
from mnm_rl.kernels.recurrent import compiles, fits, is_ordinary_call

__all__ = ["QuickStep", "Unchanged", "departure", "is_ordinary_call", "quick_draw"]

QuickStep = Callable[[Tensor, Any, Tensor | None], tuple[Tensor, Any]]
"""``(inputs [B, I], state, resets [B] or None)`` to outputs ``[B, O]`` and the state after the step."""


def quick_draw(owner: nn.Module, name: str) -> Callable[[Tensor], Tensor] | None:
    """Draw actions from the logits of one layer in one call of C++, without gradient.

    The same as torch's operations one by one, with the same random numbers:
    ``(logits - torch.empty_like(logits).exponential_().log_()).argmax(-1)``.

    Args:
        owner: whose attribute the layer is.
        name: of the attribute.

    Returns:
        outputs ``[B, O]`` to actions ``[B]``; None where the layer is none that the C++ stands for.
    """
    if departure(owner, type(owner), (), {name: nn.Linear}) is not None:
        return None
    layer: Any = getattr(owner, name)
    weight, bias = layer.weight, layer.bias
    if not (fits(weight, bias) and compiles()):
        return None
    draw = cpu.operators().draw.default
    return lambda outputs: draw(outputs, weight, bias)


class Unchanged:
    """Whether modules are as they were when this was made; to be asked often.

    It sees hooks, attributes that are new, and parameters, buffers and modules that were replaced or written
    to (but not through ``.data``), and no classes whose methods were exchanged meanwhile.

    Args:
        modules: to be watched; those inside of them by name.
    """

    def __init__(self, modules: Iterable[nn.Module]):
        self._attributes: list[tuple[dict[str, Any], int]] = []
        self._hooks: list[Any] = []
        self._held: list[tuple[dict[str, Any], str, object]] = []
        self._versions: list[tuple[Any, int]] = []
        for module in modules:
            self._attributes.append((vars(module), len(vars(module))))
            self._hooks += [hooks for name in HOOKS if not (hooks := getattr(module, name))]
            for held in (module._modules, module._parameters, module._buffers):
                self._held += [(held, name, value) for name, value in held.items()]
            tensors = [*module._parameters.values(), *module._buffers.values()]
            self._versions += [(tensor, tensor._version) for tensor in tensors if tensor is not None]

    def __call__(self) -> bool:
        """Whether that is so."""
        for attributes, count in self._attributes:
            if len(attributes) != count:
                return False
        for hooks in self._hooks:
            if hooks:
                return False
        for held, name, value in self._held:
            if held.get(name) is not value:
                return False
        return all(tensor._version == version for tensor, version in self._versions)
