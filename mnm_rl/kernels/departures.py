"""Where a core departs from what the kernels compute.

A kernel takes the parameters of a core and calls neither its methods nor its modules. So it must not run a
core whose method was overridden, or in which somebody hooked, reparametrised or replaced a module: the result
would be that of the core without the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

HOOKS = {
    "_forward_hooks": "a forward hook",
    "_forward_pre_hooks": "a forward pre-hook",
    "_backward_hooks": "a backward hook",
    "_backward_pre_hooks": "a backward pre-hook",
}
"""Attribute of a module -> the hooks that are in it."""


def departure(
    core: nn.Module, standard: type[nn.Module], methods: Iterable[str], modules: Mapping[str, type[nn.Module]]
) -> str | None:
    """The first thing about a core that a kernel would leave out, as a clause such as "write is overridden".

    Hooks that are registered for all modules at once (``register_module_forward_hook``) do not count.

    Args:
        core: the core.
        standard: the class whose methods the kernels stand for.
        methods: names of those methods.
        modules: names of the modules whose parameters the kernels take, and of what class they must be,
            with all their biases and without hooks.

    Returns:
        the clause, or None if there is nothing.
    """
    for name in methods:
        if name in vars(core) or getattr(type(core), name) is not getattr(standard, name):
            return f"its method {name} is overridden"
    for name, kind in modules.items():
        change = _change(getattr(core, name), kind)
        if change is not None:
            return f"its module {name} {change}"
    return None


def _change(module: object, kind: type[nn.Module]) -> str | None:
    if not isinstance(module, nn.Module) or type(module) is not kind:
        return f"is of class {type(module).__name__} and not {kind.__name__}"
    if (hook := a_hook(module)) is not None:
        return f"has {hook}"
    if "forward" in vars(module):
        return "has a forward method of its own"
    without = [name for name, parameter in module._parameters.items() if parameter is None]
    return f"has no {without[0]}" if without else None


def a_hook(module: nn.Module) -> str | None:
    """A kind of hook that the module has, such as "a forward hook"; None without."""
    return next((described for hooks, described in HOOKS.items() if getattr(module, hooks)), None)
