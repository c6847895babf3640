"""The fast weights of Ba et al. (2016): the equations with the matrix, and the form that attends instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mnm_rl.cores import make_core
from mnm_rl.cores.fast_weights import FastWeightsConfig, FastWeightsCore
from mnm_rl.kernels import fast_weights
from mnm_rl.kernels.fast_weights import Parameters, Settings, plain, scan
from mnm_rl.testing import check_core


def lively(**changes: Any) -> FastWeightsCore:
    torch.manual_seed(0)
    core = FastWeightsCore(3, FastWeightsConfig(**{"hidden_size": 5, **changes})).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return core


def by_the_equations(core: FastWeightsCore, inputs: np.ndarray, resets: np.ndarray) -> np.ndarray:
    """Hidden states of one example ``[T, D]``, from loops over units."""
    p = {name: value.detach().numpy() for name, value in core.named_parameters()}
    size, config = core.output_size, core.config

    def activation(x: np.ndarray) -> np.ndarray:
        normal = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return np.maximum(normal * p["gain"] + p["bias"], 0)

    h, fast, states = np.zeros(size), np.zeros((size, size)), []
    for t, x in enumerate(inputs):
        if resets[t]:
            h, fast = np.zeros(size), np.zeros((size, size))
        z = p["weight"] @ h + p["encoder.weight"] @ x + p["encoder.bias"]
        for i in range(size):
            for j in range(size):
                fast[i, j] = config.decay * fast[i, j] + config.rate * h[i] * h[j]
        h = activation(z)
        for _ in range(config.inner_steps):
            h = activation(z + fast @ h)
        states.append(h)
    return np.array(states)


@pytest.mark.parametrize("inner_steps", [0, 1, 3])
@pytest.mark.parametrize("kernel", ["reference", "attention"])
def test_the_core_follows_the_equations(inner_steps: int, kernel: Any) -> None:
    core = lively(inner_steps=inner_steps, kernel=kernel, decay=0.8, rate=0.3)
    generator = np.random.default_rng(1)
    inputs, resets = generator.normal(size=(40, 3, 3)), generator.random((40, 3)) < 0.1
    outputs = core(torch.from_numpy(inputs), None, torch.from_numpy(resets)).outputs.detach().numpy()
    for b in range(3):
        expected = by_the_equations(core, inputs[:, b], resets[:, b])
        np.testing.assert_allclose(outputs[:, b], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "changes", [{}, {"kernel": "reference"}, {"kernel": "attention", "inner_steps": 3}, {"inner_steps": 0}]
)
def test_every_form_keeps_every_promise(changes: dict[str, Any]) -> None:
    check_core("fast-weights", hidden_size=5, **changes)


def results(
    operation: Any, given: dict[str, Tensor | None], chosen: Settings, resets: Tensor | None
) -> dict[str, Tensor]:
    parameters = Parameters(*(given[name] for name in Parameters._fields))  # pyright: ignore
    outputs, last = operation(given["encoded"], given["hidden"], given["memory"], parameters, chosen, resets)
    waves = [torch.sin(1.7 * torch.arange(1.0, x.numel() + 1)).view_as(x) for x in (outputs, last)]
    loss = (outputs * waves[0]).sum() + (last * waves[1]).sum()
    trained = {name: x for name, x in given.items() if x is not None and x.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True, materialize_grads=True)
    gradients = {f"d {name}": d for name, d in zip(trained, found, strict=True)}
    return {"outputs": outputs.detach(), "last memory": last.detach(), **gradients}


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(*(st.integers(1, n) for n in (13, 3, 6))),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([None, 0.1, 0.6, 1.0]),
    st.integers(0, 99),
)
def test_attention_is_the_matrix(
    sizes: Any, inner_steps: int, has_memory: bool, share: float | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    steps, batch, size = sizes
    shapes = {
        "encoded": sizes,
        "hidden": (batch, size),
        "memory": (batch, size, size),
        "weight": (size, size),
        "gain": (size,),
        "bias": (size,),
    }
    given: dict[str, Tensor | None] = {
        name: torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for name, shape in shapes.items()
    }
    resets = None if share is None else torch.rand(steps, batch, generator=generator) < share
    chosen = Settings(0.9, 0.5, inner_steps)
    zeros = torch.zeros(batch, size, size, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_weights, "LEAST_CHUNK", 4)
        found = results(scan, given if has_memory else {**given, "memory": None}, chosen, resets)
    expected = results(plain, given if has_memory else {**given, "memory": zeros}, chosen, resets)
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        scale = max(1.0, wanted.abs().max().item())
        torch.testing.assert_close(
            found[name], wanted, rtol=0, atol=1e-8 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_without_inner_steps_or_rate_it_is_a_plain_recurrent_network() -> None:
    for changes in ({"inner_steps": 0}, {"rate": 0.0}):
        core, inputs = lively(**changes), torch.randn(7, 2, 3, dtype=torch.float64)
        h = torch.zeros(2, 5, dtype=torch.float64)
        for x, found in zip(inputs, core(inputs).outputs, strict=True):
            z = core.encoder(x) + h @ core.weight.T
            h = torch.relu(nn.functional.layer_norm(z, (5,), core.gain, core.bias))
            torch.testing.assert_close(found, h)


def test_the_matrix_is_the_decayed_sum_of_what_the_hidden_states_were() -> None:
    core, inputs = lively(decay=0.7, rate=0.4), torch.randn(6, 2, 3, dtype=torch.float64)
    output = core(inputs)
    expected = sum(
        0.4 * 0.7 ** (4 - t) * torch.einsum("bi,bj->bij", output.outputs[t], output.outputs[t])
        for t in range(5)
    )
    torch.testing.assert_close(output.state.memory, expected)


def test_where_a_new_core_starts() -> None:
    core = make_core("fast-weights", 3, hidden_size=4)
    assert isinstance(core, FastWeightsCore)
    assert torch.equal(core.weight, 0.05 * torch.eye(4))
    assert core.config == FastWeightsConfig(hidden_size=4, decay=0.95, rate=0.5, inner_steps=1)


def test_large_inputs_leave_everything_finite() -> None:
    core = make_core("fast-weights", 3, hidden_size=20)
    inputs = (1e3 * torch.randn(200, 2, 3)).requires_grad_()
    output = core(inputs)
    output.outputs.sum().backward()
    for tensor in (output.outputs, *output.state, inputs.grad):
        assert tensor is not None
        assert tensor.isfinite().all()
    assert core(torch.zeros(3, 2, 3)).outputs.isfinite().all()


def test_the_trace_holds_the_size_of_each_change() -> None:
    core, inputs = lively(), torch.randn(6, 2, 3, dtype=torch.float64)
    trace = core(inputs, record=True).trace
    before, after = core(inputs[:3]).state.memory, core(inputs[:4]).state.memory
    torch.testing.assert_close(trace["write_sizes"][3, :, 0], torch.linalg.matrix_norm(after - before))
    torch.testing.assert_close(trace["memory_distances"][3, :, 0], torch.linalg.matrix_norm(after))


def test_it_keeps_no_matrix_for_each_step() -> None:
    core = make_core("fast-weights", 8, hidden_size=64)
    inputs, kept = torch.randn(64, 2, 8), {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        core(inputs)
    assert sum(kept.values()) / inputs[..., 0].numel() < 64 * 64 / 4


def test_it_learns_to_repeat_the_first_of_four_symbols() -> None:
    torch.manual_seed(0)
    core, head = make_core("fast-weights", 5, hidden_size=30), nn.Linear(30, 5)
    optimizer = torch.optim.Adam([*core.parameters(), *head.parameters()], 0.01)
    for _ in range(100):
        row = torch.randint(5, (64, 4))
        logits = head(core(nn.functional.one_hot(row, 5).transpose(0, 1).float()).outputs[-1])
        loss = nn.functional.cross_entropy(logits, row[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (logits.argmax(1) == row[:, 0]).all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"inner_steps": -1}, "inner_steps must be from 0 to 1000, got -1"),
        ({"inner_steps": 1001}, "inner_steps must be from 0 to 1000, got 1001"),
        ({"decay": 1.5}, r"decay must be from 0 to 1, got 1\.5"),
        ({"rate": float("nan")}, "rate must be from 0 to 1, got nan"),
        ({"kernel": "cpu"}, "kernel must be one of auto, reference, attention, got 'cpu'"),
    ],
)
def test_settings_are_checked(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_core("fast-weights", 3, **setting)
