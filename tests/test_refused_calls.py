"""Bad calls of the public API: one clear sentence each, before any work starts (see refusals.py).

CI takes every tenth case of each test (see conftest.py); `pytest -m "" tests/test_refused_calls.py` runs all of them.
"""

# ruff: noqa: E501, F811
# pyright: reportArgumentType=false

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from refusals import imported, place, refuse_call, runs  # noqa: F401 - fixtures

from mnm_rl.agents import RecurrentA2C
from mnm_rl.cores import MemoryCore, core_names, make_core, register_core
from mnm_rl.envs import MazeEnv, MazeRules, MazeVecEnv, MazeVectorEnv
from mnm_rl.tasks import register_task
from mnm_rl.testing import check_core
from mnm_rl.training.curves import CurveFile, read_curve
from mnm_rl.training.rl.config import A2CConfig
from mnm_rl.training.rl.config import config_from_dict as a2c_from_dict
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.config import config_from_dict as supervised_from_dict

NAN, INF = float("nan"), float("inf")


class NoCore:
    """Not a core."""


class NoConfigCore(MemoryCore):
    """A core that does not say what its settings are."""

    def initial_state(self, batch_size: int) -> Any:
        """Nothing."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Nothing."""


SMALL_MNM = dict(hidden_size=4, key_size=2, value_size=2, memory_widths=(2,))


def small(name: str = "mnm-p") -> MemoryCore:
    """A small core of four inputs."""
    return make_core(name, 4, **(SMALL_MNM if name.startswith("mnm") else {"hidden_size": 4}))


def agent(env: Any = None, policy: Any = "MlpPolicy", **settings: Any) -> RecurrentA2C:
    """A small agent in the maze."""
    env = MazeVecEnv(2, size=3) if env is None else env
    kwargs = {"core": "lstm", "core_kwargs": {"hidden_size": 4}}
    return RecurrentA2C(policy, env, **{"policy_kwargs": kwargs, "n_steps": 4, "device": "cpu", **settings})


def core_calls() -> Iterator[tuple[str, Callable[[], object], str]]:
    """Cores, how they are made and called."""
    for value in (0, -1, 1.5, NAN, "x", None, [], True, 10**30):
        yield (
            f"make_core input_size {value!r}",
            lambda v=value: make_core("lstm", v, hidden_size=4),
            "input_size",
        )
        if value != 0:  # torch's LSTM needs an input, MNM does not
            yield (
                f"make_core mnm-p input_size {value!r}",
                lambda v=value: make_core("mnm-p", v, **SMALL_MNM),  # pyright: ignore
                "input_size",
            )
    for core in ("", "x", None, 5, [], {}, NoCore, NoConfigCore, MemoryCore, "os:path", ":", "a:", "lstm "):
        yield f"make_core {core!r}", lambda c=core: make_core(c, 4), "core"  # pyright: ignore
        yield f"check_core {core!r}", lambda c=core: check_core(c), "core"  # pyright: ignore
    for name in core_names():
        for value in (0, -1, 1.5, NAN, INF, "x", None, [], True, 10**30):
            yield (
                f"{name} hidden_size {value!r}",
                lambda n=name, v=value: make_core(n, 4, hidden_size=v),
                "hidden_size",
            )
    for setting, values in {
        "output_size": (0, -1, 1.5, "x", [], True),
        "key_size": (0, -1, 1.5, NAN, "x", None, []),
        "heads": (0, -1, 1.5, "x", None, True),
        "memory_widths": (0, "x", (0,), (-1,), (1.5,), ("x",), None, (None,), 5),
        "recall_weights": ((), (NAN,), (INF,), (-1.0,), ("x",), None, 5, "x"),
        "rate_per_layer": ("x", 5, None),
        "normalization": ("x", None, 5, []),
        "output_activation": ("x", None, []),
        "write_rule": ("x", None, []),
        "kernel": ("x", None, [], 5),
        "snapshot_every": (0, -1, 1.5, "x", True, []),
        "nonsense": (1,),
    }.items():
        for value in values:
            yield (
                f"mnm-p {setting}={value!r}",
                lambda s=setting, v=value: make_core("mnm-p", 4, **{**SMALL_MNM, s: v}),
                setting,
            )
    for name in ("lstm", "gru", "mnm-p", "mnm-g", "lstm-salu", "plastic"):
        for what, call, says in (
            ("no tensor", lambda c: c([[1.0] * 4]), "inputs|tensor"),
            ("None", lambda c: c(None), "inputs|tensor"),
            ("two dimensions", lambda c: c(torch.zeros(2, 4)), "inputs"),
            ("another size", lambda c: c(torch.zeros(2, 3, 5)), "inputs"),
            ("no steps", lambda c: c(torch.zeros(0, 3, 4)), "inputs"),
            ("no examples", lambda c: c(torch.zeros(2, 0, 4)), "inputs"),
            ("integers", lambda c: c(torch.zeros(2, 3, 4, dtype=torch.long)), "inputs"),
            ("double", lambda c: c(torch.zeros(2, 3, 4).double()), "inputs"),
            ("on meta", lambda c: c(torch.zeros(2, 3, 4, device="meta")), "inputs"),
            ("sparse", lambda c: c(torch.zeros(2, 3, 4).to_sparse()), "inputs"),
            ("numpy", lambda c: c(np.zeros((2, 3, 4), np.float32)), "inputs|tensor"),
            ("state None tuple", lambda c: c(torch.zeros(2, 3, 4), (None,)), "state"),
            ("state of text", lambda c: c(torch.zeros(2, 3, 4), "x"), "state"),
            ("state of another batch", lambda c: c(torch.zeros(2, 3, 4), c.initial_state(2)), "state"),
            ("state as a tuple", lambda c: c(torch.zeros(2, 3, 4), tuple(c.initial_state(3))), "state"),
            ("state in double", lambda c: c(torch.zeros(2, 3, 4), _double(c.initial_state(3))), "state"),
            ("state of None", lambda c: c(torch.zeros(2, 3, 4), _nothing(c.initial_state(3))), "state"),
            ("resets in float", lambda c: c(torch.zeros(2, 3, 4), None, torch.zeros(2, 3)), "resets"),
            (
                "resets of another shape",
                lambda c: c(torch.zeros(2, 3, 4), None, torch.zeros(3).bool()),
                "resets",
            ),
            ("resets as a list", lambda c: c(torch.zeros(2, 3, 4), None, [True]), "resets"),
            ("step of a sequence", lambda c: c.step(torch.zeros(2, 3, 4)), "inputs"),
            ("step without a batch", lambda c: c.step(torch.zeros(4)), "inputs"),
            (
                "step with resets of a sequence",
                lambda c: c.step(torch.zeros(3, 4), None, torch.zeros(2, 3).bool()),
                "resets",
            ),
            ("initial state of -1", lambda c: c.initial_state(-1), "batch"),
            ("initial state of text", lambda c: c.initial_state("x"), "batch"),
            ("initial state of 1.5", lambda c: c.initial_state(1.5), "batch"),
        ):
            yield f"{name}: {what}", lambda n=name, call=call: call(small(n)), says
    for name in ("", " x", "a:b", 5, None, [], "lstm"):
        yield f"register_core {name!r}", lambda n=name: register_core(n, type(small("gru"))), "name"  # pyright: ignore
    for core in (None, 5, "lstm", NoCore, MemoryCore, NoConfigCore, small):
        yield f"register_core my {core!r}", lambda c=core: register_core("my", c), "core"  # pyright: ignore
    yield "register_core nonsense", lambda: register_core("my", type(small()), nonsense=1), "nonsense"
    yield "register_core bad", lambda: register_core("my", type(small()), hidden_size=0), "hidden_size"
    yield "register_core text", lambda: register_core("my", type(small()), hidden_size="x"), "hidden_size"
    for task in (None, 5, "x", NoCore):
        yield f"register_task {task!r}", lambda t=task: register_task("my", t), "task"  # pyright: ignore
    for name in (None, 5, "", "a:b", []):
        from mnm_rl.tasks.double_copy import DoubleCopyOptions

        yield f"register_task {name!r}", lambda n=name: register_task(n, DoubleCopyOptions), "name|task"  # pyright: ignore
    yield "check_core only", lambda: check_core("lstm", only=["x"], hidden_size=4), "promise"
    yield "check_core only text", lambda: check_core("lstm", only="saving", hidden_size=4), "promise|only"
    yield "check_core only 5", lambda: check_core("lstm", only=5, hidden_size=4), "only"  # pyright: ignore
    yield "check_core only nothing", lambda: check_core("lstm", only=[], hidden_size=4), "only|promise"
    yield "check_core setting", lambda: check_core("lstm", nonsense=4), "nonsense"
    yield "check_core function and size", lambda: check_core(small, input_size=9), "input_size|function"
    yield "check_core function of text", lambda: check_core(lambda: "x"), "core"  # pyright: ignore
    yield "check_core a core", lambda: check_core(small()), "core"  # pyright: ignore


def _double(state: Any) -> Any:
    return type(state)(*(field.double() for field in state))


def _nothing(state: Any) -> Any:
    return type(state)(*(None for _ in state))


def agent_calls() -> Iterator[tuple[str, Callable[[], object], str]]:
    """Agents, how they are made and loaded."""
    for setting, values in {
        "n_steps": (0, -1, 1.5, NAN, "x", None, True, 10**12),
        "gamma": (-0.1, 1.1, NAN, INF, "x", None, True),
        "gae_lambda": (-0.1, 1.1, NAN, "x", None),
        "ent_coef": (-1, NAN, INF, "x", None, "auto"),
        "vf_coef": (-1, NAN, "x", None),
        "meta_coef": (-1, NAN, "x", None),
        "max_grad_norm": (0, -1, NAN, "x", None),
        "learning_rate": (-1, NAN, INF, "x", None, lambda: 1),
        "entropy_kind": ("x", None, 5),
        "normalize_advantage": ("x", None, 1),
        "bootstrap_time_limit": ("x", None, 1),
        "stats_window_size": (0, -1, 1.5, "x", None),
        "verbose": ("x", None, -5),
        "seed": (-1, 1.5, "x", 2**70, NAN),
        # Without a GPU, "cuda:99" is the CPU, as in all of Stable-Baselines3.
        "device": ("gpu", "", 5, *(["cuda:99"] if torch.cuda.is_available() else []), None),
        "tensorboard_log": (5, []),
        "rollout_buffer_class": (5, dict, "x"),
        "rollout_buffer_kwargs": (5, "x", {"nonsense": 1}),
        "policy_kwargs": (
            5,
            "x",
            [],
            {"nonsense": 1},
            {"core": "x"},
            {"core": None},
            {"core_kwargs": 5},
            {"core": "lstm", "core_kwargs": {"x": 1}},
            {"core": "lstm", "core_kwargs": {"hidden_size": 0}},
            {"core": "lstm", "core_kwargs": {"hidden_size": "x"}},
            {"net_arch": 5},
            {"net_arch": [0]},
            {"activation_fn": "x"},
            {"optimizer_class": 5},
            {"optimizer_kwargs": {"x": 1}},
            {"optimizer_kwargs": {"eps": -1}},
            {"features_extractor_class": 5},
            {"ortho_init": "x"},
            {"log_std_init": "x"},
            {"use_sde": True},
            {"normalize_images": "x"},
        ),
        "nonsense": (1,),
        "use_sde": (True, 1, "x", None),
        "sde_sample_freq": (0, -2, 1.5, "x", None),
        "n_epochs": (4,),
        "batch_size": (64,),
    }.items():
        for value in values:
            says = (
                setting
                if setting != "policy_kwargs"
                else "core|nonsense|hidden_size|"
                + "|".join(value if isinstance(value, dict) else ["policy_kwargs"])
            )
            yield f"RecurrentA2C {setting}={value!r}", lambda s=setting, v=value: agent(**{s: v}), says
    for env in (5, "", "Nothing-v0", [], object(), "CartPole-v99", NoCore, NoCore()):
        yield f"RecurrentA2C env {env!r}", lambda e=env: agent(e), "env"
    for policy in (None, 5, "", "x", NoCore, "MultiInputPolicy", "CnnPolicy", [], "CnnLstmPolicy"):
        yield f"RecurrentA2C policy {policy!r}", lambda p=policy: agent(None, p), "policy"
    for steps in (-1, 1.5, NAN, "x", None):  # no steps at all are what is left of a run that is done
        yield f"learn {steps!r}", lambda s=steps: agent().learn(s), "total_timesteps"  # pyright: ignore
    yield "learn log_interval 0", lambda: agent().learn(8, log_interval=0), "log_interval"
    yield "learn callback 5", lambda: agent().learn(8, 5), "callback"  # pyright: ignore
    yield "learn without env", lambda: RecurrentA2C("MlpPolicy", None).learn(8), "env"
    for observation in (None, "x", np.zeros(3), np.full(11, NAN), np.zeros((2, 3)), [], {"a": 1}):
        yield f"predict {observation!r}", lambda o=observation: agent().predict(o), "observation|obs"
    yield "predict state", lambda: agent().predict(np.zeros((2, 11), np.float32), state=5), "state"  # pyright: ignore
    yield "predict state tuple", lambda: agent().predict(np.zeros((2, 11), np.float32), state=(1, 2)), "state"  # pyright: ignore
    yield (
        "predict starts",
        lambda: agent().predict(np.zeros((2, 11), np.float32), episode_start=np.zeros(5)),
        "episode_start",
    )
    for path in ("nowhere", "", "empty", "file", None, 5, "loop"):
        for trusted in (True, False):
            yield (
                f"load {path!r} trusted={trusted}",
                lambda p=path, t=trusted: RecurrentA2C.load(p, trusted=t),
                "checkpoint|path|agent",
            )
    yield "load core", lambda: RecurrentA2C.load("a2c/checkpoint.zip", core="gru"), "core"
    yield "load core x", lambda: RecurrentA2C.load("a2c/checkpoint.zip", core="x"), "core"
    yield "load core 5", lambda: RecurrentA2C.load("a2c/checkpoint.zip", core=5), "core"  # pyright: ignore
    yield "load gamma", lambda: RecurrentA2C.load("a2c/checkpoint.zip", gamma=5), "gamma"
    yield "load n_steps", lambda: RecurrentA2C.load("a2c/checkpoint.zip", n_steps=0), "n_steps"
    yield "load nonsense", lambda: RecurrentA2C.load("a2c/checkpoint.zip", nonsense=5), "nonsense"
    yield "load device", lambda: RecurrentA2C.load("a2c/checkpoint.zip", device="x"), "device"
    yield (
        "load env of another size",
        lambda: RecurrentA2C.load("a2c/checkpoint.zip", MazeVecEnv(2, size=3)),
        "space",
    )
    yield (
        "load env of another number",
        lambda: RecurrentA2C.load(
            "a2c/checkpoint.zip", MazeVecEnv(3, size=3, previous_action=True), force_reset=False
        ),
        "env|mazes",
    )
    yield (
        "load custom_objects",
        lambda: RecurrentA2C.load("a2c/checkpoint.zip", custom_objects=5),
        "custom_objects",
    )  # pyright: ignore
    yield "save 5", lambda: agent().save(5), "path|save"
    yield "save below a file", lambda: agent().save("file/x.zip"), "file"
    yield "set_env", lambda: agent().set_env(MazeVecEnv(2, size=3, previous_action=True)), "space"  # pyright: ignore


def maze_calls() -> Iterator[tuple[str, Callable[[], object], str]]:
    """Mazes."""
    arguments: dict[str, tuple[Any, ...]] = {
        "size": (0, -1, 4, 1, 9.0, NAN, "9", None, True, [], 10**6 + 1, 10**30 + 1),
        "horizon": (0, -1, 1.5, NAN, INF, "x", None, True, 10**30),
        "goal_reward": (NAN, INF, "x", None, True, [], 10**400),
        "wall_reward": (NAN, INF, "x", None, True, 1e300),
        "previous_action": (1, "x", None, []),
        "relocation": (2018, "2017", None, [], ""),
        "render_mode": ("x", 5, "", []),
        "nonsense": (1,),
    }
    makers: dict[str, Callable[..., object]] = {
        "MazeEnv": MazeEnv,
        "MazeVecEnv": functools.partial(MazeVecEnv, 2),
        "MazeVectorEnv": functools.partial(MazeVectorEnv, 2),
        "gymnasium.make": functools.partial(gymnasium.make, "MNMMaze-9x9"),
    }
    for (name, make), (argument, values) in itertools.product(makers.items(), arguments.items()):
        for value in values:
            if name == "gymnasium.make" and argument == "render_mode" and not isinstance(value, str):
                continue  # Gymnasium looks at it first, with an AttributeError
            yield f"{name} {argument}={value!r}", lambda m=make, a=argument, v=value: m(**{a: v}), argument
    for value in (0, -1, 1.5, NAN, "x", None, True, [], 10**12, 10**30):
        yield f"MazeVecEnv {value!r}", lambda v=value: MazeVecEnv(v), "number of mazes|num_envs|memory"
        yield f"MazeVectorEnv {value!r}", lambda v=value: MazeVectorEnv(v), "number of mazes|num_envs|memory"
    for value in (0, -1, 1.5, "x", True):
        yield (
            f"max_episode_steps {value!r}",
            lambda v=value: MazeVectorEnv(2, max_episode_steps=v),
            "max_episode_steps",
        )
    for value in ("x", None, 5):
        yield (
            f"autoreset_mode {value!r}",
            lambda v=value: MazeVectorEnv(2, autoreset_mode=v),
            "autoreset_mode",
        )
    for value in (
        4,
        -1,
        1.5,
        NAN,
        "x",
        None,
        [0],
        [0, 1, 2],
        [[0, 1]],
        [0.5, 1],
        [True, False],
        [0, 9],
        10**30,
    ):
        yield f"MazeVecEnv step {value!r}", lambda v=value: _reset(MazeVecEnv(2, size=3)).step(v), "action"
        yield (
            f"MazeVectorEnv step {value!r}",
            lambda v=value: _reset(MazeVectorEnv(2, size=3)).step(v),
            "action",
        )
        if value != [0]:
            yield f"MazeEnv step {value!r}", lambda v=value: _reset(MazeEnv(size=3)).step(v), "action"
    for seed in (-1, 1.5, "x", NAN, [1]):
        yield f"MazeEnv seed {seed!r}", lambda s=seed: MazeEnv(size=3).reset(seed=s), "seed"
        yield f"MazeVecEnv seed {seed!r}", lambda s=seed: _seeded(MazeVecEnv(2, size=3), s), "seed"
        yield f"MazeVectorEnv seed {seed!r}", lambda s=seed: MazeVectorEnv(2, size=3).reset(seed=s), "seed"
    for mask in (True, [True], np.zeros(2, bool), np.ones(2), "x", np.ones(3, bool)):
        yield (
            f"reset_mask {mask!r}",
            lambda m=mask: MazeVectorEnv(2, size=3).reset(options={"reset_mask": m}),
            "reset_mask",
        )
    for options_ in (5, "x", [1]):
        yield f"options {options_!r}", lambda o=options_: MazeVectorEnv(2, size=3).reset(options=o), "options"
    for state in ({}, None, 5, {"cell": 1}, "x"):
        yield f"set_state {state!r}", lambda s=state: MazeVecEnv(2, size=3).set_state(s), "state"
    for name, value in (
        *(
            ("cell", [99, 0]),
            ("cell", [-1, 0]),
            ("goal", ["x", 0]),
            ("goal", [NAN, 0.0]),
            ("cell", [0.5, 0.5]),
        ),
        *(("time", [-1, 0]), ("last_action", [7, 0]), ("last_action", [-5, 0]), ("last_reward", [NAN, 0])),
        *(
            ("goal_visits", [-4, 0]),
            ("pending_seed", ["x", 0]),
            ("pending_seed", [-5, 0]),
            ("stream", [0.5, 0.5]),
        ),
        *(("started", [5, 6]), ("episode_return", [INF, 0])),
    ):
        yield (
            f"set_state {name} {value!r}",
            lambda n=name, v=value: _with_state(_reset(MazeVecEnv(2, size=3)), n, np.array(v)),
            name,
        )
    yield "MazeRules positional", lambda: MazeRules("9"), "size"  # pyright: ignore
    yield "gymnasium.make unknown", lambda: gymnasium.make("MNMMaze-9x9", size=10), "size"
    yield "make_vec", lambda: gymnasium.make_vec("MNMMaze-9x9", num_envs=0), "num"
    yield "make_vec kwargs", lambda: gymnasium.make_vec("MNMMaze-9x9", num_envs=2, size=2), "size"


def _reset(env: Any) -> Any:
    env.reset()
    return env


def _seeded(env: Any, seed: Any) -> None:
    env.seed(seed)
    env.reset()


def _with_state(env: MazeVecEnv, name: str, value: Any) -> None:
    env.set_state({**env.get_state(), name: value})


def training_calls() -> Iterator[tuple[str, Callable[[], object], str]]:
    """Configs and curves."""
    for field, values in {
        "task": (None, 5, "", "x", [], "os:path"),
        "core": (None, 5, "", "x", []),
        "task_options": (None, 5, "x", {"nonsense": 1}, {"instance": 9}, {"instance": "x"}, {"length": 1}),
        "core_settings": (None, 5, "x", {"nonsense": 1}, {"hidden_size": 0}, {"hidden_size": "x"}),
        "iterations": (0, -1, NAN, "x", None, 1.5, True, 10**30),
        "batch_size": (0, -1, NAN, "x", 1.5, True),
        "embedding_size": (0, "x", 1.5),
        "learning_rate": (0, -1, NAN, "x", None),
        "schedule": ("x", None, 5),
        "warmup": (-1, "x", NAN, 1.5),
        "max_grad_norm": (0, NAN, "x"),
        "meta_weight": (-1, NAN, "x"),
        "seed": (-1, "x", 1.5, NAN, 2**70, None),
        "validate_every": (0, "x", 1.5, None),
        "log_every": (0, "x", 1.5),
        "stop_error": (-1, "x", NAN, 2),
        "checkpoint_minutes": (0, "x", NAN, None),
    }.items():
        for value in values:
            yield (
                f"SupervisedConfig {field}={value!r}",
                lambda f=field, v=value: SupervisedConfig(**{f: v}).check(),
                f"{field}|core|nonsense|instance|length|hidden_size",
            )
    for field, values in {
        "env": (None, 5, "", [], "MNMMaze-4x4"),
        "env_kwargs": (None, 5, "", "x", {}, '{"size": 2}'),
        "drop_observations": (None, 5, "x", [1], "-1"),
        "reward_scale": (0, NAN, "x", None),
        "subprocesses": ("x", 5, None),
        "previous_action": ("x", 5),
        "n_envs": (0, "x", 1.5, True),  # None is that of the environment, here and below
        "episodes": (0, "x", 1.5),
        "timesteps": (0, "x", 1.5),
        "gamma": (2, NAN, "x"),
        "schedule": ("x", 5),
        "entropy_kind": ("x", 5),
        "seed": (-1, "x", 1.5, None, 2**70),
        "core": (None, 5, "x"),
        "core_settings": (None, "x", {"nonsense": 1}),
        "normalize_advantage": ("x", 5),
        "bootstrap_time_limit": ("x", 5),
        "watch_every": (-1, "x", 1.5),
    }.items():
        for value in values:
            yield (
                f"A2CConfig {field}={value!r}",
                lambda f=field, v=value: A2CConfig(**{f: v}).check(),
                f"{field}|core|nonsense|size",
            )
    for read, name in ((a2c_from_dict, "a2c"), (supervised_from_dict, "supervised")):
        for values in (None, 5, [], "x", {"nonsense": 1}, {"core_kwargs": 5}, {"core_kwargs": "x"}, {5: 1}):
            yield (
                f"{name} config_from_dict {values!r}",
                lambda r=read, v=values: r(v),
                "config|option|core_kwargs",
            )
    for path in (
        "nowhere.csv",
        "empty",
        "words.csv",
        "binary.csv",
        "nul.csv",
        "",
        "loop",
        "empty.csv",
        None,
        5,
    ):
        yield f"read_curve {path!r}", lambda p=path: read_curve(p), "curve|csv"  # pyright: ignore
    for path in ("words.csv", "binary.csv", "nul.csv", "empty", "file/x.csv", "loop"):
        yield (
            f"CurveFile {path!r}",
            lambda p=path: CurveFile(p, "episodes", after=1),
            "curve|csv|file|empty|loop",
        )
    yield "CurveFile key", lambda: CurveFile("good.csv", "nothing", after=1), "nothing"
    yield (
        "CurveFile append to binary",
        lambda: CurveFile("binary.csv", "episodes").append({"episodes": 1}),
        "curve|csv",
    )
    yield "CurveFile append 5", lambda: CurveFile("good.csv", "episodes").append(5), "row"  # pyright: ignore
    yield "CurveFile after text", lambda: CurveFile("good.csv", "episodes", after="x"), "after"  # pyright: ignore
    yield (
        "CurveFile append without the key",
        lambda: CurveFile("new.csv", "episodes").append({"reward": 1}),
        "episodes",
    )


def call_id(text: str) -> str:
    """Its words, without places in memory, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)[:80]


CALLS = [*core_calls(), *agent_calls(), *maze_calls(), *training_calls()]


@pytest.mark.parametrize(
    ("call", "says"), [case[1:] for case in CALLS], ids=[call_id(case[0]) for case in CALLS]
)
def test_a_call_is_refused(call: Callable[[], object], says: str, place: Path) -> None:
    refuse_call(call, place, says)
