"""Whatever method the plain loop of a core calls is called, too, once somebody has overridden it.

A fast form knows nothing of the core's methods, so a core that departs from the standard one must not run it.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from torch import nn

from mnm_rl.cores import MemoryCore, make_core
from mnm_rl.cores.registry import CORES

SIZES: dict[str, Any] = {
    **{"hidden_size": 6, "key_size": 3, "value_size": 3, "memory_widths": (3, 3)},
    **{"slots": 9, "slot_size": 3, "read_heads": 2, "entity_size": 3, "relation_size": 3},
}


def calls(name: str, method: str, acting: bool, **settings: Any) -> int:
    """How often a sequence, or a step of acting, calls a method that is overridden and does what it did."""
    core_class, fixed = CORES[name]
    known = {field.name for field in dataclasses.fields(core_class.config_class)} - {*fixed}
    found = 0

    def counted(self: MemoryCore[Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal found
        found += 1
        return getattr(super(changed, self), method)(*args, **kwargs)

    changed: Any = type("Changed", (core_class,), {method: counted})
    sizes = {size: value for size, value in {**SIZES, **settings}.items() if size in known}
    core = make_core(changed, 3, **fixed, **sizes)
    inputs, resets = torch.zeros(3, 2, 3), torch.zeros(3, 2, dtype=torch.bool)
    resets[1, 0] = True
    state = core.initial_state(2)
    found = 0
    if acting:
        with core.acting():
            core.step(inputs[0], state, resets[1])
    else:
        core(inputs, state, resets)
    return found


def methods(core_class: type) -> list[str]:
    """Of the core itself, not of every module."""
    names = set(dir(core_class)) - set(dir(nn.Module))
    return sorted(name for name in names if inspect.isfunction(inspect.getattr_static(core_class, name)))


@pytest.mark.parametrize("acting", [False, True], ids=["sequence", "acting"])
@pytest.mark.parametrize("name", list(CORES))
def test_what_the_plain_loop_calls_is_called(name, acting):
    seen = 0
    for method in methods(CORES[name][0]):
        with torch.set_grad_enabled(not acting):
            if calls(name, method, acting, kernel="reference"):
                seen += 1
                assert calls(name, method, acting), f"{method} of {name} is overridden and never called"
    assert seen >= 1
