"""sb3-contrib's RecurrentPPO in a run of its own: ``python -m mnm_rl.reproduction.rl.contrib``.

Rollouts, minibatches, epochs and all numbers are those of a run of ours, the LSTM's width too; the rest is as
the library comes: one LSTM for the policy and one for the values, and its layers behind them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import tyro
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.curves import CurveFile, mean
from mnm_rl.training.folder import CONTRIB, PPO_AGENT, create_run
from mnm_rl.training.options import parse_json_object
from mnm_rl.training.rl.agent import changeable_settings
from mnm_rl.training.rl.config import PPOConfig, config_from_dict, config_to_dict
from mnm_rl.training.rl.environments import make_env, normalized_env


@dataclass(frozen=True)
class Args:
    """What to train, and where."""

    config: str
    """Settings of a run of PPO with the core lstm, as JSON."""
    timesteps: int
    """Length of the run."""
    log_dir: str
    """Folder for config.json and progress.csv."""


def main(args: Args) -> None:
    """Train; the run cannot be resumed."""
    config = read_settings(args.config, args.timesteps)
    agent = make_contrib(config, normalized_env(config, make_env(config, config.n_envs), config.discount))
    directory = Path(args.log_dir)
    create_run(directory, CONTRIB, config_to_dict(config))
    agent.learn(config.total_timesteps, CurveCallback(directory))


def read_settings(text: str, timesteps: int) -> PPOConfig:
    """The config of a run from JSON.

    Raises:
        ValueError: settings that the library does not have.
    """
    config = config_from_dict(parse_json_object(text, "config"), PPO_AGENT)
    assert isinstance(config, PPOConfig)
    config = dataclasses.replace(config, timesteps=timesteps, episodes=None)
    config.check()
    if config.core != "lstm" or config.bptt_steps is not None or config.linear_settings:
        raise ValueError("sb3-contrib has the core lstm alone, no bptt_steps, gamma_end or ent_coef_end.")
    return config


def make_contrib(config: PPOConfig, env: VecEnv) -> OnPolicyAlgorithm:
    """The library's agent with the settings of one of ours.

    Raises:
        ValueError: sb3-contrib is not installed.
    """
    try:
        from sb3_contrib import RecurrentPPO  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("This run needs sb3-contrib: pip install 'mnm-rl[rl]'.") from error
    rollout = config.rollout_steps * config.n_envs
    return RecurrentPPO(
        "MlpLstmPolicy",
        env,
        learning_rate=changeable_settings(config)["learning_rate"],
        n_steps=config.rollout_steps,
        batch_size=config.batch_size or math.ceil(rollout / 4),
        n_epochs=config.n_epochs,
        gamma=config.discount,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        clip_range_vf=config.clip_range_vf,
        normalize_advantage=config.normalize_advantage,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        target_kl=config.target_kl,
        policy_kwargs={
            "lstm_hidden_size": config.all_core_settings()["hidden_size"],
            "optimizer_kwargs": {"eps": config.adam_epsilon},
        },
        seed=config.seed,
        device="cpu",
    )


class CurveCallback(BaseCallback):
    """A row of progress.csv for every update.

    Args:
        directory: the run's folder.
    """

    def __init__(self, directory: Path):
        super().__init__()
        self._curve = CurveFile(directory / CONTRIB.curve, CONTRIB.key)
        self._rewards: list[float] = []
        self._episodes = self._updates = 0

    def _on_training_start(self) -> None:
        self._started = time.monotonic()

    def _on_step(self) -> bool:
        infos: list[dict[str, Any]] = self.locals["infos"]
        self._rewards += [float(info["episode"]["r"]) for info in infos if "episode" in info]
        return True

    def _on_rollout_start(self) -> None:
        # The update of the rollout before has been made by now, as in the rows of our own runs.
        if self.num_timesteps:
            self._write()

    def _on_training_end(self) -> None:
        self._write()

    def _write(self) -> None:
        self._updates += 1
        self._episodes += len(self._rewards)
        self._curve.append(
            {
                "updates": self._updates,
                "episodes": self._episodes,
                "timesteps": self.num_timesteps,
                "seconds": time.monotonic() - self._started,
                "reward": mean(self._rewards),
            }
        )
        self._rewards = []


def count_contrib_parameters(settings: Mapping[str, Any]) -> int | None:
    """Parameters of the policy of a run with such settings; ``None`` without sb3-contrib."""
    if find_spec("sb3_contrib") is None:
        return None
    config = read_settings(json.dumps(dict(settings)), timesteps=1)
    agent = make_contrib(config, make_env(config, config.n_envs))
    return sum(parameter.numel() for parameter in agent.policy.parameters())


def words(given: Mapping[str, Any]) -> list[str]:
    """Options of the command line for settings."""
    return ["--config", json.dumps(dict(given))]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with one_sentence_errors("contrib"):
        main(tyro.cli(Args, description=__doc__))
