"""What all supervised tasks promise to the trainer, and how errors are counted."""

import numpy as np
import pytest
import torch

from mnm_rl import tasks
from mnm_rl.tasks import (
    AssociativeRecallTask,
    Batch,
    CopyTask,
    DictionaryTask,
    DoubleCopyTask,
    ErrorCounts,
    PrioritySortTask,
    RepeatCopyTask,
    register_task,
)
from mnm_rl.tasks.babi.catbabi import CatbabiOptions, CatbabiTask
from mnm_rl.tasks.babi.options import BabiOptions
from mnm_rl.tasks.babi.task import BabiTask
from mnm_rl.tasks.base import count_bit_errors, count_symbol_errors, symbol_loss
from mnm_rl.tasks.double_copy import DoubleCopyOptions

TASKS = [
    DictionaryTask(4, 2),
    DoubleCopyTask(5),
    PrioritySortTask(6, 4),
    CopyTask(1, 4),
    RepeatCopyTask(1, 3, 1, 4),
    AssociativeRecallTask(2, 4),
]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@every_task
def test_a_batch_is_a_function_of_its_index_and_seed(task):
    batch = task.training_batch(3, 8, seed=1)
    assert same(batch, task.training_batch(3, 8, seed=1))
    assert not same(batch, task.training_batch(4, 8, seed=1))
    assert not same(batch, task.training_batch(3, 8, seed=2))


@every_task
def test_held_out_sets_are_fixed_and_different(task):
    valid = list(task.evaluation_batches("valid", 300))
    assert [len(batch.lengths) for batch in valid] == [300, 300, 300, 100]
    again = list(task.evaluation_batches("valid", 300))
    assert all(same(a, b) for a, b in zip(valid, again, strict=True))
    assert not same(valid[0], next(task.evaluation_batches("test", 300)))
    with pytest.raises(ValueError, match="Unknown set 'train'; known sets: valid, test"):
        task.evaluation_batches("train", 300)


@every_task
def test_perfect_and_hopeless_predictions(task):
    batch = task.training_batch(0, 8, seed=1)
    right = (
        20 * torch.nn.functional.one_hot(batch.targets, task.output_size).float() - 10
        if batch.targets.dim() == 2
        else 20 * batch.targets - 10
    )
    assert task.count_errors(right, batch).symbol_error == 0
    assert task.count_errors(right, batch).answers == 8
    assert task.count_errors(-right, batch).symbol_error == 1
    assert task.count_errors(-right, batch).answer_error == 1
    assert task.loss(right, batch) / batch.asked.sum() < 1e-3
    assert task.loss(-right, batch) / batch.asked.sum() > 1


def test_double_copy_asks_for_the_input_twice():
    batch = DoubleCopyTask(4).training_batch(0, 3, seed=0)
    for b in range(3):
        shown = batch.inputs[:4, b].tolist()
        assert batch.inputs[4:, b].tolist() == [10] + 8 * [11]
        assert batch.asked[:, b].tolist() == 5 * [False] + 8 * [True]
        assert batch.targets[5:, b].tolist() == shown + shown
        assert max(shown) < 10


def test_priority_sort_asks_for_the_highest_priorities_first():
    batch = PrioritySortTask(6, 4).training_batch(0, 3, seed=0)
    for b in range(3):
        shown = batch.inputs[:6, b]
        order = sorted(range(6), key=lambda i: -shown[i, 8].item())
        assert batch.targets[7:, b].tolist() == [shown[i, :8].tolist() for i in order[:4]]
        assert batch.inputs[:, b, 9].tolist() == 6 * [0] + [1] + 4 * [0]
        assert batch.inputs[7:, b].abs().sum() == 0
        assert batch.asked[:, b].tolist() == 7 * [False] + 4 * [True]


def test_paper_sizes():
    assert len(DoubleCopyTask().training_batch(0, 1, 0).inputs) == 151
    assert PrioritySortTask().training_batch(0, 1, 0).targets.shape == (37, 1, 8)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        DoubleCopyTask(0)
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        DictionaryTask(8, 4, ((4, 0),))
    with pytest.raises(ValueError, match="predicted must be from 1 to the number of vectors, 4, got 5"):
        PrioritySortTask(4, 5)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (CopyTask, {"max_length": 2.5}, "max_length must be a whole number, got 2.5."),
        (DoubleCopyTask, {"length": "3"}, "length must be a whole number, got '3'."),
        (PrioritySortTask, {"vectors": None}, "vectors must be a whole number, got None."),
        (RepeatCopyTask, {"max_repeats": []}, r"max_repeats must be a whole number, got \[\]."),
        (AssociativeRecallTask, {"min_items": True}, "min_items must be a whole number, got True."),
        (DictionaryTask, {"smaller_sizes": ((4, 1, 2),)}, r"smaller_sizes must be several of: \(a whole"),
        (BabiOptions, {"tasks": 5}, "tasks must be a text, got 5."),
        (CatbabiOptions, {"window": 2.5}, "window must be a whole number, got 2.5."),
        (BabiTask, {"tasks": "1"}, "tasks must be several of: a whole number, got '1'."),
        (CatbabiTask, {"data": 5}, "data must be a text or a path or nothing, got 5."),
    ],
)
def test_values_of_other_types_are_named(kind, values, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        kind(**values)


@every_task
def test_a_batch_that_no_memory_holds_is_refused(task):
    with pytest.raises(ValueError, match="There is not enough memory for a batch of 1000000000000 sequences"):
        task.training_batch(0, 10**12, 0)


@every_task
@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (ValueError, (0, 0, 0), "batch_size must be at least 1, got 0."),
        (ValueError, (0, -1, 0), "batch_size must be at least 1, got -1."),
        (ValueError, (-1, 2, 0), "index must not be negative, got -1."),
        (ValueError, (0, 2, -1), "seed must not be negative, got -1."),
        (TypeError, (0, 2.0, 0), "batch_size must be a whole number, got 2.0."),
        (TypeError, ("0", 2, 0), "index must be a whole number, got '0'."),
        (TypeError, (0, 2, None), "seed must be a whole number, got None."),
    ],
)
def test_numbers_that_name_no_batch_are_named(task, error, arguments, message):
    with pytest.raises(error, match=f"^{message}$"):
        task.training_batch(*arguments)
    if message.startswith("batch_size"):
        batch_size = arguments[1]
        with pytest.raises(error, match=f"^{message}$"):  # at the call, and not when the first is asked for
            task.evaluation_batches("valid", batch_size=batch_size)
        with pytest.raises(error, match=f"^{message}$"):
            task.sample(batch_size, torch.Generator())


def test_numbers_of_numpy_name_batches_too():
    assert same(CopyTask().training_batch(1, 2, 0), CopyTask().training_batch(*np.array([1, 2, 0])))


@pytest.mark.parametrize("name", [None, 5, "", " copy", "a:b", []])
def test_a_name_that_is_none_is_not_registered(name):
    before = dict(tasks.TASKS)
    with pytest.raises(ValueError, match="A task's name must be a word without a colon, got"):
        register_task(name, DoubleCopyOptions)
    assert before == tasks.TASKS


def test_an_answer_is_right_when_all_its_symbols_are():
    targets = torch.tensor([[0, 1], [1, 1], [2, 0], [2, 0]])
    answers = torch.tensor([[-1, -1], [0, 0], [0, 1], [1, 1]])
    batch = Batch(targets, targets, answers, torch.tensor([4, 3]), torch.tensor([7, 9]))
    predicted = torch.tensor([[1, 0], [1, 1], [0, 0], [2, 0]])
    logits = torch.nn.functional.one_hot(predicted, 3).float()
    counts = count_symbol_errors(logits, batch)
    assert (counts.wrong_symbols, counts.symbols) == (1, 6)
    assert (counts.wrong_answers, counts.answers) == (1, 4)
    assert counts.by_kind == {7: (1, 2), 9: (0, 2)}
    assert batch.present.tolist() == [[True, True], [True, True], [True, True], [True, False]]
    expected = torch.nn.functional.cross_entropy(
        logits[1:].flatten(0, 1), targets[1:].flatten(), reduction="sum"
    )
    torch.testing.assert_close(symbol_loss(logits, batch), expected)


def test_bit_errors():
    targets = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    batch = Batch(targets, targets, torch.zeros(2, 1).long(), torch.tensor([2]), torch.tensor([0]))
    counts = count_bit_errors(torch.tensor([[[3.0, -1.0]], [[-0.1, 2.0]]]), batch)
    assert (counts.wrong_symbols, counts.symbols, counts.wrong_answers, counts.answers) == (1, 4, 1, 1)


def test_counts_add_up():
    one = ErrorCounts(1, 4, 1, 2, {1: (1, 1), 2: (0, 1)})
    total = one + ErrorCounts(0, 4, 0, 2, {2: (0, 1), 3: (0, 1)})
    assert (total.symbol_error, total.answer_error) == (1 / 8, 1 / 4)
    assert total.by_kind == {1: (1, 1), 2: (0, 2), 3: (0, 1)}
