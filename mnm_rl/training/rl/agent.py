"""From a config to an agent that trains: a new one, or the one of a run that was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch.utils.tensorboard import SummaryWriter

from mnm_rl.agents.a2c import RecurrentA2C
from mnm_rl.agents.checkpoint import saved_names, saved_values, saves_its_state, set_random_state
from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.agents.ppo import RecurrentPPO
from mnm_rl.agents.processes import seed_envs
from mnm_rl.agents.resumable import check_processes
from mnm_rl.model_files.folder import WEIGHTS_FILE, read_config
from mnm_rl.training.folder import (
    A2C_AGENT,
    PPO_AGENT,
    RunKind,
    check_changes,
    check_made_with,
    open_run,
    run_directory,
)
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
        use_sde=config.use_sde,
        sde_sample_freq=config.sde_sample_freq,
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


CONFIG_STATE = "config"
"""Where an agent keeps the settings of its run, among what callbacks save."""
KEPT = (
    *("n_steps", "seed", "vf_coef", "meta_coef", "max_grad_norm"),
    *("normalize_advantage", "entropy_kind", "bootstrap_time_limit", "use_sde", "sde_sample_freq"),
)
"""Settings of a run that are attributes of its agent, under the same names, and stay."""


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
    _check_config(_kept_config(path), config, path, run_directory(run))
    if path.name == WEIGHTS_FILE:
        agent = algorithm.from_pretrained(path.parent, device=device, trusted=trusted)
    else:
        agent = algorithm.load(path, device=device, core=config.core, trusted=trusted)
    _check_agent(agent, config, path, run_directory(run))
    return agent


def keep_config(agent: RecurrentOnPolicyAlgorithm, config: AgentConfig) -> None:
    """Have an agent save the settings of its run, those of the environment included, with itself."""
    agent.callback_state[CONFIG_STATE] = config_to_dict(config)


def _kept_config(path: Path) -> Any:
    """What a checkpoint holds as the settings of its run, before it is loaded, so far as that can be seen.

    Where other settings would not let it be loaded, it can be said which they are.
    """
    if path.name == WEIGHTS_FILE:
        return read_config(path.parent).get("config")
    try:
        return saved_values(path)["callback_state"][CONFIG_STATE]
    # Whatever is wrong with the file is said by what loads it.
    except Exception:
        return None


def _check_config(saved: Any, config: AgentConfig, path: Path, directory: Path) -> None:
    """Make sure that the settings in a checkpoint, if it holds them, are those of its run.

    Raises:
        ValueError: one differs that a run keeps.
    """
    if saved is not None:
        check_made_with(
            path,
            saved,
            directory,
            config_to_dict(config),
            lambda values: config_to_dict(config_from_dict(values, config.kind)),
            CHANGEABLE,
        )


def _check_agent(agent: RecurrentOnPolicyAlgorithm, config: AgentConfig, path: Path, directory: Path) -> None:
    """The same by what the agent has of them: a former checkpoint does not hold the settings of its run.

    Args:
        agent: loaded from the checkpoint.
        config: the run.
        path: the checkpoint.
        directory: the run's folder.

    Raises:
        ValueError: one differs that a run keeps.
    """
    is_model = path.name == WEIGHTS_FILE
    found, wanted = _settings_of(agent, config, () if is_model else saved_names(path)), config_to_dict(config)
    wanted["entropy_kind"] = config.entropy_kind_for(isinstance(agent.action_space, spaces.Box))
    wanted["bootstrap_time_limit"] = config.bootstraps
    check_made_with(path, found, directory, {name: wanted[name] for name in found}, plain, ())


def _settings_of(
    agent: RecurrentOnPolicyAlgorithm, config: AgentConfig, saved: Collection[str]
) -> dict[str, Any]:
    """What an agent has of its run's settings, by their names there, without those that may change.

    Args:
        agent: newly loaded.
        config: the run.
        saved: the attributes that its file has; others have today's defaults.
    """
    of_core = {name: getattr(agent.policy.memory.config, name) for name in config.all_core_settings()}
    given = agent.policy_kwargs or {}
    found: dict[str, Any] = {
        "core_settings": of_core,
        "core_layers": given.get("core_layers", 1),
        "encoder": given.get("encoder_arch", []),
        "separate_critic": given.get("separate_critic", False),
        "net_arch": given.get("net_arch", []),
    }
    if "eps" in (given.get("optimizer_kwargs") or {}):
        found["adam_epsilon"] = given["optimizer_kwargs"]["eps"]
    for name in (*KEPT, *config.own_settings()):
        if name in saved:
            value: Any = getattr(agent, name)
            found[name] = value(1.0) if callable(value) else value
    return found


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
    _check_config(_kept_config(path), config, path, directory)
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
    _check_agent(agent, config, path, directory)
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
