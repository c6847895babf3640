"""Fast weight memory against the equations of Schlag et al. (2021), and its chunks against its plain loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mnm_rl.cores import make_core
from mnm_rl.cores.fwm import FWMConfig, FWMCore, FWMState
from mnm_rl.kernels import fwm, fwm_cpu, recurrent
from mnm_rl.kernels.fwm import Commands, plain, plain_step, scan
from mnm_rl.testing import check_core

SMALL: dict[str, Any] = dict(hidden_size=5, entity_size=3, relation_size=4, reads=2)
NEEDS_COMPILER = pytest.mark.skipif(not recurrent.compiles(), reason="needs a C++ compiler")
CPU = pytest.param("cpu", marks=NEEDS_COMPILER)
SCANS = pytest.mark.parametrize(
    "run", [scan, pytest.param(fwm_cpu.scan, marks=NEEDS_COMPILER)], ids=["chunked", "cpu"]
)
"""The forms that are meant to be used."""


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lively(**changes: Any) -> FWMCore:
    """A core in float64 whose memory gets to its greatest size within a few steps."""
    torch.manual_seed(0)
    core = FWMCore(3, FWMConfig(**{**SMALL, **changes})).double()
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.copy_(2 * torch.randn_like(parameter))
    return core


def by_the_equations(core: FWMCore, inputs: np.ndarray, resets: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Outputs of one example ``[T, d_h]`` and norms of the memory before they are limited, one by one."""
    layer, config = core.controller.layer, core.config
    numbers = {name: value.detach().numpy() for name, value in core.named_parameters()}
    entity, relation, reads, width = (
        config.entity_size,
        config.relation_size,
        config.reads,
        config.hidden_size,
    )
    w_x, w_h, b_x, b_h = (weight.detach().numpy() for weight in layer.all_weights[0])
    h, c, memory = np.zeros(width), np.zeros(width), np.zeros((entity, relation, entity))
    outputs, norms = [], []
    for x, reset in zip(inputs, resets, strict=True):
        if reset:
            h, c, memory = np.zeros(width), np.zeros(width), np.zeros((entity, relation, entity))
        i, f, g, o = np.split(w_x @ x + b_x + w_h @ h + b_h, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        write = numbers["write.weight"] @ h + numbers["write.bias"]
        s, r, t = (
            np.tanh(write[a : a + n])
            for a, n in ((0, entity), (entity, relation), (entity + relation, entity))
        )
        beta = sigmoid(write[-1] + 1)
        changed = memory.copy()
        for target in range(entity):
            looked_up = sum(
                s[p] * r[q] * memory[p, q, target] for p in range(entity) for q in range(relation)
            )
            for p in range(entity):
                for q in range(relation):
                    changed[p, q, target] += beta * (t[target] - looked_up) / entity * s[p] * r[q]
        norms.append(math.sqrt(float(np.sum(changed**2))))
        memory = changed / max(1.0, norms[-1])
        read = numbers["read.weight"] @ h + numbers["read.bias"]
        n = read[:entity]
        for k in range(reads):
            e = np.tanh(read[entity + k * relation : entity + (k + 1) * relation])
            found = np.einsum("i,j,ijf->f", n, e, memory)
            n = (found - found.mean()) / np.sqrt(found.var() + 1e-5)
        outputs.append(h + numbers["output.weight"] @ n + numbers["output.bias"])
    return np.array(outputs), norms


@pytest.mark.parametrize("kernel", ["reference", "chunked", CPU])
def test_the_core_follows_the_equations(kernel: Any) -> None:
    core, generator = lively(kernel=kernel), np.random.default_rng(1)
    inputs, resets = generator.normal(size=(40, 3, 3)), generator.random((40, 3)) < 0.1
    outputs = core(torch.from_numpy(inputs), None, torch.from_numpy(resets)).outputs.detach().numpy()
    limited = []
    for b in range(3):
        expected, norms = by_the_equations(core, inputs[:, b], resets[:, b])
        np.testing.assert_allclose(outputs[:, b], expected, rtol=1e-9, atol=1e-9)
        limited += [norm > 1 for norm in norms]
    assert 0.1 < np.mean(limited) < 0.9  # both of max(1, |F|) have been there


@pytest.mark.parametrize(
    "changes",
    [
        *({}, {"kernel": "reference"}, {"kernel": "chunked"}, {"residual": False}),
        pytest.param({"kernel": "cpu"}, marks=NEEDS_COMPILER),
    ],
)
def test_every_form_keeps_every_promise(changes: dict[str, Any]) -> None:
    check_core("fwm", **{**SMALL, **changes})


def draw_commands(
    sizes: tuple[int, int, int, int, int], scale: float, seed: int, dtype: torch.dtype = torch.float64
) -> tuple[Commands, Tensor]:
    """Commands, and a memory of a norm of at most 1."""
    batch, steps, entity, relation, reads = sizes
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return scale * torch.randn(shape, dtype=torch.float64, generator=generator)

    commands = Commands(
        draw(batch, steps, entity),
        draw(batch, steps, relation),
        draw(batch, steps, entity),
        torch.rand(batch, steps, dtype=torch.float64, generator=generator),
        draw(batch, steps, entity),
        draw(batch, steps, reads, relation),
    )
    memory = draw(batch, entity, relation, entity)
    memory = memory / memory.flatten(1).norm(dim=1).clamp(min=1).view(-1, 1, 1, 1)
    return Commands(*(x.to(dtype).requires_grad_() for x in commands)), memory.to(dtype).requires_grad_()


def results(operation: Any, commands: Commands, memory: Tensor, resets: Tensor | None) -> dict[str, Tensor]:
    """Reads, memory, and the gradients of all that goes in."""
    read, last = operation(commands, memory, resets)
    loss = (read * waves(read)).sum() + (last * waves(last)).sum()
    given = {**commands._asdict(), "memory": memory}
    found = torch.autograd.grad(loss, list(given.values()), allow_unused=True, materialize_grads=True)
    gradients = {f"d {name}": d for name, d in zip(given, found, strict=True)}
    return {"read": read.detach(), "last memory": last.detach(), **gradients}


def waves(x: Tensor) -> Tensor:
    """Weights for a loss, of both signs."""
    return torch.sin(1.7 * torch.arange(1.0, x.numel() + 1, dtype=x.dtype)).view_as(x)


def check_same(found: dict[str, Tensor], expected: dict[str, Tensor], bound: float) -> None:
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        size = max(1.0, wanted.abs().max().item())
        torch.testing.assert_close(
            found[name], wanted, rtol=0, atol=bound * size, msg=lambda m, n=name: f"{n}: {m}"
        )


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*(st.integers(1, n) for n in (3, 14, 5, 4, 3))),
    st.sampled_from([0.1, 0.7, 2.0]),
    st.sampled_from([None, 0.1, 0.6, 1.0]),
    st.integers(0, 99),
)
def test_chunks_are_the_plain_loop(sizes: Any, scale: float, share: float | None, seed: int) -> None:
    commands, memory = draw_commands(sizes, scale, seed)
    generator = torch.Generator().manual_seed(seed)
    resets = None if share is None else torch.rand(*sizes[:2], generator=generator) < share
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fwm, "CHUNK", 5)
        found = results(scan, commands, memory, resets)
    check_same(found, results(plain, commands, memory, resets), 1e-9)


@SCANS
def test_chunks_of_the_usual_length_are_the_plain_loop(run: Any) -> None:
    commands, memory = draw_commands((2, 3 * fwm.CHUNK + 1, 8, 7, 3), 0.5, 0)
    resets = torch.rand(commands.rates.shape) < 0.02
    check_same(results(run, commands, memory, resets), results(plain, commands, memory, resets), 1e-8)


@NEEDS_COMPILER
@settings(deadline=None, max_examples=60)
@given(
    st.tuples(
        st.integers(1, 3), st.integers(1, 80), st.integers(1, 20), st.integers(1, 9), st.integers(1, 3)
    ),
    st.sampled_from([0.1, 0.7, 2.0]),
    st.sampled_from([None, 0.1, 0.6, 1.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_the_operation_is_the_plain_loop(
    sizes: Any, scale: float, share: float | None, asked: float, seed: int
) -> None:
    """Also where only some of the reads, or none, have a gradient."""
    commands, memory = draw_commands(sizes, scale, seed)
    generator = torch.Generator().manual_seed(seed)
    resets = None if share is None else torch.rand(*sizes[:2], generator=generator) < share
    is_asked = torch.rand(*sizes[:2], 1, generator=generator) < asked

    def run(form: Any) -> dict[str, Tensor]:
        def masked(*arguments: Any) -> tuple[Tensor, Tensor]:
            reads, last = form(*arguments)
            return torch.where(is_asked, reads, 0), last

        return results(masked, commands, memory, resets)

    assert fwm_cpu.fits(commands, memory)
    check_same(run(fwm_cpu.scan), run(plain), 1e-9)


@NEEDS_COMPILER
def test_the_operation_has_the_same_results_with_several_threads() -> None:
    commands, memory = draw_commands((5, 70, 8, 7, 3), 0.5, 0)
    alone = results(fwm_cpu.scan, commands, memory, None)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        check_same(results(fwm_cpu.scan, commands, memory, None), alone, 0)
    finally:
        torch.set_num_threads(before)


@NEEDS_COMPILER
def test_what_was_before_a_reset_is_gone_whatever_it_was() -> None:
    commands, memory = draw_commands((2, 40, 3, 4, 2), 0.5, 0)
    resets = torch.zeros(2, 40, dtype=torch.bool)
    resets[:, 35] = True
    with torch.no_grad():
        reads, last = fwm_cpu.scan(commands, memory, resets)
        lost = Commands(*(torch.cat([x[:, :35] * torch.nan, x[:, 35:]], 1) for x in commands))
        found = fwm_cpu.scan(lost, memory * torch.inf, resets)
    assert torch.equal(found[0][:, 35:], reads[:, 35:])
    assert torch.equal(found[1], last)


@NEEDS_COMPILER
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_no_gradient_comes_from_what_a_reset_at_the_first_step_throws_away(value: float) -> None:
    commands, memory = draw_commands((2, 40, 3, 4, 2), 0.5, 0)
    resets = torch.zeros(2, 40, dtype=torch.bool)
    resets[:, 0] = True
    lost = torch.full_like(memory, value).requires_grad_()
    expected = results(plain, commands, memory, resets)
    check_same(results(fwm_cpu.scan, commands, lost, resets), expected, 1e-9)


@NEEDS_COMPILER
def test_the_operation_takes_what_fits() -> None:
    for entity, fits in ((32, True), (64, None), (65, False)):
        commands, memory = draw_commands((1, 2, entity, 2, 1), 1.0, 0, torch.float32)
        if fits is not None:  # with shorter vectors 64 numbers do not
            assert fwm_cpu.fits(commands, memory) == fits
    core = make_core("fwm", 3, entity_size=65, kernel="cpu")
    with pytest.raises(ValueError, match="The kernel 'cpu' takes plain tensors on the processor"):
        core(torch.zeros(2, 1, 3))
    assert make_core("fwm", 3, entity_size=65)(torch.zeros(2, 1, 3)).outputs.isfinite().all()


@SCANS
def test_chunks_in_float32_are_near_the_plain_loop_in_float64(run: Any) -> None:
    sizes = (4, 200, 32, 32, 3)
    exact, near = (draw_commands(sizes, 0.3, 0, dtype) for dtype in (torch.float64, torch.float32))
    with torch.no_grad():
        expected, found = plain(*exact), run(*near)
    assert plain(*exact)[1].flatten(1).norm(dim=1).min() > 0.99  # at its greatest size
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=2e-4)


@pytest.mark.parametrize("kernel", ["chunked", CPU])
def test_saturated_commands_leave_everything_finite(kernel: str) -> None:
    # |k| is 32 and each write turns the memory over: 1 / max(1, |F|) is about 1/25 at every step, so that
    # their product over a chunk is no float32 number.
    core = make_core("fwm", 3, kernel=kernel)
    assert isinstance(core, FWMCore)
    inputs = (1e3 * torch.randn(100, 2, 3)).requires_grad_()
    with torch.no_grad():
        core.write.weight.mul_(1e3)
        core.read.weight.mul_(1e3)
    output = core(inputs)
    output.outputs.sum().backward()
    for tensor in (output.outputs, *output.state, inputs.grad):
        assert tensor is not None
        assert tensor.isfinite().all()
    assert output.state.memory.flatten(1).norm(dim=1).max() < 1 + 1e-4
    assert core(torch.zeros(3, 2, 3)).outputs.isfinite().all()


@SCANS
@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.sampled_from([0.3, 1.0, 5.0]))
def test_the_memory_is_never_larger_than_one(run: Any, seed: int, scale: float) -> None:
    commands, memory = draw_commands((3, 40, 4, 4, 1), scale, seed)
    with torch.no_grad():
        last = run(commands, memory)[1]
    assert last.flatten(1).norm(dim=1).max() <= 1 + 1e-12


def unit(*numbers: float) -> Tensor:
    vector = torch.tensor([numbers], dtype=torch.float64)
    return vector / vector.norm()


def test_what_was_written_at_full_rate_is_read_up_to_the_division_by_its_size() -> None:
    s, r, t = unit(1, 2), unit(2, 0, 1), torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    memory = torch.zeros(1, 2, 3, 2, dtype=torch.float64)
    step = plain_step(memory, [s, r, t, torch.ones(1, dtype=torch.float64), s, r.unsqueeze(1)])
    key = torch.einsum("bi,bj->bij", s, r)
    torch.testing.assert_close(torch.einsum("bij,bijf->bf", key, step.memory), t / 2)
    centred = t - t.mean()
    torch.testing.assert_close(step.read, (centred / 2) / ((centred / 2).square().mean() + 1e-5).sqrt())
    # As often as it takes, the same write comes to t.
    for _ in range(60):
        step = plain_step(step.memory, [s, r, t, torch.ones(1, dtype=torch.float64), s, r.unsqueeze(1)])
    torch.testing.assert_close(step.looked_up, t)


def test_the_order_of_writes_matters() -> None:
    commands, memory = draw_commands((1, 2, 3, 3, 1), 1.0, 3)
    turned = Commands(*(tensor.flip(1) for tensor in commands))
    assert not torch.allclose(scan(commands, memory)[1], scan(turned, memory)[1], atol=1e-3)


def test_a_reset_empties_the_memory() -> None:
    core, inputs = lively(), torch.randn(3, 2, 3, dtype=torch.float64)
    resets = torch.tensor([[False, False], [False, False], [True, False]])
    state = core(inputs, None, resets).state
    torch.testing.assert_close(state.memory[0], core(inputs[2:, :1]).state.memory[0])
    assert not torch.allclose(state.memory[1], core(inputs[2:, 1:]).state.memory[0])


def test_the_lstm_is_torchs_and_does_not_see_what_was_read() -> None:
    core, inputs = lively(), torch.randn(6, 2, 3, dtype=torch.float64)
    layer = nn.LSTM(3, 5).double()
    layer.load_state_dict(core.controller.layer.state_dict())
    hidden, (last, cell) = layer(inputs)
    state = core(inputs).state
    torch.testing.assert_close(state.hidden, last[0])
    torch.testing.assert_close(state.cell, cell[0])
    with torch.no_grad():
        core.output.weight.zero_()
        core.output.bias.zero_()
    torch.testing.assert_close(core(inputs).outputs, hidden)


def test_where_a_new_core_starts() -> None:
    core = make_core("fwm", 3, hidden_size=6, entity_size=4, relation_size=2)
    assert isinstance(core, FWMCore)
    assert core.write.weight.shape == (4 + 2 + 4 + 1, 6)
    assert core.read.weight.shape == (4 + 3 * 2, 6)
    *_, one, other = core.controller.layer.all_weights[0]
    assert torch.equal((one + other)[6:12], torch.ones(6))
    rates = core(torch.zeros(1, 1, 3), record=True).trace["rates"]
    assert 0.6 < rates.item() < 0.85  # sigmoid(1) is 0.73


def test_the_trace_is_of_the_write_and_the_read() -> None:
    core, inputs = lively(), torch.randn(6, 2, 3, dtype=torch.float64)
    resets = torch.zeros(6, 2, dtype=torch.bool)
    resets[4] = True
    trace = core(inputs, None, resets, record=True).trace
    before, after = core(inputs[:3]).state.memory, core(inputs[:4]).state.memory
    change = (after - before).flatten(1).norm(dim=1)
    torch.testing.assert_close(trace["write_sizes"][3, :, 0], change)
    torch.testing.assert_close(trace["memory_distances"][3, :, 0], after.flatten(1).norm(dim=1))
    torch.testing.assert_close(trace["memory_distances"][4], trace["write_sizes"][4])
    hidden = core(inputs[:3]).state.hidden
    read = core(inputs[:3]).outputs[-1] - hidden
    torch.testing.assert_close(core.output(trace["read_values"][2, :, 0]), read)
    key = trace["write_keys"][2, :, 0].unflatten(1, (3, 4))
    torch.testing.assert_close(
        key, torch.tanh(core.write(hidden))[:, :3, None] * torch.tanh(core.write(hidden))[:, None, 3:7]
    )


@pytest.mark.parametrize("kernel", ["chunked", CPU])
def test_it_keeps_vectors_and_a_memory_for_each_chunk(kernel: str) -> None:
    core = make_core("fwm", 8, hidden_size=16, entity_size=16, relation_size=16, kernel=kernel)
    inputs, kept = torch.randn(64, 2, 8), {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = core(inputs)
    output.outputs.sum().backward()
    assert sum(kept.values()) / inputs[..., 0].numel() < 16**3 / 4  # a plain loop keeps several times 16**3


def test_gradients_of_gradients_need_the_plain_loop() -> None:
    for kernel in ("chunked", "auto", "reference"):
        core = lively(kernel=kernel)
        inputs = torch.randn(3, 1, 3, dtype=torch.float64, requires_grad=True)
        (d,) = torch.autograd.grad(core(inputs).outputs.square().sum(), inputs, create_graph=True)
        if kernel != "reference":
            with pytest.raises(RuntimeError, match="once_differentiable"):
                d.sum().backward()
        else:
            d.sum().backward()
            assert inputs.grad is not None


def test_it_learns_to_answer_with_the_partner_of_a_symbol() -> None:
    """Pairs a b, c d, ... and then a symbol, whose partner is asked for: an LSTM of this size does not."""
    torch.manual_seed(0)
    core, head = (
        make_core("fwm", 9, hidden_size=32, entity_size=8, relation_size=8, reads=1),
        nn.Linear(32, 8),
    )
    optimizer = torch.optim.Adam([*core.parameters(), *head.parameters()], 0.01)
    for _ in range(250):
        order = torch.rand(64, 8).argsort(1)[:, :4]
        asked = torch.randint(2, (64, 1))
        row = torch.cat([order, order.gather(1, 2 * asked)], 1)
        inputs = torch.cat(
            [nn.functional.one_hot(row, 8), torch.tensor([0, 1, 0, 1, 0]).expand(64, 5).unsqueeze(2)], 2
        )
        logits = head(core(inputs.transpose(0, 1).float()).outputs[-1])
        answers = order.gather(1, 2 * asked + 1).squeeze(1)
        loss = nn.functional.cross_entropy(logits, answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (logits.argmax(1) == answers).float().mean() > 0.9  # guessing has 0.125


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"entity_size": 0}, "entity_size must be at least 1, got 0"),
        ({"reads": 0}, "reads must be at least 1, got 0"),
        ({"reads": 1001}, "reads must be at most 1000, got 1001"),
        ({"kernel": "gpu"}, "kernel must be one of auto, reference, chunked, cpu, got 'gpu'"),
    ],
)
def test_settings_are_checked(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_core("fwm", 3, **setting)
    core = make_core("fwm", 3, **SMALL)
    state = FWMState(torch.zeros(1, 5), torch.zeros(1, 5), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="memory"):
        core(torch.zeros(2, 1, 3), state)


def test_the_writes_do_not_read_what_they_have_not_written() -> None:
    """Outputs are allocated and not set to zero."""
    commands, memory = draw_commands((1, 7, 3, 2, 2), 1.0, 0)
    expected = results(scan, commands, memory, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty_like", lambda x: torch.full_like(x, torch.nan))
        check_same(results(scan, commands, memory, None), expected, 0)
