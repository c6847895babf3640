"""From a config to an agent that trains: a new one, or the one of a run that was stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch.utils.tensorboard import SummaryWriter

from mnm_rl.agents.a2c import RecurrentA2C
from mnm_rl.agents.checkpoint import saves_its_state, set_random_state
from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.agents.ppo import RecurrentPPO
from mnm_rl.agents.processes import seed_envs
from mnm_rl.agents.resumable import check_processes
from mnm_rl.model_files.folder import WEIGHTS_FILE
from mnm_rl.training.folder import A2C_AGENT, PPO_AGENT, RunKind, check_changes, open_run
from mnm_rl.training.options import plain
from mnm_rl.training.rl.config import CHANGEABLE, AgentConfig, config_from_dict, config_to_dict
from mnm_rl.training.rl.environments import normalized_env

ALGORITHMS: dict[str, type[RecurrentOnPolicyAlgorithm]] = {
    A2C_AGENT.name: RecurrentA2C,
    PPO_AGENT.name: RecurrentPPO,
}
"""Kind of run -> what trains in it."""


def make_agent(config: AgentConfig, env: VecEnv, device: str = "cpu") -> RecurrentOnPolicyAlgorithm:
    """A new agent for the run's environment, in which it is normalised if the run says so."""
    env = normalized_env(config, env, config.discount)
    continuous = isinstance(env.action_space, spaces.Box)
    return ALGORITHMS[config.kind.name](
        policy_name(env.observation_space),
        env,
        n_steps=config.rollout_steps,
        **changeable_settings(config),
        **config.own_settings(),
        entropy_kind=config.entropy_kind_for(continuous),
        vf_coef=config.vf_coef,
        meta_coef=config.meta_coef,
        max_grad_norm=config.max_grad_norm,
        normalize_advantage=config.normalize_advantage,
        bootstrap_time_limit=config.bootstraps,
        policy_kwargs={
            "core": config.core,
            "core_kwargs": config.all_core_settings(),
            **config.layers(),
            "optimizer_kwargs": {"eps": config.adam_epsilon},
        },
        seed=config.seed,
        device=device,
    )


def changeable_settings(config: AgentConfig) -> dict[str, Any]:
    """Settings of the agent that a run may be given anew when it goes on."""
    rate = config.learning_rate
    return {
        "learning_rate": LinearSchedule(rate, 0.0, 1.0) if config.schedule == "linear" else rate,
        "gamma": config.discount,
        "gae_lambda": config.gae_lambda,
        "ent_coef": config.ent_coef,
    }


def read_agent(
    run: Path, config: AgentConfig, device: str = "cpu", trusted: bool = False
) -> RecurrentOnPolicyAlgorithm:
    """The agent of a run, to be looked at.

    Args:
        run: the run's folder, or a checkpoint in it; or the folder of a model.
        config: the run.
        device: where the policy runs.
        trusted: whether the file may run code, as Stable-Baselines3's files can.

    Raises:
        ValueError: the checkpoint is missing, damaged, of another core, or holds what only a trusted one may.
    """
    path = config.kind.parameters(run)
    algorithm = ALGORITHMS[config.kind.name]
    if path.name == WEIGHTS_FILE:
        agent = algorithm.from_pretrained(path.parent, device=device, trusted=trusted)
    else:
        agent = algorithm.load(path, device=device, core=config.core, trusted=trusted)
    _check_core_settings(agent, config, path)
    return agent


def _check_core_settings(agent: RecurrentOnPolicyAlgorithm, config: AgentConfig, path: Path) -> None:
    for name, wanted in config.all_core_settings().items():
        found = getattr(agent.policy.memory.config, name)
        if plain({"": found}) != plain({"": wanted}):
            raise ValueError(
                f"The checkpoint {path} has a core with {name} {found}, not {wanted} as its config."
            )


def check_same_spaces(agent: RecurrentOnPolicyAlgorithm, env: VecEnv) -> None:
    """Make sure that an agent can play in an environment.

    Raises:
        ValueError: it was trained on other observations or actions.
    """
    for what in ("observation_space", "action_space"):
        own, there = getattr(agent, what), getattr(env, what)
        if own != there:
            raise ValueError(f"The agent was trained with the {what} {own}; the environment has {there}.")


def load_agent(
    directory: Path, config: AgentConfig, env: VecEnv, device: str = "cpu", trusted: bool = False
) -> RecurrentOnPolicyAlgorithm:
    """The agent of a run at its checkpoint, ready to go on; arguments as for :func:`read_agent`.

    The maze goes on exactly where it was. Other environments cannot save their state: they start new
    episodes, which are seeded by how far the run is. Statistics of normalisation go on in all of them.

    Raises:
        ValueError: the checkpoint is missing, incomplete, or of another core.
    """
    path = config.kind.checkpoint_of(directory)
    env = normalized_env(config, env, config.discount)
    resumable = saves_its_state(env)
    settings = changeable_settings(config)
    agent = ALGORITHMS[config.kind.name].load(
        path,
        env=env,
        device=device,
        force_reset=not resumable,
        core=config.core,
        trusted=trusted,
        **settings,
    )
    _check_core_settings(agent, config, path)
    check_processes(agent._run_state)
    if not resumable and agent._run_state is not None:
        set_random_state(agent._run_state["random"])
        seed_envs(env, config.seed + agent.num_timesteps)
    return agent


def updates_made(agent: RecurrentOnPolicyAlgorithm) -> int:
    """Rollouts that the agent of a run has learned from; their size stays the same in a run."""
    return agent.num_timesteps // (agent.n_steps * agent.n_envs * agent.n_processes)


def read_agent_config(directory: Path, kind: RunKind, trusted: bool = False) -> AgentConfig:
    """The config of an existing run of a kind; ``trusted`` as for :func:`mnm_rl.training.folder.read_kind`.

    Raises:
        ValueError: there is no such run, or it is of another kind.
    """
    return config_from_dict(open_run(directory, kind, trusted), kind)


def changed_config(directory: Path, saved: AgentConfig, wanted: AgentConfig) -> AgentConfig:
    """The config with which a run goes on.

    Args:
        directory: the run's folder.
        saved: the run's config.
        wanted: the same with new values of some of :data:`CHANGEABLE`.

    Raises:
        ValueError: something else differs, too.
    """
    check_changes(directory, config_to_dict(saved), config_to_dict(wanted), CHANGEABLE)
    if wanted.timesteps != saved.timesteps and wanted.episodes != saved.episodes:
        raise ValueError("Give either episodes or timesteps, not both.")
    if wanted.timesteps != saved.timesteps:
        wanted = dataclasses.replace(wanted, episodes=None)
    elif wanted.episodes != saved.episodes:
        wanted = dataclasses.replace(wanted, timesteps=None)
    wanted.check()
    return wanted


def policy_name(space: spaces.Space) -> str:
    """The policy that fits an observation space."""
    from stable_baselines3.common.preprocessing import is_image_space

    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    is_large_image = is_image_space(space) and min(sorted(space.shape or ())[-2:]) >= 36
    return "CnnPolicy" if is_large_image else "MlpPolicy"


def make_logger(directory: Path, tensorboard: bool, done: int | None = None) -> Logger:
    """Where Stable-Baselines3's numbers go: TensorBoard files in the run's folder, or nowhere.

    Args:
        directory: the run's folder.
        tensorboard: whether they go anywhere.
        done: timesteps of a run that goes on; what was written for later ones, before it was stopped, is not
            shown.
    """
    if not tensorboard:
        return Logger(None, [])
    output = TensorBoardOutputFormat(str(directory))
    if done is not None:
        assert output.writer is not None
        output.writer.close()
        output.writer = SummaryWriter(str(directory), purge_step=done + 1)
    return Logger(str(directory), [output])
