"""The settings of an agent for trackers of runs: TensorBoard's HPARAMS, and Weights & Biases."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.vec_env import VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # pyright: ignore[reportAttributeAccessIssue]
from torch import nn

from mnm_rl.agents import HParamCallback, agent_settings
from mnm_rl.envs import MazeVecEnv

POLICY: dict[str, Any] = {"core": "mnm-p", "core_kwargs": {"hidden_size": 8, "memory_widths": (4, 4)}}


def make_agent(algorithm, **settings):
    env = MazeVecEnv(2, size=3, horizon=8)
    return algorithm("MlpPolicy", env, n_steps=8, policy_kwargs=POLICY, device="cpu", **settings)


def test_settings_are_flat_and_say_everything_that_was_given(algorithm):
    policy = {**POLICY, "net_arch": [5], "activation_fn": nn.ReLU, "optimizer_kwargs": {"eps": 1e-6}}
    env = VecNormalize(MazeVecEnv(2, size=3), norm_reward=False)
    agent = algorithm("MlpPolicy", env, 2e-3, 8, gamma=0.9, seed=3, policy_kwargs=policy, device="cpu")
    settings = agent_settings(agent)
    wanted = {
        "algorithm": algorithm.__name__,
        "core": "mnm-p",
        "core.hidden_size": 8,
        "core.memory_widths": "[4, 4]",
        "policy.net_arch": "[5]",
        "policy.activation_fn": "ReLU",
        "policy.optimizer_kwargs.eps": 1e-6,
        "learning_rate": 2e-3,
        "gamma": 0.9,
        "n_steps": 8,
        "n_envs": 2,
        "seed": 3,
        "normalize_observations": True,
        "normalize_rewards": False,
        "parameters": sum(each.numel() for each in agent.policy.parameters()),
    }
    assert {name: settings[name] for name in wanted} == wanted
    assert "learning_rate_end" not in settings
    assert json.loads(json.dumps(settings)) == settings
    others = {"n_epochs", "clip_range", "batch_size", "target_kl"} & settings.keys()
    assert len(others) == (4 if algorithm.__name__ == "RecurrentPPO" else 0)


def test_a_schedule_is_its_two_ends(algorithm):
    settings = agent_settings(make_agent(algorithm, learning_rate=lambda left: 1e-3 * left + 1e-4))
    assert settings["learning_rate"] == pytest.approx(1.1e-3)
    assert settings["learning_rate_end"] == pytest.approx(1e-4)


def test_tensorboard_has_the_settings_and_the_numbers_of_the_last_update(algorithm, tmp_path):
    agent = make_agent(algorithm, tensorboard_log=str(tmp_path))
    agent.learn(48, HParamCallback(more={"maze": "3x3"}), log_interval=100)
    (folder,) = tmp_path.iterdir()
    events = EventAccumulator(str(folder)).Reload()
    told = HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info.hparams
    assert told["core"].string_value == "mnm-p"
    assert told["core.hidden_size"].number_value == 8
    assert told["n_steps"].number_value == 8
    assert told["maze"].string_value == "3x3"
    metrics = HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    ).experiment.metric_infos
    tags = {each.name.tag for each in metrics}
    assert tags == {"rollout/ep_rew_mean", "rollout/ep_len_mean", "train/value_loss"}
    last = {tag: events.Scalars(tag)[-1] for tag in tags}
    assert {each.step for each in last.values()} == {48}
    assert last["train/value_loss"].value == pytest.approx(agent.last_update["value_loss"])
    assert last["rollout/ep_len_mean"].value == 8


@pytest.mark.parametrize("metrics", [(), "train/loss"])
def test_the_callback_needs_tags(metrics):
    with pytest.raises(ValueError, match="must be tags such as rollout/ep_rew_mean"):
        HParamCallback(metrics)


WANDB = """
import wandb
from wandb.integration.sb3 import WandbCallback
from mnm_rl.agents import RecurrentA2C, agent_settings
from mnm_rl.envs import MazeVecEnv

agent = RecurrentA2C("MlpPolicy", MazeVecEnv(2, size=3, horizon=8), n_steps=8, tensorboard_log="tensorboard",
                     policy_kwargs={"core": "gru", "core_kwargs": {"hidden_size": 4}}, device="cpu")
with wandb.init(project="memories", config=agent_settings(agent), sync_tensorboard=True) as run:
    agent.learn(48, WandbCallback(model_save_path="models", gradient_save_freq=1), log_interval=1)
    assert run.config["core.hidden_size"] == 4 and run.config["n_steps"] == 8
assert RecurrentA2C.load("models/model.zip", trusted=False).policy.core_name == "gru"
"""


def test_the_callback_of_wandb_works_offline(tmp_path):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    done = subprocess.run(
        [sys.executable, "-c", WANDB],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "WANDB_MODE": "offline", "WANDB_SILENT": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert all(word in record.read_bytes() for word in (b"core.hidden_size", b"rollout/ep_rew_mean"))
