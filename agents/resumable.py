"""Saving and loading an agent so that its run goes on as if it had not been stopped."""

from __future__ import annotations

import copy
import os
import pickle
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Self

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, unwrap_vec_normalize

from mnm_rl.agents.arguments import (
    check_can_be_saved,
    check_changed,
    check_device,
    check_env,
    check_path,
    check_seed,
    made_env,
    one_line_errors,
)
from mnm_rl.agents.checkpoint import (
    check_checkpoint,
    check_core,
    env_state,
    random_state,
    saved_names,
    saves_its_state,
    set_env_state,
    set_random_state,
)
from mnm_rl.agents.export import export_agent
from mnm_rl.agents.flattening import flattened
from mnm_rl.agents.normalization import (
    check_saved,
    normalization_of,
    normalized,
    saved_normalization,
    set_statistics,
)
from mnm_rl.agents.policies import RecurrentActorCriticPolicy
from mnm_rl.agents.pretrained import load_agent, save_agent
from mnm_rl.agents.processes import gathered_by_first, seed_envs, seed_own_draws
from mnm_rl.agents.safe_loading import read_untrusted
from mnm_rl.agents.states import state_to_arrays
from mnm_rl.cores import CoreChoice
from mnm_rl.model_files.card import Card
from mnm_rl.updates import GuardedOptimizer, process_share

ATTRIBUTES = (
    "num_timesteps",
    "_n_updates",
    "_episode_num",
    "_current_progress_remaining",
    "_last_obs",
    "_last_episode_starts",
    "_last_original_obs",
    "ep_info_buffer",
    "ep_success_buffer",
)
"""Attributes of the agent that change during a rollout."""


class ResumableAlgorithm(OnPolicyAlgorithm):
    """On-policy algorithm for a recurrent policy that learns from whole rollouts and can be resumed.

    Attributes:
        core_state: the recurrent state after the last step of the environment.
        guard: makes the updates and counts those that were skipped.
        callback_state: what callbacks want to be saved with the agent, under names of their own.
        n_processes: so many trained it together the last time.
    """

    algorithm: ClassVar[str | None] = None
    """Whose files :meth:`load` takes; those of any agent of this package if not given."""
    policy: RecurrentActorCriticPolicy
    core_state: Any
    guard: GuardedOptimizer
    n_processes: int = 1
    _run_state: dict[str, Any] | None = None
    _rollout_start: tuple[dict[str, Any], dict[str, Any]] | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        self.callback_state: dict[str, Any] = {}
        super().__init__(*args, **kwargs)

    def save(
        self, path: Any, exclude: Any = None, include: Any = None, *, all_processes: bool = False
    ) -> None:
        """Save everything that the run needs to go on.

        With an environment that offers ``get_state``/``set_state``, a save in the middle of a rollout stands
        for the rollout's start: the steps since then have not been learned from, and the continued run takes
        them again. Other environments keep their state to themselves; what is saved is the present.

        Args:
            path: file or file-like object.
            exclude: names of attributes that are not saved.
            include: names of attributes that are, although they are not by themselves.
            all_processes: for processes that train together. All of them call it, and the first one saves
                what each of them needs; without, a process saves its own environments and generators only.

        Raises:
            ValueError: a file is where a folder would have to be.
            TypeError: it is neither a path nor an open file.
        """
        check_can_be_saved(path)
        attributes, self._run_state = self._rollout_start or self._present()
        rank, processes = process_share()
        if all_processes and processes > 1:
            self._run_state = {**self._run_state, "processes": processes}
            parts = gathered_by_first((attributes, self._run_state))
            if rank > 0:
                return
            self._run_state = {**self._run_state, "others": parts[1:]}
        current = {name: getattr(self, name) for name in attributes}
        vars(self).update(attributes)
        try:
            super().save(path, exclude, include)
        finally:
            vars(self).update(current)

    @classmethod
    def load(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        path: Any,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        core: CoreChoice | None = None,
        trusted: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Load an agent.

        As in all of Stable-Baselines3, a file can hold any Python object and **runs code when it is
        loaded**, so load files of people you trust only. With ``trusted=False`` nothing is unpickled but a
        short list of known classes (those that an agent of this package is saved with), parameters are read
        by torch's ``weights_only`` loader, and a file that holds anything else is refused by name. An agent
        with classes of your own, such as a features extractor, needs ``trusted=True``, or
        ``custom_objects`` that replace what holds them. ``tensorboard_log`` is not taken from a file that
        is not trusted.

        Processes that train together load the same file, each with environments of its own.

        With ``force_reset=False`` and the environment given, ``learn(..., reset_num_timesteps=False)`` goes
        on as if the run had not been stopped: random generators and recurrent state are put back, and the
        state of environments that offer ``set_state``. Otherwise the environment starts new episodes.

        The statistics of ``VecNormalize`` are saved with the agent, whatever the environment. They are put
        back with ``force_reset=False``, and otherwise into a ``VecNormalize`` that has none yet;
        :meth:`normalize_env` wraps an environment in which the agent is to be evaluated.

        Args:
            path: file or file-like object.
            env: the environment to go on with; not needed for ``predict``.
            device: where the policy runs.
            custom_objects: replacements for saved objects.
            print_system_info: of the saved agent.
            force_reset: start new episodes.
            core: name or class of the core that the checkpoint must be of; any if not given.
            trusted: whether the file may run code.
            kwargs: attributes to change.

        Raises:
            ValueError: the file is missing, incomplete, of another core or of another algorithm, or, if it is
                not trusted, holds something other than an agent; or the environment has other spaces, the
                device is not here, or an attribute is changed to a value that is not allowed.
            TypeError: the path or the environment is none, or there is no attribute to change.
        """
        check_path(path)
        check_device(device)
        if env is not None:
            check_env(env)
        source = path
        if not trusted:
            methods = tuple(name for name in dir(cls) if callable(getattr(cls, name)))
            untrusted = read_untrusted(path, methods, custom_objects, cls.algorithm)
            check_core(path, untrusted.policy_kwargs, core, trusted=False)
            source, custom_objects = untrusted.content, untrusted.objects
        else:
            check_checkpoint(path, core, trusted=True, algorithm=cls.algorithm)
        check_changed(cls, saved_names(source), kwargs)
        if env is not None:
            kwargs = {"n_processes": process_share()[1], **kwargs}
        with one_line_errors(), nullcontext() if trusted else _one_sentence_errors(path):
            agent = super().load(
                source, env, device, custom_objects, print_system_info, force_reset=force_reset, **kwargs
            )
            if agent._run_state is not None:
                take_own_part(agent, agent._run_state, force_reset)
            if agent.env is not None and agent._run_state is not None:
                if force_reset:
                    set_statistics(agent.env, saved_normalization(agent._run_state), only_if_new=True)
                else:
                    restore_run_state(agent, agent._run_state)
            if agent._run_state is not None:
                agent.guard.load_state_dict(agent._run_state["guard"])
            if not trusted:
                _check_values(agent)
        return agent

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed all random numbers, the environment's too; see the base class.

        Of several processes each seeds its environments as what they are of all, and draws actions of its
        own.

        Raises:
            ValueError: the seed is not a whole number from 0 to 2^32 - 1.
        """
        check_seed(seed)
        if seed is None:
            return
        super().set_random_seed(int(seed))
        if process_share()[0] > 0:
            if self.env is not None:
                seed_envs(self.env, int(seed))
            # Before there is a policy, they begin alike, because its parameters do.
            if hasattr(self, "policy"):
                seed_own_draws(int(seed), self.device)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Go on in another environment; see the base class.

        Raises:
            ValueError: it has other spaces, or is another number of environments.
            TypeError: it is no environment.
        """
        check_env(env)
        env = self._wrap_env(env, self.verbose)
        if env.num_envs != self.n_envs:
            raise ValueError(
                f"The number of environments is {env.num_envs}, and the agent's is {self.n_envs}; "
                f"{type(self).__name__}.load(path, env) takes another number."
            )
        with one_line_errors():
            super().set_env(env, force_reset)

    def normalize_env(self, env: GymEnv | str) -> VecEnv:
        """An environment for evaluation, with the observations normalised as the agent knows them.

        An agent that was trained in ``VecNormalize`` plays badly on observations as they are. This wraps an
        environment in a ``VecNormalize`` with the agent's statistics, which do not change any more; rewards
        stay as they are. An agent that was trained without gets the environment as a VecEnv, nothing else::

            agent = RecurrentPPO.load("agent.zip")
            evaluate_policy(agent, agent.normalize_env("Pendulum-v1"))

        Args:
            env: as the agent's was before ``VecNormalize``, or its id.

        Raises:
            ValueError: it has other spaces, or is one that has been normalised already.
            TypeError: it is no environment.
        """
        env = flattened(made_env(env, 0))
        if not isinstance(env, VecEnv):
            monitored = env if is_wrapped(env, Monitor) else Monitor(env)
            env = DummyVecEnv([lambda: monitored])
        if unwrap_vec_normalize(env) is not None:
            raise ValueError("env is in a VecNormalize already; give it without.")
        with one_line_errors():
            # Stable-Baselines3 moves the channels of images only now, as in training.
            wrapped = self._wrap_env(normalized(env, self.normalization()))
            check_for_correct_spaces(wrapped, self.observation_space, self.action_space)
        return wrapped

    def normalization(self) -> dict[str, Any] | None:
        """Statistics and settings of the ``VecNormalize`` around the agent's environment; ``None`` without.

        Of an agent without an environment, those that it was saved with.
        """
        own = None if self.env is None else unwrap_vec_normalize(self.env)
        return saved_normalization(self._run_state) if own is None else normalization_of(own)

    def save_pretrained(
        self, folder: str | os.PathLike, card: Card | None = None, extra: Mapping[str, Any] | None = None
    ) -> None:
        """Write the agent for others: parameters, settings, spaces and a card, and no pickle.

        The folder gets ``model.safetensors`` (the policy's parameters), ``config.json`` (algorithm, policy,
        core with all its settings, spaces, statistics of ``VecNormalize``; of a schedule what it begins with)
        and ``README.md`` in the form that Hugging Face reads. Nothing is uploaded. What a run needs to go on,
        such as the optimizer's state, is in :meth:`save` only.

        Args:
            folder: made if it is not there; a model in it is replaced.
            card: what is known of the agent, :class:`mnm_rl.model_files.card.Card`.
            extra: further plain values for ``config.json``.

        Raises:
            ValueError: a setting is a class of one's own, a parameter is not finite, or the folder cannot be
                used.
            TypeError: it is not a path.
        """
        save_agent(self, folder, card, extra or {})

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike,
        env: GymEnv | str | None = None,
        device: torch.device | str = "auto",
        trusted: bool = False,
        **kwargs: Any,
    ) -> Self:
        """An agent that :meth:`save_pretrained` wrote; nothing in the folder is run.

        Args:
            folder: the agent's.
            env: the environment to train on in, or its id; not needed for ``predict``. A ``VecNormalize``
                that has seen nothing gets the agent's statistics.
            device: where the policy runs.
            trusted: whether the module of a core of one's own may be imported.
            kwargs: settings of the algorithm in place of those saved, such as ``learning_rate``.

        Raises:
            ValueError: there is no such agent, its files are damaged, it is of another algorithm, or the
                environment has other spaces.
            TypeError: the path or the environment is none, or there is no such setting.
        """
        return load_agent(cls, folder, env, device, trusted, kwargs)

    def export(self, path: str | os.PathLike) -> None:
        """Write the acting step to an ONNX file, for :class:`mnm_rl.player.Player` or any other runtime.

        One step of ``batch`` environments: observation, episode start and state in; the most likely action,
        the value and the state after it out. Resets are inside, and so are the statistics of
        ``VecNormalize``. Needs ``pip install 'mnm-rl[onnx]'``.

        Args:
            path: a file that ends in ``.onnx``.

        Raises:
            ValueError: the core cannot be exported, the file cannot be written, or ONNX is not installed.
            TypeError: it is not a path.
        """
        export_agent(self, path)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """See base class, which refuses Tuple and nested spaces."""
        return OnPolicyAlgorithm._wrap_env(flattened(env), verbose, monitor_wrapper)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "core_state", "guard", "_rollout_start"]

    def mark_rollout_start(self) -> None:
        """To be called before a rollout: what is saved until the update stands for this moment."""
        self._rollout_start = None
        if self.env is None or not saves_its_state(self.env):
            return
        attributes, state = self._present()
        self._rollout_start = (attributes, state)

    def mark_update_done(self) -> None:
        """To be called after an update: what is saved now stands for the present."""
        self._rollout_start = None

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._rollout_start = None
        return super()._setup_learn(*args, **kwargs)

    def _present(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return capture_attributes(self), capture_run_state(self)


@contextmanager
def _one_sentence_errors(path: Any) -> Iterator[None]:
    """What is wrong with the values in a file, which may be of any type, in one sentence."""
    try:
        yield
    except ValueError as error:
        if "checkpoint" in str(error):
            raise
        raise ValueError(f"The checkpoint {path} cannot be used: {error}") from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = named[1] if named else "something other than tensors"
        raise ValueError(f"The checkpoint {path} holds {what} among its parameters.") from error
    # Anything can go wrong with values of the wrong type.
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"The checkpoint {path} does not hold an agent of this kind: {lines[0]}") from error


def _check_values(agent: ResumableAlgorithm) -> None:
    """Make sure of what Stable-Baselines3 takes from a file as it is, whatever it is.

    Raises:
        ValueError: something of a kind that it cannot be.
    """
    for name in ("num_timesteps", "_n_updates", "_episode_num"):
        value = getattr(agent, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"its {name} must be a whole number that is not negative, got {value!r}.")
    if not isinstance(agent.n_processes, int) or agent.n_processes < 1:
        raise ValueError(f"its n_processes must be at least 1, got {agent.n_processes!r}.")
    kinds: dict[str, tuple[type, ...]] = {
        "callback_state": (dict,),
        "_run_state": (dict, type(None)),
        "_last_obs": (np.ndarray, dict, type(None)),
        "_last_original_obs": (np.ndarray, dict, type(None)),
        "_last_episode_starts": (np.ndarray, type(None)),
        "ep_info_buffer": (deque, type(None)),
        "ep_success_buffer": (deque, type(None)),
    }
    for name, allowed in kinds.items():
        if not isinstance(value := getattr(agent, name), allowed):
            raise ValueError(f"its {name} cannot be of the type {type(value).__name__}.")
    if (saved := saved_normalization(agent._run_state)) is not None:
        check_saved(saved, agent.observation_space)
    for name, value in agent.policy.state_dict().items():
        if not value.isfinite().all():
            raise ValueError(f"its parameters are not finite, in {name}.")


def capture_attributes(agent: ResumableAlgorithm) -> dict[str, Any]:
    """The attributes as they are now, safe from later changes."""
    return {name: copy.copy(getattr(agent, name)) for name in ATTRIBUTES}


def capture_run_state(agent: ResumableAlgorithm) -> dict[str, Any]:
    """Recurrent state, random generators, environments and counts of skipped updates, as they are now."""
    starts = agent._last_episode_starts
    # At the start of an episode the state is the initial one, which need not be stored (MNM's is 120 kB).
    episode_begins = starts is None or bool(np.all(starts))
    return {
        "core_state": None if episode_begins else state_to_arrays(agent.core_state),
        "random": random_state(),
        "env": _statistics_alone(agent) if agent.env is None else env_state(agent.env),
        "guard": agent.guard.state_dict(),
    }


def _statistics_alone(agent: ResumableAlgorithm) -> list[Any] | None:
    """Of an agent without its environment: what it needs to play in another one, and no episodes."""
    statistics = agent.normalization()
    return None if statistics is None else [(VecNormalize.__name__, statistics), None]


def saved_processes(state: dict[str, Any] | None) -> int:
    """Of how many processes a checkpoint holds what they need to go on."""
    return (state or {}).get("processes", 1)


def take_own_part(agent: ResumableAlgorithm, state: dict[str, Any], force_reset: bool) -> None:
    """Of what several processes have saved, leave this process its own.

    Args:
        agent: as the first process saved it.
        state: what it was saved with.
        force_reset: whether the environment starts new episodes.

    Raises:
        ValueError: the agent is to go on with its episodes in another number of processes.
    """
    rank, processes = process_share()
    saved = saved_processes(state)
    if agent.env is not None and not force_reset:
        check_processes(state)
    if rank > 0 and saved == processes:
        attributes, agent._run_state = state["others"][rank - 1]
        # No others, which a file of somebody else's might have.
        own = {name: attributes[name] for name in ATTRIBUTES}
        vars(agent).update({**own, "_last_obs": None} if force_reset else own)


def check_processes(state: dict[str, Any] | None) -> None:
    """Raise a ValueError unless a checkpoint holds what each of the processes needs that train here."""
    saved, processes = saved_processes(state), process_share()[1]
    if saved != processes:
        raise ValueError(
            f"The checkpoint holds what a run of {_counted(saved)} needs to go on, and here is "
            f"{_counted(processes)}; start as many (torchrun --nproc-per-node {saved})."
        )


def _counted(processes: int) -> str:
    return "one process" if processes == 1 else f"a group of {processes} processes"


def restore_run_state(agent: ResumableAlgorithm, state: dict[str, Any]) -> None:
    """Put back what :func:`capture_run_state` returned, into an agent with its environment."""
    agent.core_state = agent.policy.state_from_arrays(state["core_state"], agent.n_envs)
    if agent.env is not None and state["env"] is not None:
        if saves_its_state(agent.env) and state["env"][-1] is not None:
            set_env_state(agent.env, state["env"])
        else:
            set_statistics(agent.env, saved_normalization(state))
    # Last, because anything before may draw random numbers.
    set_random_state(state["random"])
