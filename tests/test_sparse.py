"""Sparse access memory and the sparse DNC: the equations of Rae et al. (2016), and properties."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mnm_rl.cores import core_settings, make_core
from mnm_rl.cores.sparse import (
    SparseConfig,
    SparseCore,
    least_recently_accessed,
    relink,
    sparse_write,
    sparse_write_weights,
)
from mnm_rl.testing import PROMISES, check_core

SMALL: dict[str, Any] = dict(hidden_size=5, slots=7, slot_size=3, read_heads=2, sparse_reads=2)
both = pytest.mark.parametrize("name", ["sam", "sdnc"])


def lively(name: str, seed: int = 0, **settings: Any) -> SparseCore:
    torch.manual_seed(seed)
    links = dict(sparse_links=3) if name == "sdnc" else {}
    core = make_core(name, 4, **{**SMALL, **links, **settings}).double()
    assert isinstance(core, SparseCore)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.mul_(3)
    return core


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def cut(row: np.ndarray, count: int) -> np.ndarray:
    """The largest ``count``, the first of equals."""
    kept = sorted(range(len(row)), key=lambda i: (-row[i], i))[:count]
    return np.array([value if i in kept else 0.0 for i, value in enumerate(row)])


class Equations:
    """One example, one step at a time, with a loop wherever the paper has an index."""

    def __init__(self, core: SparseCore):
        self.config, self.named = core.config, {k: v.detach().numpy() for k, v in core.named_parameters()}
        heads, slots, size = core.config.read_heads, core.config.slots, core.config.slot_size
        self.h = self.c = np.zeros(core.config.hidden_size)
        self.r, self.memory, self.w_r = (
            np.zeros((heads, size)),
            np.zeros((slots, size)),
            np.zeros((heads, slots)),
        )
        self.last_access, self.t, self.p = np.zeros(slots), 0, np.zeros(slots)
        self.n, self.b = np.zeros((slots, slots)), np.zeros((slots, slots))

    def controller(self, x: np.ndarray) -> np.ndarray:
        named = self.named
        sums = named["controller.weight_ih"] @ np.concatenate([x, self.r.reshape(-1)])
        sums = sums + named["controller.weight_hh"] @ self.h
        i, f, g, o = np.split(sums + named["controller.bias_ih"] + named["controller.bias_hh"], 4)
        self.c = sigmoid(f) * self.c + sigmoid(i) * np.tanh(g)
        self.h = sigmoid(o) * np.tanh(self.c)
        return np.clip(named["interface.weight"] @ self.h + named["interface.bias"], -20, 20)

    def content(self, query: np.ndarray, beta: float) -> np.ndarray:
        def norm(x: np.ndarray) -> float:
            return math.sqrt(x @ x + 1e-6)

        cosines = np.array([row @ query / (norm(row) * norm(query) + 1e-6) for row in self.memory])
        winners = sorted(range(len(cosines)), key=lambda i: (-cosines[i], i))[: self.config.sparse_reads]
        raised = {i: math.exp(beta * cosines[i]) for i in winners}
        return np.array([raised.get(i, 0.0) / sum(raised.values()) for i in range(len(cosines))])

    def step(self, x: np.ndarray) -> np.ndarray:
        config, slots = self.config, self.config.slots
        sizes = config.part_sizes()
        queries, beta, words, alpha, gamma, modes = np.split(self.controller(x), np.cumsum(sizes)[:-1])
        queries, words = queries.reshape(-1, config.slot_size), words.reshape(-1, config.slot_size)
        beta, alpha, gamma = 1 + np.log1p(np.exp(beta)), sigmoid(alpha), sigmoid(gamma)
        oldest = sorted(range(slots), key=lambda i: (self.last_access[i], i))[: config.writers]
        last = self.w_r.mean(0, keepdims=True) if config.links else self.w_r
        w = np.zeros((config.writers, slots))
        for d, i in itertools.product(range(config.writers), range(slots)):
            w[d, i] = alpha[d] * (gamma[d] * last[d, i] + (1 - gamma[d]) * (i == oldest[d]))
        for i in range(slots):
            kept = np.zeros(config.slot_size) if i in oldest else self.memory[i]
            self.memory[i] = kept + sum(w[d, i] * words[d] for d in range(config.writers))
        reads = np.array([self.content(queries[r], beta[r]) for r in range(config.read_heads)])
        if config.links:
            reads = self.follow(w[0], reads, modes.reshape(3, -1))
        self.w_r, self.r = reads, reads @ self.memory
        self.t += 1
        for i in range(slots):
            if w[:, i].sum() + reads[:, i].sum() > 0.005:
                self.last_access[i] = self.t
        y = self.named["output.weight"] @ np.concatenate([self.h, self.r.reshape(-1)])
        return y + self.named["output.bias"]

    def follow(self, w: np.ndarray, contents: np.ndarray, modes: np.ndarray) -> np.ndarray:
        n, b, count = np.zeros_like(self.n), np.zeros_like(self.b), self.config.sparse_links
        for i, j in itertools.product(range(len(w)), repeat=2):
            n[i, j] = (1 - w[i]) * self.n[i, j] + w[i] * self.p[j]
            b[i, j] = (1 - w[j]) * self.b[i, j] + w[j] * self.p[i]
        self.p = cut((1 - w.sum()) * self.p + w, count)
        self.n, self.b = (np.array([cut(row, count) for row in matrix]) for matrix in (n, b))
        mixed = []
        for r, content in enumerate(contents):
            pi = np.exp(modes[:, r]) / np.exp(modes[:, r]).sum()
            ways = self.b @ self.w_r[r], content, self.n @ self.w_r[r]
            mixed.append(
                cut(
                    np.sum([p * way for p, way in zip(pi, ways, strict=True)], axis=0),
                    self.config.sparse_reads,
                )
            )
        return np.array(mixed)


@both
def test_the_core_follows_the_equations(name):
    core, inputs = lively(name), draw(14, 2, 4)
    output = core(inputs)
    for b in range(2):
        oracle = Equations(core)
        expected = np.array([oracle.step(x) for x in inputs[:, b].numpy()])
        np.testing.assert_allclose(output.outputs[:, b].detach(), expected, atol=1e-9)
        np.testing.assert_allclose(output.state.memory[b].detach(), oracle.memory, atol=1e-9)
        np.testing.assert_array_equal(output.state.ages[b], oracle.t - oracle.last_access)
        if name == "sdnc":
            np.testing.assert_allclose(output.state.forward_link[b].detach(), oracle.n, atol=1e-9)
            np.testing.assert_allclose(output.state.backward_link[b].detach(), oracle.b, atol=1e-9)


@both
def test_few_slots_are_read_and_written(name):
    core = lively(name)
    output = core(draw(30, 3, 4), record=True)
    trace, config = output.trace, core.config
    assert ((trace["read_weights"] != 0).sum(-1) <= config.sparse_reads).all()
    per_writer = config.sparse_reads * (config.read_heads if config.links else 1) + 1
    assert ((trace["write_weights"] != 0).sum(-1) <= per_writer).all()
    if name == "sdnc":
        for links in (output.state.forward_link, output.state.backward_link):
            assert ((links != 0).sum(2) <= config.sparse_links).all()
            assert links.min() >= 0
            assert links.max() <= 1


@both
def test_as_many_as_there_are_slots_is_an_ordinary_look_up(name):
    core = lively(name, sparse_reads=7)
    queries, memory, strengths = draw(2, 2, 3), draw(2, 7, 3, seed=2), draw(2, 2, seed=3).abs() + 1
    cosines = torch.nn.functional.cosine_similarity(queries[:, :, None], memory[:, None], dim=3)
    expected = (strengths[:, :, None] * cosines).softmax(2)
    found = core._contents(queries, strengths, memory)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_what_was_not_accessed_for_longest_is_written_next():
    ages = torch.tensor([[3, 9, 0, 9, 1]])
    assert least_recently_accessed(ages, 3).int().tolist() == [
        [[0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [1, 0, 0, 0, 0]]
    ]
    # A core that writes to the oldest slot alone goes through all of them in turn.
    core = lively("sdnc", sparse_reads=1)
    start = sum(core.config.part_sizes()[:3])
    with torch.no_grad():
        core.interface.weight[start : start + 2] = 0
        core.interface.bias[start : start + 2] = torch.tensor([20.0, -20.0])
    trace = core(draw(5, 1, 4), record=True).trace
    assert trace["write_weights"][0, 0, 0].argmax() == 0
    ages = trace["ages"][:, 0]
    for t in range(1, 5):
        assert trace["write_weights"][t, 0, 0].argmax() == ages[t - 1].argmax()


def test_the_oldest_slot_is_emptied_even_if_nothing_is_written():
    memory, oldest = draw(1, 4, 3), torch.tensor([[[False, True, False, False]]])
    weights = sparse_write_weights(torch.zeros(1, 1), torch.rand(1, 1), torch.rand(1, 1, 4), oldest).double()
    after = sparse_write(memory, weights, draw(1, 1, 3, seed=2), oldest)
    assert not after[0, 1].any()
    assert torch.equal(after[0, [0, 2, 3]], memory[0, [0, 2, 3]])


def test_links_lead_from_write_to_write_both_ways():
    slots = 4
    forward = backward = torch.zeros(1, slots, slots)
    precedence = torch.zeros(1, slots)
    for slot in (2, 0, 3, 1):
        weights = torch.eye(slots)[slot : slot + 1]
        forward, backward = relink(forward, backward, precedence, weights, 1, 1)
        precedence = weights
    for old, new in itertools.pairwise((2, 0, 3, 1)):
        assert (forward[0] @ torch.eye(slots)[old]).argmax() == new
        assert (backward[0] @ torch.eye(slots)[new]).argmax() == old
    assert torch.equal(forward, backward.mT)
    assert not forward.diagonal(dim1=1, dim2=2).any()


def test_slots_that_are_not_read_have_no_gradient():
    core = lively("sam")
    queries, strengths = draw(1, 2, 3), torch.ones(1, 2, dtype=torch.float64)
    memory = draw(1, 7, 3, seed=2).requires_grad_()
    weights = core._contents(queries, strengths, memory)
    (found,) = torch.autograd.grad((draw(1, 2, 7) * weights).sum(), memory)
    is_read = (weights[0] > 0).any(0)
    assert is_read.sum() < 7
    assert not found[0, ~is_read].any()
    assert found[0, is_read].abs().min() > 0


@both
def test_the_memory_is_not_kept_for_the_backward_pass(name):
    core = lively(name, slots=200, slot_size=10)
    shapes, inputs = [], draw(5, 2, 4)

    def pack(tensor: Tensor) -> Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        core(inputs)
    assert len(shapes) > 50
    assert not [shape for shape in shapes if shape[-2:] == (200, 10) and 0 not in shape]


@pytest.mark.parametrize(("name", "count"), [("sam", 1), ("sam", 7), ("sdnc", 7)])
def test_every_number_of_slots_keeps_every_promise(name, count):
    links: dict[str, Any] = dict(link_gradient=True, sparse_links=count) if name == "sdnc" else {}
    check_core(name, **{**SMALL, "sparse_reads": count}, **links)


def test_what_is_cut_off_breaks_no_promise_but_that_of_differences():
    # Where another slot becomes the K-th largest, outputs jump.
    smooth = [promise for promise in PROMISES if promise != "gradients"]
    check_core("sdnc", only=smooth, **SMALL, sparse_links=3)


@both
def test_numbers_stay_finite(name):
    core = lively(name).float()
    for inputs in (torch.zeros(6, 2, 4), 1e3 * torch.randn(6, 2, 4)):
        output = core(inputs.requires_grad_())
        found = torch.autograd.grad(output.outputs.sum(), [inputs, *core.parameters()])
        floats = [field for field in output.state if field.is_floating_point()]
        assert all(tensor.isfinite().all() for tensor in (output.outputs, *floats, *found))


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("sam", {"slots": 0}, "slots must be at least 1, got 0"),
        (
            "sam",
            {"slots": 5, "sparse_reads": 6},
            "sparse_reads must be from 1 to the number of slots, 5, got 6",
        ),
        ("sdnc", {"slots": 5}, "sparse_links must be from 1 to the number of slots, 5, got 8"),
        ("sdnc", {"sparse_links": 0}, "sparse_links must be from 1 to the number of slots, 64, got 0"),
        (
            "sam",
            {"slots": 4, "read_heads": 5},
            "must be a slot for each head to write to, and 5 read_heads have 4",
        ),
        ("sam", {"sparse_links": 300}, "sparse_links is for memories with links"),
        ("sam", {"link_gradient": True}, "link_gradient is for memories with links"),
        ("sam", {"output_size": 0}, "output_size must be at least 1, got 0"),
    ],
)
def test_settings_are_checked(name, setting, message):
    with pytest.raises(ValueError, match=message):
        make_core(name, 4, **setting)
    assert "links" not in core_settings(name)
    assert SparseConfig(slots=4).writers == 4


def test_it_learns_to_repeat_five_symbols():
    torch.manual_seed(0)
    core = make_core("sam", 6, hidden_size=32, slots=8, slot_size=8, read_heads=1, output_size=5)
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


@pytest.mark.parametrize("name", ["sam", "sdnc", "dnc", "ntm"])
def test_a_controller_that_was_changed_is_the_one_that_runs(name):
    torch.manual_seed(0)
    core, inputs = make_core(name, 3, hidden_size=5, slots=9, slot_size=3), torch.randn(4, 2, 3)
    before = core(inputs).outputs
    hook = core.controller.register_forward_hook(lambda *_: (torch.zeros(2, 5), torch.zeros(2, 5)))  # pyright: ignore
    after = core(inputs).outputs
    assert not torch.allclose(before, after)
    hook.remove()
    assert torch.equal(core(inputs).outputs, before)
    core.controller.register_forward_hook(lambda *_: None)  # pyright: ignore
    torch.testing.assert_close(core(inputs).outputs, before)
