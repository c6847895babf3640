"""Draw a picture of each environment for the documentation: ``python docs/draw_environments.py``."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import minigrid  # noqa: F401 - registers its environments
import numpy as np
from PIL import Image

import mnm_rl  # noqa: F401 - registers ours

IMAGES = Path(__file__).parent / "images" / "environments"
HEIGHT = 240
STEPS = {
    "MNMMaze-5x5": 3,
    "MNMMaze-9x9": 3,
    "MNMMaze-13x13": 3,
    "CartPoleNoVel-v1": 8,
    "PendulumNoVel-v1": 8,
    "MountainCarContinuousNoVel-v0": 8,
    "MiniGrid-MemoryS7-v0": 0,
    "MiniGrid-MemoryS13Random-v0": 0,
}
"""Id -> steps before the picture is taken."""


def frame(name: str, steps: int) -> Image.Image:
    """The environment after some random steps, with seed 0."""
    env = gymnasium.make(name, render_mode="rgb_array")
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(steps):
        env.step(env.action_space.sample())
    picture = env.render()
    env.close()
    image = Image.fromarray(np.asarray(picture))
    return image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS)


def main() -> None:
    """Write one file per environment."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, steps in STEPS.items():
        frame(name, steps).quantize(64).save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
