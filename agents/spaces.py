"""Which spaces an agent can serve, and which observations of theirs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.preprocessing import get_flattened_obs_dim, is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)

from mnm_rl.agents.arguments import one_line

PLAIN_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def check_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Raise a ValueError unless an agent can serve the spaces."""
    check_kinds(observation_space, action_space)
    parts = observation_space.spaces.values() if isinstance(observation_space, spaces.Dict) else ()
    parts = tuple(parts) or (observation_space,)
    if any(isinstance(part, spaces.Box) and part.shape == () for part in parts):
        raise ValueError(
            f"The observation space {one_line(observation_space)} has a Box without a dimension; give it the "
            "shape (1,)."
        )
    if sum(get_flattened_obs_dim(part) for part in parts) == 0:
        raise ValueError(f"The observation space {one_line(observation_space)} has no numbers to observe.")
    if isinstance(action_space, spaces.Box) and not action_space.is_bounded("both"):
        raise ValueError(
            f"The action space {one_line(action_space)} must have finite bounds; an action that is "
            "clipped, such as to [-1, 1], has."
        )


def check_kinds(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Raise a ValueError unless the spaces are of kinds that Stable-Baselines3's A2C takes."""
    known = "Box, Discrete, MultiDiscrete and MultiBinary"
    flat = not isinstance(action_space, spaces.MultiBinary) or len(action_space.shape) == 1
    if not (_is_plain(action_space) and flat):
        raise ValueError(f"The action space {one_line(action_space)} cannot be served; what can: {known}.")
    is_dict = isinstance(observation_space, spaces.Dict)
    if not all(map(_is_plain, observation_space.spaces.values() if is_dict else [observation_space])):
        raise ValueError(
            f"The observation space {one_line(observation_space)} cannot be served; what can: {known}, "
            "and a Dict or Tuple of these."
        )


def check_extractor(
    extractor: type[BaseFeaturesExtractor], space: spaces.Space, normalize_images: bool
) -> None:
    """Raise a ValueError if a features extractor does not fit the observations."""
    if isinstance(space, spaces.Dict) != issubclass(extractor, CombinedExtractor):
        if issubclass(extractor, CombinedExtractor):
            raise ValueError(
                f"MultiInputPolicy is for Dict observations, not {one_line(space)}; use MlpPolicy."
            )
        if issubclass(extractor, FlattenExtractor | NatureCNN):
            raise ValueError("Dict observations need MultiInputPolicy.")
    if issubclass(extractor, NatureCNN):
        _check_image(space, normalize_images)
    if issubclass(extractor, FlattenExtractor) and _looks_like_image(space):
        warnings.warn(
            f"MlpPolicy takes images of shape {space.shape} as {math.prod(space.shape or ())} plain numbers; "
            "CnnPolicy reads them as images, float images with the channels first and with "
            "policy_kwargs={'normalize_images': False}.",
            stacklevel=3,
        )


def check_observation(observation: object, space: spaces.Space) -> None:
    """Raise a ValueError unless an observation is a dictionary where the space is one, with its names."""
    names = list(space.spaces) if isinstance(space, spaces.Dict) else None
    if not isinstance(observation, Mapping):
        if names is None:
            return
        got = type(observation).__name__
    elif names is not None and set(observation) == set(names):
        return
    else:
        got = f"a dictionary of {', '.join(map(repr, observation))}"
    wanted = "an array" if names is None else f"a dictionary of {', '.join(map(repr, names))}"
    raise ValueError(f"The observation must be {wanted}, got {got}.")


def first_numbers(space: spaces.Space) -> dict[str, Any]:
    """The first numbers of Discrete and MultiDiscrete spaces that do not count from 0.

    Returns:
        key of a Dict space, or "" for another space -> the number, or an array of one for each choice.
    """
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
    starts = {
        key: part.start
        for key, part in parts.items()
        if isinstance(part, spaces.Discrete | spaces.MultiDiscrete)
    }
    return {key: start for key, start in starts.items() if np.any(start)}


def _check_image(space: spaces.Space, normalize_images: bool) -> None:
    """Raise a ValueError unless a convolutional network can read the observations."""
    if not is_image_space(space, check_channels=False, normalized_image=True):
        raise ValueError(f"CnnPolicy is for images, not {one_line(space)}; use MlpPolicy.")
    if normalize_images and not is_image_space(space, check_channels=False):
        raise ValueError(
            "CnnPolicy divides images of whole numbers from 0 to 255 by 255, but these are "
            f"{one_line(space)}; "
            "use policy_kwargs={'normalize_images': False} for images that are normalised already."
        )
    # Stable-Baselines3 moves the channels of other images to the front.
    channels_last = min(range(3), key=lambda axis: (space.shape or ())[axis]) == 2
    if not is_image_space(space) and channels_last:
        raise ValueError(
            f"CnnPolicy takes normalised images with the channels first, not of shape {space.shape}; "
            "move the last axis to the front."
        )


def _looks_like_image(space: spaces.Space) -> bool:
    """Whether a Box is of the size and shape of an image that a convolutional network could read."""
    return (
        is_image_space(space, check_channels=False, normalized_image=True)
        and min(sorted(space.shape or ())[1:]) >= 36
        and min(space.shape or ()) in (1, 3, 4)
    )


def _is_plain(space: spaces.Space) -> bool:
    is_grid = isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim > 1
    return isinstance(space, PLAIN_SPACES) and not is_grid


def check_finite(observation: Any) -> None:
    """Hold an observation, an array or a dictionary of such, to finite numbers.

    Raises:
        ValueError: it has a NaN or an infinity.
    """
    parts = observation.items() if isinstance(observation, dict) else (("", observation),)
    for key, part in parts:
        if isinstance(part, np.ndarray) and part.dtype.kind == "f" and not is_finite(part):
            name = f"observation {key!r}" if key else "observation"
            place = np.argwhere(~np.isfinite(part))[0].tolist()
            raise ValueError(
                f"The {name} has {part[tuple(place)]} at {place}; only finite numbers can be acted on."
            )


def is_finite(array: NDArray[Any]) -> bool:
    """Whether all numbers of an array are finite."""
    # The sum of squares is a quarter of the time of isfinite().all(), at every step; it may overflow.
    return math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())
