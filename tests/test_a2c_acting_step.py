"""The exportable step: a traced graph acts as `predict` does, through resets that it never saw."""

import copy
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from mnm_rl.agents import ActingStep, RecurrentA2C
from mnm_rl.cores.mnm import MNMCore

SMALL = {"hidden_size": 6, "key_size": 4, "value_size": 5, "memory_widths": (3,), "heads": 2}
CORES = {
    "lstm": {"hidden_size": 7},
    "gru": {"hidden_size": 7},
    "plastic": {"hidden_size": 7},
    "plastic-homogenous": {"hidden_size": 7},
    "fwm": {"hidden_size": 7, "entity_size": 3, "relation_size": 4},
    "delta-net": {"hidden_size": 7, "heads": 2, "key_size": 3, "value_size": 4, "forgetting": "head"},
    "fast-weights": {"hidden_size": 7},
    "mnm-p": SMALL,
    "mnm-g": {**SMALL, "rate_per_layer": True},
    "mnm-p reference": {**SMALL, "kernel": "reference"},
    "mnm-p torch": {**SMALL, "kernel": "torch", "recall_weights": (1.0, 0.5)},
}
VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
SPACES = {
    "vector": (VECTOR, spaces.Discrete(4)),
    "starts": (spaces.Discrete(5, start=-2), spaces.Discrete(4, start=7)),
    "choices": (spaces.MultiDiscrete([3, 2], start=[1, 5]), spaces.MultiDiscrete([3, 2], start=[4, -1])),
    "box": (
        spaces.MultiBinary(4),
        spaces.Box(np.array([-0.1, 0.0], np.float32), np.array([0.1, 0.02], np.float32)),
    ),
    "bits": (VECTOR, spaces.MultiBinary(3)),
    "dict": (spaces.Dict({"a": VECTOR, "b": spaces.Discrete(3, start=1)}), spaces.Discrete(2)),
}


class Sampled(gymnasium.Env):
    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = copy.deepcopy((observation_space, action_space))


def make_policy(core: str = "lstm", kind: str = "vector"):
    observation, action = SPACES[kind]
    agent = RecurrentA2C(
        "MultiInputPolicy" if kind == "dict" else "MlpPolicy",
        DummyVecEnv([lambda: Sampled(observation, action)]),
        seed=0,
        device="cpu",
        policy_kwargs={"core": core.split()[0], "core_kwargs": CORES[core], "ortho_init": False},
    )
    return agent.policy


def sample(space: spaces.Space, count: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: sample(part, count) for key, part in space.spaces.items()}
    return np.stack([space.sample() for _ in range(count)])


def tensors(observation):
    if isinstance(observation, dict):
        return {key: torch.as_tensor(part) for key, part in observation.items()}
    return torch.as_tensor(observation)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("core", "kind"), [(core, "vector") for core in CORES] + [("lstm", kind) for kind in SPACES]
)
@pytest.mark.parametrize("batch", [3, 1])
def test_a_traced_step_resets_where_it_is_told_to(core, kind, batch):
    policy = make_policy(core, kind)
    space = copy.deepcopy(policy.observation_space)
    space.seed(0)
    step = ActingStep(policy)
    state = step.initial_state(batch)
    example = (tensors(sample(space, batch)), torch.zeros(batch, dtype=torch.bool), *state)
    traced = cast(Any, torch.jit.trace(step, example, strict=False))
    random, expected_state, resets = np.random.default_rng(0), None, 0
    for _ in range(50):
        observation, starts = sample(space, batch), random.random(batch) < 0.2
        resets += starts.sum()
        expected, expected_state = policy.predict(observation, expected_state, starts, deterministic=True)
        before = policy.state_from_arrays(tuple(part.numpy() for part in state), batch)
        action, value, *state = traced(tensors(observation), torch.as_tensor(starts), *state)
        np.testing.assert_allclose(action.numpy(), expected, atol=1e-5)
        assert expected_state is not None
        for mine, theirs in zip(state, expected_state, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            values = policy.predict_values(tensors(observation), before, torch.as_tensor(starts))
        torch.testing.assert_close(value, values, atol=1e-5, rtol=1e-4)
    assert resets > 5


def test_the_module_moves_with_all_that_it_holds():
    step = ActingStep(make_policy("lstm", "box")).to(torch.float64)
    assert {part.dtype for part in step.buffers()} == {torch.float64}
    assert len(list(step.buffers())) == 4


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("core", ["lstm", "gru", "mnm-p"])
def test_a_traced_step_takes_another_number_of_environments(core, tmp_path):
    step = ActingStep(make_policy(core))
    example = (torch.zeros(2, 3), torch.tensor([False, False]), *step.initial_state(2))
    cast(Any, torch.jit.trace(step, example)).save(str(tmp_path / "step.pt"))
    traced = torch.jit.load(str(tmp_path / "step.pt"))
    inputs = (torch.rand(5, 3), torch.tensor([True, False, True, False, False]), *step.initial_state(5))
    for mine, theirs in zip(traced(*inputs), step(*inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("core", ["gru", "mnm-g"])
def test_torch_export_takes_it_too(core):
    step = ActingStep(make_policy(core))
    state = step.initial_state(2)
    program = torch.export.export(step, (torch.zeros(2, 3), torch.tensor([False, False]), *state))
    inputs = (torch.rand(2, 3), torch.tensor([True, False]), *[torch.rand_like(part) for part in state])
    for mine, theirs in zip(program.module()(*inputs), step(*inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_policy_itself_stays_as_it_is():
    policy = make_policy("mnm-p")
    step = ActingStep(policy)
    assert cast(MNMCore, policy.core).config.kernel == "auto"
    assert all(parameter.requires_grad for parameter in policy.parameters())
    with torch.no_grad():
        policy.value_net.bias.fill_(3.0)
    _, value, *_ = step(torch.zeros(1, 3), torch.tensor([True]), *step.initial_state(1))
    assert value.item() < 2


def test_a_core_whose_state_grows_is_refused():
    CORES["lstm-salu"] = {"hidden_size": 6}
    try:
        policy = make_policy("lstm-salu")
    finally:
        del CORES["lstm-salu"]
    with pytest.raises(ValueError, match="'lstm-salu' grows with every step"):
        ActingStep(policy)
