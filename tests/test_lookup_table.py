"""The look-up table's reads and gradients against plain attention over a stack of slots."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mnm_rl.kernels.lookup_table import BLOCK, LookupTable

KEY_SIZE, VALUE_SIZE = 3, 4


def plain_attention(keys: Tensor, values: Tensor, written: Tensor, steps: list[tuple[Tensor, ...]]) -> Tensor:
    """The reads of all steps, ``[T, B, H, d_v]``, written out."""
    reads = []
    for write_keys, write_values, read_keys in steps:
        keys, values = torch.cat([keys, write_keys], 1), torch.cat([values, write_values], 1)
        written = torch.cat([written, torch.ones_like(write_keys[:, :, 0], dtype=torch.bool)], 1)
        scores = torch.einsum("bhk,bnk->bhn", read_keys, keys) / math.sqrt(KEY_SIZE)
        weights = scores.masked_fill(~written[:, None], -math.inf).softmax(2)
        reads.append(torch.einsum("bhn,bnv->bhv", weights, values))
    return torch.stack(reads)


def table_reads(keys: Tensor, values: Tensor, written: Tensor, steps: list[tuple[Tensor, ...]]) -> Tensor:
    heads = steps[0][0].shape[1]
    table = LookupTable(keys, values, written, len(steps) * heads)
    return torch.stack([table.write_and_read(*step) for step in steps])


def draw(steps: int, batch: int, heads: int, first: int, seed: int = 0) -> tuple[list[Tensor], Tensor, list]:
    """Leaves that take gradients, which of the first slots count, and the steps made of the leaves."""
    random = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=random).requires_grad_()

    begin = [leaf(batch, first, KEY_SIZE), leaf(batch, first, VALUE_SIZE)]
    written = torch.rand(batch, first, generator=random) < 0.6
    sizes = (KEY_SIZE, VALUE_SIZE, KEY_SIZE)
    parts = [tuple(leaf(batch, heads, size) for size in sizes) for _ in range(steps)]
    return [*begin, *(tensor for step in parts for tensor in step)], written, parts


def both_gradients(leaves: list[Tensor], written: Tensor, steps: list, loss) -> list[list[Tensor]]:
    losses = [loss(reads(leaves[0], leaves[1], written, steps)) for reads in (table_reads, plain_attention)]
    return [
        [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]
        for found in (torch.autograd.grad(value, leaves, allow_unused=True) for value in losses)
    ]


def weighted(reads: Tensor) -> Tensor:
    """A number that depends on every entry in its own way."""
    return (torch.arange(1, reads.numel() + 1, dtype=reads.dtype).view_as(reads).sin() * reads).sum()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 2 * BLOCK + 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 5))
def test_reads_and_gradients_are_those_of_plain_attention(steps, batch, heads, first):
    leaves, written, parts = draw(steps, batch, heads, first)
    expected = plain_attention(leaves[0], leaves[1], written, parts)
    torch.testing.assert_close(table_reads(leaves[0], leaves[1], written, parts), expected)
    for found, wanted in zip(*both_gradients(leaves, written, parts, weighted), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("used", [slice(0, 1), slice(3, 40), slice(39, 40), slice(0, 40, 7)])
def test_a_loss_over_some_of_the_steps(used):
    leaves, written, parts = draw(steps=40, batch=2, heads=2, first=3)
    gradients = both_gradients(leaves, written, parts, lambda reads: weighted(reads[used]))
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)


def test_backward_passes_over_the_same_graph_do_not_mix():
    leaves, written, parts = draw(steps=40, batch=2, heads=1, first=2)
    reads, expected = (
        table_reads(leaves[0], leaves[1], written, parts),
        plain_attention(leaves[0], leaves[1], written, parts),
    )
    late, early = leaves[2 + 3 * 30], leaves[2 + 3 * 5]
    for steps, leaf in ((39, late), (20, early), (39, late), (39, early)):
        found, wanted = (
            torch.autograd.grad(weighted(output[steps]), leaf, retain_graph=True)[0]
            for output in (reads, expected)
        )
        torch.testing.assert_close(found, wanted)


def test_contents_are_the_slots_in_order_and_carry_gradients():
    leaves, written, parts = draw(steps=3, batch=2, heads=2, first=2)
    table = LookupTable(leaves[0], leaves[1], written, 6)
    for step in parts:
        table.write_and_read(*step)
    keys, values, now_written = table.contents()
    assert torch.equal(keys, torch.cat([leaves[0], *(step[0] for step in parts)], 1))
    assert torch.equal(values, torch.cat([leaves[1], *(step[1] for step in parts)], 1))
    assert torch.equal(now_written, torch.cat([written, torch.ones(2, 6, dtype=torch.bool)], 1))
    assert torch.autograd.grad(keys.sum(), parts[0][0])[0].eq(1).all()


def test_without_gradients_nothing_is_kept():
    leaves, written, parts = draw(steps=3, batch=2, heads=1, first=0)
    with torch.no_grad():
        reads = table_reads(leaves[0], leaves[1], written, parts)
    assert not reads.requires_grad
    torch.testing.assert_close(reads, plain_attention(leaves[0], leaves[1], written, parts).detach())
