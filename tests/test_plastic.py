"""The plastic cores against the equations of Miconi et al. (2018), one number at a time."""

import math

import numpy as np
import pytest
import torch

from mnm_rl.cores import core_settings, make_core
from mnm_rl.cores.plastic import PlasticConfig, PlasticCore

both = pytest.mark.parametrize("name", ["plastic", "plastic-homogenous"])


def lively(name: str, input_size: int = 3, size: int = 4) -> PlasticCore:
    """A core in float64 whose plastic part matters as much as the rest."""
    torch.manual_seed(0)
    core = make_core(name, input_size, hidden_size=size).double()
    assert isinstance(core, PlasticCore)
    with torch.no_grad():
        core.w.copy_(torch.randn_like(core.w))
        core.alpha.copy_(torch.randn_like(core.alpha))
        core.eta.fill_(0.4)
    return core


def by_the_equations(core: PlasticCore, inputs: np.ndarray, resets: np.ndarray) -> np.ndarray:
    """Hidden states of one example ``[T, D]``, from loops over units."""
    size = core.output_size
    weight, bias, w, alpha, eta = (
        value.detach().numpy()
        for value in (core.encoder.weight, core.encoder.bias, core.w, core.alpha, core.eta)
    )
    alpha = np.broadcast_to(alpha, (size, size))
    x, hebb, states = np.zeros(size), np.zeros((size, size)), []
    for t, entry in enumerate(inputs):
        if resets[t]:
            x, hebb = np.zeros(size), np.zeros((size, size))
        y = np.zeros(size)
        for j in range(size):
            recurrent = sum(x[i] * (w[i, j] + alpha[i, j] * hebb[i, j]) for i in range(size))
            y[j] = math.tanh(weight[j] @ entry + bias[j] + recurrent)
        for i in range(size):
            for j in range(size):
                hebb[i, j] += eta[0] * y[j] * (x[i] - hebb[i, j] * y[j])
        x = y
        states.append(y)
    return np.array(states)


@both
def test_the_core_follows_the_equations(name):
    core, generator = lively(name), np.random.default_rng(1)
    inputs, resets = generator.normal(size=(9, 5, 3)), generator.random((9, 5)) < 0.2
    outputs = core(torch.from_numpy(inputs), None, torch.from_numpy(resets)).outputs.detach().numpy()
    for b in range(5):
        np.testing.assert_allclose(outputs[:, b], by_the_equations(core, inputs[:, b], resets[:, b]))


@both
def test_gradients_of_a_lively_core(name):
    core = lively(name)
    inputs = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    resets = torch.tensor([[False, False], [False, True], [False, False], [False, False]])
    names = [key for key, _ in core.named_parameters()]
    values = tuple(value.detach().requires_grad_() for value in core.parameters())

    def run(inputs, *values):
        output = torch.func.functional_call(
            core, dict(zip(names, values, strict=True)), (inputs, None, resets)
        )
        return output.outputs, *output.state

    assert torch.autograd.gradcheck(run, (inputs, *values))


@both
def test_what_is_trained_and_where_it_starts(name):
    core = make_core(name, 3, hidden_size=30)
    sizes = {key: tuple(value.shape) for key, value in core.named_parameters()}
    assert sizes == {
        "encoder.weight": (30, 3),
        "encoder.bias": (30,),
        "w": (30, 30),
        "alpha": (30, 30) if name == "plastic" else (1,),
        "eta": (1,),
    }
    for key in ("w", "alpha"):
        value = core.get_parameter(key)
        assert value.min() >= 0
        assert value.max() < 0.01
    assert core.get_parameter("eta").item() == pytest.approx(0.01)


@both
def test_the_trace_holds_the_size_of_each_change(name):
    core, inputs = lively(name), torch.randn(6, 2, 3, dtype=torch.float64)
    trace = core(inputs, record=True).trace
    before = core(inputs[:3]).state.hebb
    change = torch.linalg.matrix_norm(core(inputs[:4]).state.hebb - before)
    torch.testing.assert_close(trace["write_sizes"][3, :, 0], change)


def test_settings_are_checked_and_the_name_fixes_the_plasticity():
    assert core_settings("plastic") == core_settings("plastic-homogenous") == ["hidden_size"]
    with pytest.raises(ValueError, match="plasticity must be one of full, homogenous, got 'none'"):
        PlasticConfig(plasticity="none")  # pyright: ignore[reportArgumentType]
