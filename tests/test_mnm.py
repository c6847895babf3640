"""What is particular to the MNM cores."""

from typing import Any

import pytest
import torch

from mnm_rl.cores import make_core
from mnm_rl.cores.mnm import MNMConfig, MNMCore
from mnm_rl.memory import recall, split_weights

SMALL: dict[str, Any] = dict(hidden_size=6, key_size=3, value_size=4, memory_widths=(5,), heads=2)


def make_mnm(name: str, input_size: int, **settings: Any) -> MNMCore:
    core = make_core(name, input_size, **settings)
    assert isinstance(core, MNMCore)
    return core


@pytest.mark.parametrize("name", ["mnm-p", "mnm-g"])
def test_meta_loss_is_equation_5_with_delays(name):
    """The memory after every step, asked for what was written up to two steps before, since the reset."""
    torch.manual_seed(0)
    delay_weights = (1.0, 0.5, 0.25)
    core = make_mnm(name, 3, **SMALL, recall_weights=delay_weights).double()
    inputs = torch.randn(6, 2, 3, dtype=torch.float64)
    resets = torch.zeros(6, 2, dtype=torch.bool)
    resets[3, 1] = True
    output = core(inputs, None, resets, record=True)
    keys, values = output.trace["write_keys"], output.trace["write_values"]
    state = None
    for t in range(6):
        _, state = core.step(inputs[t], state, resets[t])
        weights = split_weights(state.memory, core.config.widths)
        for b in range(2):
            episode_start = 3 if b == 1 and t >= 3 else 0
            expected = torch.zeros((), dtype=torch.float64)
            for tau, weight in enumerate(delay_weights):
                if t - tau >= episode_start:
                    recalled = recall(weights, keys[t - tau], "identity")[b]
                    expected += weight * (recalled - values[t - tau, b]).square().mean()
            torch.testing.assert_close(output.meta_loss[t, b], expected)


def test_interaction_vectors_are_in_the_order_of_equation_1():
    core = make_mnm("mnm-p", 3, **SMALL)
    hidden = torch.randn(2, 6)
    all_vectors = torch.tanh(hidden @ core.interaction.weight.T + core.interaction.bias)
    vectors = core.interaction_vectors(hidden)
    torch.testing.assert_close(vectors.read_keys[:, 1], all_vectors[:, 3:6])
    torch.testing.assert_close(vectors.write_keys[:, 0], all_vectors[:, 6:9])
    torch.testing.assert_close(vectors.write_values[:, 1], all_vectors[:, 16:20])
    rate = torch.sigmoid(all_vectors[:, 20:23] @ core.rate.weight.T + core.rate.bias)
    torch.testing.assert_close(vectors.rates, rate)


@pytest.mark.parametrize("name", ["mnm-p", "mnm-g"])
def test_one_step_by_hand(name):
    """Figure 1: controller, write, read from the updated memory, output."""
    torch.manual_seed(1)
    core = make_mnm(name, 3, **SMALL, rate_per_layer=True).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    start = core.initial_state(2)
    hidden, cell = core.controller(torch.cat([x, torch.zeros(2, 4)], 1).double(), (start.hidden, start.cell))
    vectors = core.interaction_vectors(hidden)
    weights = core.write(split_weights(start.memory, core.config.widths), vectors)
    read_value = recall(weights, vectors.read_keys, "identity").mean(1)
    output, state = core.step(x)
    torch.testing.assert_close(output, core.output(torch.cat([hidden, read_value], 1)))
    torch.testing.assert_close(state.cell, cell)
    torch.testing.assert_close(state.read_value, read_value)
    torch.testing.assert_close(split_weights(state.memory, core.config.widths)[1], weights[1])


def test_initial_memory_is_saved_but_not_trained():
    core = make_mnm("mnm-p", 3, **SMALL)
    assert "initial_memory" in core.state_dict()
    assert "initial_memory" not in dict(core.named_parameters())
    assert core.double().initial_state(2).memory.dtype == torch.float64


def test_paper_sizes():
    """d_h = 200, L = 3, d_k = d_v = D_l = 100, H = 3, as for the maze (Table 2)."""
    core = make_mnm("mnm-p", 11, hidden_size=200, heads=3)
    assert core.config.widths == (100, 100, 100, 100)
    assert core.output_size == 200
    assert core.interaction.out_features == 3 * 3 * 100 + 100
    assert core.initial_memory.shape == (30_000,)


@pytest.mark.parametrize("name", ["mnm-p", "mnm-g"])
def test_long_sequences_stay_finite(name):
    torch.manual_seed(0)
    core = make_mnm(name, 3, **SMALL)
    output = core(10 * torch.randn(2000, 1, 3))
    (output.outputs.mean() + output.meta_loss.mean()).backward()
    assert all(p.grad.isfinite().all() for p in core.parameters())


rules_that_forget = pytest.mark.parametrize("rule", ["local", "gradient"])


def gated_and_plain(rule, bias, dtype=torch.float64):
    """Cores with the same parameters, the gated one with one forgetting factor throughout."""
    torch.manual_seed(3)
    configs = [MNMConfig(write_rule=name, **SMALL, kernel="reference") for name in (f"gated-{rule}", rule)]
    gated, plain = [MNMCore(3, config).to(dtype) for config in configs]
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if not k.startswith("gates.")})
    with torch.no_grad():
        gated.gates.weight.zero_()
        gated.gates.bias.fill_(bias)
    return gated, plain


@rules_that_forget
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_core_that_forgets_nothing_is_the_plain_core_to_the_bit(rule, dtype):
    gated, plain = gated_and_plain(rule, torch.inf, dtype)
    inputs, resets = torch.randn(9, 2, 3, dtype=dtype), torch.rand(9, 2) < 0.2
    one, other = gated(inputs, None, resets, record=True), plain(inputs, None, resets, record=True)
    assert torch.equal(one.outputs, other.outputs)
    assert torch.equal(one.meta_loss, other.meta_loss)
    assert all(torch.equal(a, b) for a, b in zip(one.state, other.state, strict=True))
    assert torch.equal(one.trace["gates"], torch.ones(9, 2, 1, dtype=dtype))
    assert other.trace["gates"].shape == (9, 2, 0)


@rules_that_forget
def test_a_core_that_forgets_everything_writes_to_the_initial_memory(rule):
    gated, plain = gated_and_plain(rule, -torch.inf)
    inputs = torch.randn(4, 2, 3, dtype=torch.float64)
    state = gated(inputs[:3]).state
    expected = plain.step(inputs[3], state._replace(memory=gated.initial_state(2).memory))
    output, state = gated.step(inputs[3], state)
    assert torch.equal(output, expected[0])
    assert torch.equal(state.memory, expected[1].memory)


def test_a_gated_core_begins_with_little_forgetting_and_learns_its_gate():
    torch.manual_seed(0)
    core = make_mnm("mnm-p-gated", 3, **SMALL)
    output = core(torch.randn(20, 4, 3), record=True)
    factor = output.trace["gates"]
    assert factor.shape == (20, 4, 1)
    assert 0.98 < factor.min() < factor.max() < 0.996
    output.outputs.square().mean().backward()
    assert core.gates.weight.grad.abs().min() > 0


def test_the_rules_of_the_paper_have_the_parameters_they_had():
    shared = ["initial_memory"]
    shared += [f"controller.{kind}_{part}" for kind in ("weight", "bias") for part in ("ih", "hh")]
    shared += [f"{part}.{kind}" for part in ("interaction", "rate", "output") for kind in ("weight", "bias")]
    feedback = ["feedback.weight", "feedback.bias"]
    gates = ["gates.weight", "gates.bias"]
    for name, more in (("mnm-g", []), ("mnm-p", feedback), ("mnm-p-gated", [*feedback, *gates])):
        assert sorted(make_mnm(name, 3, **SMALL).state_dict()) == sorted([*shared, *more])


def test_delay_weights_are_exact_in_float64():
    """0.1 and 0.3 rounded to float32 would be off by 1e-8."""
    torch.manual_seed(0)
    core = make_mnm("mnm-p", 3, **SMALL, recall_weights=(0.1, 0.3), kernel="reference").double()
    first, second = torch.randn(2, 2, 3, dtype=torch.float64)
    state = core.step(first)[1]
    output = core(second[None], state, record=True)
    weights = split_weights(output.state.memory, core.config.widths)
    trace = output.trace
    now = (
        (recall(weights, trace["write_keys"][0], "identity") - trace["write_values"][0]).square().mean((1, 2))
    )
    recalled = recall(weights, state.recent_keys[:, 0], "identity")
    before = (recalled - state.recent_values[:, 0]).square().mean((1, 2))
    torch.testing.assert_close(output.meta_loss[0], 0.1 * now + 0.3 * before, rtol=1e-13, atol=0)
