"""What is around a core in a policy: an encoder, layers, and the same once more for the values."""

import copy
import pickle
from typing import Any

import pytest
import torch
from gymnasium import spaces
from test_a2c import SMALL, Tape, check_sequence_against_steps, make_agent, uneven_env
from torch import nn

from mnm_rl.agents import RecurrentA2C, RecurrentPPO
from mnm_rl.agents.acting_step import ActingStep
from mnm_rl.agents.policies import RecurrentActorCriticPolicy
from mnm_rl.analysis.trace import record, require_memory
from mnm_rl.cores import EncodedCore, MemoryCore, PairedCore, StackedCore, innermost, make_core
from mnm_rl.testing import check_core

AROUND = {
    "encoder": {"encoder_arch": [7, 5]},
    "layers": {"core_layers": 2},
    "critic": {"separate_critic": True},
    "all": {
        "encoder_arch": [7],
        "core_layers": 2,
        "separate_critic": True,
        "net_arch": {"pi": [6], "vf": [4]},
    },
}


SLOTS = {"hidden_size": 4, "slots": 4, "slot_size": 3, "read_heads": 1}
WHOLE_GRADIENTS = {
    "dnc": {**SLOTS, "usage_gradient": True},
    "sdnc": {**SLOTS, "sparse_reads": 4, "sparse_links": 4, "link_gradient": True},
}
"""With their default settings, gradients stop on some ways on purpose, and are not those of differences."""


def small(core: str, input_size: int = 4) -> MemoryCore:
    return make_core(core, input_size, **WHOLE_GRADIENTS.get(core, SMALL[core]))


def stack(core: str) -> StackedCore:
    below = small(core)
    return StackedCore([below, small(core, below.output_size)])


def pair(core: str) -> PairedCore:
    return PairedCore(small(core), small(core))


def encoded(core: str) -> EncodedCore:
    below = small(core, 5)
    top = StackedCore([below, small(core, below.output_size)])
    return EncodedCore(nn.Sequential(nn.Linear(4, 5), nn.Tanh()), PairedCore(top, small(core, 5)), 4)


@pytest.mark.parametrize("core", SMALL)
@pytest.mark.parametrize("build", [stack, pair, encoded])
def test_a_core_made_of_cores_keeps_every_promise_of_a_core(build, core):
    check_core(lambda: build(core))


@pytest.mark.parametrize("build", [stack, pair, encoded])
def test_it_computes_what_its_parts_do_by_hand(build):
    torch.manual_seed(0)
    core, inputs = build("mnm-p"), torch.randn(6, 3, 4)
    resets = torch.rand(6, 3) < 0.3
    output = core(inputs, resets=resets)
    encode: Any = core.encoder if isinstance(core, EncodedCore) else lambda x: x
    inner = core.core if isinstance(core, EncodedCore) else core
    columns = list(inner.parts.values()) if isinstance(inner, PairedCore) else [inner]
    parts, losses = [], []
    for column in columns:
        x = encode(inputs)
        for layer in column.parts.values() if isinstance(column, StackedCore) else [column]:
            result = layer(x, resets=resets)
            x = result.outputs
            losses.append(result.meta_loss)
        parts.append(x)
    torch.testing.assert_close(output.outputs, torch.cat(parts, dim=-1))
    torch.testing.assert_close(output.meta_loss, sum(losses))


@pytest.mark.parametrize("build", [stack, pair, encoded])
def test_it_can_be_copied_and_pickled_after_it_has_run(build):
    core, inputs = build("lstm"), torch.randn(3, 2, 4)
    expected = core(inputs).outputs
    for twin in (copy.deepcopy(core), pickle.loads(pickle.dumps(core))):
        assert torch.equal(twin(inputs).outputs, expected)


@pytest.mark.parametrize("build", [stack, pair, encoded])
def test_its_state_can_be_saved_and_goes_on(build, tmp_path):
    core, inputs = build("ntm"), torch.randn(3, 2, 4)
    with torch.no_grad():
        state = core(inputs).state
        torch.save(tuple(state), tmp_path / "state.pt")
        for twin in (pickle.loads(pickle.dumps(state)), type(state)(*torch.load(tmp_path / "state.pt"))):
            assert twin._fields == state._fields
            assert torch.equal(core(inputs, twin).outputs, core(inputs, state).outputs)


@pytest.mark.parametrize("build", [stack, pair, encoded])
def test_its_trace_can_be_recorded(build):
    core, inputs = build("ntm"), torch.randn(3, 2, 4)
    trace = record(core, inputs)
    torch.testing.assert_close(trace["outputs"], core(inputs).outputs)
    require_memory(core, "read_values")
    with pytest.raises(ValueError, match="has no memory; cores to look into"):
        record(build("lstm"), inputs)


def test_it_shows_the_memory_of_the_top_layer_of_the_first_column():
    core: Any = encoded("mnm-p")
    shown = innermost(core)
    assert shown is core.core.parts["first"].parts["layer1"]
    inputs = torch.randn(3, 2, 4)
    x = core.core.parts["first"].parts["layer0"](core.encoder(inputs)).outputs
    expected = shown(x, record=True).trace
    trace = core(inputs, record=True).trace
    assert trace.keys() == expected.keys() == set(core.trace_names)
    torch.testing.assert_close(trace["rates"], expected["rates"])


def test_cores_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least one core"):
        StackedCore([])
    with pytest.raises(ValueError, match="input size 9 does not fit on one of output size"):
        StackedCore([small("lstm"), small("lstm", 9)])
    with pytest.raises(ValueError, match="same input size, got 4 and 5"):
        PairedCore(small("lstm"), small("gru", 5))


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("core", ["mnm-p", "lstm"])
@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
def test_an_agent_with_all_of_it_acts_as_it_is_trained(algorithm, core, around):
    agent, tape = make_agent(core, algorithm=algorithm, policy_kwargs=AROUND[around]), Tape()
    agent.learn(3 * 55, tape)
    check_sequence_against_steps(agent, tape)


def test_the_error_of_the_values_leaves_the_policys_core_alone():
    agent = make_agent("mnm-p", policy_kwargs=AROUND["all"])
    tape = Tape()
    agent.learn(55, tape)
    policy = agent.policy
    evaluation = policy.evaluate_sequence(
        torch.tensor(tape.stacked("obs")),
        torch.tensor(tape.stacked("actions")),
        tape.initial,
        torch.tensor(tape.stacked("episode_starts")),
    )
    for loss, own, other in (("values", "critic", "actor"), ("log_probs", "actor", "critic")):
        policy.zero_grad()
        getattr(evaluation, loss).sum().backward(retain_graph=True)
        reached = {
            name: any(p.grad is not None and p.grad.any() for p in policy.core.parts[name].parameters())
            for name in (own, other)
        }
        assert reached == {own: True, other: False}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
def test_it_is_saved_and_goes_on(tmp_path, algorithm, around):
    agent = make_agent("mnm-p", algorithm=algorithm, policy_kwargs=AROUND[around]).learn(55)
    agent.save(tmp_path / "agent")
    loaded = algorithm.load(tmp_path / "agent", env=uneven_env(), device="cpu", trusted=False)
    assert str(loaded.policy.core) == str(agent.policy.core)
    for name, tensor in agent.policy.state_dict().items():
        assert torch.equal(loaded.policy.state_dict()[name], tensor)
    loaded.learn(55)
    agent.policy.save(str(tmp_path / "policy"))
    again = type(agent.policy).load(str(tmp_path / "policy"), device="cpu")
    assert str(again.core) == str(agent.policy.core)


def test_it_can_be_exported():
    policy = make_agent("mnm-p", policy_kwargs=AROUND["all"]).policy
    step = ActingStep(policy)
    state = step.initial_state(2)
    obs, start = torch.randn(2, *policy.observation_space.shape), torch.tensor([True, False])
    traced: Any = torch.jit.trace(step, (obs, start, *state))
    other = torch.randn_like(obs)
    for one, two in zip(step(other, start, *state), traced(other, start, *state), strict=True):
        torch.testing.assert_close(one, two)


def test_sb3_contribs_names_mean_the_same():
    ours = {"core_layers": 2, "separate_critic": True, "core_kwargs": {"hidden_size": 9}}
    theirs = {"n_lstm_layers": 2, "enable_critic_lstm": True, "lstm_hidden_size": 9, "core_kwargs": {}}
    built = [str(make_agent(policy_kwargs=kwargs).policy.core) for kwargs in (ours, theirs)]
    assert built[0] == built[1]
    default = {"shared_lstm": False, "enable_critic_lstm": True}
    assert isinstance(make_agent(policy_kwargs=default).policy.core, PairedCore)


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"core_layers": 0}, ValueError, "core_layers must be at least 1"),
        ({"core_layers": 10**12}, ValueError, "core_layers 1000000000000"),
        ({"encoder_arch": [0]}, ValueError, "encoder_arch.*such as \\[64\\]"),
        ({"encoder_arch": 64}, ValueError, "encoder_arch.*got 64"),
        ({"encoder_arch": [2**40, 2**40]}, ValueError, "an encoder of sizes"),
        ({"separate_critic": 1}, ValueError, "separate_critic must be True or False"),
        ({"shared_lstm": True, "enable_critic_lstm": True}, TypeError, "one LSTM that is shared and two"),
        ({"shared_lstm": False, "enable_critic_lstm": False}, TypeError, "value function without memory"),
        ({"core_layers": 3, "n_lstm_layers": 2}, TypeError, "either core_layers or n_lstm_layers"),
        ({"lstm_hidden_size": 3}, TypeError, "either lstm_hidden_size or hidden_size"),
    ],
)
def test_settings_that_are_not_allowed(kwargs, error, words):
    with pytest.raises(error, match=words):
        make_agent(policy_kwargs=kwargs)


class Louder(RecurrentActorCriticPolicy):
    """Values of its own."""

    def values(self, outputs):
        return super().values(outputs) + 1


def heads_of(policy: Any, joint: bool, monkeypatch: Any) -> tuple[list[torch.Tensor], list[Any]]:
    """Parameters and values of a sequence, by one product where that can be or by two, and all gradients."""
    if not joint:
        monkeypatch.setattr(type(policy), "_heads_are_joint", lambda self: False)
    torch.manual_seed(0)
    outputs = torch.randn(9, 3, policy.core.output_size, dtype=torch.float64, requires_grad=True)
    masks = torch.rand(9, 3, 5) < 0.8
    heads = list(policy._parameters_and_values(outputs, masks))
    monkeypatch.undo()
    policy.zero_grad()
    (heads[0].log_softmax(-1)[..., 0].sin() + heads[1].square()).mean().backward()
    return heads, [outputs.grad, *(each.grad for each in policy.parameters())]


def made(kind: type[RecurrentActorCriticPolicy] = RecurrentActorCriticPolicy, **settings: Any) -> Any:
    torch.manual_seed(1)
    space = spaces.Box(-1, 1, (4,))
    return kind(
        space, spaces.Discrete(5), lambda _: 1e-3, core_kwargs={"hidden_size": 6}, **settings
    ).double()


def test_both_heads_by_one_product_are_those_by_two(monkeypatch):
    policy = made()
    assert policy._heads_are_joint()
    one, two = (heads_of(policy, joint, monkeypatch) for joint in (True, False))
    torch.testing.assert_close(one, two)


def hooked() -> Any:
    policy = made()
    policy.value_net.register_forward_hook(lambda module, given, out: out + 1)
    return policy


def replaced() -> Any:
    policy = made()
    policy.action_net = nn.Sequential(policy.action_net, nn.Tanh())
    return policy


@pytest.mark.parametrize(
    "make",
    [
        lambda: made(Louder),
        hooked,
        replaced,
        lambda: made(separate_critic=True),
        lambda: made(net_arch=[3]),
        lambda: made(net_arch={"vf": [3]}),
    ],
)
def test_heads_that_somebody_changed_are_called(make, monkeypatch):
    policy = make()
    assert not policy._heads_are_joint()
    one, two = (heads_of(policy, joint, monkeypatch) for joint in (True, False))
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_hooks_of_all_modules_see_the_heads(monkeypatch):
    policy, seen = made(), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        heads_of(policy, True, monkeypatch)
    finally:
        handle.remove()
    assert {policy.value_net, policy.action_net} <= set(seen)
