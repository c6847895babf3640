"""The DNC against the equations of Graves et al. (2016) and of Csordas and Schmidhuber (2019)."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mnm_rl.cores import make_core
from mnm_rl.cores.dnc import DNCConfig, DNCCore, DNCState
from mnm_rl.kernels import dnc as kernel
from mnm_rl.kernels import recurrent
from mnm_rl.memory import dnc as memory_of
from mnm_rl.testing import check_core

SMALL: dict[str, Any] = dict(hidden_size=5, slots=6, slot_size=3, read_heads=2)
VARIANTS: dict[str, dict[str, Any]] = {
    "published": dict(masked=False, deallocating=False),
    "default": {},
    "all": dict(mask_minimum=0.1, sharpened=True),
    "contents": dict(links=False),
}
needs_compiler = pytest.mark.skipif(not recurrent.compiles(), reason="no compiler")
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def lively(seed: int = 0, input_size: int = 4, **settings: Any) -> DNCCore:
    """A core in float64 whose gates and look-ups are far from their middle."""
    torch.manual_seed(seed)
    core = make_core("dnc", input_size, **{**SMALL, **settings}).double()
    assert isinstance(core, DNCCore)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.mul_(3)
    return core


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


class Equations:
    """One example, one step at a time, with a loop wherever the paper has an index."""

    def __init__(self, core: DNCCore):
        self.config = config = core.config
        named = {name: value.detach().numpy() for name, value in core.named_parameters()}
        self.named, heads, slots = named, config.read_heads, config.slots
        self.h = self.c = np.zeros(config.hidden_size)
        self.r, self.memory = np.zeros((heads, config.slot_size)), np.zeros((slots, config.slot_size))
        self.usage = self.w = self.precedence = np.zeros(slots)
        self.w_r, self.link = np.zeros((heads, slots)), np.zeros((slots, slots))

    def controller(self, x: np.ndarray) -> None:
        sums = self.named["controller.weight_ih"] @ np.concatenate([x, self.r.reshape(-1)])
        sums = sums + self.named["controller.weight_hh"] @ self.h
        sums = sums + self.named["controller.bias_ih"] + self.named["controller.bias_hh"]
        i, f, g, o = np.split(sums, 4)
        self.c = sigmoid(f) * self.c + sigmoid(i) * np.tanh(g)
        self.h = sigmoid(o) * np.tanh(self.c)

    def interface(self) -> dict[str, np.ndarray]:
        config = self.config
        xi = np.clip(self.named["interface.weight"] @ self.h + self.named["interface.bias"], -20, 20)
        heads, size, place, parts = config.read_heads, config.slot_size, 0, {}
        lengths = dict(keys=(heads + 1) * size, v=size, beta=heads + 1)
        lengths |= dict(sharp=2 * heads) if config.sharpened else {}
        lengths |= dict(masks=(heads + 1) * size) if config.masked else {}
        lengths |= dict(e=size, f=heads, g_a=1, g_w=1)
        lengths |= dict(modes=3 * heads) if config.links else {}
        for name, length in lengths.items():
            parts[name], place = xi[place : place + length], place + length
        assert place == len(xi)
        return parts

    def content(self, key: np.ndarray, mask: np.ndarray, beta: float) -> np.ndarray:
        scores = []
        for row in self.memory:
            a, b = row * mask, key * mask
            norms = math.sqrt(a @ a + 1e-6) * math.sqrt(b @ b + 1e-6)
            scores.append(beta * (a @ b) / (norms + 1e-6))
        return softmax(np.array(scores))

    def allocation(self) -> np.ndarray:
        usage = 1e-6 + (1 - 1e-6) * self.usage
        free, product = np.zeros_like(usage), 1.0
        for slot in sorted(range(len(usage)), key=lambda i: usage[i]):
            free[slot] = (1 - usage[slot]) * product
            product *= usage[slot]
        return free

    def sharp(self, weights: np.ndarray, power: float) -> np.ndarray:
        raised = (weights + 1e-6) ** power
        return raised / raised.sum()

    def step(self, x: np.ndarray) -> np.ndarray:
        config = self.config
        self.controller(x)
        xi, heads, slots = self.interface(), config.read_heads, config.slots
        keys = xi["keys"].reshape(heads + 1, -1)
        masks = np.ones_like(keys)
        if config.masked:
            least = config.mask_minimum
            masks = least + (1 - least) * sigmoid(xi["masks"]).reshape(heads + 1, -1)
        beta, erase, free = 1 + np.log1p(np.exp(xi["beta"])), sigmoid(xi["e"]), sigmoid(xi["f"])
        psi = np.array([np.prod([1 - free[r] * self.w_r[r, i] for r in range(heads)]) for i in range(slots)])
        self.usage = (self.usage + self.w - self.usage * self.w) * psi
        g_a, g_w = sigmoid(xi["g_a"]), sigmoid(xi["g_w"])
        w = g_w * (g_a * self.allocation() + (1 - g_a) * self.content(keys[-1], masks[-1], beta[-1]))
        kept = psi if config.deallocating else np.ones(slots)
        self.memory = np.array(
            [self.memory[i] * kept[i] * (1 - w[i] * erase) + w[i] * xi["v"] for i in range(slots)]
        )
        link = np.zeros((slots, slots))
        for i, j in itertools.permutations(range(slots), 2):
            link[i, j] = (1 - w[i] - w[j]) * self.link[i, j] + w[i] * self.precedence[j]
        self.precedence = (1 - w.sum()) * self.precedence + w
        self.link, self.w, last = link, w, self.w_r
        self.w_r = np.array([self.content(keys[r], masks[r], beta[r]) for r in range(heads)])
        if config.links:
            modes = xi["modes"].reshape(3, heads)
            for r in range(heads):
                backward, forward, pi = link.T @ last[r], link @ last[r], softmax(modes[:, r])
                if config.sharpened:
                    powers = 1 + np.log1p(np.exp(xi["sharp"].reshape(2, heads)[:, r]))
                    backward, forward = self.sharp(backward, powers[0]), self.sharp(forward, powers[1])
                self.w_r[r] = pi[0] * backward + pi[1] * self.w_r[r] + pi[2] * forward
        self.r = self.w_r @ self.memory
        y = self.named["output.weight"] @ np.concatenate([self.h, self.r.reshape(-1)])
        return y + self.named["output.bias"]


@every_variant
@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_the_core_follows_the_equations(variant, kernel):
    core, inputs = lively(**VARIANTS[variant], kernel=kernel), draw(12, 2, 4)
    output = core(inputs)
    for b in range(2):
        oracle = Equations(core)
        expected = np.array([oracle.step(x) for x in inputs[:, b].numpy()])
        np.testing.assert_allclose(output.outputs[:, b].detach(), expected, atol=1e-9)
        found = output.state
        pairs = [(found.memory, oracle.memory), (found.usage, oracle.usage), (found.read_weights, oracle.w_r)]
        if core.config.links:
            pairs += [(found.link, oracle.link), (found.precedence, oracle.precedence)]
        for one, other in pairs:
            np.testing.assert_allclose(one[b].detach(), other, atol=1e-9)


def total(core: DNCCore, inputs: Tensor, state: Any, resets: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Results, and gradients of a number that depends on every one of them, also in the last state."""
    output = core(inputs, state, resets)
    results = [output.outputs, *output.state]
    weights = [draw(*result.shape, seed=i) for i, result in enumerate(results)]
    loss = torch.stack([(w * result).sum() for w, result in zip(weights, results, strict=True)]).sum()
    leaves = [inputs, *core.parameters(), *state]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    zeros = [torch.zeros_like(leaf) for leaf in leaves]
    return results, [zero if g is None else g for g, zero in zip(found, zeros, strict=True)]


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 3)),
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 5)),
    switches=st.tuples(*[st.booleans()] * 6),
    seed=st.integers(0, 1000),
)
def test_the_fast_form_gives_what_the_loop_gives(shape, sizes, switches, seed):
    names = ("masked", "deallocating", "links", "sharpened", "usage_gradient", "link_gradient")
    chosen: dict[str, Any] = dict(zip(names, switches, strict=True))
    chosen["mask_minimum"] = 0.2 if chosen["masked"] else 0.0
    chosen["sharpened"] = chosen["sharpened"] and chosen["links"]
    chosen |= dict(zip(("slots", "slot_size", "read_heads"), sizes, strict=True))
    fast, slow = lively(seed, **chosen), lively(seed, **chosen, kernel="reference")
    assert_same(fast, slow, shape, seed)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 3)),
    sizes=st.tuples(st.integers(8, 70), st.integers(5, 20), st.integers(1, 5)),
    switches=st.tuples(*[st.booleans()] * 4),
    seed=st.integers(0, 1000),
)
def test_the_fast_form_with_whole_vectors_and_many_slots(shape, sizes, switches, seed):
    """Without allocation: among many slots some are used alike, and rounding decides their order."""
    chosen: dict[str, Any] = dict(zip(("slots", "slot_size", "read_heads"), sizes, strict=True))
    chosen |= dict(zip(("masked", "deallocating", "links", "usage_gradient"), switches, strict=True))
    chosen["mask_minimum"] = 0.2 if chosen["masked"] else 0.0
    fast, slow = lively(seed, **chosen), lively(seed, **chosen, kernel="reference")
    before = sum(slow.switches.part_sizes()[:7])
    for core in (fast, slow):
        with torch.no_grad():
            core.interface.weight[before] = 0
            core.interface.bias[before] = -1e3
    assert_same(fast, slow, shape, seed)


def assert_same(fast: DNCCore, slow: DNCCore, shape: tuple[int, int], seed: int) -> None:
    """Outputs, the last state and all gradients, of sequences with resets in them."""
    inputs = draw(*shape, 4, seed=seed).requires_grad_()
    assert not slow._fits_kernel(inputs, slow.initial_state(shape[1]))
    resets = draw(*shape, seed=seed + 1) > 1
    start = slow(draw(3, shape[1], 4, seed=seed + 2)).state
    state = type(start)(*[field.detach().requires_grad_() for field in start])
    for ours, theirs in zip(*(total(core, inputs, state, resets) for core in (fast, slow)), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_without_a_compiler_the_loop_runs_in_segments(monkeypatch, steps):
    monkeypatch.setattr(kernel, "fits", lambda *arguments: False)
    pieces, slow = lively(), lively(kernel="reference")
    inputs, resets = draw(steps, 2, 4).requires_grad_(), draw(steps, 2, seed=9) > 1
    state = slow.initial_state(2)
    state = type(state)(*[field.requires_grad_() for field in state])
    for ours, theirs in zip(*(total(core, inputs, state, resets) for core in (pieces, slow)), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


GIVEN = {
    "vector": (2, 37),
    "before 0": (2, 5),
    "before 1": (2, 5),
    "before 2": (2, 2, 5),
    "before 3": (2, 5),
    "memory": (2, 5, 3),
    "link": (2, 5, 5),
}


@needs_compiler
@pytest.mark.parametrize("spoiled", GIVEN)
def test_the_operation_refuses_what_does_not_fit(spoiled):
    changes = {
        "size": lambda x: x.new_zeros(*x.shape[:-1], x.shape[-1] + 1),
        "dtype": lambda x: x.half(),
        "order": lambda x: x.new_zeros(*x.shape[:-1], 2 * x.shape[-1])[..., ::2],
    }

    def run(tensors: dict[str, Tensor]) -> None:
        vectors = [tensors[f"before {i}"] for i in range(4)]
        operator = kernel.cpu.operators().dnc_forward
        operator(tensors["vector"], vectors, tensors["memory"], tensors["link"], 2, 0.1, True, True)

    tensors = {name: torch.zeros(shape) for name, shape in GIVEN.items()}
    run(tensors)
    for change in changes.values():
        with pytest.raises(ValueError, match=r"must (be|have)"):
            run({**tensors, spoiled: change(tensors[spoiled])})


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "default"])
def test_variants_keep_every_promise(variant):
    check_core("dnc", **SMALL, **VARIANTS[variant], usage_gradient=True)


def test_the_reference_keeps_every_promise():
    check_core("dnc", **SMALL, usage_gradient=True, kernel="reference")


def kept_bytes(core: DNCCore, inputs: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass, each storage once."""
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = core(inputs).outputs
    assert output.requires_grad
    return sum(size for size, _ in kept.values())


@needs_compiler
@pytest.mark.parametrize("has_resets", [False, True])
@pytest.mark.parametrize("links", [False, True])
def test_blocks_of_sequences_change_nothing(monkeypatch, links, has_resets):
    core, inputs = lively(links=links), draw(11, 7, 4).requires_grad_()
    resets = torch.rand(11, 7) < 0.2 if has_resets else torch.zeros(11, 7, dtype=torch.bool)
    state = core.initial_state(7)
    state = type(state)(*[field.requires_grad_() for field in state])
    together = total(core, inputs, state, resets)
    monkeypatch.setattr(kernel, "CACHE_BYTES", 1)
    monkeypatch.setattr(kernel, "LEAST_BLOCK", 3)
    for ours, theirs in zip(total(core, inputs, state, resets), together, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


@needs_compiler
def test_the_operation_runs_where_it_has_what_is_asked_for():
    inputs = draw(3, 2, 4)
    for changes, fits in (({}, True), (dict(links=False), True), (dict(sharpened=True), False)):
        core = lively(**changes)
        assert core._fits_kernel(inputs, core.initial_state(2)) == fits
    core = lively()
    core.interface.register_forward_hook(lambda *_: None)
    assert not core._fits_kernel(inputs, core.initial_state(2))


def test_the_fast_form_keeps_a_tenth_of_the_loops_memory():
    wide = dict(hidden_size=32, slots=64, slot_size=16, read_heads=2)
    fast, slow = lively(**wide), lively(**wide, kernel="reference")
    inputs = draw(64, 2, 4)
    assert kept_bytes(fast, inputs) < kept_bytes(slow, inputs) / 10


# Properties of the parts.


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 100).map(lambda percent: percent / 100), min_size=2, max_size=9))
def test_allocation_goes_to_the_least_used(usages):
    usage = torch.tensor([usages], dtype=torch.float64)
    free = memory_of.allocation(usage)
    moved = 1e-6 + (1 - 1e-6) * usage
    torch.testing.assert_close(free.sum(1), 1 - moved.prod(1))
    assert free.min() >= 0
    if len(set(usages)) == len(usages):
        least = int(usage.argmin())
        torch.testing.assert_close(free[0, least], 1 - moved[0, least])
        order = torch.randperm(len(usages), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(memory_of.allocation(usage[:, order]), free[:, order])


def test_ties_are_taken_in_order():
    free = memory_of.allocation(torch.zeros(1, 5))
    assert free.argmax() == 0
    torch.testing.assert_close(free[0, 0].item(), 1 - 1e-6)


def test_weights_and_links_stay_in_their_bounds():
    core = lively(slots=7)
    trace = core(draw(60, 3, 4), record=True).trace
    output = core(draw(60, 3, 4))
    assert trace["usage"].min() >= 0
    assert trace["usage"].max() <= 1
    for name in ("write_weights", "read_weights"):
        assert trace[name].min() >= 0
        assert trace[name].sum(-1).max() <= 1 + 1e-9
    link = output.state.link
    assert not link.diagonal(dim1=1, dim2=2).any()
    assert link.min() >= 0
    assert max(link.sum(1).max(), link.sum(2).max()) <= 1 + 1e-9
    assert output.state.precedence.sum(1).max() <= 1 + 1e-9


def test_links_lead_from_write_to_write():
    slots = 5
    link, precedence = torch.zeros(1, slots, slots), torch.zeros(1, slots)
    for slot in range(slots):
        weights = torch.eye(slots)[slot : slot + 1]
        link = memory_of.next_link(link, precedence, weights)
        precedence = memory_of.next_precedence(precedence, weights)
        assert torch.equal(precedence, weights)
    for slot in range(slots - 1):
        assert link[0, slot + 1, slot] == 1
        read = torch.eye(slots)[slot]
        assert torch.equal(link[0] @ read, torch.eye(slots)[slot + 1])
        assert torch.equal(link[0].T @ torch.eye(slots)[slot + 1], read)


def with_gates(core: DNCCore, **biases: float) -> DNCCore:
    """The core with parts of its interface fixed by their biases."""
    names = ("keys", "v", "beta", "sharpness", "masks", "erase", "free", "allocation", "write", "modes")
    ends = np.cumsum(core.switches.part_sizes())
    with torch.no_grad():
        for name, bias in biases.items():
            place = names.index(name)
            rows = slice(ends[place - 1], ends[place])
            core.interface.weight[rows], core.interface.bias[rows] = 0, bias
    return core


def test_a_closed_write_gate_changes_nothing_but_the_usage():
    core = lively(deallocating=False)
    state = core(draw(5, 2, 4)).state
    closed = with_gates(core, write=-1000.0)
    after = closed.step(draw(2, 4, seed=3), state)[1]
    for name in ("memory", "link", "precedence"):
        torch.testing.assert_close(getattr(after, name), getattr(state, name), atol=1e-7, rtol=1e-7)
    assert not torch.allclose(after.usage, state.usage, atol=1e-3)


def test_what_is_freed_is_free_and_empty():
    core = with_gates(lively(), free=1000.0, write=-1000.0)
    state = core(draw(5, 2, 4)).state
    state = state._replace(memory=torch.ones_like(state.memory), usage=torch.ones_like(state.usage))
    one_hot = torch.zeros_like(state.read_weights)
    one_hot[:, :, 2] = 1
    after = core.step(draw(2, 4, seed=3), state._replace(read_weights=one_hot))[1]
    assert after.usage[:, 2].abs().max() < 1e-7
    assert after.memory[:, 2].abs().max() < 1e-7
    assert after.usage[:, 3].min() > 0.99
    assert after.memory[:, 3].min() > 0.99


def test_without_links_it_is_the_core_that_only_looks_up_contents():
    linked, unlinked = lively(), lively(links=False)
    modes = 3 * linked.config.read_heads
    with torch.no_grad():
        for name, parameter in unlinked.named_parameters():
            source = linked.get_parameter(name)
            parameter.copy_(source[:-modes] if name.startswith("interface") else source)
        linked.interface.weight[-modes:] = 0
        linked.interface.bias[-modes:] = torch.tensor([-20.0, 20.0, -20.0]).repeat_interleave(modes // 3)
    inputs = draw(9, 2, 4)
    torch.testing.assert_close(linked(inputs).outputs, unlinked(inputs).outputs)


@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_numbers_stay_finite(kernel):
    core = make_core("dnc", 4, **SMALL, kernel=kernel)
    for inputs in (torch.zeros(6, 2, 4), 1e3 * torch.randn(6, 2, 4)):
        output = core(inputs.requires_grad_())
        found = torch.autograd.grad(output.outputs.sum(), [inputs, *core.parameters()])
        assert all(tensor.isfinite().all() for tensor in (output.outputs, *output.state, *found))


def test_gradients_of_the_usage_stop_by_default_and_reach_the_last_write_with_the_switch():
    inputs, state = draw(3, 2, 4), lively()(draw(4, 2, 4)).state
    for flows in (False, True):
        core = lively(usage_gradient=flows)
        weights = state.write_weights.detach().requires_grad_()
        outputs = core(inputs, state._replace(write_weights=weights)).outputs
        (found,) = torch.autograd.grad(outputs.sum(), weights, allow_unused=True)
        assert bool(found.any()) == flows


def test_sparse_forms_are_the_dense_one_when_all_slots_may_stay():
    inputs, full = draw(8, 2, 4), dict(sparse_reads=6, sparse_writes=6, sparse_links=6)
    dense, sparse = lively(kernel="reference"), lively(kernel="reference", **full)
    assert torch.equal(dense(inputs).outputs, sparse(inputs).outputs)


def test_sparse_forms_keep_the_largest():
    core = lively(sparse_reads=2, sparse_writes=3, sparse_links=1)
    output = core(draw(12, 2, 4), record=True)
    assert (output.trace["read_weights"] > 0).sum(-1).max() == 2
    assert (output.trace["write_weights"] > 0).sum(-1).max() == 3
    assert (output.state.link > 0).sum(2).max() == 1
    weights = draw(2, 3, 6).abs()
    kept = memory_of.keep_largest(weights, 2)
    torch.testing.assert_close(kept.sum(2), weights.sum(2))
    assert torch.equal(kept.topk(2).indices, weights.topk(2).indices)


def test_sizes_of_what_is_trained():
    core = make_core("dnc", 7, hidden_size=256, slots=256, slot_size=64, read_heads=4, output_size=9)
    count = sum(parameter.numel() for parameter in core.parameters())
    interface = 4 * 64 + 3 * 64 + 5 * 4 + 3 + 5 * 64  # Graves et al. 2016, and the masks
    assert count == 4 * 256 * (7 + 256 + 256 + 2) + 257 * interface + 9 * (512 + 1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"slots": 0}, "slots must be at least 1, got 0"),
        ({"slot_size": -1}, "slot_size must be at least 1, got -1"),
        ({"read_heads": 0}, "read_heads must be at least 1, got 0"),
        ({"output_size": 0}, "output_size must be at least 1, got 0"),
        ({"mask_minimum": 1.0}, "mask_minimum must be at least 0 and below 1, got 1.0"),
        ({"masked": False, "mask_minimum": 0.1}, "mask_minimum is for masked look-up, and masked is false"),
        ({"slots": 8, "sparse_reads": 9}, "sparse_reads must be from 1 to the number of slots, 8, got 9"),
        ({"sparse_writes": 0}, "sparse_writes must be from 1 to the number of slots, 64, got 0"),
        ({"links": False, "sharpened": True}, "sharpened is for memories with links"),
        ({"links": False, "sparse_links": 2}, "sparse_links is for memories with links"),
        ({"kernel": "cuda"}, "kernel must be one of auto, reference, got 'cuda'"),
    ],
)
def test_settings_are_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        make_core("dnc", 4, **setting)
    with pytest.raises(ValueError, match=message):
        DNCConfig(**setting)


def test_acting_leaves_a_state_alone_that_did_not_come_from_the_step_before():
    core, inputs = lively(), draw(4, 2, 4)
    with torch.no_grad(), core.acting():
        state = core(inputs).state
        before = [field.clone() for field in state]
        _, second = core.step(inputs[0], state)
        assert all(torch.equal(one, other) for one, other in zip(before, state, strict=True))
        _, third = core.step(inputs[1], second)
        assert isinstance(second, DNCState)
        assert isinstance(third, DNCState)
        if recurrent.compiles():
            assert third.memory is second.memory
            assert third.link is second.link


def test_it_learns_to_repeat_five_symbols():
    torch.manual_seed(0)
    core = make_core("dnc", 6, hidden_size=32, slots=8, slot_size=8, read_heads=1, output_size=5)
    optimizer = torch.optim.Adam(core.parameters(), 1e-2)
    generator, error = torch.Generator().manual_seed(0), 1.0
    for _ in range(600):
        symbols = torch.randint(0, 5, (3, 32), generator=generator)
        inputs = torch.zeros(6, 32, 6)
        inputs[:3, :, :5], inputs[3:, :, 5] = torch.nn.functional.one_hot(symbols, 5).float(), 1
        logits = core(inputs).outputs[3:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), symbols.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(core.parameters(), 10)
        optimizer.step()
        error = 0.9 * error + 0.1 * (logits.argmax(2) != symbols).float().mean().item()
        if error < 0.01:
            return
    pytest.fail(f"{error:.1%} of the symbols are wrong")
