"""Wrappers of other packages around each environment of a run, by name: ``popgym.wrappers:Antialias``."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

FROM_GYMNASIUM = (TimeLimit, OrderEnforcing, PassiveEnvChecker)
"""What ``gymnasium.make`` puts around an environment."""


class MakeWrapped:
    """Makes an environment with wrappers around it, also in another process.

    They stand inside of Gymnasium's own (the time limit among them) and of the monitor: directly around the
    environment, as some need it, such as POPGym's. What is shown of a run is therefore their reward.

    Args:
        env_id: of Gymnasium.
        wrappers: their names, the innermost first.
    """

    def __init__(self, env_id: str, wrappers: Sequence[str]):
        self.env_id = env_id
        self.wrappers = tuple(wrappers)

    def __call__(self, **kwargs: Any) -> gymnasium.Env:
        """The environment; arguments as for ``gymnasium.make``."""
        try:
            env = gymnasium.make(self.env_id, render_mode="rgb_array", **kwargs)
        except TypeError:  # it is not drawn
            env = gymnasium.make(self.env_id, **kwargs)
        return _inside(env, self.wrappers)


def find_wrapper(name: str) -> type[gymnasium.Wrapper]:
    """The class that a name ``module:Class`` stands for.

    Raises:
        ValueError: it is not such a name, cannot be imported, or is no wrapper of Gymnasium's kind.
    """
    module, colon, path = name.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        raise ValueError(f"wrapper must be module:Class, such as popgym.wrappers:Antialias, got {name!r}.")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # anything may happen in a module that is imported
        reason = (str(error) or type(error).__name__).rstrip(".")
        raise ValueError(f"The wrapper {name!r} cannot be imported: {reason}.") from error
    if not (isinstance(found, type) and issubclass(found, gymnasium.Wrapper)):
        raise ValueError(f"The wrapper {name!r} is not a class derived from gymnasium.Wrapper.")
    return found


def try_wrappers(env_id: str, wrappers: Iterable[str], kwargs: dict[str, Any]) -> None:
    """Make an environment with the wrappers, and take a step in it.

    Raises:
        ValueError: something fails.
    """
    wrappers = tuple(wrappers)
    try:
        env = MakeWrapped(env_id, wrappers)(**kwargs)
        env.action_space.seed(0)
        env.reset(seed=0)
        env.step(env.action_space.sample())
        env.close()
    # Wrappers of others fail each in its own way.
    except Exception as error:
        reason = (str(error) or type(error).__name__).rstrip(".")
        raise ValueError(f"{env_id} fails in the wrapper {', '.join(wrappers)}: {reason}.") from error


def _inside(env: gymnasium.Env, wrappers: Sequence[str]) -> gymnasium.Env:
    """Put wrappers around an environment, inside of what Gymnasium has put around it."""
    outer, inner = None, env
    while isinstance(inner, FROM_GYMNASIUM):
        outer, inner = inner, inner.env
    for name in wrappers:
        inner = find_wrapper(name)(inner)
    if outer is None:
        return inner
    outer.env = inner
    return env
