"""Facts about the official bAbI files; skipped where they are not at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from mnm_rl.tasks.babi import BabiTask
from mnm_rl.tasks.babi.files import VARIABLE, find_source
from mnm_rl.tasks.babi.stories import read_stories

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "babi"


def real_data():
    """The official data, or a reason to skip."""
    place = os.environ.get(VARIABLE) or (str(BESIDE) if BESIDE.is_dir() else None)
    try:
        find_source(place)
    except ValueError as error:
        pytest.skip(f"needs the official bAbI files: {error}")
    return place


@pytest.fixture(scope="module")
def task():
    return BabiTask(real_data(), pool_batches=20)


def test_the_vocabulary_has_159_symbols(task):
    assert len(task.vocabulary) == task.input_symbols == 159
    assert task.vocabulary.symbols[:3] == ("-", ".", "?")
    assert {"n", "e", "s", "w", "pajamas"} < set(task.vocabulary.symbols)
    assert BabiTask(real_data(), tasks=(1,), size="1k").vocabulary == task.vocabulary


def test_numbers_of_questions_are_the_documented_ones(task):
    train, valid, test = (np.bincount(part.tasks, minlength=21)[1:] for part in task.sequences.values())
    expected = np.full(20, 9000)
    expected[[17, 19]] = 8996, 9002
    if task.notes:
        expected[2] = 925
        assert task.notes == [
            "task 3 trains on 925 real questions: en-valid-10k/qa3_train.txt is not in the data"
        ]
    assert train.tolist() == expected.tolist()
    expected = np.full(20, 1000)
    expected[[17, 19]] = 1004, 998
    assert valid.tolist() == expected.tolist()
    assert test.tolist() == [1000] * 20


def test_story_sequences_have_the_documented_lengths():
    task = BabiTask(real_data(), format="story")
    longest = {
        number: task.sequences["test"].lengths[task.sequences["test"].tasks == number].max()
        for number in (1, 3, 5, 19)
    }
    assert longest == {1: 90, 3: 1393, 5: 617, 19: 53}


def test_words_of_a_training_set_are_as_many_as_documented():
    task = BabiTask(
        real_data(), tasks=tuple(number for number in range(1, 21) if number != 3), format="story"
    )
    train = task.sequences["train"]
    assert len(train) == 54_596
    text = np.concatenate([train.corpus.statements, train.corpus.asks])
    assert len(text) == train.lengths.sum()
    assert (~np.isin(text, task.vocabulary.encode([".", "?", "-"]))).sum() == 3_455_839


def test_a_batch_holds_several_tasks_and_little_padding(task):
    batches = [task.order.batch(index, 128, seed=0) for index in range(20)]
    train = task.sequences["train"]
    assert np.mean([len(np.unique(train.tasks[chosen])) for chosen in batches]) > 10
    real = sum(train.lengths[chosen].sum() for chosen in batches)
    assert real > 0.4 * 128 * sum(train.lengths[chosen].max() for chosen in batches)


def test_the_supplement_completes_task_3_and_holds_the_same_real_stories():
    place = real_data()
    source = find_source(place)
    names = [f"qa3_train_supplement/qa3_train_{part}.txt" for part in ("real_subset", "SYNTHETIC")]
    supplement = source.supplement()
    if supplement is None or "en-valid-10k/qa3_train.txt" in source.read(["en-valid-10k/qa3_train.txt"]):
        pytest.skip("needs data without en-valid-10k/qa3_train.txt and with its supplement")
    task = BabiTask(place, tasks=(3,), supplement=True)
    assert len(task.sequences["train"]) == 9000
    assert "8,075 SYNTHETIC questions" in task.describe()
    real = read_stories(supplement.read(names)[names[0]], names[0])
    words = [word for line in real[-1] if not line.answer for word in line.words]
    batch = task.sequences["train"].batch(np.array([924]))
    assert task.vocabulary.decode(batch.inputs[: len(words), 0]).split() == words
    assert len(real) == 185
