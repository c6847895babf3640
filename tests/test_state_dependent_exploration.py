"""Noise that depends on the state and lasts: its density, when it is drawn, and how it is kept."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv
from test_a2c import SMALL, Tape, Uneven, check_sequence_against_steps, make_agent
from test_a2c_checkpoints import everything, scramble_random_generators
from test_ppo import NoMemory, Notes

from mnm_rl.agents import RecurrentA2C, RecurrentPPO
from mnm_rl.agents.distributions import StateDependentGaussian
from mnm_rl.agents.policies import RecurrentActorCriticPolicy

STEPS = 8


class Steered(Uneven):
    """Two numbers as actions."""

    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def step(self, action):
        return super().step(float(np.sum(action)))


class Constant(Steered):
    """Always the same observation."""

    def _observe(self):
        return np.full(3, 0.5, np.float32)


def steered(kind: type[Steered] = Steered, n_envs: int = 3) -> DummyVecEnv:
    return DummyVecEnv([lambda n=n: kind(5 + 20 * n, False) for n in range(n_envs)])


def agent_with_noise(algorithm: Any = RecurrentPPO, kind: type[Steered] = Steered, **settings: Any) -> Any:
    return make_agent(
        env=steered(kind), algorithm=algorithm, **{"n_steps": STEPS, "use_sde": True, **settings}
    )


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.floats(-3, 1), st.integers(0, 2**32 - 1))
def test_density_entropy_and_noise_are_those_of_stable_baselines(batch, numbers, features, log_std, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    ours_std = (log_std + 0.1 * draw(features, numbers)).requires_grad_()
    theirs_std = ours_std.detach().clone().requires_grad_()
    mean, latent, actions = draw(batch, numbers), draw(batch, features), draw(batch, numbers)
    ours = StateDependentGaussian((numbers,), ours_std)
    theirs = StateDependentNoiseDistribution(numbers)
    theirs.proba_distribution_net(features)
    theirs.proba_distribution(mean, theirs_std, latent)
    parameters = torch.cat([mean, latent], -1)
    torch.testing.assert_close(ours.log_prob(parameters, actions), theirs.log_prob(actions))
    entropy = theirs.entropy()
    assert entropy is not None
    torch.testing.assert_close(ours.entropy(parameters), entropy)
    torch.testing.assert_close(ours.mode(parameters), theirs.mode())
    (ours.log_prob(parameters, actions).sum() + ours.entropy(parameters).sum()).backward()
    (theirs.log_prob(actions).sum() + entropy.sum()).backward()
    torch.testing.assert_close(ours_std.grad, theirs_std.grad)
    ours.draw_noise(batch)
    theirs.exploration_mat = theirs.exploration_matrices = ours.weights  # pyright: ignore
    if batch > 1:
        torch.testing.assert_close(ours.sample(parameters), theirs.sample())


def test_nothing_comes_back_into_the_features_through_the_noise():
    latent = torch.randn(2, 4, requires_grad=True)
    distribution = StateDependentGaussian((3,), torch.zeros(4, 3))
    parameters = torch.cat([torch.zeros(2, 3), latent], -1)
    distribution.log_prob(parameters, torch.ones(2, 3)).sum().backward()
    assert latent.grad is not None
    assert not latent.grad.any()


def test_many_draws_have_the_deviation_of_the_density():
    torch.manual_seed(0)
    distribution = StateDependentGaussian((2,), torch.tensor([[0.3, -1.0], [-0.5, 0.2], [0.0, 0.0]]))
    parameters = torch.tensor([1.0, -1.0, 0.5, -2.0, 1.0]).expand(200_000, -1)
    drawn = distribution.sample(parameters)
    torch.testing.assert_close(drawn.mean(0), torch.tensor([1.0, -1.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std(0), distribution._std(parameters[:1, 2:])[0], atol=0.02, rtol=0)


def noise_of(agent: Any, steps: int) -> np.ndarray:
    """Of a rollout, for observations and a core that stay the same, ``[T, B, A]``."""
    tape = Tape()
    agent.learn(steps * agent.n_envs, tape)
    means = [
        tape.policy_before.get_distribution(torch.tensor(obs), tape.initial, torch.zeros(3, dtype=torch.bool))
        for obs in tape.stacked("obs")
    ]
    return tape.stacked("actions") - np.stack([each[0].mode().detach().numpy() for each in means])


@pytest.mark.parametrize(("kept", "changes"), [(-1, []), (3, [3, 6]), (1, list(range(1, STEPS)))])
@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
def test_it_is_kept_for_so_many_steps(algorithm, kept, changes):
    agent = agent_with_noise(
        algorithm, Constant, sde_sample_freq=kept, policy_kwargs={"core": NoMemory, "core_kwargs": {}}
    )
    noise = noise_of(agent, STEPS)
    differs = [t for t in range(1, STEPS) if np.abs(noise[t] - noise[t - 1]).max() > 1e-5]
    assert differs == changes
    assert np.abs(noise).min() > 0
    assert len(np.unique(noise[0].round(5))) == noise[0].size  # environments have their own


@pytest.mark.parametrize("core", SMALL)
def test_a_rollout_evaluates_as_its_steps_did(core):
    agent = make_agent(core, steered(), use_sde=True, n_steps=STEPS, learning_rate=0.0)
    tape = Tape()
    agent.learn(STEPS * 3, tape)
    check_sequence_against_steps(agent, tape)


@pytest.mark.parametrize("settings", [{}, {"clip_range_vf": 0.1}])
def test_without_memory_it_is_the_ppo_of_stable_baselines(settings):
    shared: dict[str, Any] = {"n_steps": STEPS, "n_epochs": 3, "ent_coef": 0.01, "gamma": 0.9, "seed": 0}
    shared |= {"learning_rate": 0.02, "device": "cpu", "use_sde": True, "batch_size": STEPS * 3, **settings}
    network = {"net_arch": {"pi": [8], "vf": [6]}, "log_std_init": -0.7}
    mine = RecurrentPPO("MlpPolicy", steered(), policy_kwargs={"core": NoMemory, **network}, **shared)
    theirs = PPO("MlpPolicy", steered(), policy_kwargs=network, **shared)
    theirs.set_logger(Logger(None, []))
    notes = Notes()
    mine.learn(STEPS * 3, notes)
    theirs.policy.load_state_dict(notes.policy_before.state_dict())
    filled, last = theirs.rollout_buffer, notes.steps[-1]
    for t, step in enumerate(notes.steps):
        with torch.no_grad():
            values, log_probs, _ = theirs.policy.evaluate_actions(
                torch.tensor(step["obs"]), torch.tensor(step["actions"])
            )
        rewards = mine.rollout_buffer.rewards[t]
        filled.add(step["obs"], step["actions"], rewards, step["episode_starts"], values, log_probs)
    with torch.no_grad():
        last_values = theirs.policy.predict_values(torch.tensor(last["new_obs"]))
    filled.compute_returns_and_advantage(last_values, last["dones"])
    np.random.set_state(notes.shuffling)  # noqa: NPY002
    theirs.train()
    moved = notes.policy_before.log_std - theirs.policy.log_std
    assert moved.abs().min() > 0
    for name, parameter in theirs.policy.named_parameters():
        torch.testing.assert_close(mine.policy.get_parameter(name), parameter, atol=2e-5, rtol=1e-4)
    for name, value in theirs.logger.name_to_value.items():
        assert mine.logger.name_to_value[name] == pytest.approx(value, rel=1e-3, abs=2e-6), name


def test_what_plays_has_new_noise_in_each_episode_and_keeps_it_within():
    agent = agent_with_noise(policy_kwargs={"core": NoMemory, "core_kwargs": {}})
    observation = np.full((3, 3), 0.5, np.float32)
    first, state = agent.predict(observation)
    same, state = agent.predict(observation, state)
    np.testing.assert_array_equal(first, same)
    other, state = agent.predict(observation, state, np.array([False, True, False]))
    assert (first != other).any(-1).tolist() == [False, True, False]
    new, _ = agent.predict(observation)
    assert (new != other).any(-1).all()
    best = [agent.predict(observation, deterministic=True)[0] for _ in range(2)]
    np.testing.assert_array_equal(*best)
    agent.predict(observation[:2])  # another number of environments


class Plays(Tape):
    """Plays in other environments in the middle of a rollout."""

    def __init__(self, n_envs: int):
        super().__init__()
        self.n_envs = n_envs

    def _on_step(self):
        before = torch.get_rng_state()
        self.model.predict(np.full((self.n_envs, 3), 0.5, np.float32))
        torch.set_rng_state(before)
        return super()._on_step()


@pytest.mark.parametrize("n_envs", [2, 3])
def test_what_plays_does_not_change_the_noise_of_a_rollout(n_envs):
    tapes = [Tape(), Plays(n_envs)]
    for tape in tapes:
        agent_with_noise(kind=Constant).learn(STEPS * 3, tape)
    np.testing.assert_array_equal(*[tape.stacked("actions") for tape in tapes])


@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path, algorithm):
    through = agent_with_noise(algorithm, sde_sample_freq=3).learn(5 * STEPS * 3)
    expected = everything(through)
    env = steered()
    stopped = make_agent(env=env, algorithm=algorithm, n_steps=STEPS, use_sde=True, sde_sample_freq=3)
    stopped.learn(2 * STEPS * 3).save(tmp_path / "agent")
    scramble_random_generators()
    resumed = algorithm.load(tmp_path / "agent", env=env, device="cpu", force_reset=False)
    assert (resumed.use_sde, resumed.sde_sample_freq) == (True, 3)
    resumed.learn(3 * STEPS * 3, reset_num_timesteps=False)
    assert everything(resumed) == expected


@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
def test_it_is_kept_in_all_files(tmp_path, algorithm):
    agent = agent_with_noise(algorithm).learn(2 * STEPS * 3)
    agent.save(tmp_path / "agent")
    agent.save_pretrained(tmp_path / "folder")
    agent.policy.save(str(tmp_path / "policy"))
    observation = np.full((3, 3), 0.1, np.float32)
    expected = agent.predict(observation, deterministic=True)[0]
    for read in (
        algorithm.load(tmp_path / "agent", device="cpu", trusted=False).policy,
        algorithm.from_pretrained(tmp_path / "folder").policy,
        RecurrentActorCriticPolicy.load(str(tmp_path / "policy"), device="cpu"),
    ):
        assert isinstance(read.distribution, StateDependentGaussian)
        np.testing.assert_array_equal(read.predict(observation, deterministic=True)[0], expected)


@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_sde": 1}, "use_sde must be True or False"),
        ({"sde_sample_freq": 0}, "sde_sample_freq must be at least 1"),
        ({"sde_sample_freq": 2.5}, "sde_sample_freq must be"),
        ({"sde_sample_freq": -2}, "sde_sample_freq must be at least 1"),
    ],
)
def test_what_is_not_allowed_is_named(algorithm, settings, message):
    with pytest.raises(ValueError, match=message):
        agent_with_noise(algorithm, **settings)


def test_it_is_for_actions_that_are_numbers():
    for make in (
        lambda: make_agent(use_sde=True),
        lambda: make_agent(algorithm=RecurrentPPO, use_sde=True),
    ):
        with pytest.raises(ValueError, match="use_sde is for Box actions"):
            make()
    with pytest.raises(ValueError, match="use_sde=True"):
        make_agent().policy.reset_noise()
