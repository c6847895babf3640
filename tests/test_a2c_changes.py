"""What is changed on an agent after it was made takes effect, or is refused: nothing is ignored."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from mnm_rl.agents import RecurrentA2C, SequenceRolloutBuffer
from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.envs import MazeVecEnv
from mnm_rl.updates import GuardedOptimizer

ENVS, STEPS = 3, 6


Agent: Any = RecurrentA2C
"""The algorithm that a test is run with: each of both."""


@pytest.fixture(autouse=True)
def _each_algorithm(algorithm, monkeypatch):
    monkeypatch.setitem(globals(), "Agent", algorithm)


def one_step() -> dict[str, Any]:
    """Settings with which an update is a single step of the optimizer."""
    return {} if Agent is RecurrentA2C else {"n_epochs": 1, "batch_size": STEPS * ENVS}


def make_env(envs: int = ENVS) -> MazeVecEnv:
    return MazeVecEnv(envs, size=5, horizon=8)


def make_agent(core: str = "lstm", hidden_size: int = 5, **settings: Any) -> RecurrentOnPolicyAlgorithm:
    kwargs = {"core": core, "core_kwargs": {"hidden_size": hidden_size}, **settings.pop("policy_kwargs", {})}
    return Agent(
        "MlpPolicy", make_env(), n_steps=STEPS, seed=0, device="cpu", policy_kwargs=kwargs, **settings
    )


def learn(
    agent: RecurrentOnPolicyAlgorithm, updates: int = 1, **arguments: Any
) -> RecurrentOnPolicyAlgorithm:
    steps = updates * agent.n_steps * agent.n_envs
    return agent.learn(steps, **{"reset_num_timesteps": False, **arguments})


def parameters(agent: RecurrentOnPolicyAlgorithm) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in agent.policy.parameters()]


def changed(agent: RecurrentOnPolicyAlgorithm, before: list[torch.Tensor]) -> list[bool]:
    return [not torch.equal(old, new) for old, new in zip(before, agent.policy.parameters(), strict=True)]


def loaded_again(agent: RecurrentOnPolicyAlgorithm, tmp_path) -> Any:
    agent.policy.save(str(tmp_path / "policy.pt"))
    return type(agent.policy).load(str(tmp_path / "policy.pt"), device="cpu")


@pytest.mark.parametrize("replace", [loaded_again, lambda agent, _: copy.deepcopy(agent.policy)])
def test_a_replaced_policy_is_the_one_that_is_trained(replace, tmp_path):
    agent = learn(make_agent())
    old = agent.policy
    agent.policy = replace(agent, tmp_path)
    before = parameters(agent)
    old_before = [parameter.detach().clone() for parameter in old.parameters()]
    learn(agent, 2)
    assert all(changed(agent, before))
    assert all(torch.equal(a, b) for a, b in zip(old_before, old.parameters(), strict=True))


def test_a_deep_copy_of_the_policy_trains_exactly_like_the_original():
    results = []
    for is_copied in (False, True):
        agent = learn(make_agent("gru"))
        if is_copied:
            agent.policy = copy.deepcopy(agent.policy)
        results.append(parameters(learn(agent, 2)))
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, atol=0, rtol=0)


def test_a_policy_of_another_width_starts_new_episodes_or_is_refused():
    agent = learn(make_agent())
    agent.policy = make_agent(hidden_size=9).policy
    with pytest.raises(ValueError, match=r"A state of 'lstm' for 3 environments starts as \[3, 9\]"):
        learn(agent)
    before = parameters(agent)
    learn(agent, reset_num_timesteps=True)
    assert agent.core_state.hidden.shape == (ENVS, 9)
    assert all(changed(agent, before))


def test_a_replaced_optimizer_makes_the_updates_at_the_rate_of_the_schedule():
    agent = learn(make_agent(learning_rate=lambda remaining: 0.25, **one_step()))
    agent.policy.optimizer = torch.optim.SGD(agent.policy.parameters(), lr=7.0)
    before = parameters(agent)
    agent.max_grad_norm = 1e9
    learn(agent)
    assert all(changed(agent, before))
    assert agent.policy.optimizer.param_groups[0]["lr"] == 0.25
    for old, new in zip(before, agent.policy.parameters(), strict=True):
        assert new.grad is not None
        torch.testing.assert_close(new.detach(), old - 0.25 * new.grad)


def test_an_optimizer_of_other_parameters_is_refused():
    agent = make_agent()
    agent.policy.optimizer = torch.optim.SGD(make_agent().policy.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="updates none of the parameters"):
        learn(agent)
    with pytest.raises(ValueError, match="updates none of the parameters"):
        GuardedOptimizer(agent.policy.optimizer, agent.policy.parameters(), 1.0)


def test_an_optimizer_of_the_heads_trains_the_heads():
    agent = make_agent()
    agent.policy.optimizer = torch.optim.SGD(agent.policy.value_net.parameters(), lr=1.0)
    before = parameters(agent)
    learn(agent)
    names = [name for name, _ in agent.policy.named_parameters()]
    moved = [name for name, is_changed in zip(names, changed(agent, before), strict=True) if is_changed]
    assert moved == ["value_net.weight", "value_net.bias"]


def test_a_changed_gradient_limit_is_honoured():
    descent = {"optimizer_class": torch.optim.SGD}
    agent = learn(make_agent(learning_rate=1.0, policy_kwargs=descent, **one_step()))
    agent.max_grad_norm = 1e-6
    before = parameters(agent)
    learn(agent)
    moves = [((old - new) ** 2).sum() for old, new in zip(before, agent.policy.parameters(), strict=True)]
    distance = torch.stack(moves).sum()
    assert agent.last_update["grad_norm"] > 1e-5
    assert distance.sqrt().item() == pytest.approx(1e-6, rel=0.1)


@pytest.mark.parametrize("n_steps", [2, 5, 11])
def test_a_changed_number_of_steps_takes_effect(n_steps):
    agent = learn(make_agent(bootstrap_time_limit=False))
    updates = agent._n_updates
    agent.n_steps = n_steps
    rows = []

    class Rows(BaseCallback):
        def _on_step(self):
            rows.append(self.locals["rewards"].copy())
            return True

    learn(agent, 2, callback=Rows())
    assert agent._n_updates == updates + 2 * getattr(agent, "n_epochs", 1)
    assert agent.rollout_buffer.rewards.shape == (n_steps, ENVS)
    np.testing.assert_allclose(agent.rollout_buffer.rewards, rows[-n_steps:], rtol=1e-6)


def test_a_number_of_steps_that_changes_during_training_takes_effect_with_the_next_rollout():
    class Halve(BaseCallback):
        model: RecurrentOnPolicyAlgorithm
        sizes: list[int] = []  # noqa: RUF012

        def _on_step(self):
            return True

        def _on_rollout_end(self):
            Halve.sizes.append(self.model.rollout_buffer.pos)
            self.model.n_steps = 3

    agent = make_agent()
    agent.learn((6 + 3 + 3) * ENVS, Halve())
    assert Halve.sizes == [6, 3, 3]


def test_an_update_from_a_buffer_that_is_not_full_is_refused():
    agent = make_agent()
    with pytest.raises(ValueError, match=r"holds 0 new steps of 6; an update needs a full one"):
        agent.train()
    learn(agent)
    agent.rollout_buffer.reset()
    with pytest.raises(ValueError, match="holds 0 new steps of 6"):
        agent.train()


def test_a_replaced_buffer_is_used_if_it_fits():
    class Own(SequenceRolloutBuffer):
        pass

    agent = make_agent()
    spaces = agent.observation_space, agent.action_space
    agent.rollout_buffer = Own(STEPS, *spaces, device="cpu", n_envs=ENVS)
    learn(agent)
    assert agent.rollout_buffer.full
    agent.rollout_buffer = Own(STEPS + 1, *spaces, device="cpu", n_envs=ENVS)
    with pytest.raises(ValueError, match=r"takes 7 steps of 3 environments, but a rollout has 6 steps of 3"):
        learn(agent)
    agent.rollout_buffer = object()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match="must be a SequenceRolloutBuffer, not a object"):
        learn(agent)


@pytest.mark.parametrize("name", ["learning_rate", "lr_schedule"])
def test_a_changed_learning_rate_is_used(name, tmp_path):
    agent = learn(make_agent(learning_rate=0.5))
    setattr(agent, name, (lambda _: 0.125) if name == "lr_schedule" else 0.125)
    learn(agent)
    assert agent.policy.optimizer.param_groups[0]["lr"] == 0.125
    agent.learning_rate = 0.25
    learn(agent)
    assert agent.policy.optimizer.param_groups[0]["lr"] == 0.25
    agent.save(tmp_path / "agent")
    loaded = learn(Agent.load(tmp_path / "agent", env=make_env(), device="cpu", learning_rate=0.75))
    assert loaded.policy.optimizer.param_groups[0]["lr"] == 0.75


@pytest.mark.parametrize("rate", [float("nan"), -1.0, float("inf")])
def test_a_schedule_that_gives_no_rate_is_refused(rate):
    agent = make_agent(learning_rate=lambda remaining: 0.1 if remaining == 1 else rate)
    with pytest.raises(ValueError, match="The learning rate must be a finite number that is not negative"):
        learn(agent)


@pytest.mark.parametrize(
    ("name", "value"),
    [("gae_lambda", 0.1), ("vf_coef", 3.0), ("ent_coef", 2.0), ("normalize_advantage", None)],
)
def test_other_settings_changed_later_count_as_if_given_at_first(name, value):
    agent = make_agent()
    given: dict[str, Any] = {name: not agent.normalize_advantage if value is None else value}
    first = parameters(learn(make_agent(**given), 2))
    agent = make_agent()
    setattr(agent, name, given[name])
    second = parameters(learn(agent, 2))
    plain = parameters(learn(make_agent(), 2))
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, plain))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", float("nan")),
        ("gae_lambda", 2),
        ("n_steps", 0),
        ("n_steps", 2.5),
        ("max_grad_norm", 0.0),
        ("vf_coef", "much"),
        ("normalize_advantage", "no"),
        ("entropy_kind", "none"),
    ],
)
def test_settings_changed_to_what_is_not_allowed_are_refused_before_a_step(name, value):
    agent = learn(make_agent())
    setattr(agent, name, value)
    taken = agent.num_timesteps
    with pytest.raises(ValueError, match=f"{name} must be"):
        agent.learn(18, reset_num_timesteps=False)
    assert agent.num_timesteps == taken


def test_another_environment_starts_new_episodes_and_another_number_of_them_is_refused():
    agent = learn(make_agent())
    agent.set_env(make_env())
    learn(agent)
    assert agent.rollout_buffer.episode_starts[0].all()
    with pytest.raises(ValueError, match="number of environments"):
        agent.set_env(make_env(2))


def test_a_loaded_agent_takes_another_number_of_environments(tmp_path):
    learn(make_agent()).save(tmp_path / "agent")
    agent = learn(Agent.load(tmp_path / "agent", env=make_env(5), device="cpu"))
    assert agent.rollout_buffer.rewards.shape == (STEPS, 5)


def test_parameters_set_from_another_agent_are_trained_on():
    source, agent = learn(make_agent(), 2), make_agent()
    agent.set_parameters(source.get_parameters())  # pyright: ignore[reportArgumentType] - Stable-Baselines3's
    before = parameters(agent)
    assert all(torch.equal(a, b) for a, b in zip(before, source.policy.parameters(), strict=True))
    learn(agent)
    assert all(changed(agent, before))


def test_a_seed_set_later_decides_what_follows():
    results = []
    for seed in (1, 1, 2):
        agent = learn(make_agent())
        agent.set_random_seed(seed)
        results.append(parameters(learn(agent, 2, reset_num_timesteps=True)))
    same = [all(map(torch.equal, results[0], other)) for other in results[1:]]
    assert same == [True, False]


def test_a_replaced_spread_of_box_actions_is_the_one_that_acts_and_learns():
    agent = Agent("MlpPolicy", "Pendulum-v1", n_steps=8, seed=0, device="cpu")
    agent.policy.log_std = torch.nn.Parameter(torch.full((1,), -20.0))
    agent.policy.optimizer = torch.optim.SGD(agent.policy.parameters(), lr=1e-3)
    observation = np.ones((50, 3), np.float32)
    assert np.ptp(agent.predict(observation)[0]) < 1e-5
    learn(agent)
    assert agent.policy.log_std.grad is not None


def test_a_schedule_that_falls_to_zero_is_zero_where_the_last_rollout_goes_beyond_the_end():
    agent = Agent(
        "MlpPolicy", MazeVecEnv(ENVS, size=3), lambda left: 1e-3 * left, STEPS, seed=0, device="cpu"
    )
    rates = []
    agent.train, train = (
        lambda: (train(), rates.append(agent.policy.optimizer.param_groups[0]["lr"])),
        agent.train,
    )
    agent.learn(STEPS * ENVS + 1)
    assert len(rates) == 2
    assert rates[0] == pytest.approx(1e-3 / (STEPS * ENVS + 1))
    assert rates[1] == 0
