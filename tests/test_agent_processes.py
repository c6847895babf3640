"""Several processes train one agent: two with half of the environments each do what one does with all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from torch import distributed, multiprocessing

from mnm_rl import agents
from mnm_rl.agents.minibatches import find_cuts
from mnm_rl.agents.processes import merged_statistics
from mnm_rl.commands.train_agent import _launch_words
from mnm_rl.envs import MazeVecEnv
from mnm_rl.training.curves import read_curve
from mnm_rl.training.locks import LOCK_FILE
from mnm_rl.training.rl.agent import updates_made

STEPS, ENVS, UPDATES = 10, 4, 3
MAZE: dict[str, Any] = {"size": 5, "horizon": 8}


@pytest.fixture(scope="module")
def in_two(tmp_path_factory) -> dict[str, list[Any]]:
    """What each of two processes found: name of a function below -> what it returned in either of them.

    They are started once for all tests of this file, because that takes longer than what they do.
    """
    folder = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(_one_of_two, (str(folder),), nprocs=2)  # pyright: ignore
    parts = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]
    return {name: [part[name] for part in parts] for name in parts[0]} | {"folder": [folder]}


def _one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", 2)  # pyright: ignore[reportPrivateImportUsage]
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = {
        "RecurrentA2C": trained(rank, agents.RecurrentA2C, ENVS // 2),
        "RecurrentPPO": trained(rank, agents.RecurrentPPO, ENVS // 2),
        "own draws": _with_own_draws(rank),
        "seeds": _seeds(),
        "normalized": _normalized(),
        "saved": _saved(rank, folder),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
    # As in test_supervised.py.
    os._exit(0)


def make(algorithm: Any, env: Any, **settings: Any) -> Any:
    if algorithm is agents.RecurrentPPO:
        settings = {"n_epochs": 3, "batch_size": STEPS * ENVS, **settings}
    core = {"core": "lstm", "core_kwargs": {"hidden_size": 6}}
    settings = {"n_steps": STEPS, "learning_rate": 0.01, "normalize_advantage": True, "seed": 3, **settings}
    return algorithm("MlpPolicy", env, policy_kwargs=core, device="cpu", **settings)


def act_by_number(agent: Any, first: int) -> None:
    """Let each environment's actions depend on nothing but the step and its number among all."""
    act, steps = agent.policy.act, iter(range(10**6))

    def chosen(obs: Any, state: Any, starts: Any) -> Any:
        state = act(obs, state, starts)[1]
        numbers = first + np.arange(agent.n_envs)
        return (next(steps) * 7 + numbers * 3 + next(steps) // 5) % 4, state

    agent.policy.act = chosen


def numbers(agent: Any) -> dict[str, Any]:
    parameters = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    return {"parameters": parameters, "update": agent.last_update, "timesteps": agent.num_timesteps}


class Ends(BaseCallback):
    """Ends the training after 100 steps, if it is told to."""

    def __init__(self, ends: bool):
        super().__init__()
        self.ends = ends

    def _on_step(self) -> bool:
        return not (self.ends and self.num_timesteps > 100)


def trained(rank: int, algorithm: Any, envs: int) -> dict[str, Any]:
    agent = make(algorithm, MazeVecEnv(envs, **MAZE))
    act_by_number(agent, rank * envs)
    agent.learn(UPDATES * STEPS * ENVS)
    return numbers(agent)


def test_two_processes_learn_what_one_learns_with_all_environments(in_two, algorithm):
    whole = trained(0, algorithm, ENVS)
    for half in in_two[algorithm.__name__]:
        assert half["timesteps"] == whole["timesteps"] == UPDATES * STEPS * ENVS
        for name, value in whole["parameters"].items():
            torch.testing.assert_close(half["parameters"][name], value, rtol=0, atol=1e-6)
        assert half["update"] == pytest.approx(whole["update"], abs=1e-4)


def _with_own_draws(rank: int) -> dict[str, Any]:
    agent = make(
        agents.RecurrentPPO, MazeVecEnv(4, **MAZE), batch_size=2 * 2 * STEPS, target_kl=1e-4, n_epochs=9
    )
    begun = [value.clone() for value in agent.policy.parameters()]
    agent.learn(UPDATES * STEPS * 8)
    actions = agent.rollout_buffer.actions.copy()
    found = {**numbers(agent), "begun": begun, "actions": actions, "epochs": agent._n_updates}
    # A loss that is not finite in one process is skipped in both.
    agent.ent_coef = 0.0
    if rank == 1:
        agent.rollout_buffer.rewards[0, 0] = np.inf
    agent.train()
    found["skipped"] = agent.guard.skipped
    found["after"] = numbers(agent)["parameters"]
    # A callback that ends one process's training ends the other's.
    agent.learn(10**6, Ends(ends=rank == 1))
    found["ended"] = agent.num_timesteps
    return found


def test_processes_stay_equal_and_decide_together(in_two):
    one, other = in_two["own draws"]
    assert all(torch.equal(a, b) for a, b in zip(one["begun"], other["begun"], strict=True))
    assert not np.array_equal(one["actions"], other["actions"])
    for when in ("parameters", "after"):
        assert all(torch.equal(one[when][name], other[when][name]) for name in one[when])
    assert one["update"] == other["update"]
    # The limit of the divergence ended some of the 3 * 9 epochs, at the same place in both.
    assert one["epochs"] == other["epochs"] < 3 * 9
    assert one["skipped"] == other["skipped"] == 1
    assert all(torch.equal(one["after"][name], one["parameters"][name]) for name in one["parameters"])
    assert one["ended"] == other["ended"] < 200


def _seeds() -> Any:
    vectors = make_vec_env("CartPole-v1", 2)
    agent = make(agents.RecurrentA2C, vectors, n_steps=2)
    agent.learn(8)
    maze = MazeVecEnv(2, **MAZE)
    make(agents.RecurrentA2C, maze)
    return vectors.get_attr("np_random_seed"), maze.reset(), maze.mazes.goal.copy()


def test_environments_are_seeded_as_what_they_are_of_all(in_two):
    parts = in_two["seeds"]
    assert [seed for seeds, _, _ in parts for seed in seeds] == [3, 4, 5, 6]
    whole = MazeVecEnv(4, **MAZE)
    make(agents.RecurrentA2C, whole)
    np.testing.assert_array_equal(np.concatenate([obs for _, obs, _ in parts]), whole.reset())
    np.testing.assert_array_equal(np.concatenate([goal for _, _, goal in parts]), whole.mazes.goal)


def _normalized() -> Any:
    env: Any = VecNormalize(make_vec_env("Pendulum-v1", 2), gamma=0.9)
    agent = make(agents.RecurrentA2C, env, entropy_kind="entropy")
    seen: list[Any] = []
    step_wait = env.venv.step_wait

    def noted() -> Any:
        found = step_wait()
        seen.append(found[0].copy())
        return found

    reset = env.venv.reset
    env.venv.step_wait = noted
    env.venv.reset = lambda: seen.append(reset()) or seen[-1].copy()
    agent.learn(3 * STEPS * 4)
    statistics = (env.obs_rms.mean, env.obs_rms.var, env.obs_rms.count, env.ret_rms.var, env.ret_rms.count)
    return np.concatenate(seen), statistics


def test_the_statistics_of_normalisation_are_those_of_all_processes(in_two):
    parts = in_two["normalized"]
    (mean, var, count, *returns), other = parts[0][1], parts[1][1]
    for a, b in zip((mean, var, count, *returns), other, strict=True):
        np.testing.assert_array_equal(a, b)
    seen = np.concatenate([observations for observations, _ in parts])
    assert count == pytest.approx(len(seen), rel=1e-4)
    np.testing.assert_allclose(mean, seen.mean(0), atol=1e-4)
    np.testing.assert_allclose(var, seen.var(0), rtol=1e-4)
    assert returns[1] == pytest.approx(3 * STEPS * 4, rel=1e-4)


def test_merged_statistics_are_those_of_everything():
    rng = np.random.default_rng(0)
    start, *rest = (rng.normal(5, 2, (n, 3)) + n for n in (7, 5, 9))
    before = RunningMeanStd(shape=(3,))
    before.update(start)
    parts = [before.copy() for _ in rest]
    for part, new in zip(parts, rest, strict=True):
        part.update(new)
    whole = before.copy()
    for new in rest:
        whole.update(new)
    merged = merged_statistics(before, parts)
    for name in ("mean", "var", "count"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-12)


def _saved(rank: int, folder: str) -> Any:
    path = f"{folder}/agent.zip"
    agent = make(agents.RecurrentPPO, MazeVecEnv(2, **MAZE))
    agent.learn(2 * STEPS * ENVS)
    agent.save(path, all_processes=True)
    distributed.barrier()
    agent.learn(2 * STEPS * ENVS, reset_num_timesteps=False)
    again = agents.RecurrentPPO.load(
        path, MazeVecEnv(2, **MAZE), device="cpu", force_reset=False, trusted=False
    )
    again.learn(2 * STEPS * ENVS, reset_num_timesteps=False)
    messages = []
    if rank == 0:
        agent.save(f"{folder}/alone.zip")
    distributed.barrier()
    attempts = [
        lambda: agents.RecurrentPPO.load(
            f"{folder}/alone.zip", MazeVecEnv(2, **MAZE), device="cpu", force_reset=False
        ),
        lambda: make(agents.RecurrentA2C, MazeVecEnv(2 + rank, **MAZE)).learn(100),
        lambda: make(agents.RecurrentPPO, MazeVecEnv(2, **MAZE), batch_size=3 * STEPS),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match=r"\w") as error:
            attempt()
        messages.append(str(error.value))
    return numbers(agent)["parameters"], numbers(again)["parameters"], messages


def test_processes_save_and_go_on_together(in_two):
    for whole, resumed, messages in in_two["saved"]:
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
        assert "of one process needs to go on, and here is a group of 2 processes" in messages[0]
        assert "must have the same number of environments, but have 2, 3" in messages[1]
        assert "equally many from each of 2 processes" in messages[2]
        assert "got 30; 40 does" in messages[2] or "got 30; 20 does" in messages[2]
    # One process cannot go on with what two began, but can play, and train anew.
    path = in_two["folder"][0] / "agent.zip"
    with pytest.raises(ValueError, match="a group of 2 processes needs to go on, and here is one process"):
        agents.RecurrentPPO.load(path, MazeVecEnv(4, **MAZE), force_reset=False)
    alone = agents.RecurrentPPO.load(path, device="cpu", trusted=False)
    assert alone.n_processes == 2
    alone.predict(MazeVecEnv(1, **MAZE).reset())
    again = agents.RecurrentPPO.load(path, MazeVecEnv(4, **MAZE), device="cpu")
    again.learn(STEPS * ENVS)
    assert again.num_timesteps == STEPS * ENVS


def test_a_minibatch_has_as_many_sequences_of_each_process():
    assert find_cuts(8, 4, 4, 16, processes=2).minibatches == 4
    assert find_cuts(8, 8, 4, 16).minibatches == 4
    with pytest.raises(ValueError, match=r"equally many from each of 2 processes, .* got 12; 8 does"):
        find_cuts(8, 4, 4, 12, processes=2)


def test_nothing_is_sent_by_a_single_process(monkeypatch, algorithm):
    monkeypatch.setattr(distributed, "all_reduce", None)
    monkeypatch.setattr(distributed, "all_gather", None)
    monkeypatch.setattr(distributed, "all_gather_object", None)
    monkeypatch.setattr(distributed, "broadcast", None)
    assert trained(0, algorithm, ENVS)["timesteps"] == UPDATES * STEPS * ENVS


ROOT = Path(__file__).parent.parent
RUN = [
    *("--core", "lstm", "--core.hidden-size", "6", "--n-steps", "9"),
    *("--env", "MNMMaze-5x5", "--env-kwargs", '{"horizon": 12}', "--log-every", "1", "--watch-every", "0"),
    *("--schedule", "constant", "--seed", "2"),
]


def start(script: str, *arguments: str, processes: int = 2) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(processes), str(ROOT / "scripts" / script), *arguments),
            *("--quiet", "--no-tensorboard"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script: str, *arguments: str, processes: int = 2) -> tuple[int, str]:
    process = start(script, *arguments, processes=processes)
    errors = process.communicate(timeout=300)[1]
    return process.returncode, errors


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def curve(folder: Path) -> dict[str, list[float]]:
    return {name: each for name, each in read_curve(folder / "progress.csv").items() if name != "seconds"}


def updates_of(folder: Path) -> int:
    return updates_made(agents.RecurrentPPO.load(folder / "checkpoint.zip", device="cpu", trusted=False))


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    return agents.RecurrentPPO.load(
        folder / "checkpoint.zip", device="cpu", trusted=False
    ).policy.state_dict()


@pytest.mark.parametrize(
    ("program", "processes", "words"),
    [
        ("train_ppo.py", 1, "python scripts/train_ppo.py"),
        ("train_ppo.py", 2, "torchrun --nproc-per-node 2 scripts/train_ppo.py"),
        ("mnm-rl train-ppo", 1, "mnm-rl train-ppo"),
        ("mnm-rl train-ppo", 3, "torchrun --nproc-per-node 3 -m mnm_rl train-ppo"),
    ],
)
def test_it_is_said_how_a_run_is_started_again(monkeypatch, program, processes, words):
    monkeypatch.setattr(sys, "argv", [program])
    assert _launch_words(processes, "train-ppo") == words


def test_a_run_of_two_processes_goes_on_where_it_was_stopped(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    process = start("train_ppo.py", *RUN, "--n-envs", "4", "--episodes", "1000000", "--log-dir", str(parts))
    while process.poll() is None and lines(parts / "progress.csv") < 4:
        time.sleep(0.02)
    # One process is asked to stop; both do, after the same update.
    os.kill(int((parts / LOCK_FILE).read_text()), signal.SIGTERM)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode != 0
    assert errors.count("exitcode  : 130") == 2, errors
    assert not list(parts.glob(".*"))
    stopped = len(curve(parts)["updates"])
    assert updates_of(parts) == stopped
    length = "--timesteps", str((stopped + 4) * 4 * 9)
    status, errors = run("train_ppo.py", "--resume", str(parts), *length, processes=1)
    assert status != 0
    assert "holds what a run of a group of 2 processes needs to go on, and here is one process" in errors
    status, errors = run("train_ppo.py", "--resume", str(parts), *length)
    assert status == 0, errors
    status, errors = run("train_ppo.py", *RUN, "--n-envs", "4", *length, "--log-dir", str(whole))
    assert status == 0, errors
    # Episodes of both processes are in the curve: one ends every 12 steps in each of 4 environments.
    found = curve(whole)
    assert found["timesteps"][-1] == (stopped + 4) * 4 * 9
    assert found["episodes"][-1] == (stopped + 4) * 9 // 12 * 4
    np.testing.assert_equal(curve(parts), found)
    assert all(torch.equal(each, parameters(parts)[name]) for name, each in parameters(whole).items())


def test_the_scripts_refuse_what_processes_cannot_share(tmp_path):
    status, errors = run("train_a2c.py", *RUN, "--n-envs", "3", "--log-dir", str(tmp_path / "run"))
    assert status != 0
    assert "train_a2c.py: n_envs 3 cannot be shared evenly by 2 processes." in errors
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("here before")
    status, errors = run("train_a2c.py", *RUN, "--log-dir", str(tmp_path))
    assert status != 0
    # The other process ends with the first, and says nothing; gloo's threads may abort it before it is done.
    assert errors.count("is not an empty folder") == 1
    assert errors.count("exitcode  : 2") + errors.count("exitcode  : -") == 2, errors
