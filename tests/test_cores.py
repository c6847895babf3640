"""One contract for every core: shapes, state, resets, gradients, saving."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mnm_rl.cores import CORES, MemoryCore, core_config, detach_state, make_core

INPUT_SIZE = 4
SMALL: dict[str, dict] = {
    "mnm-p": dict(
        hidden_size=5, key_size=3, value_size=4, memory_widths=(5,), heads=2, recall_weights=(1.0, 0.5)
    ),
    "mnm-g": dict(
        hidden_size=5, key_size=3, value_size=4, memory_widths=(5, 3), heads=2, rate_per_layer=True
    ),
    "mnm-p-gated": dict(
        hidden_size=5, key_size=3, value_size=4, memory_widths=(5,), heads=2, recall_weights=(1.0, 0.5)
    ),
    "lstm": dict(hidden_size=5),
    "gru": dict(hidden_size=5),
    "lstm-salu": dict(hidden_size=5, key_size=3, value_size=4, heads=2),
    "plastic": dict(hidden_size=5),
    "plastic-homogenous": dict(hidden_size=5),
}
every_core = pytest.mark.parametrize("name", list(CORES))


def small_core(name: str, seed: int = 0) -> MemoryCore:
    torch.manual_seed(seed)
    return make_core(name, INPUT_SIZE, **SMALL[name]).double()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss_of(output) -> Tensor:
    """A number that depends on everything a core returns."""
    weights = torch.arange(1, output.outputs.numel() + 1, dtype=torch.float64).view_as(output.outputs)
    return (weights.sin() * output.outputs).sum() + output.meta_loss.sum()


def gradients(core: MemoryCore, loss: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(core.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(core.parameters(), found, strict=True)]


@every_core
def test_shapes(name):
    core = small_core(name)
    output = core(draw(6, 3, INPUT_SIZE), record=True)
    assert output.outputs.shape == (6, 3, core.output_size)
    assert output.meta_loss.shape == (6, 3)
    assert all(field.shape[0] == 3 for field in output.state)
    assert type(output.state) is type(core.initial_state(3))
    assert all(field.shape[:2] == (6, 3) for field in output.trace.values())
    assert core(draw(6, 3, INPUT_SIZE)).trace is None


@every_core
def test_steps_equal_the_sequence(name):
    core, inputs = small_core(name), draw(7, 3, INPUT_SIZE)
    resets = torch.rand(7, 3, generator=torch.Generator().manual_seed(2)) < 0.3
    expected = core(inputs, None, resets)
    state, outputs = None, []
    for x, reset in zip(inputs, resets, strict=True):
        output, state = core.step(x, state, reset)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs), expected.outputs)
    for one, other in zip(state, expected.state, strict=True):
        torch.testing.assert_close(one, other)


@every_core
@settings(deadline=None, max_examples=15)
@given(cut=st.integers(1, 6), resets=st.lists(st.booleans(), min_size=21, max_size=21))
def test_state_carries_everything_across_a_cut(name, cut, resets):
    core, inputs, reset = small_core(name), draw(7, 3, INPUT_SIZE), torch.tensor(resets).view(7, 3)
    whole = core(inputs, None, reset)
    first = core(inputs[:cut], None, reset[:cut])
    second = core(inputs[cut:], first.state, reset[cut:])
    torch.testing.assert_close(torch.cat([first.outputs, second.outputs]), whole.outputs)
    torch.testing.assert_close(torch.cat([first.meta_loss, second.meta_loss]), whole.meta_loss)
    joined = whole._replace(
        outputs=torch.cat([first.outputs, second.outputs]),
        meta_loss=torch.cat([first.meta_loss, second.meta_loss]),
    )
    for one, other in zip(gradients(core, loss_of(whole)), gradients(core, loss_of(joined)), strict=True):
        torch.testing.assert_close(one, other)


@every_core
@settings(deadline=None, max_examples=15)
@given(st.lists(st.booleans(), min_size=14, max_size=14))
def test_a_reset_is_the_start_of_a_separate_sequence(name, resets):
    core, inputs, reset = small_core(name), draw(7, 2, INPUT_SIZE), torch.tensor(resets).view(7, 2)
    together = core(inputs, None, reset)
    outputs, metas = torch.zeros_like(together.outputs), torch.zeros_like(together.meta_loss)
    for b in range(2):
        cuts = [0, *[t for t in range(1, 7) if reset[t, b]], 7]
        for start, stop in pairwise(cuts):
            alone = core(inputs[start:stop, b : b + 1])
            outputs[start:stop, b], metas[start:stop, b] = alone.outputs[:, 0], alone.meta_loss[:, 0]
    torch.testing.assert_close(together.outputs, outputs)
    torch.testing.assert_close(together.meta_loss, metas)
    separate = together._replace(outputs=outputs, meta_loss=metas)
    for one, other in zip(
        gradients(core, loss_of(together)), gradients(core, loss_of(separate)), strict=True
    ):
        torch.testing.assert_close(one, other)


@every_core
def test_no_gradient_flows_across_a_reset(name):
    core, inputs = small_core(name), draw(4, 2, INPUT_SIZE).requires_grad_()
    resets = torch.zeros(4, 2, dtype=torch.bool)
    resets[2, 0] = True
    gradient = torch.autograd.grad(core(inputs, None, resets).outputs[2:].sum(), inputs)[0]
    assert torch.equal(gradient[:2, 0], torch.zeros(2, INPUT_SIZE, dtype=torch.float64))
    assert gradient[:2, 1].abs().min() > 0


@every_core
def test_examples_of_a_batch_are_independent(name):
    core, inputs = small_core(name), draw(5, 3, INPUT_SIZE)
    changed = inputs.clone()
    changed[:, 1] += 1
    one, other = core(inputs).outputs, core(changed).outputs
    torch.testing.assert_close(one[:, [0, 2]], other[:, [0, 2]], rtol=0, atol=1e-14)
    assert not torch.allclose(one[:, 1], other[:, 1])


@every_core
def test_gradients_numerically(name):
    core = small_core(name)
    parameters = tuple(p.detach().requires_grad_() for p in core.parameters())
    names = [key for key, _ in core.named_parameters()]
    resets = torch.tensor([[False, False], [False, True], [False, False]])

    def run(inputs, *values):
        output = torch.func.functional_call(
            core, dict(zip(names, values, strict=True)), (inputs, None, resets)
        )
        return torch.cat([field.flatten() for field in (output.outputs, output.meta_loss, *output.state)])

    inputs = draw(3, 2, INPUT_SIZE).requires_grad_()
    assert torch.autograd.gradcheck(run, (inputs, *parameters), fast_mode=True)


@every_core
def test_a_saved_core_is_the_same_core(name, tmp_path):
    core = small_core(name)
    torch.save(core.state_dict(), tmp_path / "core.pt")
    other = small_core(name, seed=99)
    inputs = draw(5, 2, INPUT_SIZE)
    assert not torch.allclose(core(inputs).outputs, other(inputs).outputs)
    other.load_state_dict(torch.load(tmp_path / "core.pt"))
    assert torch.equal(core(inputs).outputs, other(inputs).outputs)


@every_core
def test_a_detached_state_cuts_the_graph(name):
    core = small_core(name)
    state = core(draw(3, 2, INPUT_SIZE)).state
    assert any(field.requires_grad for field in state)
    assert not any(field.requires_grad for field in detach_state(state))


@every_core
def test_bad_input_is_named(name):
    core = small_core(name)
    with pytest.raises(ValueError, match=r"takes inputs of shape \[T, B, 4\]"):
        core(draw(3, 2, 5))
    with pytest.raises(ValueError, match=r"resets must be boolean of shape \[3, 2\]"):
        core(draw(3, 2, 4), None, torch.zeros(3, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"no setting colour; its settings: .*hidden_size"):
        make_core(name, 4, colour=1)
    with pytest.raises(ValueError, match="hidden_size must be at least 1, got 0"):
        make_core(name, 4, hidden_size=0)


def test_unknown_core_is_named_with_the_known_ones():
    known = "mnm-p, mnm-g, mnm-p-gated, lstm, lstm-salu, gru, plastic, plastic-homogenous"
    with pytest.raises(ValueError, match=rf"Unknown core 'elman'; known cores: {known}\."):
        make_core("elman", 4)
    with pytest.raises(TypeError, match="no setting write_rule"):
        core_config("mnm-p", write_rule="gradient")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"memory_widths": (3, 0)}, "memory_widths must be all at least 1"),
        ({"normalization": "l2"}, "normalization must be one of squared-norm, width, none, got 'l2'"),
        ({"output_activation": "relu"}, "output_activation must be one of identity, tanh"),
        ({"recall_weights": ()}, "recall_weights must be at least one number"),
    ],
)
def test_mnm_settings_are_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        make_core("mnm-p", 4, **setting)
