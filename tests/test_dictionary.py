"""Dictionary inference: every episode keeps the rules of section 4.1."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mnm_rl.tasks.dictionary import (
    ANSWER,
    END_OF_PAIR,
    END_OF_SUPPORT,
    END_OF_WORD,
    INSTANCES,
    LETTERS,
    DictionaryTask,
    smaller_instances,
)
from mnm_rl.training.supervised.config import SupervisedConfig


@settings(deadline=None, max_examples=40)
@given(k=st.integers(1, 6), length=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_episodes_keep_the_rules(k, length, seed):
    batch = DictionaryTask(k, length).sample(4, torch.Generator().manual_seed(seed))
    for b in range(4):
        inputs, targets = batch.inputs[:, b].tolist(), batch.targets[:, b].tolist()
        assert len(inputs) == (k + 1) * (2 * length + 2)
        translation, words = {}, []
        for pair in range(k):
            start = pair * (2 * length + 2)
            word, answer = inputs[start : start + length], inputs[start + length + 1 : start + 2 * length + 1]
            assert inputs[start + length] == END_OF_WORD
            assert inputs[start + 2 * length + 1] == END_OF_PAIR
            for letter, translated in zip(word, answer, strict=True):
                assert translation.setdefault(letter, translated) == translated
            words.append(word)
        rest = inputs[k * (2 * length + 2) :]
        assert rest[0] == END_OF_SUPPORT
        query = rest[1 : length + 1]
        assert rest[length + 1 :] == [END_OF_WORD] + [ANSWER] * length
        assert targets[-length:] == [translation[letter] for letter in query]
        assert batch.asked[:, b].tolist() == [False] * (len(inputs) - length) + [True] * length
        assert (query in words) == (length == 1)
        assert len(set(translation.values())) == len(translation)
        assert not set(translation) & set(translation.values())
        assert max(translation) < LETTERS


def test_the_same_seed_gives_the_same_episodes():
    task = DictionaryTask(*INSTANCES[2])
    one, other = (task.sample(8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.inputs, other.inputs)
    assert not torch.equal(one.inputs, task.sample(8, torch.Generator().manual_seed(4)).inputs)


def test_smaller_instances_take_turns_in_training_only():
    task = SupervisedConfig(task_options={"instance": 3, "smaller_instances": True}).make_task()
    alone = DictionaryTask(*INSTANCES[3])
    for index in range(6):
        batch = task.training_batch(index, 2, seed=1)
        expected = DictionaryTask(*INSTANCES[1 + index % 3]).training_batch(index, 2, seed=1)
        assert torch.equal(batch.inputs, expected.inputs)
    for batch, expected in zip(
        task.evaluation_batches("test", 500), alone.evaluation_batches("test", 500), strict=True
    ):
        assert torch.equal(batch.inputs, expected.inputs)
    assert len(smaller_instances(1)) == 0


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="support_size must be at least 1, got 0"):
        DictionaryTask(0, 4)
