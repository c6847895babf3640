"""The algorithm: what acting and training compute, against plain implementations of the same thing."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from mnm_rl.agents import RecurrentA2C
from mnm_rl.agents.policies import SequenceEvaluation
from mnm_rl.agents.returns import advantages_and_returns
from mnm_rl.training.rl.recorder import LinearSettings
from mnm_rl.updates import NonFiniteError

SMALL_MNM = {"hidden_size": 6, "key_size": 4, "value_size": 5, "memory_widths": (3,), "heads": 2}
SMALL: dict[str, dict[str, Any]] = {
    "lstm": {"hidden_size": 7},
    "gru": {"hidden_size": 7},
    "mnm-p": SMALL_MNM,
    "mnm-g": SMALL_MNM,
    "lstm-salu": {"hidden_size": 6, "key_size": 4, "value_size": 5},
    "plastic": {"hidden_size": 7},
    "plastic-homogenous": {"hidden_size": 7},
    "fwm": {"hidden_size": 7, "entity_size": 3, "relation_size": 4},
    "delta-net": {"hidden_size": 7, "heads": 2, "key_size": 3, "value_size": 4, "forgetting": "head"},
    "fast-weights": {"hidden_size": 7},
    "ntm": {"hidden_size": 6, "slots": 5, "slot_size": 3},
    "dnc": {"hidden_size": 7, "slots": 6, "slot_size": 4, "read_heads": 2},
    "sdnc": {"hidden_size": 7, "slots": 9, "slot_size": 4, "read_heads": 2},
}


class Uneven(gymnasium.Env):
    """Random observations; episodes of `length` steps, which end by termination or by truncation."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, length: int, truncates: bool, bad_reward_at: int | None = None):
        self.length, self.truncates, self.bad_reward_at = length, truncates, bad_reward_at
        self.total = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action):
        self.time += 1
        self.total += 1
        over = self.time == self.length
        reward = float("nan") if self.total == self.bad_reward_at else float(action) - 0.5 * self.time
        return self._observe(), reward, over and not self.truncates, over and self.truncates, {}

    def _observe(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


class NeverANumber(Uneven):
    """Rewards that are not numbers, so that no update is finite."""

    def __init__(self):
        super().__init__(5, False)

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float("nan"), terminated, truncated, info


class Recall(gymnasium.Env):
    """A cue at the first step only; reward 1 for naming it at the last of four steps."""

    observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.cue = 0, int(self.np_random.integers(2))
        return np.eye(3, dtype=np.float32)[self.cue], {}

    def step(self, action):
        self.time += 1
        over = self.time == 4
        reward = float(over and action == self.cue)
        return np.array([0, 0, self.time / 4], np.float32), reward, over, False, {}


class Tape(BaseCallback):
    """What happened in a rollout, step by step."""

    model: RecurrentA2C

    def _on_rollout_start(self):
        self.steps: list[dict[str, Any]] = []
        self.initial = self.model.core_state
        self.policy_before = copy.deepcopy(self.model.policy)

    def _on_step(self):
        names = ("obs", "actions", "rewards", "dones", "episode_starts", "infos", "new_obs")
        self.steps.append({name: copy.deepcopy(self.locals[name]) for name in names})
        return True

    def stacked(self, name: str) -> np.ndarray:
        return np.stack([step[name] for step in self.steps])


def mean_reward(agent: RecurrentA2C, env: DummyVecEnv) -> float:
    mean, _ = evaluate_policy(agent, env, n_eval_episodes=200, deterministic=False)
    assert isinstance(mean, float)
    return mean


def uneven_env() -> DummyVecEnv:
    settings = [(2, False), (3, True), (5, False), (100, True), (1, True)]
    return DummyVecEnv([lambda s=s: Monitor(Uneven(*s)) for s in settings])


def make_agent(
    core: str = "lstm", env: Any = None, algorithm: type[Any] = RecurrentA2C, **settings: Any
) -> Any:
    policy_kwargs = {"core": core, "core_kwargs": SMALL[core], **settings.pop("policy_kwargs", {})}
    defaults: dict[str, Any] = {"n_steps": 11, "seed": 1, "device": "cpu", "policy_kwargs": policy_kwargs}
    return algorithm("MlpPolicy", env or uneven_env(), **{**defaults, **settings})


def check_sequence_against_steps(agent: Any, tape: Tape, action_masks: Any = None) -> SequenceEvaluation:
    """The last rollout, on the tape, in one pass and step by step; the former is returned."""
    policy = tape.policy_before
    starts, actions = torch.tensor(tape.stacked("episode_starts")), torch.tensor(tape.stacked("actions"))
    observations = torch.tensor(tape.stacked("obs"))
    masks = [None] * len(starts) if action_masks is None else action_masks
    with torch.no_grad():
        evaluation = policy.evaluate_sequence(observations, actions, tape.initial, starts, action_masks)
        state = tape.initial
        for t in range(len(starts)):
            value = policy.predict_values(observations[t], state, starts[t])
            distribution, state = policy.get_distribution(observations[t], state, starts[t], masks[t])
            torch.testing.assert_close(evaluation.values[t], value, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(
                evaluation.log_probs[t], distribution.log_prob(actions[t]), atol=1e-5, rtol=1e-4
            )
    for kept, computed in zip(agent.core_state, state, strict=True):
        torch.testing.assert_close(kept, computed, atol=1e-5, rtol=1e-4)
    return evaluation


@pytest.mark.parametrize("core", SMALL)
def test_the_sequence_pass_equals_acting_step_by_step_through_episode_ends(core, algorithm):
    agent, tape = make_agent(core, algorithm=algorithm), Tape()
    agent.learn(3 * 55, tape)
    starts = tape.stacked("episode_starts")
    assert starts[1:].any()
    assert not starts[:, 3].any(), "the state at the start of the rollout matters"
    check_sequence_against_steps(agent, tape)


@pytest.mark.parametrize("core", ["lstm", "mnm-p", "lstm-salu"])
def test_predict_with_carried_states_takes_the_actions_that_training_scores(core):
    agent, tape = make_agent(core), Tape()
    agent.learn(55, tape)
    policy, state = tape.policy_before, None
    with torch.no_grad():
        sequence = [torch.tensor(tape.stacked(name)) for name in ("obs", "actions", "episode_starts")]
        output = policy.core(sequence[0], policy.initial_state(5), sequence[2])
        expected = policy.action_net(output.outputs).argmax(-1).numpy()
    for t, step in enumerate(tape.steps):
        actions, state = policy.predict(step["obs"], state, step["episode_starts"], deterministic=True)
        np.testing.assert_array_equal(actions, expected[t])


def slow_advantages(rewards, values, last_values, ended, gamma, gae_lambda):
    """Sums of discounted one-step errors, from the definition."""
    steps, envs = rewards.shape
    advantages = np.zeros((steps, envs))
    next_values = np.concatenate([values[1:], last_values[None]])
    for env in range(envs):
        for start in range(steps):
            weight = 1.0
            for t in range(start, steps):
                following = 0.0 if ended[t, env] else gamma * next_values[t, env]
                advantages[start, env] += weight * (rewards[t, env] + following - values[t, env])
                if ended[t, env]:
                    break
                weight *= gamma * gae_lambda
    return advantages


@pytest.mark.parametrize("gae_lambda", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("steps", [1, 9])
def test_advantages_follow_the_definition(gae_lambda, steps):
    random = np.random.default_rng(0)
    rewards, values = random.normal(size=(2, steps, 4)).astype(np.float32)
    last_values = random.normal(size=4).astype(np.float32)
    ended = random.random((steps, 4)) < 0.3
    advantages, returns = advantages_and_returns(rewards, values, last_values, ended, 0.9, gae_lambda)
    expected = slow_advantages(rewards, values, last_values, ended, 0.9, gae_lambda)
    np.testing.assert_allclose(advantages, expected, atol=1e-5)
    np.testing.assert_allclose(returns, expected + values, atol=1e-5)


def test_monte_carlo_returns_are_discounted_sums_until_the_episode_ends():
    rewards = np.array([[1.0], [2.0], [4.0], [8.0]], np.float32)
    ended = np.array([[False], [True], [False], [False]])
    values = np.full((4, 1), 100.0, np.float32)
    _, returns = advantages_and_returns(rewards, values, np.array([16.0], np.float32), ended, 0.5, 1.0)
    np.testing.assert_allclose(returns[:, 0], [2.0, 2.0, 12.0, 16.0], rtol=1e-5)


def plain_gradient(agent: RecurrentA2C, tape: Tape) -> dict[str, Any]:
    """Gradient of the documented loss, one environment and one step at a time."""
    policy, gamma = tape.policy_before, agent.gamma
    rewards, dones = tape.stacked("rewards").astype(np.float64), tape.stacked("dones")
    steps, envs = rewards.shape
    values, log_probs, squares, entropies, metas = ([[None] * envs for _ in range(steps)] for _ in range(5))
    last_values = np.zeros(envs)
    for env in range(envs):
        state = type(tape.initial)(*[field[env : env + 1] for field in tape.initial])
        for t, step in enumerate(tape.steps):
            if step["episode_starts"][env]:
                state = policy.initial_state(1)
            output = policy.core(torch.tensor(step["obs"][env]).view(1, 1, -1), state)
            state = output.state
            distribution = torch.distributions.Categorical(logits=policy.action_net(output.outputs[0, 0]))
            values[t][env] = policy.value_net(output.outputs[0, 0])[0]
            log_probs[t][env] = distribution.log_prob(torch.tensor(step["actions"][env]))
            squares[t][env] = (distribution.probs**2).sum()
            entropies[t][env] = distribution.entropy()
            metas[t][env] = output.meta_loss[0, 0]
            following = step["infos"][env].get("terminal_observation", step["new_obs"][env])
            after = policy.core(torch.tensor(following).view(1, 1, -1), state).outputs[0, 0]
            last_values[env] = policy.value_net(after).item()
            if step["infos"][env].get("TimeLimit.truncated") and agent.bootstrap_time_limit:
                rewards[t, env] += gamma * last_values[env]
    stack = lambda rows: torch.stack([torch.stack(row) for row in rows])  # noqa: E731
    values = stack(values)
    numbers = values.detach().numpy().astype(np.float64)
    advantages = slow_advantages(rewards, numbers, last_values, dones, gamma, agent.gae_lambda)
    returns = torch.tensor(advantages + numbers, dtype=torch.float32)
    weights = torch.tensor(advantages, dtype=torch.float32)
    if agent.normalize_advantage:
        weights = (weights - weights.mean()) / weights.std()
    exploration = stack(squares) if agent.entropy_kind == "concentration" else -stack(entropies)
    loss = (
        -stack(log_probs) * weights
        + agent.vf_coef * (values - returns) ** 2
        + agent.ent_coef * exploration
        + agent.meta_coef * stack(metas)
    ).mean()
    policy.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in policy.named_parameters()}


@pytest.mark.parametrize("core", ["lstm", "mnm-p", "lstm-salu"])
@pytest.mark.parametrize(
    "settings",
    [
        {"entropy_kind": "concentration", "bootstrap_time_limit": False},
        {"entropy_kind": "entropy", "bootstrap_time_limit": True, "gae_lambda": 0.7},
        {"entropy_kind": "concentration", "normalize_advantage": True, "meta_coef": 0.3},
    ],
)
def test_an_update_follows_the_gradient_of_the_documented_loss(core, settings):
    plain_descent = {"optimizer_class": torch.optim.SGD, "ortho_init": False}
    agent = make_agent(
        core,
        gamma=0.9,
        ent_coef=0.3,
        vf_coef=0.2,
        max_grad_norm=1e9,
        learning_rate=0.1,
        policy_kwargs=plain_descent,
        **settings,
    )
    tape = Tape()
    agent.learn(2 * 55, tape)
    gradients = plain_gradient(agent, tape)
    before = dict(tape.policy_before.named_parameters())
    for name, parameter in agent.policy.named_parameters():
        step = (before[name] - parameter).detach() / 0.1
        torch.testing.assert_close(
            step, gradients[name], atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_gradient_is_scaled_down_to_the_limit():
    agent = make_agent(
        learning_rate=1.0, max_grad_norm=1e-3, policy_kwargs={"optimizer_class": torch.optim.SGD}
    )
    tape = Tape()
    agent.learn(55, tape)
    pairs = zip(tape.policy_before.parameters(), agent.policy.parameters(), strict=True)
    norm = sum(((old - new) ** 2).sum() for old, new in pairs) ** 0.5
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)
    assert agent.last_update["grad_norm"] > 1e-3


@pytest.mark.parametrize("core", ["lstm", "mnm-p"])
def test_training_twice_gives_equal_parameters(core, algorithm):
    first, second = (
        make_agent(core, algorithm=algorithm).learn(6 * 55).policy.state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = make_agent(core, algorithm=algorithm, seed=2).learn(6 * 55).policy.state_dict()
    assert not torch.equal(first["action_net.weight"], other["action_net.weight"])


def test_an_update_that_is_not_finite_is_skipped_and_counted(algorithm):
    env = DummyVecEnv([lambda: Uneven(5, False, bad_reward_at=25)])
    agent = make_agent(algorithm=algorithm, env=env, n_steps=10)
    agent.learn(20)
    before = copy.deepcopy(agent.policy.state_dict())
    agent.learn(10, reset_num_timesteps=False)
    assert agent.last_update["skipped_updates"] == 1
    assert all(torch.equal(before[name], after) for name, after in agent.policy.state_dict().items())
    agent.learn(10, reset_num_timesteps=False)
    assert agent.last_update["skipped_updates"] == 1
    assert not torch.equal(before["action_net.weight"], agent.policy.state_dict()["action_net.weight"])


def test_many_skipped_updates_in_a_row_end_the_run_and_say_where(algorithm):
    agent = make_agent(algorithm=algorithm, env=DummyVecEnv([NeverANumber]), n_steps=5)
    with pytest.raises(
        NonFiniteError, match=r"20 times in a row, the last time at update 20 \(100 timesteps\)"
    ):
        agent.learn(500)


def test_the_learning_rate_follows_its_schedule(algorithm):
    agent = make_agent(algorithm=algorithm, learning_rate=lambda remaining: 0.5 * remaining)
    agent.learn(4 * 55)
    assert agent.policy.optimizer.param_groups[0]["lr"] == pytest.approx(0.0)
    agent = make_agent(algorithm=algorithm, learning_rate=lambda remaining: 0.5 * remaining)
    agent.learn(4 * 55, Stop(after=2 * 11))
    assert agent.policy.optimizer.param_groups[0]["lr"] == pytest.approx(0.25)


class Gammas(BaseCallback):
    """Write down the discount of every update."""

    model: RecurrentA2C

    def __init__(self):
        super().__init__()
        self.seen = []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.seen.append(self.model.gamma)


def test_settings_move_in_straight_lines_and_go_on_where_a_run_was_stopped(algorithm):
    settings = {"gamma": (0.5, 1.0), "ent_coef": (0.2, 0.0)}
    line, gammas = LinearSettings(4 * 55, settings), Gammas()
    agent = make_agent(algorithm=algorithm)
    agent.learn(2 * 55, [line, gammas])
    agent.learn(2 * 55, [LinearSettings(4 * 55, settings), gammas], reset_num_timesteps=False)
    starts = np.arange(len(gammas.seen)) * 11 * 5 / (4 * 55)
    assert len(gammas.seen) == 4
    np.testing.assert_allclose(gammas.seen, 0.5 + 0.5 * starts)
    assert agent.ent_coef == pytest.approx(0.05)


class Stop(BaseCallback):
    """End training one step after so many."""

    def __init__(self, after: int):
        super().__init__()
        self.after = after

    def _on_step(self):
        return self.n_calls <= self.after


def test_a_stopped_agent_goes_on_from_where_its_environment_is(algorithm):
    agent, tape = make_agent(algorithm=algorithm), Tape()
    agent.learn(1000, Stop(after=13))
    last = agent._last_obs.copy()
    agent.learn(55, tape, reset_num_timesteps=False)
    np.testing.assert_array_equal(tape.steps[0]["obs"], last)
    np.testing.assert_array_equal(tape.steps[0]["episode_starts"], [True, False, False, False, True])


def test_it_learns_to_remember():
    env = DummyVecEnv([lambda: Monitor(Recall()) for _ in range(16)])
    agent = make_agent(
        env=env,
        n_steps=16,
        learning_rate=1e-2,
        ent_coef=0.01,
        policy_kwargs={"core_kwargs": {"hidden_size": 16}},
    )
    before = mean_reward(agent, env)
    agent.learn(120 * 256)
    after = mean_reward(agent, env)
    assert before < 0.7
    assert after > 0.95
