"""Which spaces an agent can serve."""

from __future__ import annotations

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)

PLAIN_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def check_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Raise a ValueError unless Stable-Baselines3's A2C takes the spaces."""
    known = "Box, Discrete, MultiDiscrete and MultiBinary"
    flat = not isinstance(action_space, spaces.MultiBinary) or len(action_space.shape) == 1
    if not (_is_plain(action_space) and flat):
        raise ValueError(f"The action space {action_space} cannot be served; what can: {known}.")
    is_dict = isinstance(observation_space, spaces.Dict)
    if not all(map(_is_plain, observation_space.spaces.values() if is_dict else [observation_space])):
        raise ValueError(
            f"The observation space {observation_space} cannot be served; what can: {known}, "
            "and a Dict of these."
        )


def check_extractor(
    extractor: type[BaseFeaturesExtractor], space: spaces.Space, normalize_images: bool
) -> None:
    """Raise a ValueError if a features extractor does not fit the observations."""
    if isinstance(space, spaces.Dict) != issubclass(extractor, CombinedExtractor):
        if issubclass(extractor, CombinedExtractor):
            raise ValueError(f"MultiInputPolicy is for Dict observations, not {space}; use MlpPolicy.")
        if issubclass(extractor, FlattenExtractor | NatureCNN):
            raise ValueError("Dict observations need MultiInputPolicy.")
    if issubclass(extractor, NatureCNN) and not is_image_space(
        space, check_channels=False, normalized_image=not normalize_images
    ):
        raise ValueError(f"CnnPolicy is for images, not {space}; use MlpPolicy.")


def _is_plain(space: spaces.Space) -> bool:
    is_grid = isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim > 1
    return isinstance(space, PLAIN_SPACES) and not is_grid
