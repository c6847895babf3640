"""Saving, loading, and going on as if the run had not been stopped."""

import io
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

from mnm_rl.agents import RecurrentA2C
from mnm_rl.agents.checkpoint import check_checkpoint
from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.envs import MazeVecEnv

pytestmark = pytest.mark.filterwarnings(
    "ignore:The environment is already wrapped", "ignore:rich is experimental"
)
CORES: dict[str, dict[str, Any]] = {
    "lstm": {"hidden_size": 8},
    "mnm-p": {"hidden_size": 8, "key_size": 6, "value_size": 6, "memory_widths": (6,)},
}
ENVS, STEPS = 3, 77


Agent: Any = RecurrentA2C
"""The algorithm that a test is run with: each of both."""


@pytest.fixture(autouse=True)
def _each_algorithm(algorithm, monkeypatch):
    monkeypatch.setitem(globals(), "Agent", algorithm)


def maze_env(wrapped: bool = False) -> VecEnv:
    env = MazeVecEnv(ENVS, size=5, previous_action=True)
    return VecNormalize(VecMonitor(env), gamma=0.9) if wrapped else env


def make_agent(env: VecEnv, core: str = "lstm", **settings: Any) -> Any:
    kwargs = {"core": core, "core_kwargs": CORES[core]}
    return Agent(
        "MlpPolicy", env, **{"n_steps": STEPS, "seed": 3, **settings}, device="cpu", policy_kwargs=kwargs
    )


def everything(agent: RecurrentOnPolicyAlgorithm) -> dict[str, Any]:
    """All that decides how a run goes on, as plain values."""
    assert agent.ep_info_buffer is not None
    return {
        "parameters": {name: value.tolist() for name, value in agent.policy.state_dict().items()},
        "moments": str(agent.policy.optimizer.state_dict()),
        "observation": np.asarray(agent._last_obs).tolist(),
        "starts": np.asarray(agent._last_episode_starts).tolist(),
        "state": [field.tolist() for field in agent.core_state],
        "timesteps": agent.num_timesteps,
        "updates": agent._n_updates,
        "returns": [round(episode["r"], 6) for episode in agent.ep_info_buffer],
        "random": (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()),  # noqa: NPY002
    }


def scramble_random_generators() -> None:
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("core", CORES)
def test_a_run_in_the_maze_goes_on_as_if_it_had_not_stopped(core, wrapped, tmp_path):
    make_agent(maze_env(wrapped), core).learn(2 * ENVS * STEPS).save(tmp_path / "agent")
    scramble_random_generators()
    resumed = Agent.load(tmp_path / "agent", env=maze_env(wrapped), device="cpu", force_reset=False)
    assert not np.all(resumed._last_episode_starts), "stopped in the middle of an episode"
    resumed.learn(4 * ENVS * STEPS, reset_num_timesteps=False)
    # Taken before the next run starts: it holds numbers drawn from the generators that all runs share.
    after = everything(resumed)
    assert after == everything(make_agent(maze_env(wrapped), core).learn(6 * ENVS * STEPS))


def test_a_save_in_the_middle_of_a_rollout_goes_on_from_the_rollouts_start(tmp_path):
    callback = CheckpointCallback(save_freq=100, save_path=str(tmp_path), name_prefix="agent")
    unbroken = make_agent(maze_env()).learn(5 * ENVS * STEPS, callback)
    expected = everything(unbroken)
    scramble_random_generators()
    path = tmp_path / f"agent_{100 * ENVS}_steps.zip"
    resumed = Agent.load(path, env=maze_env(), device="cpu", force_reset=False)
    assert resumed.num_timesteps == ENVS * STEPS
    resumed.learn(4 * ENVS * STEPS, reset_num_timesteps=False)
    assert everything(resumed) == expected


class StopAfter(BaseCallback):
    def __init__(self, calls: int):
        super().__init__()
        self.calls = calls

    def _on_step(self):
        return self.n_calls < self.calls


def test_a_run_stopped_by_a_callback_and_saved_goes_on_as_if_it_had_not_stopped(tmp_path):
    stopped = make_agent(maze_env())
    stopped.learn(10**6, StopAfter(100))
    stopped.save(tmp_path / "agent")
    assert stopped.num_timesteps == 100 * ENVS, "saving changes nothing"
    resumed = Agent.load(tmp_path / "agent", env=maze_env(), device="cpu", force_reset=False)
    resumed.learn(2 * ENVS * STEPS, reset_num_timesteps=False)
    after = everything(resumed)
    assert after == everything(make_agent(maze_env()).learn(3 * ENVS * STEPS))


@pytest.mark.parametrize("core", CORES)
def test_a_run_goes_on_in_an_environment_that_was_kept(core, tmp_path):
    def new_env() -> VecEnv:
        return make_vec_env("CartPole-v1", 2)

    expected = everything(make_agent(new_env(), core, n_steps=9).learn(12 * 18))
    env = new_env()
    make_agent(env, core, n_steps=9).learn(5 * 18).save(tmp_path / "agent.zip")
    scramble_random_generators()
    resumed = Agent.load(tmp_path / "agent.zip", env=env, device="cpu", force_reset=False)
    resumed.learn(7 * 18, reset_num_timesteps=False)
    assert everything(resumed) == expected


def test_the_count_of_skipped_updates_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(Agent, "_total", lambda agent, losses: float("nan") * losses.value)
    agent = make_agent(maze_env()).learn(2 * ENVS * STEPS)
    agent.save(tmp_path / "agent")
    assert Agent.load(tmp_path / "agent", device="cpu").guard.skipped == 2


def test_loading_without_going_on_starts_new_episodes(tmp_path):
    make_agent(maze_env()).learn(ENVS * STEPS).save(tmp_path / "agent")
    agent = Agent.load(tmp_path / "agent", env=MazeVecEnv(2, size=5, previous_action=True), device="cpu")
    agent.learn(2 * STEPS)
    assert agent.num_timesteps == 2 * STEPS
    assert agent.rollout_buffer.episode_starts[0].all()


def test_a_file_object_and_set_parameters():
    agent = make_agent(maze_env(), "mnm-p").learn(ENVS * STEPS)
    file = io.BytesIO()
    agent.save(file)
    file.seek(0)
    loaded = Agent.load(file, device="cpu")
    other = make_agent(maze_env(), "mnm-p", seed=4)
    mine, others = (each.policy.state_dict()["core.initial_memory"] for each in (agent, other))
    assert not torch.equal(others, mine)
    other.set_parameters(agent.get_parameters())  # pyright: ignore[reportArgumentType] - Stable-Baselines3's
    for copied in (loaded, other):
        pairs = zip(copied.policy.state_dict().values(), agent.policy.state_dict().values(), strict=True)
        assert all(torch.equal(first, second) for first, second in pairs)


def test_evaluation_callbacks_progress_bar_and_tensorboard(tmp_path):
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    env, held_out = maze_env(wrapped=True), maze_env(wrapped=True)
    callback = EvalCallback(held_out, eval_freq=100, n_eval_episodes=3, log_path=str(tmp_path), verbose=0)
    agent = make_agent(env, tensorboard_log=str(tmp_path), entropy_kind="concentration")
    agent.learn(4 * ENVS * STEPS, callback, progress_bar=True)
    assert len(np.load(tmp_path / "evaluations.npz")["results"]) == 3
    events = tensorboard.EventAccumulator(str(tmp_path / f"{Agent.__name__}_1")).Reload()
    names = "policy_loss value_loss entropy concentration meta_loss grad_norm explained_variance "
    names += "skipped_updates learning_rate"
    expected = {f"train/{Agent.tags.get(name, name)}" for name in names.split()}
    assert expected | {"rollout/ep_rew_mean", "time/fps"} <= set(events.Tags()["scalars"])
    mean, _ = evaluate_policy(agent, held_out, n_eval_episodes=4, deterministic=False)
    assert np.isfinite(mean)


def test_an_evaluation_during_training_does_not_change_the_training():
    callback = EvalCallback(maze_env(), eval_freq=50, n_eval_episodes=2, deterministic=True, verbose=0)
    with_evaluation = make_agent(maze_env()).learn(3 * ENVS * STEPS, callback)
    without = make_agent(maze_env()).learn(3 * ENVS * STEPS)
    pairs = zip(with_evaluation.policy.parameters(), without.policy.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def damaged_copies(path: Path) -> dict[str, bytes]:
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    without = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(without, "w") as new:
        for name in old.namelist():
            if name != "policy.optimizer.pth":
                new.writestr(name, old.read(name))
    return {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "flipped": bytes(flipped),
        "without a part": without.getvalue(),
    }


@pytest.mark.parametrize("kind", ["cut", "empty", "flipped", "without a part"])
def test_an_incomplete_checkpoint_is_refused(kind, tmp_path):
    make_agent(maze_env()).save(tmp_path / "whole.zip")
    path = tmp_path / "agent.zip"
    path.write_bytes(damaged_copies(tmp_path / "whole.zip")[kind])
    with pytest.raises(ValueError, match=r"agent.zip is incomplete or damaged"):
        Agent.load(path, device="cpu")


def test_a_missing_checkpoint_and_one_of_another_core_are_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no checkpoint at"):
        Agent.load(tmp_path / "agent.zip")
    make_agent(maze_env()).save(tmp_path / "agent.zip")
    with pytest.raises(ValueError, match="was trained with core 'lstm', not 'mnm-p'"):
        Agent.load(tmp_path / "agent.zip", core="mnm-p")
    assert check_checkpoint(tmp_path / "agent", core="lstm")["core_kwargs"] == CORES["lstm"]


def test_going_on_with_another_number_of_environments_is_refused(tmp_path):
    make_agent(maze_env()).learn(ENVS * STEPS).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="for 2 environments"):
        Agent.load(
            tmp_path / "agent",
            env=MazeVecEnv(2, size=5, previous_action=True),
            device="cpu",
            force_reset=False,
        )


def test_going_on_in_an_environment_with_other_wrappers_is_refused(tmp_path):
    make_agent(maze_env()).learn(ENVS * STEPS).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="other wrappers"):
        Agent.load(tmp_path / "agent", env=maze_env(wrapped=True), device="cpu", force_reset=False)


def loop(folder: Path) -> Path:
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


@pytest.mark.parametrize("trusted", [True, False])
def test_a_path_that_cannot_be_read_is_named(trusted, tmp_path):
    for path in (tmp_path, loop(tmp_path)):
        with pytest.raises(ValueError, match=rf"The checkpoint {path} cannot be read: [A-Z][^\[\]]*$"):
            Agent.load(path, trusted=trusted)
    for path in (None, 5, ["agent.zip"]):
        with pytest.raises(TypeError, match="path must be the path of a file or an open file, got"):
            Agent.load(path, trusted=trusted)


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "x"}, "^device must be"),
        ({"env": 5}, "^env must be"),
        ({"env": MazeVecEnv(ENVS, size=5)}, r"Observation spaces do not match: Box\(.* != Box\("),
        (
            {"nonsense": 1},
            r"^load\(\) cannot change nonsense, which a saved Recurrent(A2C|PPO) does not have",
        ),
        ({"stats_window_size": 5}, r"^load\(\) cannot change stats_window_size"),
        ({"verbose": "x"}, "verbose must be"),
        ({"seed": 1.5}, "seed must be"),
        ({"gamma": 5}, "gamma must be"),
        ({"rollout_buffer_kwargs": {"x": 1}}, "rollout_buffer_kwargs has x"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(arguments, message, trusted, tmp_path):
    make_agent(maze_env()).save(tmp_path / "agent")
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        Agent.load(tmp_path / "agent", trusted=trusted, **{"device": "cpu", **arguments})
    assert "\n" not in str(caught.value)


def test_attributes_that_are_no_settings_may_be_changed_too(tmp_path):
    file = io.BytesIO()
    make_agent(maze_env()).save(file)
    file.seek(0)
    loaded = Agent.load(file, device="cpu", num_timesteps=5, entropy_kind="concentration")
    assert (loaded.num_timesteps, loaded.entropy_kind) == (5, "concentration")


def test_an_agent_is_not_saved_where_a_file_is_in_the_way(tmp_path):
    agent = make_agent(maze_env())
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "agent.zip", str(tmp_path / "file" / "deep" / "agent.zip")):
        with pytest.raises(ValueError, match=r"path cannot be in or below .*file, which is not a folder"):
            agent.save(path)
    with pytest.raises(TypeError, match="path must be the path of a file or an open file, got 5"):
        agent.save(5)
    with pytest.warns(UserWarning, match="does not exist"):
        agent.save(tmp_path / "new" / "deep" / "agent.zip")
    assert Agent.load(tmp_path / "new" / "deep" / "agent", device="cpu").seed == 3


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (5, "^env must be an environment"),
        (MazeVecEnv(ENVS, size=5), r"^Observation spaces do not match: Box\(.* != Box\("),
        (
            MazeVecEnv(2, size=5, previous_action=True),
            "^The number of environments is 2, and the agent's is 3",
        ),
    ],
)
def test_an_environment_that_does_not_fit_is_not_set(env, message):
    agent = make_agent(maze_env())
    before = agent.env
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        agent.set_env(env)
    assert "\n" not in str(caught.value)
    assert agent.env is before
