"""The neural Turing machine against the equations of Graves et al. (2014), one number at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv
from test_a2c import Recall, Tape, check_sequence_against_steps, make_agent
from torch import Tensor, nn

from mnm_rl.agents import RecurrentPPO
from mnm_rl.analysis import record
from mnm_rl.cores import make_core
from mnm_rl.cores.ntm import HeadParameters, NTMConfig, NTMCore, NTMState, address, sharpen, shift, write
from mnm_rl.tasks import CopyTask
from mnm_rl.training.supervised.model import seeded_model

SMALL: dict[str, Any] = dict(hidden_size=4, slots=5, slot_size=3, heads=2, shifts=3)
INPUT_SIZE = 3


def lively(scale: float = 3.0, seed: int = 0, **changes: Any) -> NTMCore:
    """A core in float64 whose heads do more than a new one's."""
    torch.manual_seed(seed)
    core = make_core("ntm", INPUT_SIZE, **{**SMALL, **changes}).double()
    assert isinstance(core, NTMCore)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.mul_(scale)
        core.initial_weights.normal_()
    return core


KERNELS = ("auto", "torch", "reference")


def twins(**changes: Any) -> list[NTMCore]:
    """The same core in all forms, the plain loop last."""
    cores = [lively(**changes, kernel=kernel) for kernel in KERNELS]
    assert not cores[0]._needs_plain_loop()
    return cores


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


class Oracle:
    """One example, by loops over heads and slots."""

    def __init__(self, core: NTMCore):
        self.p = {name: value.detach().numpy() for name, value in core.named_parameters()}
        self.c = core.config
        self.start()

    def start(self) -> None:
        self.h = self.cell = np.zeros(self.c.hidden_size)
        self.r = np.tanh(self.p["initial_reads"])
        self.w = [softmax(row) for row in self.p["initial_weights"]]
        self.M = np.full((self.c.slots, self.c.slot_size), 1e-6)

    def step(self, x: np.ndarray) -> np.ndarray:
        c, p, H = self.c, self.p, self.c.heads
        seen = np.concatenate([x, self.r.ravel()])
        sums = p["controller.weight_ih"] @ seen + p["controller.bias_ih"]
        sums = sums + p["controller.weight_hh"] @ self.h + p["controller.bias_hh"]
        i, f, g, o = np.split(sums, 4)
        self.cell = logistic(f) * self.cell + logistic(i) * np.tanh(g)
        self.h = logistic(o) * np.tanh(self.cell)
        said = np.clip(p["interaction.weight"] @ self.h + p["interaction.bias"], -20, 20)
        sizes = [2 * H * c.slot_size, H * c.slot_size, H * c.slot_size, 2 * H, 2 * H, 2 * H]
        k, a, e, gate, beta, gamma, s = np.split(said, np.cumsum(sizes))
        k, a, e = (part.reshape(-1, c.slot_size) for part in (np.tanh(k), np.tanh(a), logistic(e)))
        gate, beta, gamma = logistic(gate), np.log1p(np.exp(beta)), 1 + np.log1p(np.exp(gamma))
        s = [softmax(row) for row in s.reshape(2 * H, c.shifts)]
        self.w = [self.address(k[n], beta[n], gate[n], s[n], gamma[n], self.w[n]) for n in range(2 * H)]
        before = self.M.copy()
        for slot in range(c.slots):
            kept = np.prod([1 - self.w[n][slot] * e[n] for n in range(H)], axis=0)
            self.M[slot] = before[slot] * kept + sum(self.w[n][slot] * a[n] for n in range(H))
        self.r = np.array([sum(self.w[H + n][i] * self.M[i] for i in range(c.slots)) for n in range(H)])
        return p["output.weight"] @ np.concatenate([self.h, self.r.ravel()]) + p["output.bias"]

    def address(self, k: Any, beta: Any, gate: Any, s: Any, gamma: Any, w: np.ndarray) -> np.ndarray:
        N = self.c.slots
        cosines = [k @ row / (np.linalg.norm(k) * np.linalg.norm(row) + 1e-8) for row in self.M]
        gated = gate * softmax(beta * np.array(cosines)) + (1 - gate) * w
        far = self.c.shifts // 2
        moved = [sum(gated[(i - j) % N] * s[j + far] for j in range(-far, far + 1)) for i in range(N)]
        sharp = (np.array(moved) + 1e-8) ** gamma
        return sharp / sharp.sum()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("changes", [{}, {"shifts": 5}, {"heads": 1, "shifts": 1}, {"slots": 3, "heads": 3}])
def test_the_core_follows_the_equations(kernel, changes):
    core, generator = lively(kernel=kernel, **changes), np.random.default_rng(1)
    inputs, resets = generator.normal(size=(9, 4, INPUT_SIZE)), generator.random((9, 4)) < 0.2
    found = core(torch.from_numpy(inputs), None, torch.from_numpy(resets))
    for b in range(4):
        oracle, outputs = Oracle(core), []
        for t in range(9):
            if resets[t, b]:
                oracle.start()
            outputs.append(oracle.step(inputs[t, b]))
        np.testing.assert_allclose(found.outputs[:, b].detach(), outputs, atol=1e-12)
        np.testing.assert_allclose(found.state.memory[b].detach(), oracle.M, atol=1e-12)
        np.testing.assert_allclose(found.state.weights[b].detach(), oracle.w, atol=1e-12)


def test_single_precision_is_near_double_precision():
    core, inputs = lively(slots=40, slot_size=11), draw(30, 3, INPUT_SIZE)
    expected = core(inputs)
    expected.outputs.square().sum().backward()
    gradients: list[Any] = [parameter.grad for parameter in core.parameters()]
    for kernel in KERNELS:
        single = lively(slots=40, slot_size=11, kernel=kernel).float()
        found = single(inputs.float()).outputs
        torch.testing.assert_close(found.double(), expected.outputs, rtol=1e-3, atol=1e-4)
        found.square().sum().backward()
        for parameter, gradient in zip(single.parameters(), gradients, strict=True):
            assert (parameter.grad.double() - gradient).norm() < 1e-3 * gradient.norm(), kernel


def everything(core: NTMCore, inputs: Tensor, resets: Tensor | None) -> list[Tensor]:
    """Outputs, the last state, and gradients of all that there is, also of a state to begin with."""
    inputs = inputs.clone().requires_grad_()
    state = NTMState(*(field.detach() for field in core(draw(2, inputs.shape[1], INPUT_SIZE, seed=5)).state))
    state = NTMState(*(field.requires_grad_() for field in state))
    result = core(inputs, state, resets)
    found = [result.outputs, *result.state]
    loss = sum((draw(*each.shape, seed=n) * each).sum() for n, each in enumerate(found))
    assert isinstance(loss, Tensor)
    wanted = [inputs, *state, *core.parameters()]
    return [*found, *torch.autograd.grad(loss, wanted, materialize_grads=True)]


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 7)),
    shift_pairs=st.integers(0, 3),
    length=st.integers(1, 6),
    batch=st.integers(1, 3),
    starts=st.sampled_from([None, 0.0, 0.3, 1.0]),
    scale=st.sampled_from([1.0, 4.0, 40.0]),
    seed=st.integers(0, 99),
)
def test_all_forms_give_the_same(sizes, shift_pairs, length, batch, starts, scale, seed):
    hidden_size, slot_size, heads, slots = sizes
    *others, plain = twins(
        scale=scale,
        seed=seed,
        hidden_size=hidden_size,
        slot_size=slot_size,
        heads=heads,
        slots=slots,
        shifts=min(2 * shift_pairs + 1, slots - (slots + 1) % 2),
    )
    inputs = draw(length, batch, INPUT_SIZE, seed=seed)
    resets = None if starts is None else torch.rand(length, batch) < starts
    expected = everything(plain, inputs, resets)
    for other in others:
        for one, wanted in zip(everything(other, inputs, resets), expected, strict=True):
            torch.testing.assert_close(one, wanted, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("side", [1, -1])
def test_what_is_beyond_the_limit_has_no_gradient(side):
    gradients = []
    for core in twins():
        with torch.no_grad():
            core.interaction.bias.fill_(side * 100)
        core(draw(5, 2, INPUT_SIZE)).outputs.sum().backward()
        gradients.append(core.interaction.bias.grad)
        assert core.output.bias.grad.abs().min() > 0
    assert not any(gradient.any() for gradient in gradients)


def test_a_step_is_one_of_the_sequence():
    core, inputs = lively(), draw(6, 2, INPUT_SIZE)
    state: Any = None
    outputs = []
    for x in inputs:
        output, state = core.step(x, state)
        outputs.append(output)
    whole = core(inputs)
    torch.testing.assert_close(torch.stack(outputs), whole.outputs)
    for one, other in zip(state, whole.state, strict=True):
        torch.testing.assert_close(one, other)


def told(**changes: float | list[float]) -> HeadParameters:
    """For a write head and a read head: stay where they are, sharply; write nothing."""
    rows = {
        "keys": [0.0, 0.0],
        "adds": [0.0, 0.0],
        "erases": [0.0, 0.0],
        "gates": 0.0,
        "strengths": 1.0,
        "sharpenings": 21.0,
        "shifts": [0.0, 1.0, 0.0],
        **changes,
    }
    heads = {"adds": 1, "erases": 1}
    return HeadParameters(
        **{
            name: torch.tensor(row, dtype=torch.float64).reshape(1, 1, -1).expand(1, heads.get(name, 2), -1)
            for name, row in rows.items()
        }
    )


def at_slot(place: int, slots: int = 4) -> Tensor:
    return nn.functional.one_hot(torch.tensor(place), slots).double().expand(1, 2, slots)


def test_a_head_that_shifts_goes_around_the_memory():
    memory, weights, forward = torch.full((1, 4, 2), 1e-6).double(), at_slot(2), told(shifts=[0, 0, 1])
    places = []
    for _ in range(5):
        weights = address(memory, weights, forward)
        places.append(weights[0].argmax(1).tolist())
        assert weights.max() > 1 - 1e-6
    assert places == [[3, 3], [0, 0], [1, 1], [2, 2], [3, 3]]
    assert address(memory, at_slot(0), told(shifts=[1, 0, 0]))[0].argmax(1).tolist() == [3, 3]


def test_a_key_finds_the_slot_in_its_direction_wherever_the_head_is():
    memory = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [1.0, 1.0]]]).double()
    found = address(memory, at_slot(0), told(gates=1.0, keys=[-0.1, 0.0], strengths=20.0))
    assert found[0].argmax(1).tolist() == [2, 2]
    stays = address(memory, at_slot(0), told(gates=0.0, keys=[-0.1, 0.0], strengths=20.0))
    assert stays[0].argmax(1).tolist() == [0, 0]


def test_a_write_replaces_one_slot():
    memory = draw(1, 4, 2)
    value = torch.tensor([[[0.3, -0.7]]]).double()
    after = write(memory, at_slot(1)[:, :1], torch.ones(1, 1, 2).double(), value)
    expected = memory.clone()
    expected[0, 1] = value
    assert torch.equal(after, expected)


def test_the_order_of_write_heads_does_not_matter():
    memory, weights = draw(1, 4, 2), torch.rand(1, 3, 4).double()
    erases, adds, order = torch.rand(1, 3, 2).double(), draw(1, 3, 2, seed=4), [2, 0, 1]
    one = write(memory, weights, erases, adds)
    torch.testing.assert_close(one, write(memory, weights[:, order], erases[:, order], adds[:, order]))


def test_flat_weights_to_a_high_power_are_flat_in_single_precision():
    flat = torch.full((1, 1, 200), 1 / 200)
    assert (flat**21).sum() == 0  # what is avoided
    torch.testing.assert_close(sharpen(flat, torch.tensor([[[21.0]]])), flat)


def test_a_shift_keeps_the_sum():
    weights, shifts = torch.rand(2, 3, 7).softmax(2), torch.rand(2, 3, 5).softmax(2)
    torch.testing.assert_close(shift(weights, shifts).sum(2), torch.ones(2, 3))


def test_a_trace_has_the_heads_weights():
    core = lively()
    trace = record(core, draw(6, 2, INPUT_SIZE))
    shapes = {name: tuple(trace[name].shape) for name in core.trace_names}
    weights, values = (6, 2, 2, 5), (6, 2, 2, 3)
    assert shapes == {
        "write_weights": weights,
        "read_weights": weights,
        "write_values": values,
        "read_values": values,
    }
    torch.testing.assert_close(trace["write_weights"].sum(3), torch.ones(6, 2, 2).double())
    memory = core(draw(6, 2, INPUT_SIZE)).state.memory
    torch.testing.assert_close(trace["read_weights"][-1] @ memory, trace["read_values"][-1])
    assert not torch.allclose(trace["read_weights"], trace["write_weights"])


def test_what_is_trained_and_how_an_episode_begins():
    core = make_core("ntm", 3, hidden_size=10, slots=7, slot_size=4, heads=2)
    sizes = {key: tuple(value.shape) for key, value in core.named_parameters()}
    assert sizes == {
        "initial_weights": (4, 7),
        "initial_reads": (2, 4),
        "controller.weight_ih": (40, 11),
        "controller.weight_hh": (40, 10),
        "controller.bias_ih": (40,),
        "controller.bias_hh": (40,),
        "interaction.weight": (56, 10),
        "interaction.bias": (56,),
        "output.weight": (10, 18),
        "output.bias": (10,),
    }
    state = core.initial_state(3)
    assert (state.memory == 1e-6).all()
    torch.testing.assert_close(state.weights.sum(2), torch.ones(3, 4))
    assert state.weights.std() > 0
    core(torch.randn(2, 3, 3)).outputs.sum().backward()
    assert all(parameter.grad is not None for parameter in core.parameters())


class Stays(NTMCore):
    """Heads that never move by content."""

    def head_parameters(self, hidden: Tensor) -> HeadParameters:
        return super().head_parameters(hidden)._replace(gates=hidden.new_zeros(len(hidden), 4, 1))


def test_a_core_that_was_changed_runs_as_it_is():
    torch.manual_seed(0)
    changed = Stays(INPUT_SIZE, NTMConfig(**SMALL)).double()
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(3)
        changed.initial_weights.normal_()
    assert changed._needs_plain_loop()
    assert not torch.allclose(
        changed(draw(5, 2, INPUT_SIZE)).outputs, lively()(draw(5, 2, INPUT_SIZE)).outputs
    )
    hooked = lively()
    hooked.interaction.register_forward_hook(lambda *given: torch.zeros_like(given[-1]))  # pyright: ignore
    assert hooked._needs_plain_loop()


def test_a_second_derivative_needs_the_plain_loop():
    inputs = draw(3, 2, INPUT_SIZE).requires_grad_()
    first = torch.autograd.grad(lively()(inputs).outputs.square().sum(), inputs, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
    plain = lively(kernel="reference")
    first = torch.autograd.grad(plain(inputs).outputs.square().sum(), inputs, create_graph=True)[0]
    assert torch.autograd.grad(first.sum(), inputs)[0].isfinite().all()


@pytest.mark.parametrize("size", [0.0, 1e3])
def test_results_are_finite_for_any_input(size):
    torch.manual_seed(0)
    core = make_core("ntm", INPUT_SIZE)
    inputs = size * torch.randn(50, 2, INPUT_SIZE)
    outputs = core(inputs).outputs
    outputs.sum().backward()
    assert outputs.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in core.parameters())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"slots": 0}, "slots must be at least 1, got 0"),
        ({"slots": 10**23}, r"slots must be at most 2\^53, got 1000"),
        ({"slot_size": 0}, "slot_size must be at least 1, got 0"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"output_size": 0}, "output_size must be at least 1, got 0"),
        ({"shifts": 2}, "shifts must be odd and at most the number of slots, 128, got 2"),
        ({"shifts": 7, "slots": 5}, "shifts must be odd and at most the number of slots, 5, got 7"),
        ({"kernel": "fast"}, "kernel must be one of auto, torch, reference, got 'fast'|kernel"),
    ],
)
def test_settings_are_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        make_core("ntm", 4, **setting)


def test_it_learns_to_copy_in_seconds():
    task = CopyTask(3, 3)
    model = seeded_model(task, "ntm", 20, dict(hidden_size=30, slots=8, slot_size=10), seed=0)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    bits = []
    for index in range(400):
        batch = task.training_batch(index, 16, seed=0)
        logits, *_ = model(batch.inputs, batch.lengths)
        optimizer.zero_grad()
        (task.loss(logits, batch) / batch.asked.sum()).backward()
        optimizer.step()
        bits.append(task.count_errors(logits.detach(), batch).bits_per_sequence)
    assert bits[0] > 22
    assert sum(bits[-20:]) / 20 < 1


def test_ppo_trains_it_on_what_it_remembers():
    agent, tape = make_agent("ntm", DummyVecEnv([Recall] * 5), RecurrentPPO, batch_size=55), Tape()
    before = agent.policy.core.initial_weights.clone()
    agent.learn(2 * 55, tape)
    check_sequence_against_steps(agent, tape)
    assert not torch.equal(agent.policy.core.initial_weights, before)
