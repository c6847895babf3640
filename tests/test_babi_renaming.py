"""Renamed bAbI stories: the answers stay right, each story is renamed in its own way, evaluation is not."""

import numpy as np
import pytest
import torch

from mnm_rl.tasks.babi import BabiTask
from mnm_rl.tasks.babi.generate import Sizes, TextLine, write_files
from mnm_rl.tasks.babi.solver import solve_story
from mnm_rl.tasks.babi.stories import PLACEHOLDER

PAIRS = [("question", 128), ("story", 64)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("generated")
    write_files(place / "out", Sizes(90, 10, 20), seed=1)
    return str(place / "out")


def babi(data, **options):
    return BabiTask(data, size="1k", **options)


def told(task, batch, column):
    """The words of a sequence, those of its answers where they stand, and its last answer."""
    asked = batch.answers[: batch.lengths[column], column]
    words = task.vocabulary.decode(batch.targets[: batch.lengths[column], column]).split()
    inputs = task.vocabulary.decode(batch.inputs[: batch.lengths[column], column]).split()
    assert [word == PLACEHOLDER for word in inputs] == (asked >= 0).tolist()
    assert all(word in (said, PLACEHOLDER) for word, said in zip(inputs, words, strict=True))
    return words, asked.tolist()


def story_of(words, asked):
    """Lines for the solver, and the answers to the questions among them."""
    lines, line, answers = [], [], []
    for word, answer in zip(words, asked, strict=True):
        if answer >= 0:
            answers += [[]] * (answer - len(answers) + 1)
            answers[answer] = [*answers[answer], word]
        elif word in ".?":
            lines.append(TextLine(" ".join(line) + word, "unknown" if word == "?" else ""))
            line = []
        else:
            line.append(word)
    return lines, [",".join(answer) for answer in answers]


@pytest.mark.parametrize(("form", "batch_size"), PAIRS)
@pytest.mark.parametrize("number", range(1, 21))
def test_the_answers_to_renamed_stories_are_right(data, number, form, batch_size):
    task = babi(data, tasks=(number,), format=form, rename=True)
    batch = task.training_batch(0, batch_size, seed=3)
    for column in range(batch_size):
        story, answers = story_of(*told(task, batch, column))
        found = solve_story(story)
        assert len(found) == len(answers)
        for solution, answer in zip(found, answers, strict=True):
            assert answer in [proof.answer for proof in solution]


def test_every_sequence_is_renamed_in_its_own_way(data):
    plain, renamed = babi(data, tasks=(1,)), babi(data, tasks=(1,), rename=True)
    before, after = (task.training_batch(0, 64, seed=0) for task in (plain, renamed))
    names = {}
    for person in ("mary", "john", "sandra", "daniel"):
        number = plain.vocabulary.numbers[person]
        for column in range(64):
            chosen = after.inputs[before.inputs[:, column] == number, column].unique().tolist()
            assert len(chosen) <= 1
            names.setdefault(person, set()).update(chosen)
    everyone = set(plain.vocabulary.encode(["mary", "john", "sandra", "daniel"]))
    assert all(found == everyone for found in names.values())
    same = [plain.vocabulary.numbers[word] for word in ("the", "went", "where", ".", "?", PLACEHOLDER)]
    for number in same:
        assert torch.equal(before.inputs == number, after.inputs == number)


def test_women_and_men_are_not_exchanged_where_they_are_called_she_and_he(data):
    task, other = babi(data, tasks=(11,)), babi(data, tasks=(11,), rename=True)
    before, after = (source.training_batch(0, 128, seed=0) for source in (task, other))
    women = torch.tensor(task.vocabulary.encode(["mary", "sandra"]))
    assert torch.equal(torch.isin(before.inputs, women), torch.isin(after.inputs, women))
    assert not torch.equal(before.inputs, after.inputs)


def test_places_and_things_keep_their_meaning_in_task_20(data):
    plain, renamed = babi(data, tasks=(20,)), babi(data, tasks=(20,), rename=True)
    before, after = (task.training_batch(0, 128, seed=0) for task in (plain, renamed))
    people = torch.tensor(plain.vocabulary.encode(["antoine", "jason", "sumit", "yann"]))
    elsewhere = ~torch.isin(before.targets, people)
    assert torch.equal(before.targets[elsewhere], after.targets[elsewhere])
    assert not torch.equal(before.targets, after.targets)


def test_renamed_batches_depend_on_their_arguments_alone(data):
    first, second = (babi(data, tasks=(1, 14), rename=True) for _ in range(2))
    batches = [first.training_batch(index, 32, seed=2) for index in range(4)]
    again = [second.training_batch(index, 32, seed=2) for index in reversed(range(4))]
    for one, other in zip(batches, reversed(again), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_only_training_is_renamed_and_every_log_says_so(data):
    plain, renamed = babi(data, tasks=(2,)), babi(data, tasks=(2,), rename=True)
    for split in ("valid", "test"):
        pairs = zip(*(task.evaluation_batches(split, 5) for task in (plain, renamed)), strict=True)
        assert all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))
    assert not any("RENAMED" in note for note in plain.notes)
    assert any("RENAMED" in note for note in renamed.notes)
    assert "RENAMED" in renamed.describe()


def test_fresh_questions_are_not_renamed():
    with pytest.raises(ValueError, match="leave out fresh or rename"):
        BabiTask(origin="generated", fresh=True, rename=True, tasks=(1,))


def test_no_word_is_in_two_groups(data):
    task = babi(data, rename=True)
    assert task._renaming is not None
    for groups in task._renaming._groups.values():
        joined = np.concatenate(groups)
        assert len(np.unique(joined)) == len(joined)
