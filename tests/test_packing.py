"""Packed columns: nothing is lost, and the model computes the same with and without."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mnm_rl.tasks import DictionaryTask
from mnm_rl.training.supervised.model import SequenceModel
from mnm_rl.training.supervised.packing import COLUMNS, make_packing


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=COLUMNS + 1, max_size=150))
def test_every_step_has_a_place_of_its_own_and_every_sequence_a_start(sizes: list[int]) -> None:
    lengths = torch.tensor(sizes)
    packing = make_packing(lengths)
    if packing is None:
        return
    steps, batch = max(sizes), len(sizes)
    present = torch.arange(steps).unsqueeze(1) < lengths
    numbers = torch.arange(steps * batch).view(steps, batch)
    packed = packing.pack(numbers)
    assert packed.numel() <= 0.95 * numbers.numel()
    assert torch.equal(packing.unpack(packed)[present], numbers[present])
    assert len(packing.places[present].unique()) == sum(sizes)
    # Within a column a sequence's steps follow one another, from a reset to the next.
    first = packing.places[0]
    assert packing.resets.flatten()[first].all()
    later = packing.places[1:][present[1:]]
    assert not packing.resets.flatten()[later].any()
    assert torch.equal(later - packed.shape[1], packing.places[:-1][present[1:]])


def test_where_packing_does_not_pay() -> None:
    assert make_packing(torch.full((200,), 7)) is None
    assert make_packing(torch.tensor([5, 1])) is None
    assert make_packing(torch.tensor([10] * 30 + [1] * 20)) is not None


@pytest.mark.parametrize("core", ["mnm-p", "mnm-g", "lstm"])
def test_a_model_computes_the_same_with_packing(core: str) -> None:
    torch.manual_seed(0)
    memory = {} if core == "lstm" else {"key_size": 4, "value_size": 5, "memory_widths": (6,), "heads": 2}
    model = SequenceModel(DictionaryTask(2, 1), core, 6, {"hidden_size": 7, **memory}).double()
    inputs = torch.randint(10, (30, 80))
    lengths = torch.randint(1, 31, (80,))
    present = torch.arange(30).unsqueeze(1) < lengths
    assert make_packing(lengths) is not None
    results = []
    for known in (None, lengths):
        logits, meta_loss, _ = model(inputs, known)
        loss = logits[present].square().sum() + meta_loss[present].sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        results.append([logits[present], meta_loss[present], *[g for g in gradients if g is not None]])
    torch.testing.assert_close(results[1], results[0])
