"""The memory function, its write rules and its losses against the equations written out anew."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mnm_rl import memory

NORMALIZATIONS = ["squared-norm", "width", "none"]
ACTIVATIONS = ["identity", "tanh"]


def example(batch=2, heads=3, widths=(4, 5, 6, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = [draw(batch, rows, columns) for rows, columns in memory.layer_sizes(widths)]
    keys, values = draw(batch, heads, widths[0]), draw(batch, heads, widths[-1])
    targets = [draw(batch, heads, width) for width in widths[1:]]
    rates = torch.rand(batch, len(weights), generator=generator, dtype=torch.float64)
    return weights, keys, values, targets, rates


def test_activations_are_a_feed_forward_network():
    weights, keys, *_ = example()
    layers = memory.activations(weights, keys, "identity")
    for b in range(2):
        for h in range(3):
            z = keys[b, h]
            for depth, weight in enumerate(weights):
                z = weight[b] @ z
                z = z if depth == len(weights) - 1 else torch.tanh(z)
                torch.testing.assert_close(layers[depth + 1][b, h], z)
    torch.testing.assert_close(memory.recall(weights, keys, "tanh"), torch.tanh(layers[-1]))


def test_split_and_join_are_inverse():
    widths = (4, 5, 6, 3)
    flat = torch.randn(2, sum(rows * columns for rows, columns in memory.layer_sizes(widths)))
    weights = memory.split_weights(flat, widths)
    assert [tuple(w.shape) for w in weights] == [(2, 5, 4), (2, 6, 5), (2, 3, 6)]
    torch.testing.assert_close(memory.join_weights(weights), flat)


@pytest.mark.parametrize("output_activation", ACTIVATIONS)
@pytest.mark.parametrize("normalization", ["none", "width"])
def test_gradient_write_is_the_gradient_of_equation_2(normalization, output_activation):
    weights, keys, values, _, rates = example()
    rate = rates[:, :1]

    def objective(*weights: Tensor) -> Tensor:
        loss = memory.memory_objective(weights, keys, values, output_activation).sum()
        return loss / values.shape[2] if normalization == "width" else loss

    gradients = torch.func.grad(objective, argnums=tuple(range(len(weights))))(*weights)
    written = memory.gradient_write(weights, keys, values, rate, normalization, output_activation)
    for new, old, gradient in zip(written, weights, gradients, strict=True):
        torch.testing.assert_close(new, old - rate[:, :, None] * gradient)


def test_memory_objective_is_equation_2():
    weights, keys, values, *_ = example()
    predicted = memory.recall(weights, keys, "identity")
    by_hand = [
        torch.stack([((predicted[b, h] - values[b, h]) ** 2).sum() for h in range(3)]).sum() / 3
        for b in range(2)
    ]
    torch.testing.assert_close(
        memory.memory_objective(weights, keys, values, "identity"), torch.stack(by_hand)
    )


def test_last_layer_gradient_write_is_a_sparse_distributed_memory_write_minus_what_is_stored():
    """Appendix C: Eq. 10 is Eq. 8 less the outer product of what is recalled already."""
    weights, keys, values, *_ = example(heads=1, widths=(4, 5, 3))
    address = torch.tanh(weights[0] @ keys[:, 0, :, None])
    recalled = weights[1] @ address
    sparse_distributed_memory = weights[1] + values[:, 0, :, None] @ address.mT
    half = torch.full((2, 1), 0.5, dtype=torch.float64)  # takes the place of the constant dropped in Eq. 10
    written = memory.gradient_write(weights, keys, values, half, "none", "identity")
    torch.testing.assert_close(written[1], sparse_distributed_memory - recalled @ address.mT)


@pytest.mark.parametrize("output_activation", ACTIVATIONS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_local_write_is_equation_4_in_every_layer(normalization, output_activation):
    weights, keys, _, targets, rates = example()
    layers = memory.activations(weights, keys, output_activation)
    written = memory.local_write(weights, keys, targets, rates, normalization, output_activation)
    for depth, weight in enumerate(weights):
        expected = weight.clone()
        for b in range(2):
            for h in range(3):
                z_before, z = layers[depth][b, h], layers[depth + 1][b, h]
                scale = {"none": 1.0, "width": 2 / len(z), "squared-norm": 1 / (z_before @ z_before + 1)}
                update = torch.outer(z - targets[depth][b, h], z_before) * scale[normalization] / 3
                expected[b] -= rates[b, depth] * update
        torch.testing.assert_close(written[depth], expected)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_zero_rate_leaves_the_weights_bit_identical(normalization):
    weights, keys, values, targets, _ = example()
    zero = torch.zeros(2, 1, dtype=torch.float64)
    for written in (
        memory.gradient_write(weights, keys, values, zero, normalization, "identity"),
        memory.local_write(weights, keys, targets, zero, normalization, "identity"),
    ):
        assert all(torch.equal(new, old) for new, old in zip(written, weights, strict=True))


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 100), st.floats(0, 1), st.integers(0, 1000))
def test_normalised_write_of_one_layer_takes_the_recall_towards_the_value_and_never_past_it(size, beta, seed):
    weights, keys, values, _, _ = example(heads=1, widths=(4, 3), seed=seed)
    keys = keys * size
    rate = torch.full((2, 1), beta, dtype=torch.float64)
    before = memory.recall(weights, keys, "identity") - values
    for written in (
        memory.gradient_write(weights, keys, values, rate, "squared-norm", "identity"),
        memory.local_write(weights, keys, [values], rate, "squared-norm", "identity"),
    ):
        after = memory.recall(written, keys, "identity") - values
        squared = keys.square().sum(2, keepdim=True)
        torch.testing.assert_close(after, before * (1 - beta * squared / (squared + 1)))


@pytest.mark.parametrize("rule", ["local", "gradient"])
@pytest.mark.parametrize("heads", [1, 3])
def test_normalised_writes_stay_bounded_over_a_thousand_steps_at_full_rate(rule, heads):
    generator = torch.Generator().manual_seed(0)
    widths = (20, 20, 20, 20)
    weights = memory.split_weights(memory.random_weights(widths, generator).expand(2, -1), widths)
    start = max(weight.norm() for weight in weights)
    for _ in range(1000):
        keys = torch.rand(2, heads, 20, generator=generator).sub(0.5).sign()
        values = torch.rand(2, heads, 20, generator=generator).sub(0.5).sign()
        rate = torch.ones(2, 1)
        if rule == "local":
            weights = memory.local_write(weights, keys, [values] * 3, rate, "squared-norm", "identity")
        else:
            weights = memory.gradient_write(weights, keys, values, rate, "squared-norm", "identity")
    assert max(weight.norm() for weight in weights) < 10 * start


def test_rows_of_a_batch_are_independent():
    weights, keys, values, targets, rates = example()
    other = keys.clone()
    other[1] += 1
    rules: list[tuple[Any, Any]] = [(memory.local_write, targets), (memory.gradient_write, values)]
    for write, goal in rules:
        one = write(weights, keys, goal, rates, "squared-norm", "identity")
        two = write(weights, other, goal, rates, "squared-norm", "identity")
        assert all(torch.equal(a[0], b[0]) for a, b in zip(one, two, strict=True))
        assert not any(torch.equal(a[1], b[1]) for a, b in zip(one, two, strict=True))


def test_meta_objective_weighs_the_delays_and_averages_over_heads_and_value():
    recalled, values = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    weights = torch.tensor([1.0, 0.5, 0.25])
    expected = sum(weights[n] * (recalled[:, n] - values[:, n]).square().flatten(1).mean(1) for n in range(3))
    torch.testing.assert_close(memory.meta_objective(recalled, values, weights), expected)


def draw_start(weights: list[Tensor], seed: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, *w.shape[1:], generator=generator, dtype=w.dtype) for w in weights]


def test_forgetting_takes_the_weights_towards_their_start():
    weights, *_ = example()
    start, factor = draw_start(weights), torch.tensor([[0.25], [0.75]], dtype=torch.float64)
    forgotten = memory.forget(weights, start, factor)
    for new, old, first in zip(forgotten, weights, start, strict=True):
        for b, alpha in enumerate((0.25, 0.75)):
            torch.testing.assert_close(new[b], first[0] + alpha * (old[b] - first[0]))


def write_inputs(gates: Tensor, start: list[Tensor]) -> memory.WriteInputs:
    _, keys, values, targets, rates = example()
    return memory.WriteInputs(keys, values, targets, rates, gates, start, "squared-norm", "identity")


@pytest.mark.parametrize("rule", ["local", "gradient"])
def test_a_gated_rule_is_the_plain_rule_at_one_and_begins_anew_at_zero(rule):
    weights, *_ = example()
    start = draw_start(weights)
    plain, gated = memory.WRITE_RULES[rule], memory.WRITE_RULES[f"gated-{rule}"]
    assert gated.predicts_activations == plain.predicts_activations
    for gate, begins_with in ((1.0, weights), (0.0, [w.expand(2, -1, -1) for w in start])):
        gates = torch.full((2, 1), gate, dtype=torch.float64)
        expected = plain.write(begins_with, write_inputs(gates, start))
        found = gated.write(weights, write_inputs(gates, start))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_gated_write_is_the_gated_delta_rule_in_one_layer_that_starts_at_zero():
    """Yang et al. 2024: S <- alpha S (I - beta k k^T) + beta v k^T, here with beta / (|k|^2 + 1)."""
    weights, keys, values, _, rates = example(heads=1, widths=(4, 3))
    alpha = torch.tensor([[0.3], [0.9]], dtype=torch.float64)
    start = [torch.zeros(1, 3, 4, dtype=torch.float64)]
    given = memory.WriteInputs(keys, values, [values], rates, alpha, start, "squared-norm", "identity")
    (found,) = memory.WRITE_RULES["gated-local"].write(weights, given)
    for b in range(2):
        key, value = keys[b, 0], values[b, 0]
        beta = rates[b, 0] / (key @ key + 1)
        kept = alpha[b] * weights[0][b] @ (torch.eye(4, dtype=torch.float64) - beta * torch.outer(key, key))
        torch.testing.assert_close(found[b], kept + beta * torch.outer(value, key))


@pytest.mark.parametrize("rule", list(memory.WRITE_RULES))
def test_gradients_of_every_rule_numerically(rule):
    weights, keys, values, targets, rates = example()
    start, gates = draw_start(weights), torch.tensor([[0.3], [0.9]], dtype=torch.float64)

    def write(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = memory.WriteInputs(
            keys, values, tensors[5:], tensors[3], tensors[4], start, "squared-norm", "identity"
        )
        return tuple(memory.WRITE_RULES[rule].write(tensors[:3], given))

    tensors = [x.requires_grad_() for x in (*weights, rates, gates, *targets)]
    assert torch.autograd.gradcheck(write, tensors)
