"""Acting by the quick form gives what the policy's own act() gives, and sees every change to the policy."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback

from mnm_rl import make_core
from mnm_rl.agents import RecurrentA2C, on_policy
from mnm_rl.agents.distributions import Categorical
from mnm_rl.agents.policies import RecurrentActorCriticPolicy, RecurrentMultiInputActorCriticPolicy
from mnm_rl.agents.quick_acting import QuickActing
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.cores.quick import Unchanged, quick_draw
from mnm_rl.cores.recurrent import LSTMCore
from mnm_rl.envs import MazeVecEnv
from mnm_rl.kernels import cpu, recurrent

STEPS, INPUTS = 12, 5
MNM: dict[str, Any] = {"hidden_size": 9, "key_size": 6, "value_size": 7, "memory_widths": (11,), "heads": 2}
CORES: dict[str, tuple[str, dict[str, Any]]] = {
    "mnm-p": ("mnm-p", MNM),
    "mnm-p, 30 wide": ("mnm-p", MNM | {"memory_widths": (30, 27), "rate_per_layer": True}),
    "mnm-p, delays": ("mnm-p", MNM | {"recall_weights": (1.0, 0.5, 0.25)}),
    "mnm-g": ("mnm-g", MNM),
    "lstm": ("lstm", {"hidden_size": 9}),
    "gru": ("gru", {"hidden_size": 10}),
}


def make_policy(core: str = "lstm", kind: Any = RecurrentActorCriticPolicy, **settings: Any) -> Any:
    name, kwargs = CORES[core]
    observations = settings.pop("observations", spaces.Box(-1, 1, (INPUTS,)))
    actions = settings.pop("actions", spaces.Discrete(4))
    torch.manual_seed(0)
    policy = kind(observations, actions, lambda _: 1e-3, core=name, core_kwargs=kwargs, **settings)
    policy.set_training_mode(False)
    with torch.no_grad():
        policy.action_net.weight.mul_(300)  # a new policy chooses nearly at random, whatever its core says
    return policy


def observe(policy: Any, batch: int, rng: np.random.Generator) -> Any:
    def rows(space: Any) -> Any:
        if isinstance(space, spaces.Discrete):
            return space.start + rng.integers(0, space.n, batch)
        return rng.uniform(-1, 1, (batch, *space.shape)).astype(space.dtype)

    space = policy.observation_space
    if isinstance(space, spaces.Dict):
        return {key: rows(part) for key, part in space.spaces.items()}
    return rows(space)


def play(policy: Any, act: Any, batch: int, masks: bool = False) -> tuple[Any, Any, torch.Tensor]:
    """Actions of some steps in which episodes start anywhere, the last state, and torch's random state."""
    torch.manual_seed(1)
    rng, state, actions = np.random.default_rng(2), policy.initial_state(batch), []
    with policy.core.acting():
        for _ in range(STEPS):
            observation, starts = observe(policy, batch, rng), rng.random(batch) < 0.2
            allowed = {"action_masks": rng.random((batch, 4)) < 0.9} if masks else {}
            chosen, state = act(observation, state, starts, **allowed)
            actions.append(chosen.copy())
    return np.stack(actions), [field.clone() for field in state], torch.get_rng_state()


def assert_same(policy: Any, batch: int = 4, exact: bool = False, **options: Any) -> QuickActing:
    quick = QuickActing(policy)
    actions, state, random_state = play(policy, policy.act, batch, **options)
    quick_actions, quick_state, quick_random_state = play(policy, quick, batch, **options)
    assert quick_actions.dtype == actions.dtype
    bound = 1e-4 if actions.dtype.kind == "f" else 0
    np.testing.assert_allclose(quick_actions, actions, rtol=0, atol=bound)
    for field, other in zip(quick_state, state, strict=True):
        tolerance = 0.0 if exact else 1e-5
        torch.testing.assert_close(field, other, rtol=tolerance, atol=tolerance)
    assert torch.equal(quick_random_state, random_state)
    return quick


@pytest.mark.parametrize("batch", [1, 4, 37])
@pytest.mark.parametrize("core", CORES)
def test_the_quick_form_acts_as_the_policy_does(core, batch):
    quick = assert_same(make_policy(core), batch, exact=core.startswith("mnm"))

    assert quick._step is not None
    assert quick._draw is not None


@pytest.mark.parametrize(
    ("settings", "is_quick"),
    [
        ({"encoder_arch": [6]}, (True, True)),
        ({"net_arch": [6]}, (True, False)),
        ({"core_layers": 2}, (False, False)),
        ({"separate_critic": True}, (False, False)),
        ({"actions": spaces.MultiDiscrete([2, 3])}, (True, False)),
        ({"actions": spaces.MultiBinary(3)}, (True, False)),
        ({"actions": spaces.Box(-1, 1, (2,))}, (True, False)),
        ({"actions": spaces.Discrete(4, start=2)}, (True, True)),
        ({"observations": spaces.Discrete(5, start=1)}, (True, True)),
        ({"observations": spaces.Box(-1, 1, (2, 3), dtype=np.float64)}, (True, True)),
    ],
)
def test_other_policies_act_as_before(settings, is_quick):
    quick = assert_same(make_policy(**settings))

    assert (quick._step is not None, quick._draw is not None) == is_quick


def test_dictionaries_and_masks():
    space = spaces.Dict({"place": spaces.Discrete(3), "speed": spaces.Box(-1, 1, (2,))})

    assert_same(make_policy(kind=RecurrentMultiInputActorCriticPolicy, observations=space))
    assert_same(make_policy(), masks=True)


class Greedy(RecurrentActorCriticPolicy):
    """Draws nothing."""

    def _pick(self, parameters, deterministic):
        del deterministic
        return parameters.argmin(-1)


class Halved(MNMCore):
    """Writes half as much."""

    def write(self, weights, vectors):
        return [(old + new) / 2 for old, new in zip(weights, super().write(weights, vectors), strict=True)]


class LongMemory(LSTMCore):
    """A step of another kind."""

    def step(self, inputs, state=None, resets=None):
        output, state = super().step(inputs, state, resets)
        return -output, state


def test_what_is_overridden_is_honoured():
    assert assert_same(make_policy(kind=Greedy))._step is None
    for core, kwargs in ((Halved, MNM), (LongMemory, {"hidden_size": 9})):
        spaces_given = spaces.Box(-1, 1, (INPUTS,)), spaces.Discrete(4)
        policy = RecurrentActorCriticPolicy(*spaces_given, lambda _: 1e-3, core=core, core_kwargs=kwargs)

        assert assert_same(policy)._step is None


class Peaked(Categorical):
    """Hardly random."""

    def sample(self, parameters):
        return super().sample(100 * parameters)


def test_another_distribution_is_honoured():
    policy = make_policy()
    policy._distribution = Peaked()

    assert assert_same(policy)._draw is None


HOOKED = {
    "action_net": lambda policy: policy.action_net,
    "policy_net": lambda policy: policy.mlp_extractor.policy_net,
    "features": lambda policy: policy.features_extractor,
    "output of the core": lambda policy: policy.core.output,
    "controller": lambda policy: policy.core.controller,
    "core": lambda policy: policy.core,
}


@pytest.mark.parametrize("in_the_middle", [False, True])
@pytest.mark.parametrize("place", HOOKED)
def test_hooks_run(place, in_the_middle):
    policy, calls = make_policy("mnm-p"), []
    act = QuickActing(policy)
    if in_the_middle:
        play(policy, act, 3)
    HOOKED[place](policy).register_forward_hook(lambda *_: calls.append(1))
    if not in_the_middle:
        act = QuickActing(policy)

    play(policy, act, 3)

    assert len(calls) >= STEPS
    assert_same(policy, exact=True)


CHANGES = {
    "written to": lambda policy: policy.core.controller.weight_hh.add_(1),
    "replaced parameter": lambda policy: setattr(
        policy.action_net, "weight", torch.nn.Parameter(-policy.action_net.weight)
    ),
    "replaced module": lambda policy: setattr(policy, "action_net", torch.nn.Linear(9, 4)),
    "buffer": lambda policy: policy.core.initial_memory.mul_(3),
    "method": lambda policy: setattr(policy, "_pick", lambda parameters, _: parameters.argmin(-1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_two_steps_is_seen(change):
    policy = make_policy("mnm-p")
    act = QuickActing(policy)
    before, *_ = play(policy, act, 16)
    with torch.no_grad():
        CHANGES[change](policy)

    after, *_ = play(policy, act, 16)

    expected, *_ = play(policy, policy.act, 16)
    np.testing.assert_array_equal(after, expected)
    assert not np.array_equal(after, before)


def test_a_hook_for_all_modules_is_honoured():
    policy, calls = make_policy(), []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: calls.append(1))
    try:
        play(policy, QuickActing(policy), 3)
    finally:
        handle.remove()

    assert calls


def test_observations_that_are_not_finite_are_refused():
    policy = make_policy()
    observation = np.full((3, INPUTS), np.nan, dtype=np.float32)

    with policy.core.acting(), pytest.raises(ValueError, match="only finite numbers can be acted on"):
        QuickActing(policy)(observation, policy.initial_state(3), np.zeros(3, dtype=bool))


class PeekingCallback(BaseCallback):
    """Looks at the state that is about to be acted on, and changes parameters in the middle of a rollout."""

    def __init__(self):
        super().__init__()
        self.seen: list[float] = []

    def _on_step(self):
        self.seen.append(float(self.model.core_state.hidden.sum()))  # pyright: ignore
        if self.n_calls == 5:
            with torch.no_grad():
                self.model.policy.core.interaction.weight.mul_(0.5)  # pyright: ignore
        return True


def test_training_is_the_same_to_the_last_bit(monkeypatch):
    results = []
    for act in (QuickActing, lambda policy: policy.act):
        monkeypatch.setattr(on_policy, "QuickActing", act)
        agent = RecurrentA2C(
            *("MlpPolicy", MazeVecEnv(3, size=5, horizon=7)),
            **{"n_steps": 10, "seed": 0, "device": "cpu", "gae_lambda": 0.9},
            policy_kwargs={"core": "mnm-p", "core_kwargs": MNM},
        )
        callback = PeekingCallback()
        agent.learn(90, callback)
        results.append((callback.seen, *agent.policy.parameters(), torch.get_rng_state()))

    assert results[0][0] == results[1][0]
    assert all(torch.equal(one, other) for one, other in zip(results[0][1:], results[1][1:], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("inputs", "hidden"), [(1, 1), (3, 5), (8, 32), (11, 100)])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_step_in_one_operation_is_the_cell(kind, inputs, hidden, dtype):
    core: Any = make_core(kind, inputs, hidden_size=hidden).to(dtype)
    weights = recurrent.RecurrentParameters(*core.layer.all_weights[0])
    step = recurrent.QuickStep(kind, weights)
    with torch.no_grad():
        for batch in (1, 2, 33):
            state = type(core.initial_state(1))(*[torch.randn_like(f) for f in core.initial_state(batch)])
            x, resets = torch.randn(batch, inputs, dtype=dtype), torch.arange(batch) % 3 == 1
            for given in (None, resets):
                after = step(x, state, given)
                _, expected = core.step(x, state, given)
                bound = 1e-13 if dtype == torch.float64 else 2e-6
                for field, other in zip(after, expected, strict=True):
                    torch.testing.assert_close(field, other, rtol=bound, atol=bound)


@pytest.mark.parametrize("core", ["mnm-p", "lstm", "gru"])
def test_threads_share_the_environments(core):
    policy, results = make_policy(core), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(play(policy, QuickActing(policy), 37))
        finally:
            torch.set_num_threads(1)

    bound = 1e-5 if core == "mnm-p" else 0  # a library makes the product with the inputs
    for actions, state, _ in results[1:]:
        np.testing.assert_array_equal(actions, results[0][0])
        for field, other in zip(state, results[0][1], strict=True):
            torch.testing.assert_close(field, other, rtol=0, atol=bound)


def test_drawing_treats_ties_and_what_is_no_number_as_torch_does():
    head = torch.nn.Module()
    head.layer = torch.nn.Linear(3, 6)
    draw: Any = quick_draw(head, "layer")
    with torch.no_grad():
        head.layer.weight[2] = torch.nan
        outputs = torch.randn(50, 3)
        outputs[7] = torch.inf
        for number in range(5):
            torch.manual_seed(number)
            logits = head.layer(outputs)
            expected = Categorical().sample(logits)
            torch.manual_seed(number)
            assert torch.equal(draw(outputs), expected)
            head.layer.weight[2] = number


def test_arguments_of_the_operations_are_checked():
    operators = cpu.operators()
    weights = [torch.zeros(8, 3), torch.zeros(8, 2), torch.zeros(8), torch.zeros(8)]
    packed, state = operators.lstm_pack(weights), [torch.zeros(4, 2)] * 2
    assert len(operators.lstm_step(torch.zeros(4, 3), None, weights, packed, state)) == 2
    for bad in (
        (torch.zeros(4, 2), None, weights, packed, state),
        (torch.zeros(5, 3), None, weights, packed, state),
        (torch.zeros(4, 3), torch.zeros(3, dtype=torch.bool), weights, packed, state),
        (torch.zeros(4, 3), None, weights, packed[:2], state),
        (torch.zeros(4, 3), None, weights, [packed[0][1:], *packed[1:]], state),
        (torch.zeros(4, 3), None, weights, packed, state[:1]),
        (torch.zeros(4, 3).double(), None, weights, packed, state),
    ):
        with pytest.raises(ValueError, match=r"must"):
            operators.lstm_step(*bad)
    with pytest.raises(ValueError, match=r"weight_ih"):
        operators.lstm_pack([torch.zeros(8), *weights[1:]])
    with pytest.raises(ValueError, match=r"weight"):
        operators.draw(torch.zeros(2, 2, 3), torch.zeros(4, 3), torch.zeros(4))


UNLIKE = {
    "hook": lambda layers: layers[0].register_forward_pre_hook(lambda *_: None),
    "numbers": lambda layers: layers[0].bias.detach().add_(1),
    "parameter": lambda layers: setattr(layers[0], "weight", torch.nn.Parameter(torch.zeros(2, 2))),
    "module": lambda layers: layers.__setitem__(0, torch.nn.Linear(2, 2)),
    "method": lambda layers: setattr(layers, "forward", lambda x: x),
}


@pytest.mark.parametrize("change", UNLIKE)
def test_unchanged_sees_a_change(change):
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2))
    unchanged = Unchanged(layers.modules())
    layers(torch.zeros(1, 2)).sum().backward()
    assert unchanged()

    UNLIKE[change](layers)

    assert not unchanged()
