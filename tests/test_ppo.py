"""PPO's update, against a plain one, against A2C's and against Stable-Baselines3's; and what it is given."""

import copy
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv
from test_a2c import SMALL, Recall, Tape, Uneven, make_agent, mean_reward, slow_advantages, uneven_env

from mnm_rl.agents import RecurrentA2C, RecurrentPPO
from mnm_rl.agents.minibatches import cut, find_cuts, join_states
from mnm_rl.cores import CoreOutput, MemoryCore

SGD = {"optimizer_class": torch.optim.SGD, "ortho_init": False}
ENVS, STEPS = 5, 12


class Notes(Tape):
    """What happened in the last rollout, and the generator that deals its sequences."""

    def _on_rollout_end(self):
        self.shuffling = np.random.get_state()  # noqa: NPY002


def ppo(core: str = "lstm", **settings: Any) -> Any:
    return make_agent(core, algorithm=RecurrentPPO, **{"n_steps": STEPS, **settings})


def run_steps(policy: Any, steps: list, env: int, state: Any, actions: Any = None) -> dict[str, Any]:
    """One environment through some steps, one after the other."""
    found: dict[str, Any] = {"values": [], "log_probs": [], "entropies": [], "squares": [], "metas": []}
    for step in steps:
        if step["episode_starts"][env]:
            state = policy.initial_state(1)
        output = policy.core(torch.tensor(step["obs"][env]).view(1, 1, -1), state)
        state = output.state
        distribution = torch.distributions.Categorical(logits=policy.action_net(output.outputs[0, 0]))
        found["values"].append(policy.value_net(output.outputs[0, 0])[0])
        found["log_probs"].append(distribution.log_prob(torch.tensor(step["actions"][env])))
        found["entropies"].append(distribution.entropy())
        found["squares"].append((distribution.probs**2).sum())
        found["metas"].append(output.meta_loss[0, 0])
    return {**{name: torch.stack(each) for name, each in found.items()}, "state": state}


def plain_update(agent: Any, notes: Notes, length: int, sequences: int) -> list[dict[str, float]]:
    """PPO on `notes.policy_before`, one environment and one step at a time, with plain gradient descent."""
    policy, steps = notes.policy_before, notes.steps
    first = lambda env: type(notes.initial)(*[field[env : env + 1] for field in notes.initial])  # noqa: E731
    rewards = notes.stacked("rewards").astype(np.float64)
    with torch.no_grad():
        acted = [run_steps(policy, steps, env, first(env)) for env in range(ENVS)]
        last_values = np.zeros(ENVS)
        for env in range(ENVS):
            for t, step in enumerate(steps):
                info = step["infos"][env]
                if info.get("TimeLimit.truncated"):
                    state = run_steps(policy, steps[: t + 1], env, first(env))["state"]
                    after = policy.core(torch.tensor(info["terminal_observation"]).view(1, 1, -1), state)
                    rewards[t, env] += agent.gamma * policy.value_net(after.outputs[0, 0]).item()
            after = policy.core(torch.tensor(steps[-1]["new_obs"][env]).view(1, 1, -1), acted[env]["state"])
            last_values[env] = policy.value_net(after.outputs[0, 0]).item()
    values = np.stack([each["values"].numpy() for each in acted], 1).astype(np.float64)
    gae = (agent.gamma, agent.gae_lambda)
    advantages = slow_advantages(rewards, values, last_values, notes.stacked("dones"), *gae)
    np.random.set_state(notes.shuffling)  # noqa: NPY002
    count, clip, clip_vf = STEPS // length, agent.clip_range(1), agent.clip_range_vf
    told = []
    for _ in range(agent.n_epochs):
        with torch.no_grad():
            states = [
                run_steps(policy, steps[: part * length], env, first(env))["state"] if part else first(env)
                for env in range(ENVS)
                for part in range(count)
            ]
        for rows in np.random.permutation(ENVS * count).reshape(-1, sequences):  # noqa: NPY002
            places = [(row // count, row % count * length) for row in rows]
            chosen = np.concatenate([advantages[t : t + length, env] for env, t in places])
            if agent.normalize_advantage:
                chosen = (chosen - chosen.mean()) / chosen.std(ddof=1)
            loss, seen, ratios = torch.zeros(()), iter(chosen), []
            for row, (env, t) in zip(rows, places, strict=True):
                new = run_steps(policy, steps[t : t + length], env, states[row])
                for i in range(length):
                    advantage, old = float(next(seen)), acted[env]["values"][t + i]
                    ratio = torch.exp(new["log_probs"][i] - acted[env]["log_probs"][t + i])
                    ratios.append(ratio.item())
                    loss = loss - torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
                    value = new["values"][i]
                    if clip_vf is not None:
                        value = old + (value - old).clamp(-clip_vf(1), clip_vf(1))
                    loss = loss + agent.vf_coef * (value - old - float(advantages[t + i, env])) ** 2
                    exploration = (
                        new["squares"] if agent.entropy_kind == "concentration" else -new["entropies"]
                    )
                    loss = loss + agent.ent_coef * exploration[i] + agent.meta_coef * new["metas"][i]
            loss = loss / len(chosen)
            policy.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), agent.max_grad_norm)
            told.append({"loss": loss.item(), "grad_norm": norm.item(), "ratios": ratios})
            with torch.no_grad():
                for parameter in policy.parameters():
                    parameter -= agent.policy.optimizer.param_groups[0]["lr"] * parameter.grad
    return told


@pytest.mark.parametrize("core", ["lstm", "mnm-p", "gru"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": 12, "n_epochs": 3, "clip_range_vf": 0.05, "max_grad_norm": 0.2},
        {"bptt_steps": 4, "batch_size": 20, "entropy_kind": "concentration", "normalize_advantage": False},
        {"bptt_steps": 6, "batch_size": 60, "n_epochs": 3, "meta_coef": 0.3, "learning_rate": 0.3},
    ],
)
def test_an_update_is_the_plain_one(core, settings):
    given = {"n_epochs": 2, "gamma": 0.9, "ent_coef": 0.1, "clip_range": 0.02, "learning_rate": 0.05}
    agent = ppo(core, policy_kwargs=SGD, **{**given, "max_grad_norm": 5.0, **settings})
    notes = Notes()
    agent.learn(2 * ENVS * STEPS, notes)
    length = settings.get("bptt_steps", STEPS)
    told = plain_update(agent, notes, length, settings.get("batch_size", STEPS) // length)
    update = agent.last_update
    for name, parameter in notes.policy_before.named_parameters():
        torch.testing.assert_close(
            agent.policy.get_parameter(name),
            parameter,
            atol=3e-5,
            rtol=1e-3,
            msg=lambda m, n=name: f"{n}: {m}",
        )
    assert update["loss"] == pytest.approx(told[-1]["loss"], rel=1e-3, abs=1e-4)
    assert update["grad_norm"] == pytest.approx(np.mean([step["grad_norm"] for step in told]), rel=1e-3)
    ratios = np.concatenate([step["ratios"] for step in told])
    assert update["clip_fraction"] == pytest.approx((abs(ratios - 1) > 0.02).mean(), abs=0.03)
    assert 0.02 < update["clip_fraction"] < 1, "both sides of the clipping are seen"
    last = np.concatenate([step["ratios"] for step in told[-len(told) // agent.n_epochs :]])
    assert update["approx_kl"] == pytest.approx((last - 1 - np.log(last)).mean(), rel=0.02, abs=1e-6)


@pytest.mark.parametrize("core", ["lstm", "mnm-p", "lstm-salu"])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_one_epoch_of_one_minibatch_is_an_update_of_a2c(core, optimizer):
    shared = {"ent_coef": 0.1, "gae_lambda": 0.9, "normalize_advantage": True, "learning_rate": 0.03}
    shared |= {"n_steps": STEPS, "policy_kwargs": {"optimizer_class": optimizer}}
    whole = {"n_epochs": 1, "batch_size": ENVS * STEPS}
    # One after the other: they draw from the same generators.
    agents: list[Any] = [
        make_agent(core, algorithm=algorithm, **settings, **shared).learn(ENVS * STEPS)
        for algorithm, settings in ((RecurrentA2C, {}), (RecurrentPPO, whole))
    ]
    mine, others = (dict(agent.policy.named_parameters()) for agent in agents)
    for name, parameter in mine.items():
        tolerance = 1e-6 if optimizer is torch.optim.SGD else 1e-4
        torch.testing.assert_close(parameter, others[name], atol=tolerance, rtol=1e-5)
    for name in ("value_loss", "entropy", "meta_loss", "grad_norm", "explained_variance"):
        assert agents[0].last_update[name] == pytest.approx(agents[1].last_update[name], rel=1e-4, abs=1e-6)
    assert agents[1].last_update["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert agents[1].last_update["clip_fraction"] == 0


class NoState(NamedTuple):
    nothing: torch.Tensor


@dataclass(frozen=True)
class NoSettings:
    pass


class NoMemory(MemoryCore[NoState]):
    """What comes in goes out."""

    config_class = NoSettings

    def __init__(self, input_size, config=None):
        super().__init__()
        self.config = config or NoSettings()
        self.input_size = self.output_size = input_size

    def initial_state(self, batch_size):
        return NoState(torch.zeros(batch_size, 1))

    def forward(self, inputs, state=None, resets=None, *, record=False):
        state = state or self.initial_state(inputs.shape[1])
        return CoreOutput(inputs, state, inputs.new_zeros(inputs.shape[:2]))


@pytest.mark.parametrize("cuts", [{"bptt_steps": 1, "batch_size": 15}, {"batch_size": ENVS * STEPS}])
@pytest.mark.parametrize("settings", [{}, {"clip_range_vf": 0.1}, {"target_kl": 0.001}])
def test_without_memory_it_is_the_ppo_of_stable_baselines(cuts, settings):
    shared: dict[str, Any] = {"n_steps": STEPS, "n_epochs": 4, "ent_coef": 0.01, "gamma": 0.9, "seed": 0}
    shared |= {
        "clip_range": LinearSchedule(0.1, 0.05, 1.0),
        "learning_rate": 0.02,
        "device": "cpu",
        **settings,
    }
    network = {"net_arch": {"pi": [8], "vf": [6]}}
    mine = RecurrentPPO(
        "MlpPolicy", uneven_env(), policy_kwargs={"core": NoMemory, **network}, **shared, **cuts
    )
    theirs = PPO("MlpPolicy", uneven_env(), policy_kwargs=network, **shared, batch_size=cuts["batch_size"])
    theirs.set_logger(Logger(None, []))
    notes = Notes()
    mine.learn(ENVS * STEPS, notes)
    theirs.policy.load_state_dict(notes.policy_before.state_dict())
    filled, last = theirs.rollout_buffer, notes.steps[-1]
    for t, step in enumerate(notes.steps):
        obs, actions = torch.tensor(step["obs"]), torch.tensor(step["actions"])
        with torch.no_grad():
            values, log_probs, _ = theirs.policy.evaluate_actions(obs, actions)
        rewards = mine.rollout_buffer.rewards[t]
        filled.add(step["obs"], step["actions"][:, None], rewards, step["episode_starts"], values, log_probs)
    with torch.no_grad():
        last_values = theirs.policy.predict_values(torch.tensor(last["new_obs"]))
    filled.compute_returns_and_advantage(last_values, last["dones"])
    theirs._current_progress_remaining = mine._current_progress_remaining
    np.random.set_state(notes.shuffling)  # noqa: NPY002
    theirs.train()
    for name, parameter in theirs.policy.named_parameters():
        torch.testing.assert_close(mine.policy.get_parameter(name), parameter, atol=2e-5, rtol=1e-4)
    logged, expected = mine.logger.name_to_value, theirs.logger.name_to_value
    assert expected.keys() <= logged.keys()
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value, rel=1e-3, abs=2e-6), name
    assert expected["train/clip_fraction"] > 0
    assert mine._n_updates == theirs._n_updates
    assert (mine._n_updates < 4) == ("target_kl" in settings)


def test_sequences_are_cut_one_environment_after_the_other():
    rollout = torch.arange(12).view(6, 2)  # t * 2 + environment
    assert cut(rollout, 3).T.tolist() == [[0, 2, 4], [6, 8, 10], [1, 3, 5], [7, 9, 11]]
    states = [NoState(torch.tensor([0, 1])), NoState(torch.tensor([6, 7]))]
    assert join_states(states).nothing.tolist() == [0, 6, 1, 7]


class Fixed(MemoryCore[NoState]):
    """The state is the sum of a parameter over the steps of an episode, and what comes out."""

    config_class = NoSettings

    def __init__(self, input_size, config=None):
        super().__init__()
        self.config = config or NoSettings()
        self.input_size, self.output_size = input_size, 1
        self.step_size = torch.nn.Parameter(torch.ones(()))
        self.starts: list[list[float]] = []

    def initial_state(self, batch_size):
        return NoState(torch.zeros(batch_size, 1))

    def forward(self, inputs, state=None, resets=None, *, record=False):
        total, outputs = (state or self.initial_state(inputs.shape[1])).nothing, []
        if torch.is_grad_enabled():
            self.starts.append(sorted(total.flatten().tolist()))
        for _ in inputs:
            total = total + self.step_size
            outputs.append(total)
        return CoreOutput(torch.stack(outputs), NoState(total), inputs.new_zeros(inputs.shape[:2]))


def test_the_states_between_sequences_are_those_of_the_policy_as_it_is_in_each_epoch():
    env = DummyVecEnv([lambda: Uneven(1000, False)] * 2)
    agent: Any = RecurrentPPO(
        "MlpPolicy",
        env,
        1.0,
        n_steps=6,
        batch_size=12,
        n_epochs=3,
        bptt_steps=2,
        policy_kwargs={"core": Fixed, "optimizer_class": torch.optim.SGD},
        seed=0,
        device="cpu",
    )
    core = agent.policy.core
    seen = []
    step = agent.guard.step
    agent.guard.step = lambda *given: (seen.append(core.step_size.item()), step(*given))[1]
    agent.learn(12)
    assert len(set(seen)) == 3, "every epoch changed the parameter"
    for size, starts in zip(seen, core.starts, strict=True):
        assert starts == pytest.approx([0, 0, 2 * size, 2 * size, 4 * size, 4 * size])


def test_a_state_that_grows_cannot_be_cut():
    with pytest.raises(ValueError, match=r"bptt_steps must be n_steps, 12, or None with the core lstm-salu"):
        ppo("lstm-salu", bptt_steps=6).learn(ENVS * STEPS)
    ppo("lstm-salu", bptt_steps=12).learn(2 * ENVS * STEPS)


def test_learning_from_a_rollout_ends_when_the_policy_has_moved_far_enough():
    agent = ppo(n_epochs=20, learning_rate=0.05, target_kl=0.01)
    agent.learn(ENVS * STEPS)
    assert 1 <= agent._n_updates < 20
    assert agent.last_update["approx_kl"] > 0
    assert ppo(n_epochs=20, learning_rate=0.05).learn(ENVS * STEPS)._n_updates == 20


def test_a_number_that_is_none_spoils_the_whole_rollout_and_counts_once():
    def build(env: int):
        return lambda: Uneven(5, False, bad_reward_at=3 + STEPS if env == 0 else None)

    agent = ppo(env=DummyVecEnv([build(env) for env in range(4)]), n_epochs=30)
    agent.learn(4 * STEPS)
    before = copy.deepcopy(agent.policy.state_dict())
    agent.learn(4 * STEPS, reset_num_timesteps=False)
    assert agent.last_update["skipped_updates"] == 1
    assert all(torch.equal(before[name], after) for name, after in agent.policy.state_dict().items())
    agent.learn(4 * STEPS, reset_num_timesteps=False)
    assert agent.last_update["skipped_updates"] == 1


def test_names_that_its_users_know(tmp_path):
    env = DummyVecEnv([lambda: Uneven(5, False)] * 4)
    agent = RecurrentPPO("MlpLstmPolicy", env, 3e-4, 16, 32, 2, clip_range=LinearSchedule(0.2, 0.0, 1.0))
    agent.learn(64)
    assert agent.policy.core_name == "lstm"
    names = "entropy_loss policy_gradient_loss value_loss approx_kl clip_fraction loss explained_variance "
    names += "clip_range n_updates learning_rate"
    assert {f"train/{name}" for name in names.split()} <= agent.logger.name_to_value.keys()
    assert agent.logger.name_to_value["train/entropy_loss"] == -agent.last_update["entropy"]
    assert isinstance(agent.clip_range, FloatSchedule)
    agent.save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent", device="cpu", trusted=False)
    assert (loaded.n_epochs, loaded.batch_size) == (2, 32)
    assert isinstance(loaded.clip_range, FloatSchedule)
    assert loaded.clip_range(0.5) == pytest.approx(0.1)


def test_a_changed_clip_range_is_used():
    agent = ppo().learn(ENVS * STEPS)
    agent.clip_range, agent.clip_range_vf = 0.5, lambda remaining: 0.25
    agent.learn(ENVS * STEPS, reset_num_timesteps=False)
    assert (agent.last_update["clip_range"], agent.last_update["clip_range_vf"]) == (0.5, 0.25)
    agent.clip_range = lambda remaining: -0.1
    with pytest.raises(ValueError, match=r"^The value of clip_range must be a number that is not negative"):
        agent.learn(ENVS * STEPS, reset_num_timesteps=False)


WRONG = {
    "n_epochs": [0, 2.5, None, True],
    "batch_size": [0, -60, 60.0, "all"],
    "bptt_steps": [0, 2.0, True],
    "clip_range": [0, -0.1, None, float("nan"), "lin_0.2", lambda: 0.2],
    "clip_range_vf": [0, -0.1, float("nan"), "no"],
    "target_kl": [0, -0.1, float("nan"), "no"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_value_that_is_not_allowed_is_named(name, value):
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=rf"^{name}.* must be [^.]*") as caught:
        ppo(**{name: value})
    assert str(caught.value).count("\n") == 0
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bptt_steps": 13}, "bptt_steps must be at most n_steps, 12, got 13."),
        ({"bptt_steps": 5}, "bptt_steps must divide n_steps, 12, evenly, got 5; 4 does."),
        (
            {"batch_size": 50},
            "batch_size counts steps, and must hold whole sequences of 12 and divide the 60 of a rollout "
            "(12 in each of 5 environments) evenly, got 50; 60 does.",
        ),
        ({"batch_size": 24}, "got 24; 12 does."),
        ({"batch_size": 600}, "got 600; 60 does."),
        ({"batch_size": 9, "bptt_steps": 3}, "got 9; 6 does."),
    ],
)
def test_what_does_not_divide_evenly_is_said_before_anything_is_built(settings, message):
    state = torch.get_rng_state()
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - looked at below
        ppo(**settings)
    assert message in str(caught.value)
    assert torch.equal(state, torch.get_rng_state())
    agent = ppo(n_steps=60)
    agent.n_steps = STEPS
    for name, value in settings.items():
        setattr(agent, name, value)
    with pytest.raises(ValueError) as later:  # noqa: PT011
        agent.learn(ENVS * STEPS)
    assert str(later.value) == str(caught.value)
    assert agent.num_timesteps == 0


@pytest.mark.parametrize(
    ("sequences", "minibatches"),
    [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 3), (7, 7), (10, 5), (16, 4), (22, 2)],
)
def test_a_rollout_is_dealt_to_about_four_minibatches(sequences, minibatches):
    assert find_cuts(8, sequences, None, None) == (8, sequences, minibatches)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = ppo(env=DummyVecEnv([lambda: Uneven(5, False)] * sequences))
    assert agent.batch_size is None


def test_where_nothing_divides_evenly_there_is_a_warning_and_one_minibatch():
    env = DummyVecEnv([lambda: Uneven(5, False)] * 11)
    with pytest.warns(UserWarning, match="The 11 sequences of a rollout cannot be dealt evenly"):
        agent = ppo(env=env)
    assert find_cuts(STEPS, 11, None, None).minibatches == 1
    agent.learn(11 * STEPS)
    ppo(env=env, batch_size=11 * STEPS)  # said on purpose


def test_a_file_of_the_other_algorithm_is_named(tmp_path):
    ppo().save(tmp_path / "ppo")
    make_agent().save(tmp_path / "a2c")
    for trusted in (False, True):
        with pytest.raises(ValueError, match=r"a2c is one of RecurrentA2C; load it with RecurrentA2C.load"):
            RecurrentPPO.load(tmp_path / "a2c", device="cpu", trusted=trusted)
        with pytest.raises(ValueError, match=r"ppo is one of RecurrentPPO; load it with RecurrentPPO.load"):
            RecurrentA2C.load(tmp_path / "ppo", device="cpu", trusted=trusted)


@pytest.mark.parametrize("settings", [{}, {"n_steps": 32, "bptt_steps": 16}])
def test_it_learns_to_remember(settings):
    env = DummyVecEnv([lambda: Monitor(Recall()) for _ in range(16)])
    kwargs = {"core_kwargs": {"hidden_size": 16}}
    agent = ppo(env=env, policy_kwargs=kwargs, **{"n_steps": 16, "learning_rate": 5e-3, **settings})
    before = mean_reward(agent, env)
    agent.learn(40 * 256)
    after = mean_reward(agent, env)
    assert before < 0.7
    assert after > 0.95


def test_every_core_learns():
    for core in SMALL:
        agent = ppo(core)
        before = [parameter.detach().clone() for parameter in agent.policy.parameters()]
        agent.learn(ENVS * STEPS)
        assert not any(map(torch.equal, before, agent.policy.parameters())), core
