"""Action masks: what an environment does not allow is never chosen, learned from, or counted."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from test_a2c import Tape, check_sequence_against_steps, make_agent, uneven_env

from mnm_rl.agents import RecurrentA2C, RecurrentPPO
from mnm_rl.agents.buffers import SequenceRolloutBuffer
from mnm_rl.agents.distributions import make_distribution
from mnm_rl.agents.masks import MaskedPlayer, ask_for_masks, checked_masks, mask_parts
from mnm_rl.analysis.maze.film import film_episode
from mnm_rl.envs import MazeVecEnv
from mnm_rl.training.rl.evaluation import evaluate_agent

SPACES = {
    "discrete": spaces.Discrete(4),
    "from 3 on": spaces.Discrete(4, start=3),
    "several": spaces.MultiDiscrete([3, 2]),
    "bits": spaces.MultiBinary(3),
}


class Doors(gymnasium.Env):
    """Some actions are forbidden at each step, others at the next; a forbidden one is an error."""

    observation_space = spaces.Box(-1, 1, (3,))

    def __init__(self, space: str = "discrete", length: int = 5):
        self.action_space = SPACES[space]
        self.length = length

    def action_masks(self) -> np.ndarray:
        return self.allowed

    def draw(self) -> None:
        parts = [self.rng.random(size) < 0.5 for size in mask_parts(self.action_space)]
        for part in parts:
            part[self.rng.integers(len(part))] = True
        self.allowed = np.concatenate(parts)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None or not hasattr(self, "rng"):
            self.rng = np.random.default_rng(seed)
        self.steps = 0
        self.draw()
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        chosen = np.concatenate(
            [
                np.eye(size, dtype=bool)[int(one)]
                for size, one in zip(mask_parts(self.action_space), self.numbers(action), strict=True)
            ]
        )
        assert self.allowed[chosen].all(), f"{action} is forbidden by {self.allowed}"
        self.draw()
        return self.observation_space.sample(), float(chosen[0]), self.steps == self.length, False, {}

    def numbers(self, action: Any) -> list[int]:
        first = self.action_space.start if isinstance(self.action_space, spaces.Discrete) else 0
        return (np.atleast_1d(action) - first).tolist()


def doors(space: str = "discrete", count: int = 3) -> DummyVecEnv:
    return DummyVecEnv([lambda n=n: Monitor(Doors(space, 3 + n)) for n in range(count)])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
def test_an_agent_never_does_what_is_forbidden_while_it_learns_or_plays(algorithm, space):
    env = doors(space)
    agent = make_agent("mnm-p", env, algorithm).learn(200)
    evaluate_policy(MaskedPlayer(agent, env), env, n_eval_episodes=20, deterministic=False)  # pyright: ignore
    evaluate_policy(MaskedPlayer(agent, env), env, n_eval_episodes=20)  # pyright: ignore
    with pytest.raises(AssertionError, match="is forbidden"):
        evaluate_policy(agent, env, n_eval_episodes=20)


def test_without_masking_it_does():
    with pytest.raises(AssertionError, match="is forbidden"):
        make_agent(env=doors()).learn(200, use_masking=False)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    ("algorithm", "settings"), [(RecurrentA2C, {}), (RecurrentPPO, {"n_epochs": 1, "batch_size": 33})]
)
@pytest.mark.parametrize("core", ["mnm-p", "lstm"])
def test_the_update_uses_the_masks_of_acting(core, algorithm, settings, space):
    agent = make_agent(core, doors(space), algorithm, **settings)
    tape = Tape()
    agent.learn(33, tape)
    masks = torch.tensor(agent.rollout_buffer.action_masks)
    assert not masks.all()
    masked = check_sequence_against_steps(agent, tape, masks)
    # One step of the optimizer: its numbers are those of the policy that acted.
    assert agent.last_update["entropy"] == pytest.approx(masked.entropy.mean().item(), rel=1e-4)
    if algorithm is RecurrentPPO:
        assert agent.last_update["approx_kl"] == pytest.approx(0, abs=1e-6)
    free = check_sequence_against_steps(agent, tape)
    assert (masked.log_probs >= free.log_probs - 1e-6).all()
    assert (masked.log_probs > free.log_probs + 1e-3).any()
    assert masked.entropy.mean() < free.entropy.mean() - 0.01


@pytest.mark.parametrize("space", SPACES)
def test_probabilities_are_those_of_what_is_allowed_alone(space):
    generator = torch.Generator().manual_seed(1)
    distribution = make_distribution(SPACES[space])
    parts = mask_parts(SPACES[space])
    count = len(parts) if space == "bits" else sum(parts)
    parameters = torch.randn(50, count, generator=generator, requires_grad=True)
    masks = torch.tensor(
        checked_masks(np.random.default_rng(0).random((50, sum(parts))) < 2, SPACES[space], 50)
    )
    masks &= torch.rand(masks.shape, generator=generator) < 0.6
    for start, size in zip(np.cumsum([0, *parts]).tolist(), parts, strict=False):
        empty = ~masks[:, start : start + size].any(dim=1)
        masks[empty, start] = True
    masked = distribution.masked(parameters, masks)
    logits = (
        torch.stack([torch.zeros_like(parameters), parameters], -1).flatten(-2)
        if space == "bits"
        else parameters
    )
    entropy = torch.zeros(50)
    for part, allowed in zip(logits.split(parts, -1), masks.split(parts, -1), strict=True):
        weights = part.exp() * allowed
        probs = weights / weights.sum(-1, keepdim=True)
        entropy = entropy - torch.xlogy(probs, probs).sum(-1)
    torch.testing.assert_close(distribution.entropy(masked), entropy)
    (slope,) = torch.autograd.grad(distribution.entropy(masked).sum(), parameters)
    assert slope.isfinite().all()
    assert torch.equal(distribution.masked(parameters, torch.ones_like(masks)), parameters)


@pytest.mark.parametrize("space", SPACES)
def test_they_are_sb3_contribs(space):
    contrib = pytest.importorskip("sb3_contrib.common.maskable.distributions")
    plain = SPACES[space] if space != "from 3 on" else spaces.Discrete(4)
    theirs = contrib.make_masked_proba_distribution(plain)
    parts = mask_parts(plain)
    rng = np.random.default_rng(2)
    masks = rng.random((9, sum(parts))) < 0.6
    masks[:, np.cumsum([0, *parts[:-1]])] = True
    if space == "bits":
        ours_logits = torch.randn(9, len(parts))
        their_logits = torch.stack([torch.zeros_like(ours_logits), ours_logits], -1).flatten(-2)
    else:
        ours_logits = their_logits = torch.randn(9, sum(parts))
    theirs.proba_distribution(their_logits)
    theirs.apply_masking(masks)
    ours = make_distribution(plain)
    masked = ours.masked(ours_logits, torch.tensor(masks))
    actions = ours.sample(masked)
    their_actions = actions.reshape(9, -1) if space in ("several", "bits") else actions
    torch.testing.assert_close(ours.log_prob(masked, actions), theirs.log_prob(their_actions))
    torch.testing.assert_close(ours.entropy(masked), theirs.entropy())


def test_their_evaluation_asks_for_masks_too():
    evaluation = pytest.importorskip("sb3_contrib.common.maskable.evaluation")
    agent = make_agent(env=doors()).learn(33)
    evaluation.evaluate_policy(agent, doors(), n_eval_episodes=10)


@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
def test_it_learns_which_of_the_allowed_actions_is_best(algorithm):
    env = DummyVecEnv([lambda: Monitor(Doors("discrete", 8))] * 8)
    agent = make_agent(env=env, algorithm=algorithm, n_steps=16, learning_rate=1e-2)
    agent.learn(8000)
    mean, _ = evaluate_policy(MaskedPlayer(agent, env), env, n_eval_episodes=100)  # pyright: ignore
    # Action 0 is allowed in 5 of 8 steps: by the draw for itself, or as the one that always is.
    assert float(np.mean(mean)) > 0.95 * 8 * 5 / 8 - 0.3


def test_evaluation_and_films_ask_for_masks(monkeypatch):
    monkeypatch.setattr(Doors, "render", lambda self: np.zeros((4, 4, 3), np.uint8), raising=False)
    env = doors(count=1)
    env.render_mode = "rgb_array"
    agent = make_agent(env=env).learn(22)
    assert evaluate_agent(agent, doors(), 20, deterministic=True).episodes == 20
    assert len(film_episode(agent, env)) > 1


def test_a_rollout_has_masks_in_all_steps_or_in_none():
    buffer = SequenceRolloutBuffer(2, spaces.Box(-1, 1, (3,)), SPACES["discrete"], "cpu")
    step = (np.zeros((1, 3)), np.zeros(1), np.zeros(1), np.zeros(1, dtype=bool))
    for mask_size, masks in ((4, None), (None, np.ones((1, 4), dtype=bool))):
        buffer.start(None, mask_size)
        with pytest.raises(ValueError, match="in all of its steps or in none"):
            buffer.add(*step, action_masks=masks)


def test_environments_in_processes_are_asked_as_well():
    env = SubprocVecEnv([lambda: Monitor(Doors("several"))] * 2)
    try:
        make_agent(env=env).learn(22)
    finally:
        env.close()


@pytest.mark.parametrize("make", [uneven_env, lambda: MazeVecEnv(2, size=3, horizon=5)])
def test_environments_without_masks_have_none_and_cannot_be_made_to(make):
    agent = make_agent(env=make())
    with pytest.raises(
        ValueError, match=r"use_masking=True needs environments with a method action_masks\(\)"
    ):
        agent.learn(1, use_masking=True)
    agent.learn(1)
    assert agent.rollout_buffer.action_masks is None
    with pytest.raises(ValueError, match="use_masking must be True or False, got 'no'"):
        agent.learn(1, use_masking="no")


WRONG = [
    ("discrete", [[1, 1, 1]], "must be [1, 4] booleans"),
    ("discrete", [[1, 1, 1, 1]] * 2, "must be [1, 4] booleans"),
    ("discrete", [["a"] * 4], "must be [1, 4] booleans"),
    ("discrete", [[0, 0, 0, 0]], "environment 0 allows nothing."),
    ("several", [[1, 0, 1, 0, 0]], "allows nothing for choice 1 of the action"),
    ("bits", [[1, 0, 1, 0, 0, 0]], "allows nothing for choice 2 of the action"),
]


@pytest.mark.parametrize(("space", "masks", "words"), WRONG)
def test_what_is_no_mask_is_refused(space, masks, words):
    agent = make_agent(env=doors(space, 1))
    with pytest.raises(ValueError, match="mask") as caught:
        agent.predict(np.zeros((1, 3), np.float32), action_masks=np.array(masks))
    assert words in str(caught.value)


def test_numbers_cannot_be_forbidden():
    with pytest.raises(ValueError, match="Action masks are for Discrete, MultiDiscrete and MultiBinary"):
        mask_parts(spaces.Box(-1, 1, (2,)))
    with pytest.raises(ValueError, match="Action masks are for"):
        make_distribution(spaces.Box(-1, 1, (2,)), torch.zeros(2)).masked(torch.zeros(1, 2), torch.ones(1, 2))


class OddMasks(Doors):
    def __init__(self, length: int):
        super().__init__("discrete")
        self.mask_length = length

    def action_masks(self):
        return np.ones(self.mask_length)


def test_environments_that_answer_with_something_else_are_refused_before_a_step():
    for lengths, words in (((4, 3), "have different lengths"), ((3, 3), r"must be \[2, 4\] booleans")):
        env = DummyVecEnv([lambda n=n: OddMasks(n) for n in lengths])
        env.seed(0)
        with pytest.raises(ValueError, match=words):
            make_agent(env=env).learn(1)


def test_one_observation_takes_one_mask():
    agent = make_agent(env=doors())
    for action in range(4):
        mask = np.eye(4, dtype=bool)[action]
        assert agent.predict(np.zeros(3, np.float32), action_masks=mask)[0] == action


def test_ask_for_masks_gives_a_row_for_each_environment():
    env = doors("bits")
    env.reset()
    assert ask_for_masks(env).shape == (3, 6)
