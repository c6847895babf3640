"""DeltaNet and its gated relatives: the equations, the solved form against the recurrence, and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mnm_rl.cores import MemoryCore, make_core
from mnm_rl.cores.delta_net import DeltaNetConfig, DeltaNetCore, DeltaNetLayer
from mnm_rl.cores.short_convolution import short_convolution
from mnm_rl.kernels.delta_rule import Commands, plain, plain_step, scan
from mnm_rl.testing import check_core

SMALL: dict[str, Any] = dict(hidden_size=5, heads=2, key_size=3, value_size=4)
RELATIVES: dict[str, dict[str, Any]] = {
    "DeltaNet": {},
    "Gated DeltaNet": dict(forgetting="head", output_gate=True),
    "KDA": dict(forgetting="channel", output_gate=True),
    "Gated DeltaNet-2": dict(forgetting="channel", output_gate=True, separate_rates=True),
    "rates up to 2": dict(doubled_rates=True, convolution=1),
}
every_relative = pytest.mark.parametrize("relative", RELATIVES)


def lively(**changes: Any) -> DeltaNetCore:
    """A core in float64 with parameters of size 1; decays are not far from 1."""
    torch.manual_seed(0)
    core = DeltaNetCore(3, DeltaNetConfig(**{**SMALL, **changes})).double()
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.2 if "log_factor" in name else 1))
    return core


def layer_of(core: MemoryCore) -> DeltaNetLayer:
    assert isinstance(core, DeltaNetCore)
    layer = core.layers[0]
    assert isinstance(layer, DeltaNetLayer)
    return layer


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def rms_norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2) + 1e-5) * weight


def by_the_equations(core: DeltaNetCore, inputs: np.ndarray, resets: np.ndarray) -> np.ndarray:
    """Outputs of one example ``[T, D]``, head by head, from the recurrence."""
    p = {name: value.detach().numpy() for name, value in core.named_parameters()}
    config = core.config
    heads, key, value = config.heads, config.key_size, config.value_size
    xs = [p["encoder.weight"] @ x + p["encoder.bias"] for x in inputs]
    for layer in range(config.layers):
        q = {name.split(".", 2)[2]: array for name, array in p.items() if name.startswith(f"layers.{layer}.")}
        memory, recent = np.zeros((heads, key, value)), []
        for t, x in enumerate(xs):
            if resets[t]:
                memory, recent = np.zeros((heads, key, value)), []
            projected = q["projection.weight"] @ rms_norm(x, q["norm.weight"])
            channels = projected[: heads * (2 * key + value)]
            rest = projected[len(channels) :]
            recent.append(channels)
            if config.convolution > 1:
                channels = sum(
                    (q["convolution"][:, -1 - age] * recent[-1 - age] for age in range(min(4, len(recent)))),
                    np.zeros_like(channels),
                )
            channels = channels * sigmoid(channels)
            reads = []
            count = heads * (key + value) if config.separate_rates else heads
            rates, rest = sigmoid(rest[:count]) * (2 if config.doubled_rates else 1), rest[count:]
            count = {"none": 0, "head": heads, "channel": heads * key}[config.forgetting]
            decays, gates = rest[:count], rest[count:]
            for h in range(heads):
                query = channels[h * key : (h + 1) * key]
                k = channels[heads * key + h * key : heads * key + (h + 1) * key]
                v = channels[2 * heads * key + h * value : 2 * heads * key + (h + 1) * value]
                query, k = query / np.linalg.norm(query) / np.sqrt(key), k / np.linalg.norm(k)
                if config.separate_rates:
                    b = rates[h * key : (h + 1) * key]
                    w = rates[heads * key + h * value : heads * key + (h + 1) * value]
                else:
                    b, w = np.full(key, rates[h]), np.full(value, rates[h])
                if count:
                    raw = np.log1p(np.exp(decays + q["decay_bias"]))
                    raw = raw.reshape(heads, -1)[h]
                    memory[h] = np.exp(-np.exp(q["log_factor"][h]) * raw)[:, None] * memory[h]
                # S <- (I - k (b k)^T) S + k (w v)^T
                memory[h] = (np.eye(key) - np.outer(k, b * k)) @ memory[h] + np.outer(k, w * v)
                reads.append(rms_norm(memory[h].T @ query, q["read_norm.weight"]))
            read = np.concatenate(reads)
            if config.output_gate:
                read = read * gates * sigmoid(gates)
            xs[t] = x + q["output.weight"] @ read
    return np.array(xs)


@pytest.mark.parametrize("kernel", ["reference", "chunked"])
@every_relative
def test_the_core_follows_the_equations(relative: str, kernel: Any) -> None:
    core, generator = lively(**RELATIVES[relative], layers=2, kernel=kernel), np.random.default_rng(1)
    inputs, resets = generator.normal(size=(37, 2, 3)), generator.random((37, 2)) < 0.15
    outputs = core(torch.from_numpy(inputs), None, torch.from_numpy(resets)).outputs.detach().numpy()
    for b in range(2):
        expected = by_the_equations(core, inputs[:, b], resets[:, b])
        np.testing.assert_allclose(outputs[:, b], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kernel", ["auto", "reference", "chunked"])
@every_relative
def test_every_form_keeps_every_promise(relative: str, kernel: Any) -> None:
    promises = None if kernel == "auto" else ["steps", "resets", "resets cut gradients", "gradients"]
    check_core("delta-net", only=promises, **SMALL, **RELATIVES[relative], kernel=kernel)


def draw_commands(
    sizes: tuple[int, int, int, int, int], decay: float | None, per_channel: bool, seed: int
) -> tuple[Commands, Tensor]:
    batch, heads, steps, key, value = sizes
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    keys = nn.functional.normalize(draw(batch, heads, steps, key), dim=3)
    decays = None
    if decay is not None:
        decays = -decay * draw(batch, heads, steps, key if per_channel else 1).square()
    commands = Commands(
        draw(batch, heads, steps, key),
        keys,
        torch.rand(keys.shape, dtype=torch.float64, generator=generator) * keys,
        draw(batch, heads, steps, value),
        decays,
    )
    return Commands(
        *(None if x is None else x.requires_grad_() for x in commands)  # pyright: ignore
    ), draw(batch, heads, key, value).requires_grad_()


def results(operation: Any, commands: Commands, memory: Tensor, *rest: Any) -> dict[str, Tensor]:
    outputs, last = operation(commands, memory, *rest)
    waves = [torch.sin(1.7 * torch.arange(1.0, x.numel() + 1)).view_as(x) for x in (outputs, last)]
    loss = (outputs * waves[0]).sum() + (last * waves[1]).sum()
    given = {name: x for name, x in {**commands._asdict(), "memory": memory}.items() if x is not None}
    found = torch.autograd.grad(loss, list(given.values()))
    gradients = {f"d {name}": d for name, d in zip(given, found, strict=True)}
    return {"outputs": outputs.detach(), "last memory": last.detach(), **gradients}


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(*(st.integers(1, n) for n in (2, 2, 19, 5, 4))),
    st.sampled_from([None, 0.1, 1.0, 100.0]),
    st.booleans(),
    st.sampled_from([None, 0.1, 0.6, 1.0]),
    st.sampled_from([None, 1, 2, 8]),
    st.integers(0, 99),
)
def test_the_solved_form_is_the_recurrence(
    sizes: Any, decay: float | None, per_channel: bool, share: float | None, chunk: int | None, seed: int
) -> None:
    commands, memory = draw_commands(sizes, decay, per_channel, seed)
    generator = torch.Generator().manual_seed(seed)
    resets = None if share is None else torch.rand(sizes[0], sizes[2], generator=generator) < share
    found, expected = results(scan, commands, memory, resets, chunk), results(plain, commands, memory, resets)
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        torch.testing.assert_close(
            found[name], wanted, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("per_channel", [False, True])
def test_what_is_forgotten_at_once_leaves_everything_finite(per_channel: bool) -> None:
    commands, memory = draw_commands((2, 2, 70, 4, 3), 1e5, per_channel, 0)
    resets = torch.rand(2, 70) < 0.1
    q, k, b, v, g, start = (x.detach().float().requires_grad_() for x in (*commands, memory) if x is not None)
    for name, tensor in results(scan, Commands(q, k, b, v, g), start, resets).items():
        assert tensor.isfinite().all(), name


def test_large_inputs_leave_everything_finite() -> None:
    for changes in RELATIVES.values():
        core = make_core("delta-net", 3, **{**SMALL, **changes})
        inputs = (1e3 * torch.randn(70, 2, 3)).requires_grad_()
        output = core(inputs)
        output.outputs.sum().backward()
        for tensor in (output.outputs, *output.state, inputs.grad):
            assert tensor is not None
            assert tensor.isfinite().all()
        assert core(torch.zeros(3, 2, 3)).outputs.isfinite().all()


def step(memory: Tensor, key: Tensor, value: Tensor, rate: float = 1.0) -> Tensor:
    shape = (1, 1, -1)
    k, b, v = (x.view(shape) for x in (key, rate * key, rate * value))
    return plain_step(memory, Commands(k, k, b, v, None)).memory


def test_a_write_at_full_rate_replaces_what_its_key_held_and_nothing_else() -> None:
    one, other = torch.tensor([0.6, 0.8, 0.0]), torch.tensor([-0.8, 0.6, 0.0])
    first, second, third = torch.randn(3, 4)
    memory = step(step(torch.zeros(1, 1, 3, 4), one, first), other, second)
    torch.testing.assert_close(memory[0, 0].T @ one, first)
    memory = step(memory, one, third)
    torch.testing.assert_close(memory[0, 0].T @ one, third)
    torch.testing.assert_close(memory[0, 0].T @ other, second)
    turned = step(memory, one, torch.zeros(4), rate=2.0)
    torch.testing.assert_close(turned[0, 0].T @ one, -third)


def test_equal_rates_for_all_channels_make_gated_delta_net_2_kda() -> None:
    two, kda = lively(**RELATIVES["Gated DeltaNet-2"]), lively(**RELATIVES["KDA"])
    channels, keys, values = 2 * (2 * 3 + 4), 2 * 3, 2 * 4
    with torch.no_grad():
        own, others = layer_of(two).projection.weight, layer_of(kda).projection.weight
        rates = others[channels : channels + 2]
        repeated = [rates.repeat_interleave(3, 0), rates.repeat_interleave(4, 0)]
        own.copy_(torch.cat([others[:channels], *repeated, others[channels + 2 :]]))
        assert len(own) == channels + keys + values + keys + values
        for name, parameter in kda.named_parameters():
            if "projection" not in name:
                two.get_parameter(name).copy_(parameter)
    inputs = torch.randn(20, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(two(inputs).outputs, kda(inputs).outputs)


def test_without_its_decay_gated_delta_net_is_delta_net() -> None:
    gated, bare = lively(forgetting="head"), lively()
    inputs = torch.randn(20, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in bare.named_parameters():
            gated.get_parameter(name)[: len(parameter)].copy_(parameter)
        layer = layer_of(gated)
        assert not torch.allclose(gated(inputs).outputs, bare(inputs).outputs, atol=1e-3)
        layer.log_factor.fill_(-50)
    torch.testing.assert_close(gated(inputs).outputs, bare(inputs).outputs)


def test_a_new_core_forgets_at_the_rates_of_the_papers() -> None:
    torch.manual_seed(0)
    core = make_core("delta-net", 3, heads=32, forgetting="channel")
    layer = layer_of(core)
    steps = nn.functional.softplus(layer.decay_bias)
    assert 0.001 <= steps.min() < 0.0015 < 0.07 < steps.max() <= 0.1
    assert 1 <= layer.log_factor.exp().min() < 3 < 12 < layer.log_factor.exp().max() <= 16


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 5), st.sampled_from([None, 0.2, 1.0]), st.integers(0, 99))
def test_the_short_convolution_is_torchs_in_every_episode(
    steps: int, width: int, share: float | None, seed: int
) -> None:
    torch.manual_seed(seed)
    inputs, weights = (
        torch.randn(1, steps, 3, dtype=torch.float64),
        torch.randn(3, width, dtype=torch.float64),
    )
    recent = torch.randn(1, width - 1, 3, dtype=torch.float64)
    resets = None if share is None else torch.rand(1, steps) < share
    found, last = short_convolution(inputs, recent, weights, resets)
    starts = [] if resets is None else resets[0].nonzero().flatten().tolist()
    pieces, before = [], recent
    for start, stop in zip([0, *starts], [*starts, steps], strict=True):
        if start in starts:
            before = torch.zeros_like(recent)
        row = torch.cat([before, inputs[:, start:stop]], 1)
        if stop > start:
            pieces.append(nn.functional.conv1d(row.mT, weights.unsqueeze(1), groups=3).mT)
        before = row[:, len(row[0]) - width + 1 :]
    torch.testing.assert_close(found, torch.cat(pieces, 1))
    torch.testing.assert_close(last, before)


def test_a_reset_clears_the_convolution() -> None:
    core, inputs = lively(), torch.randn(5, 2, 3, dtype=torch.float64)
    resets = torch.zeros(5, 2, dtype=torch.bool)
    resets[3, 0] = True
    found, fresh = core(inputs, None, resets), core(inputs[3:])
    torch.testing.assert_close(found.outputs[3:, 0], fresh.outputs[:, 0])
    torch.testing.assert_close(found.state.recent[0], fresh.state.recent[0])
    assert not found.state.recent[0, 0, 0].any()
    assert found.state.recent[1].abs().min() > 0


def test_the_trace_is_of_the_write_and_the_read() -> None:
    core, inputs = lively(layers=2, forgetting="head"), torch.randn(6, 2, 3, dtype=torch.float64)
    trace = core(inputs, record=True).trace
    before, after = core(inputs[:3]).state.memory, core(inputs[:4]).state.memory
    torch.testing.assert_close(trace["write_sizes"][3], torch.linalg.matrix_norm(after - before).flatten(1))
    torch.testing.assert_close(trace["memory_distances"][3], torch.linalg.matrix_norm(after).flatten(1))
    read = torch.einsum("blhkv,blhk->blhv", after, trace["read_keys"][3].unflatten(1, (2, 2)))
    torch.testing.assert_close(trace["read_values"][3], read.flatten(1, 2))
    assert trace["rates"].shape == (6, 2, 4)
    torch.testing.assert_close(trace["write_keys"].norm(dim=3), torch.ones(6, 2, 4, dtype=torch.float64))


def test_it_keeps_no_matrix_for_each_step() -> None:
    core = make_core("delta-net", 8, hidden_size=16, heads=1, key_size=64, value_size=64, convolution=1)
    inputs, kept = torch.randn(128, 2, 8), {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        core(inputs)
    assert sum(kept.values()) / inputs[..., 0].numel() < 64 * 64 / 2


def test_it_learns_to_answer_with_the_partner_of_a_symbol() -> None:
    torch.manual_seed(0)
    core = make_core("delta-net", 9, hidden_size=32, heads=2, key_size=16, value_size=16)
    head = nn.Linear(32, 8)
    optimizer = torch.optim.Adam([*core.parameters(), *head.parameters()], 0.01)
    for _ in range(250):
        order = torch.rand(64, 8).argsort(1)[:, :4]
        asked = torch.randint(2, (64, 1))
        row = torch.cat([order, order.gather(1, 2 * asked)], 1)
        places = torch.tensor([0, 1, 0, 1, 0]).expand(64, 5).unsqueeze(2)
        inputs = torch.cat([nn.functional.one_hot(row, 8), places], 2)
        logits = head(core(inputs.transpose(0, 1).float()).outputs[-1])
        answers = order.gather(1, 2 * asked + 1).squeeze(1)
        loss = nn.functional.cross_entropy(logits, answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (logits.argmax(1) == answers).float().mean() > 0.97


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"layers": 1001}, "layers must be at most 1000, got 1001"),
        ({"convolution": 0}, "convolution must be at least 1, got 0"),
        ({"forgetting": "all"}, "forgetting must be one of none, head, channel, got 'all'"),
        ({"kernel": "cpu"}, "kernel must be one of auto, reference, chunked, got 'cpu'"),
    ],
)
def test_settings_are_checked(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_core("delta-net", 3, **setting)
