"""Copy, repeat copy and associative recall: what they ask, and what it costs."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from mnm_rl.analysis.labels import name_steps, question_start
from mnm_rl.commands import evaluate as evaluate_command
from mnm_rl.tasks import (
    AssociativeRecallTask,
    CopyTask,
    ErrorCounts,
    PrioritySortTask,
    RepeatCopyTask,
    Task,
    task_options,
)
from mnm_rl.training.folder import SUPERVISED, create_run
from mnm_rl.training.supervised.config import SupervisedConfig, config_to_dict
from mnm_rl.training.supervised.evaluation import describe_errors, evaluate_run
from mnm_rl.training.supervised.trainer import SupervisedTrainer

TASKS = [CopyTask(1, 4), RepeatCopyTask(1, 3, 1, 4), AssociativeRecallTask(2, 4)]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)


def guessing(task: Task) -> ErrorCounts:
    """Of a model that finds both values of every bit as likely."""
    batch = next(task.evaluation_batches("test", 1000))
    return task.count_errors(torch.zeros(*batch.inputs.shape[:2], task.output_size), batch)


def test_copy_asks_for_what_it_has_shown():
    batch = CopyTask(1, 4).training_batch(0, 40, seed=0)
    lengths = []
    for b in range(40):
        n = int(batch.inputs[:, b, 8].argmax())
        lengths.append(n)
        inputs, targets = batch.inputs[:, b], batch.targets[:, b]
        assert set(inputs[:n, :8].flatten().tolist()) <= {0.0, 1.0}
        assert inputs[n].tolist() == 8 * [0.0] + [1.0]
        assert not inputs[n + 1 :].any()
        assert targets[n + 1 : 2 * n + 1].tolist() == inputs[:n, :8].tolist()
        asked = (n + 1) * [False] + n * [True]
        assert batch.asked[:, b].tolist() == asked + (len(inputs) - len(asked)) * [False]
        assert batch.lengths[b] == 2 * n + 1
    assert set(lengths) == {1, 2, 3, 4}
    assert len(batch.inputs) == 9


def test_repeat_copy_asks_for_copies_and_an_end_marker():
    batch = RepeatCopyTask(1, 3, 1, 4).training_batch(0, 60, seed=0)
    seen = set()
    for b in range(60):
        inputs, targets = batch.inputs[:, b], batch.targets[:, b]
        (n,) = inputs[:, 8].nonzero().flatten().tolist()
        k = round(inputs[n, 8].item() * math.sqrt(8.25) + 5.5)
        seen.add((n, k))
        end = n + 1 + n * k
        assert not inputs[n, :8].any()
        assert not inputs[n + 1 :].any()
        assert targets[n + 1 : end, :8].tolist() == k * inputs[:n, :8].tolist()
        assert targets[n + 1 : end, 8].tolist() == n * k * [0.0]
        assert targets[end].tolist() == 8 * [0.0] + [1.0]
        asked = (n + 1) * [False] + (n * k + 1) * [True]
        assert batch.asked[:, b].tolist() == asked + (len(inputs) - len(asked)) * [False]
        assert batch.lengths[b] == end + 1
    assert seen == {(n, k) for n in (1, 2, 3) for k in (1, 2, 3, 4)}


def test_the_number_of_copies_has_mean_0_and_variance_1_and_means_the_same_in_any_range():
    numbers = torch.cat(
        [RepeatCopyTask(1, 1, k, k).training_batch(0, 1, 0).inputs[1, :, 8] for k in range(1, 11)]
    )
    assert numbers.mean().abs() < 1e-6
    assert numbers.square().mean().item() == pytest.approx(1)
    assert RepeatCopyTask(1, 1, 15, 15).training_batch(0, 1, 0).inputs[1, 0, 8] > numbers.max()


def test_associative_recall_asks_for_the_item_after_the_one_shown_again():
    batch = AssociativeRecallTask(2, 4).training_batch(0, 80, seed=0)
    seen = set()
    for b in range(80):
        inputs, targets = batch.inputs[:, b], batch.targets[:, b]
        starts = inputs[:, 6].nonzero().flatten().tolist()
        n = len(starts)
        assert starts == [4 * item for item in range(n)]
        assert inputs[:, 7].nonzero().flatten().tolist() == [4 * n, 4 * n + 4]
        flags = [*starts, 4 * n, 4 * n + 4]
        assert not inputs[flags, :6].any()
        items = [inputs[start + 1 : start + 4, :6].tolist() for start in starts]
        query = items.index(inputs[4 * n + 1 : 4 * n + 4, :6].tolist())
        seen.add((n, query))
        assert not inputs[4 * n + 5 :].any()
        assert targets[4 * n + 5 : 4 * n + 8].tolist() == items[query + 1]
        asked = (4 * n + 5) * [False] + 3 * [True]
        assert batch.asked[:, b].tolist() == asked + (len(inputs) - len(asked)) * [False]
        assert batch.lengths[b] == 4 * n + 8
    assert seen == {(n, query) for n in (2, 3, 4) for query in range(n - 1)}


@every_task
def test_a_padded_batch_may_be_cut_to_the_columns_of_some(task):
    batch = task.training_batch(0, 30, seed=0)
    assert batch.lengths.min() < batch.lengths.max() == len(batch.inputs)
    one = batch.columns(slice(7, 8))
    assert len(one.inputs) == batch.lengths[7]
    assert torch.equal(one.targets[:, 0], batch.targets[: len(one.inputs), 7])


def test_guessing_costs_what_the_paper_says():
    counts = guessing(CopyTask())
    assert counts.bits_per_sequence == pytest.approx(84, abs=1.5)  # 10.5 vectors of 8 bits
    assert counts.bits_per_sequence == pytest.approx(counts.symbols / 1000)
    assert CopyTask().score(counts) == pytest.approx(1)
    assert guessing(AssociativeRecallTask()).bits_per_sequence == pytest.approx(18)
    assert guessing(PrioritySortTask()).bits_per_sequence == pytest.approx(128)
    # 9 bits in 5.5 * 5.5 steps and one more
    assert guessing(RepeatCopyTask()).bits_per_sequence == pytest.approx(9 * 31.25, rel=0.05)


@every_task
def test_the_cost_is_a_sum_of_cross_entropies_in_base_2(task):
    batch = task.training_batch(0, 5, seed=2)
    logits = torch.randn(
        *batch.inputs.shape[:2], task.output_size, generator=torch.Generator().manual_seed(0)
    )
    cost, wrong = 0.0, 0
    for t in range(len(batch.inputs)):
        for b in range(5):
            for bit in range(task.output_size if batch.asked[t, b] else 0):
                p = 1 / (1 + math.exp(-logits[t, b, bit].item()))
                is_one = batch.targets[t, b, bit] == 1
                cost -= math.log2(p if is_one else 1 - p)
                wrong += (p > 0.5) != is_one
    counts = task.count_errors(logits, batch)
    assert counts.bits_per_sequence == pytest.approx(cost / 5, rel=1e-5)
    assert counts.wrong_bits_per_sequence == pytest.approx(float(wrong) / 5)
    both = counts + counts
    assert (both.cost, both.sequences) == (2 * counts.cost, 10)
    mean = task.loss(logits, batch) / batch.asked.sum()
    assert mean.item() == pytest.approx(cost * math.log(2) / counts.symbols, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("copy", {"min_length": 0}, "min_length must be at least 1, got 0"),
        ("copy", {"max_length": 0}, "max_length must be at least min_length, 1, got 0"),
        ("repeat-copy", {"min_repeats": 0}, "min_repeats must be at least 1, got 0"),
        ("repeat-copy", {"min_length": 11}, "max_length must be at least min_length, 11, got 10"),
        ("associative-recall", {"min_items": 1}, "min_items must be at least 2, got 1"),
        ("associative-recall", {"max_items": 1}, "max_items must be at least min_items, 2, got 1"),
    ],
)
def test_sizes_that_are_none_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        task_options(name)(**options)


@every_task
def test_steps_have_names_by_which_the_answer_begins_after_a_bar(task):
    batch = task.training_batch(0, 8, seed=0).columns(slice(3, 4))
    words = name_steps(task, batch)
    first = int(batch.asked[:, 0].int().argmax())
    assert len(words) == len(batch.inputs)
    assert words[first - 1 : first + 1] == ("|", "#1")
    assert words.count("|") == 1
    assert question_start(words, batch.asked[:, 0].tolist()) == first


def trained(directory, task: str, **options: int):
    config = SupervisedConfig(
        task=task,
        task_options=options,
        core="lstm",
        core_settings={"hidden_size": 4},
        embedding_size=4,
        iterations=4,
        batch_size=2,
        validate_every=2,
        log_every=2,
    )
    trainer = SupervisedTrainer(config, config.make_task(), directory)
    create_run(directory, SUPERVISED, config_to_dict(config))
    trainer.train()
    return directory


def test_a_run_tells_its_cost_and_is_tested_on_other_lengths(tmp_path, capsys, monkeypatch):
    run = trained(tmp_path / "copy", "copy", max_length=3)
    for curve in ("train.csv", "valid.csv"):
        assert "bits_per_sequence" in (run / curve).read_text().splitlines()[0].split(",")
    text = describe_errors(*evaluate_run(run))
    assert "; cost " in text
    assert " bits a sequence, " in text
    monkeypatch.setattr(sys, "argv", ["evaluate", str(run), "--length", "7"])
    evaluate_command.run_from_command_line()
    assert "of 56,000 bits" in capsys.readouterr().out  # 1,000 sequences of 7 vectors


@pytest.mark.parametrize(
    ("task", "words", "message"),
    [
        ("copy", ["--items", "3"], "items is for runs of associative-recall."),
        ("copy", ["--repeats", "3"], "repeats is for runs of repeat-copy."),
        ("associative-recall", ["--length", "3"], "length is for runs of copy and repeat-copy."),
        ("associative-recall", ["--items", "1"], "evaluate.py: items must be at least 2, got 1."),
        ("copy", ["--length", "0"], "evaluate.py: length must be at least 1, got 0."),
        (
            "repeat-copy",
            ["--length", "2", "--repeats", "-3"],
            "evaluate.py: repeats must be at least 1, got -3.",
        ),
    ],
)
def test_a_size_that_a_task_does_not_have_is_named(tmp_path, monkeypatch, capsys, task, words, message):
    run = trained(tmp_path / "run", task)
    monkeypatch.setattr(sys, "argv", ["evaluate", str(run), *words])
    with pytest.raises(SystemExit) as stop:
        evaluate_command.run_from_command_line()
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().endswith(message)
