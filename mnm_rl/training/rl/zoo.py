"""RL Baselines3 Zoo with the recurrent agents among its algorithms, and the maze as one batch.

RL Zoo has no place where another package could enter itself, so its tables and two of its names are changed
in the process that runs its command line.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from pprint import pprint
from typing import Any

import optuna
import rl_zoo3.enjoy  # pyright: ignore[reportMissingImports]
import rl_zoo3.train  # pyright: ignore[reportMissingImports]
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rl_zoo3.exp_manager import ExperimentManager  # pyright: ignore[reportMissingImports]
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER  # pyright: ignore[reportMissingImports]
from rl_zoo3.utils import ALGOS, create_test_env  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from mnm_rl.agents.arguments import check_dictionary
from mnm_rl.envs import MazeVecEnv
from mnm_rl.training.folder import A2C_AGENT, PPO_AGENT, RunKind
from mnm_rl.training.rl.agent import ALGORITHMS
from mnm_rl.training.rl.environments import EnvConfig, is_maze, maze_arguments
from mnm_rl.training.rl.zoo_settings import draw, merged_policy_arguments, settings_of_draw, zoo_entry
from mnm_rl.updates import NonFiniteError

KINDS: dict[str, RunKind] = {"recurrenta2c": A2C_AGENT, "recurrentppo_mnm": PPO_AGENT}
"""RL Zoo's name of an algorithm -> the kind of run that it is."""


class RecurrentExperiments(ExperimentManager):
    """RL Zoo's runs, for its own algorithms as they are and for ours with settings of the package.

    Without ``-conf``, settings are those of ``mnm-rl train-a2c`` and ``train-ppo`` for the environment and
    the core; ``-params`` goes before them. The maze is played as one batch. In a search, the settings that
    are drawn are those of ``mnm-rl tune``, the core stays, and a trial that does not stay finite is pruned.
    """

    core: str | None = None
    """The core that was asked for by its own option."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        given = inspect.signature(ExperimentManager.__init__).bind(self, *args, **kwargs).arguments
        self._given: dict[str, Any] = given
        self._env_id: str = given["env_id"]
        self._kind = KINDS.get(self.algo)
        if self.core is not None:
            self._check_core_option()

    def _check_core_option(self) -> None:
        arguments = (self.custom_hyperparams or {}).get("policy_kwargs")
        if self._kind is None or self._given.get("config") or arguments is not None:
            raise ValueError(
                f"--core is for {' and '.join(KINDS)} with the settings of the package; with -conf or "
                "policy_kwargs in -params the core stands there."
            )
        self.custom_hyperparams = {
            **(self.custom_hyperparams or {}),
            "policy_kwargs": {"core": self.core},
        }

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those of a file of the user's, or the package's; see base class."""
        if self._kind is None or self._given.get("config"):
            return super().read_hyperparameters()
        entry = self._package_entry(self._kind)
        print(f"Settings of mnm-rl train-{self._kind.name} for {self._env_id}")
        with tempfile.TemporaryDirectory() as folder:
            self.config = str(Path(folder) / f"mnm-rl-{self._kind.name}.yml")
            Path(self.config).write_text(yaml.safe_dump({self._env_id: entry}))
            return super().read_hyperparameters()

    def _package_entry(self, kind: RunKind) -> dict[str, Any]:
        given = dict(self.custom_hyperparams or {})
        arguments = given.get("policy_kwargs", {})
        if isinstance(arguments, str):  # RL Zoo evaluates such texts, which may hold any Python
            return zoo_entry(kind, self._env_id, env_kwargs=self.env_kwargs)
        check_dictionary("policy_kwargs", arguments)
        entry = zoo_entry(kind, self._env_id, arguments.get("core"), self.env_kwargs)
        if arguments:
            given["policy_kwargs"] = merged_policy_arguments(entry, arguments)
            self.custom_hyperparams = given
        return entry

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> Any:
        """Let evaluation, too, play with the env_kwargs of the settings; see base class."""
        found = super()._preprocess_hyperparams(hyperparams)
        if self._given.get("eval_env_kwargs") is None:
            self.eval_env_kwargs = self.env_kwargs
        return found

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """The maze as one batch, everything else as RL Zoo does; see base class."""
        if is_maze(self._env_id):
            if self.env_wrapper is not None:
                raise ValueError("env_wrapper is not for the maze, whose environments are one batch.")
            arguments = self.eval_env_kwargs if eval_env else self.env_kwargs
            log = None if eval_env or no_log else self.save_path
            self.vec_env_class = partial(batch_of_mazes, self._env_id, arguments, log)
        return super().create_envs(n_envs, eval_env, no_log)

    def load_trial(
        self, storage: str, study_name: str, trial_id: int | None = None, convert: bool = True
    ) -> dict[str, Any]:
        """The settings of a trial, and the policy of its study, which is not searched; see base class."""
        found = super().load_trial(storage, study_name, trial_id, convert)
        if self._kind is None or not convert:
            return found
        kept = storage
        if storage.endswith(".log"):
            kept = JournalStorage(JournalFileBackend(storage))
        arguments = optuna.load_study(storage=kept, study_name=study_name).user_attrs.get("policy_kwargs", "")
        with suppress(ValueError, SyntaxError):  # RL Zoo notes it as a text, which may name classes
            found["policy_kwargs"] = ast.literal_eval(arguments)
        return found

    def hyperparameters_optimization(self) -> None:
        """Search what ``mnm-rl tune`` searches; see base class.

        Raises:
            ValueError: pandas, by which RL Zoo reports a search at its end, is not installed.
        """
        if importlib.util.find_spec("pandas") is None:
            raise ValueError(
                "A search needs pandas for its report, which is not installed: pip install pandas."
            )
        if self._kind is not None:
            bptt_steps = self._hyperparams.get("bptt_steps")
            HYPERPARAMS_SAMPLER[self.algo] = sampler(self._kind, bptt_steps)
        super().hyperparameters_optimization()

    def objective(self, trial: optuna.Trial) -> float:
        """Prune a trial whose numbers did not stay finite, as RL Zoo does with other errors of that kind."""
        try:
            return super().objective(trial)
        except NonFiniteError as error:
            print(f"Trial {trial.number} is pruned: {error}")
            pprint(trial.params)
            raise optuna.exceptions.TrialPruned from error


def sampler(kind: RunKind, bptt_steps: int | None = None) -> Any:
    """What RL Zoo calls for the settings of a trial; ``policy_kwargs`` is not among them: it stays."""

    def sample(trial: optuna.Trial, n_actions: int, n_envs: int, more: dict[str, Any]) -> dict[str, Any]:
        settings = settings_of_draw(draw(kind, trial, n_envs, bptt_steps))
        del settings["n_envs"]  # an argument of the constructor otherwise
        return ExperimentManager._preprocess_schedules(settings)

    return sample


def batch_of_mazes(
    env_id: str, arguments: Mapping[str, Any] | None, log: str | None, makers: list[Any], **kwargs: Any
) -> VecEnv:
    """As many mazes as there are makers of single ones, which are not called.

    Args:
        env_id: of the maze.
        arguments: of the maze.
        log: folder for RL Zoo's monitor.csv.
        makers: by RL Zoo.
        kwargs: nothing that a batch needs.
    """
    size = maze_arguments(EnvConfig(env=env_id))["size"]
    try:
        mazes = MazeVecEnv(len(makers), **{"size": size, **(arguments or {})})
    except TypeError as error:
        raise ValueError(f"env_kwargs: {str(error).replace('MazeVecEnv.__init__()', 'the maze')}.") from error
    with warnings.catch_warnings():
        # The batch says that it is monitored, which is for evaluate_policy; the file is what is missing.
        warnings.filterwarnings("ignore", message="The environment is already wrapped with a `Monitor`")
        if log is not None:
            os.makedirs(log, exist_ok=True)
        return VecMonitor(mazes, None if log is None else os.path.join(log, "0.monitor.csv"))


def make_played_env(env_id: str, *args: Any, **kwargs: Any) -> VecEnv:
    """RL Zoo's environments for ``enjoy``: the maze is one batch, unless it is shown in a window."""
    given = inspect.signature(create_test_env).bind(env_id, *args, **kwargs).arguments
    if is_maze(env_id) and not given.get("should_render", True):
        arguments = given.get("env_kwargs")
        kwargs["vec_env_cls"] = partial(batch_of_mazes, env_id, arguments, given.get("log_dir"))
    return create_test_env(env_id, *args, **kwargs)


def register() -> None:
    """Enter our agents into RL Zoo's tables, and our runs in the place of its own."""
    for name, kind in KINDS.items():
        ALGOS[name] = ALGORITHMS[kind.name]
        HYPERPARAMS_CONVERTER[name] = settings_of_draw  # pyright: ignore[reportArgumentType]
    rl_zoo3.train.ExperimentManager = RecurrentExperiments  # pyright: ignore[reportPrivateImportUsage]
    rl_zoo3.enjoy.create_test_env = make_played_env  # pyright: ignore[reportPrivateImportUsage]
