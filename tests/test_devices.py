"""Cores, training, acting and files on another device, which is pretended: see ``pretended_device.py``."""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended_device import Elsewhere, pretended
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from mnm_rl.agents import RecurrentA2C, RecurrentPPO
from mnm_rl.analysis.board import MemoryBoard
from mnm_rl.analysis.maze.episodes import watch_episodes
from mnm_rl.cores import MemoryCore, make_core
from mnm_rl.cores.registry import CORES
from mnm_rl.envs import MazeVecEnv
from mnm_rl.tasks.babi.generate import Sizes, write_files
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.trainer import SupervisedTrainer, evaluate

T, B, INPUTS = 4, 2, 5


def leaves(core: MemoryCore[Any], inputs: Tensor, state: Any, resets: Tensor, record: bool) -> list[Tensor]:
    """Everything that a core computes: results, gradients, a trace, and a step of acting."""
    output = core(inputs, state, resets, record=record)
    loss = output.outputs.square().sum() + output.meta_loss.sum()
    gradients = torch.autograd.grad(loss, list(core.parameters()), allow_unused=True)
    found = [output.outputs, output.meta_loss, *output.state, *[g for g in gradients if g is not None]]
    with torch.no_grad(), core.acting():
        state = type(output.state)(*[field.detach().clone() for field in output.state])
        acted, state = core.step(inputs[0], state, resets[0])
    return [*found, acted, *state, *(output.trace or {}).values()]


def drawn_state(core: MemoryCore[Any]) -> Any:
    """Not the initial one, in which ties and zeros amplify rounding."""
    state = core.initial_state(B)
    fields = [x.detach() + 0.1 * torch.rand(x.shape).to(x) if x.is_floating_point() else x for x in state]
    return type(state)(*fields)


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("name", list(CORES))
def test_a_core_computes_there_what_it_computes_here(name: str, record: bool) -> None:
    torch.manual_seed(0)
    # In float64, with ties among the slots that are free, the kernel of the DNC may take another one.
    settings = {"kernel": "reference"} if name == "dnc" else {}
    core = make_core(name, INPUTS, **settings).double()
    inputs, state = torch.randn(T, B, INPUTS, dtype=torch.float64), drawn_state(core)
    resets = torch.tensor([[0, 1], [0, 0], [1, 0], [1, 1]], dtype=torch.bool)
    expected = leaves(core, inputs, state, resets, record)
    with pretended() as device:
        moved = copy.deepcopy(core).to(device)
        there = type(state)(*[field.to(device) for field in state])
        found = leaves(moved, inputs.to(device), there, resets.to(device), record)
        assert {type(x) for x in found} == {Elsewhere}
        here = [x.detach().cpu() for x in found]
    for one, other in zip(here, expected, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-6, atol=1e-8)


MEMORY = {"hidden_size": 6, "key_size": 4, "value_size": 4, "memory_widths": (4,)}
RUNS: dict[str, dict[str, Any]] = {
    "mnm-p": {
        "task": "dictionary",
        "task_options": {"support_size": 2, "length": 1},
        "core_settings": {**MEMORY, "heads": 2},
        "embedding_size": 5,
    },
    "ntm": {
        "task": "copy",
        "task_options": {"max_length": 3},
        "core_settings": {"hidden_size": 6, "slots": 5, "slot_size": 3},
    },
    "entnet": {"task": "babi", "core_settings": {"slots": 3, "hidden_size": 5}, "embedding_size": 5},
}


def train(
    directory: Path | None,
    device: Any,
    core: str,
    data: Path | None,
    resume: Path | None = None,
    iterations: int = 2,
) -> Any:
    """A trainer after some iterations and a validation."""
    options = {} if data is None else {"data": str(data), "size": "1k", "format": "story"}
    options |= RUNS[core].get("task_options", {})
    config = SupervisedConfig(
        core=core,
        **{**RUNS[core], "task_options": options},
        batch_size=4,
        iterations=iterations,
        validate_every=2,
        log_every=1,
    )
    task = config.make_task()
    all_batches = task.evaluation_batches
    # A task may be frozen; one batch of a held-out set will do.
    object.__setattr__(task, "evaluation_batches", lambda split, size: islice(all_batches(split, 8), 1))
    trainer = SupervisedTrainer(config, task, directory, device)
    if resume is not None:
        trainer.load(resume)
    trainer.train()
    return trainer


def parameters(model: torch.nn.Module) -> list[Tensor]:
    return [x.detach().cpu() for x in model.state_dict().values()]


@pytest.mark.parametrize("core", list(RUNS))
def test_training_evaluation_and_resume_move_between_devices(core: str, tmp_path: Path) -> None:
    data = None
    if RUNS[core]["task"] == "babi":
        write_files(data := tmp_path / "data", Sizes(100, 10, 10))
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    expected = train(here, "cpu", core, data)
    with pretended() as device:
        trainer = train(there, device, core, data)
        assert {type(x) for x in trainer.model.state_dict().values()} == {Elsewhere}
        torch.testing.assert_close(parameters(trainer.model), parameters(expected.model))
        assert evaluate(trainer.model, trainer.task, "valid", device).symbols > 0
        MemoryBoard(SummaryWriter(str(there)), trainer.model, trainer.task).show(1)
    # From there to here and from here to there.
    longer = parameters(train(None, "cpu", core, data, there, 3).model)
    with pretended() as device:
        torch.testing.assert_close(parameters(train(None, device, core, data, here, 3).model), longer)


@pytest.mark.parametrize(("algorithm", "core"), [(RecurrentA2C, "mnm-p"), (RecurrentPPO, "lstm")])
def test_an_agent_moves_between_devices(algorithm: type[Any], core: str, tmp_path: Path) -> None:
    few: dict[str, Any] = {"n_epochs": 2} if algorithm is RecurrentPPO else {}
    kwargs = {"core": core, "core_kwargs": MEMORY if core == "mnm-p" else {"hidden_size": 6}}

    def make(device: Any) -> Any:
        env = MazeVecEnv(3, size=5, horizon=7)
        return algorithm("MlpPolicy", env, n_steps=8, seed=3, device=device, policy_kwargs=kwargs, **few)

    expected = make("cpu").learn(48)
    with pretended() as device:
        agent = make(device).learn(48)
        assert {type(x) for x in agent.core_state} == {Elsewhere}
        torch.testing.assert_close(parameters(agent.policy), parameters(expected.policy))
        observation = agent.env.reset()
        watched = watch_episodes(agent, MazeVecEnv(2, size=5, horizon=7))
        assert watched.values.shape == (7, 2)
        actions, state = agent.predict(observation)
        agent.predict(observation, state, episode_start=[False] * 3)
        assert actions.shape == (3,)
        agent.save(tmp_path / "agent")
    loaded = algorithm.load(tmp_path / "agent", env=MazeVecEnv(3, size=5, horizon=7), device="cpu")
    torch.testing.assert_close(parameters(loaded.policy), parameters(expected.policy))
    loaded.learn(24)
    with pretended() as device:
        env = MazeVecEnv(3, size=5, horizon=7)
        again = algorithm.load(tmp_path / "agent", env=env, device=device)
        assert {type(x) for x in again.policy.state_dict().values()} == {Elsewhere}
        again.learn(24)
