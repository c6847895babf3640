"""The bAbI task on tiny hand-made files in the official layout: finding, loading, batches, errors."""

import random
import tarfile
from collections import Counter

import numpy as np
import pytest
import torch

from mnm_rl.tasks.babi import BabiTask, Vocabulary, find_source, parse_repeat, parse_tasks, repeats_by_error
from mnm_rl.tasks.babi.files import VARIABLE
from mnm_rl.tasks.base import ErrorCounts
from mnm_rl.training.folder import SUPERVISED, create_run
from mnm_rl.training.supervised.config import SupervisedConfig, config_to_dict
from mnm_rl.training.supervised.evaluation import describe_errors, evaluate_run
from mnm_rl.training.supervised.trainer import SupervisedTrainer

FOLDER = "tasks_1-20_v1-2"
ARCHIVE = FOLDER + ".tar.gz"
ONE_QUESTION = (4, 16, 19)
TENTH = "en/qa3_three-supporting-facts_train.txt"
SYNTHETIC = "qa3_train_supplement/qa3_train_SYNTHETIC.txt"


def make_story(task, generator):
    lines = []
    for question in range(1 if task in ONE_QUESTION else 3):
        for _ in range(generator.randint(1, 4)):
            lines.append(f"{generator.choice(['Mary', 'John'])} went to place{chr(96 + task)}.")
        answer = "milk,apple" if task in (8, 19) and question % 2 == 0 else generator.choice(["yes", "no"])
        lines.append(f"Where is Mary now{chr(96 + task)}? \t{answer}\t1")
    return "".join(f"{number} {line}\n" for number, line in enumerate(lines, 1))


def make_files(stories=8):
    generator, files = random.Random(5), {}
    for folder in ("en-valid-10k", "en-valid"):
        for task in range(1, 21):
            for split, count in (("train", stories), ("valid", 3), ("test", 4)):
                made = [make_story(task, generator) for _ in range(count)]
                files[f"{folder}/qa{task}_{split}.txt"] = "".join(made)
    del files["en-valid-10k/qa3_train.txt"]
    fresh = [make_story(3, generator) for _ in range(5)]
    valid = files["en-valid-10k/qa3_valid.txt"]
    first = valid[: valid.index("\n1 ") + 1]
    files[TENTH] = "".join([*fresh[:2], first, *fresh[2:]])
    files[SYNTHETIC] = "".join(make_story(3, generator) for _ in range(6))
    return files


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with the unpacked folder and the supplement in it."""
    place = tmp_path_factory.mktemp("babi")
    for name, text in make_files().items():
        path = place / name if name == SYNTHETIC else place / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


@pytest.fixture(scope="session")
def packed(data, tmp_path_factory):
    """A folder with the archive and the packed supplement in it."""
    place = tmp_path_factory.mktemp("packed")
    for folder in (FOLDER, "qa3_train_supplement"):
        with tarfile.open(place / f"{folder}.tar.gz", "w:gz") as archive:
            archive.add(data / folder, folder)
    return place


@pytest.fixture(autouse=True)
def _no_data_elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def copy_of(data, tmp_path, **changes):
    """The data with some files changed, or left out."""
    for path in (data / FOLDER).rglob("*.txt"):
        name = str(path.relative_to(data / FOLDER))
        text = changes.get(name, path.read_text())
        if text is not None:
            (tmp_path / FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / FOLDER / name).write_text(text)
    return str(tmp_path)


def sequences_of(task, split="train"):
    sequences = task.sequences[split]
    batch = sequences.batch(np.arange(len(sequences)))
    return [task.vocabulary.decode(batch.inputs[:n, b]) for b, n in enumerate(batch.lengths)]


def answers_in(batches):
    """Every answer as (task, text of the target symbols), counted."""
    found = Counter()
    for batch in batches:
        for b in range(len(batch.kinds)):
            for number in range(int(batch.answers[:, b].max()) + 1):
                targets = batch.targets[batch.answers[:, b] == number, b]
                found[int(batch.kinds[b]), tuple(targets.tolist())] += 1
    return found


def test_every_accepted_place_gives_the_same_task(data, packed, monkeypatch, tmp_path):
    places = [data, data / FOLDER, packed, packed / ARCHIVE]
    tasks = [BabiTask(str(place), tasks=(1, 3)) for place in places]
    monkeypatch.setenv(VARIABLE, str(packed))
    tasks.append(BabiTask(tasks=(1, 3)))
    monkeypatch.delenv(VARIABLE)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "babi").symlink_to(data)
    tasks.append(BabiTask(tasks=(1, 3)))
    texts = [sequences_of(task) for task in tasks]
    assert all(text == texts[0] for text in texts)
    assert len({task.vocabulary for task in tasks}) == 1


def test_no_data_says_where_it_looked(monkeypatch):
    with pytest.raises(
        ValueError, match=r"No bAbI data in data/babi, ~/.cache/mnm_rl/babi: put .*MNM_BABI_DATA"
    ) as e:
        find_source()
    assert "\n" not in str(e.value)
    monkeypatch.setenv(VARIABLE, "elsewhere")
    with pytest.raises(ValueError, match="No bAbI data in elsewhere:"):
        BabiTask()
    with pytest.raises(ValueError, match="No bAbI data in nowhere:"):
        BabiTask("nowhere")


def test_damaged_archives_are_named(packed, tmp_path):
    whole = (packed / ARCHIVE).read_bytes()
    for name, contents in (("short.tar.gz", whole[: len(whole) // 2]), ("text.tar.gz", b"no archive")):
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(ValueError, match=f"{name} is not a readable tar archive"):
            BabiTask(str(tmp_path / name))


def test_missing_files_are_named(data, tmp_path):
    place = copy_of(data, tmp_path, **{"en-valid-10k/qa5_train.txt": None, "en-valid-10k/qa7_test.txt": None})
    with pytest.raises(
        ValueError, match=r"lacks en-valid-10k/qa5_train.txt and 1 more of the 60 files needed"
    ):
        BabiTask(place, tasks=(1,))


def test_malformed_lines_are_named_with_file_and_line(data, tmp_path):
    place = copy_of(data, tmp_path, **{"en-valid-10k/qa2_test.txt": "1 Mary left.\n2 Who left?\n"})
    with pytest.raises(ValueError, match=r"en-valid-10k/qa2_test.txt, line 2: a question without an answer"):
        BabiTask(place)


def test_words_that_only_the_test_set_has_are_refused(data, tmp_path):
    place = copy_of(data, tmp_path, **{"en-valid-10k/qa2_test.txt": "1 Zoe left.\n2 Who left? \tZoe\t1\n"})
    with pytest.raises(
        ValueError, match=r"qa2_test.txt: 3 words are not in the vocabulary .*: left, who, zoe"
    ):
        BabiTask(place)


def test_the_vocabulary_is_that_of_all_tasks_whatever_is_trained(data):
    whole, part = BabiTask(str(data)), BabiTask(str(data), tasks=(2, 1), format="story")
    assert whole.vocabulary == part.vocabulary
    assert part.input_symbols == part.output_size == len(whole.vocabulary)
    assert {"placet", "nowt", "milk", "apple"} < set(part.vocabulary.symbols)
    assert set(part.sequences["train"].tasks) == {1, 2}


def test_a_saved_vocabulary_is_used_and_checked(data):
    first = BabiTask(str(data), tasks=(1,))
    saved = Vocabulary.from_dict(first.vocabulary.to_dict())
    assert sequences_of(BabiTask(str(data), tasks=(1,), saved_vocabulary=saved)) == sequences_of(first)
    small = Vocabulary(tuple(symbol for symbol in saved.symbols if symbol not in ("mary", "placea")))
    with pytest.raises(ValueError, match=r"qa1_train.txt: 2 words are not in the vocabulary"):
        BabiTask(str(data), tasks=(1,), saved_vocabulary=small)


def test_without_its_training_file_task_3_trains_on_the_real_tenth(data):
    task = BabiTask(str(data), tasks=(1, 3))
    assert len(task.sequences["train"]) == 8 * 3 + 5 * 3
    stories = BabiTask(str(data), tasks=(3,), format="story")
    assert not set(sequences_of(stories)) & set(sequences_of(stories, "valid"))
    expected = "task 3 trains on 15 real questions: en-valid-10k/qa3_train.txt is not in the data"
    assert task.notes == [expected]
    assert expected in task.describe()
    assert BabiTask(str(data), tasks=(1,)).notes == []
    assert BabiTask(str(data), size="1k").notes == []


def test_the_real_file_is_used_when_it_is_there(data, tmp_path):
    text = make_story(3, random.Random(9))
    task = BabiTask(copy_of(data, tmp_path), tasks=(3,))
    assert task.notes
    (tmp_path / FOLDER / "en-valid-10k" / "qa3_train.txt").write_text(text)
    task = BabiTask(str(tmp_path), tasks=(3,))
    assert len(task.sequences["train"]) == 3
    assert task.notes == []


@pytest.mark.parametrize("place", ["data", "packed"])
def test_the_supplement_is_used_when_asked_for_and_said(place, request):
    task = BabiTask(str(request.getfixturevalue(place)), tasks=(3,), supplement=True)
    assert len(task.sequences["train"]) == 15 + 18
    assert "15 real questions" in task.notes[0]
    assert "18 SYNTHETIC questions of qa3_train_supplement" in task.describe()


def test_a_supplement_without_use_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="for task 3, which is not among the tasks"):
        BabiTask(str(data), tasks=(1,), supplement=True)
    with pytest.raises(ValueError, match="the 1k set does not need"):
        BabiTask(str(data), size="1k", supplement=True)
    with pytest.raises(
        ValueError, match=r"No supplement with qa3_train_supplement/qa3_train_SYNTHETIC.txt in"
    ):
        BabiTask(copy_of(data, tmp_path), supplement=True)


def test_a_run_with_the_supplement_is_tested_on_data_that_need_none(data, tmp_path):
    config = SupervisedConfig(
        task="babi",
        task_options={"tasks": "3", "supplement": True, "data": str(data)},
        core="lstm",
        iterations=1,
    )
    create_run(tmp_path / "run", SUPERVISED, config_to_dict(config))
    SupervisedTrainer(config, config.make_task(), tmp_path / "run").train()
    complete = copy_of(data, tmp_path)
    (tmp_path / FOLDER / "en-valid-10k/qa3_train.txt").write_text((data / FOLDER / TENTH).read_text())
    for place in (str(data), complete):
        text = describe_errors(*evaluate_run(tmp_path / "run", data=place))
        assert "SYNTHETIC questions of task 3" in text


def test_both_formats_ask_the_same_questions(data):
    for split in ("valid", "test"):
        one, other = (
            answers_in(BabiTask(str(data), format=form).evaluation_batches(split, 7))
            for form in ("question", "story")
        )
        assert one == other
        assert {kind for kind, _ in one} == set(range(1, 21))


def test_training_batches_depend_on_their_arguments_alone(data):
    task, other = (BabiTask(str(data), pool_batches=3) for _ in range(2))
    straight = [task.training_batch(index, 16, seed=4) for index in range(30)]
    for index in (29, 3, 12, 0, 28):
        again = other.training_batch(index, 16, seed=4)
        assert all(torch.equal(a, b) for a, b in zip(straight[index], again, strict=True))
    different = [other.training_batch(index, 16, seed=5) for index in range(3)]
    assert any(
        a.inputs.shape != b.inputs.shape or not torch.equal(a.inputs, b.inputs)
        for a, b in zip(straight[:3], different, strict=True)
    )


@pytest.mark.parametrize("form", ["question", "story"])
@pytest.mark.parametrize("batch_size", [5, 64, 700])
def test_every_sequence_comes_equally_often(data, form, batch_size):
    task = BabiTask(str(data), format=form, pool_batches=4)
    times = np.zeros(len(task.sequences["train"]), int)
    for index in range(4 * 11):
        chosen = task.order.batch(index, batch_size, seed=0)
        assert chosen.shape == (batch_size,)
        np.add.at(times, chosen, 1)
    assert times.sum() == 44 * batch_size
    assert times.max() - times.min() <= 1


def test_repeated_tasks_come_so_many_times_as_often(data):
    once = BabiTask(str(data), tasks=(1, 2, 8))
    task = BabiTask(str(data), tasks=(1, 2, 8), repeat=parse_repeat("2:3, 8:2"), pool_batches=1)
    kinds = once.sequences["train"].tasks
    counts = {number: int((kinds == number).sum()) for number in (1, 2, 8)}
    assert task.order.epoch == counts[1] + 3 * counts[2] + 2 * counts[8]
    drawn = np.concatenate([task.order.batch(index, task.order.epoch, seed=2) for index in range(2)])
    times = {1: 2, 2: 6, 8: 4}
    assert Counter(drawn.tolist()) == {number: times[kind] for number, kind in enumerate(kinds.tolist())}
    assert "those of task 2 3 times as often" in task.describe()
    assert len(task.sequences["valid"]) == len(once.sequences["valid"])


def test_repeats_follow_the_errors():
    assert repeats_by_error({1: 0.0, 2: 0.1, 3: 0.3, 16: 0.6}) == {1: 1, 2: 1, 3: 2, 16: 3}
    assert repeats_by_error({4: 0.3}) == {4: 2}
    assert repeats_by_error({1: 0.0, 2: 0.0}) == {}


def test_an_adaptive_task_repeats_what_was_wrong(data):
    task = BabiTask(str(data), tasks=(1, 2), adaptive=True, pool_batches=1)
    plain = BabiTask(str(data), tasks=(1, 2), pool_batches=1)
    assert torch.equal(task.training_batch(0, 8, 0).inputs, plain.training_batch(0, 8, 0).inputs)
    task.adapt({1: 0.05, 2: 0.35})
    repeated = BabiTask(str(data), tasks=(1, 2), repeat={1: 1, 2: 3}, pool_batches=1)
    assert task.order.epoch == repeated.order.epoch > plain.order.epoch
    assert torch.equal(task.training_batch(3, 8, 0).inputs, repeated.training_batch(3, 8, 0).inputs)
    plain.adapt({1: 0.05, 2: 0.35})
    assert torch.equal(
        plain.training_batch(0, 8, 0).inputs,
        BabiTask(str(data), tasks=(1, 2), pool_batches=1).training_batch(0, 8, 0).inputs,
    )


def test_repeats_without_sense_are_refused(data):
    for text in ("3", "3:", "x:2", "3:-1", "3:1.5"):
        with pytest.raises(ValueError, match="is not a task and how often its questions come"):
            parse_repeat(text)
    for repeat in ({3: 2}, {1: 0}):
        with pytest.raises(ValueError, match="repeat gives a number from 1 on for tasks of the run"):
            BabiTask(str(data), tasks=(1, 2), repeat=repeat)
    with pytest.raises(ValueError, match="a fixed training set"):
        BabiTask(fresh=True, tasks=(1,), repeat={1: 2})
    with pytest.raises(ValueError, match="repeat is for a fixed training set"):
        BabiTask(fresh=True, tasks=(1,), adaptive=True)
    with pytest.raises(ValueError, match="chooses itself what to repeat"):
        BabiTask(str(data), tasks=(1, 2), repeat={1: 2}, adaptive=True)


def test_one_epoch_has_every_sequence_once(data):
    task = BabiTask(str(data), tasks=(1, 2), pool_batches=3)
    assert task.order.epoch == 48
    for epoch in range(3):
        chosen = [task.order.batch(6 * epoch + index, 8, seed=2) for index in range(6)]
        assert sorted(np.concatenate(chosen)) == list(range(48))


def test_balance_by_tasks_gives_every_task_its_share(data):
    task = BabiTask(str(data), tasks=(1, 3, 4), balance="tasks", pool_batches=2)
    share = -(-(24 + 15 + 8) // 3)
    assert task.order.epoch == 3 * share
    drawn = np.concatenate([task.order.batch(index, share, seed=1) for index in range(6)])
    tasks, numbers = np.unique(task.sequences["train"].tasks[drawn], return_counts=True)
    assert tasks.tolist() == [1, 3, 4]
    assert numbers.tolist() == [2 * share] * 3


def test_batches_hold_similar_lengths_and_pad_at_the_end(data):
    def padding(pool_batches, mixing):
        task = BabiTask(str(data), pool_batches=pool_batches, mixing=mixing)
        batches = [task.training_batch(index, 16, seed=0) for index in range(40)]
        for batch in batches:
            assert len(batch.inputs) == batch.lengths.max()
            assert (batch.answers[~batch.present] == -1).all()
            assert (batch.inputs[~batch.asked] == batch.targets[~batch.asked]).all()
        return sum(int((~batch.present).sum()) for batch in batches)

    assert padding(20, 0.0) < padding(20, 0.5) < padding(1, 0.0)


def test_evaluation_has_every_sequence_once_by_length(data):
    task = BabiTask(str(data), format="story")
    batches = list(task.evaluation_batches("test", 9))
    lengths = torch.cat([batch.lengths for batch in batches]).tolist()
    assert lengths == sorted(task.sequences["test"].lengths.tolist())
    assert len(lengths) == 20 * 4
    assert [len(batch.kinds) for batch in batches[:-1]] == [9] * (len(batches) - 1)
    with pytest.raises(ValueError, match="Unknown set 'train2'; known sets: train, valid, test"):
        task.evaluation_batches("train2", 9)


def test_nothing_is_left_out_unless_asked_for_and_then_it_is_said(data):
    whole = BabiTask(str(data), tasks=(1, 2))
    limit = int(np.median(whole.sequences["train"].lengths))
    cut = BabiTask(str(data), tasks=(1, 2), max_length=limit, pool_batches=1)
    long = int((whole.sequences["train"].lengths > limit).sum())
    assert whole.notes == []
    assert cut.notes[0].startswith(
        f"{long} of 48 training sequences are left out, longer than {limit} symbols (task 1"
    )
    assert cut.order.epoch == 48 - long
    assert all(cut.training_batch(index, 8, 0).lengths.max() <= limit for index in range(20))
    assert len(cut.sequences["test"]) == len(whole.sequences["test"])
    with pytest.raises(ValueError, match="No training sequence has 1 symbols or fewer"):
        BabiTask(data, max_length=1)


def test_loss_and_errors_are_those_of_the_answers(data):
    task = BabiTask(str(data), tasks=(1, 19), format="story")
    counts, asked = ErrorCounts(), 0
    for batch in task.evaluation_batches("test", 3):
        logits = torch.zeros(*batch.inputs.shape, task.output_size).scatter_(
            2, batch.targets.unsqueeze(2), 50.0
        )
        assert task.loss(logits, batch) < 1e-6
        logits[~batch.asked] = 1e3 * torch.randn_like(logits[~batch.asked])
        assert task.loss(logits, batch) < 1e-6
        counts += task.count_errors(logits, batch)
        asked += int(batch.asked.sum())
    assert counts == ErrorCounts(0, asked, 0, 4 * 3 + 4, {1: (0, 12), 19: (0, 4)})


def test_an_answer_of_two_words_with_one_wrong_is_wrong(data):
    task = BabiTask(str(data), tasks=(19,))
    (batch,) = task.evaluation_batches("test", 10)
    logits = torch.zeros(*batch.inputs.shape, task.output_size).scatter_(2, batch.targets.unsqueeze(2), 1.0)
    last = int(batch.lengths[2]) - 1
    logits[last, 2] = 0.0
    logits[last, 2, task.vocabulary.placeholder] = 1.0
    assert task.count_errors(logits, batch) == ErrorCounts(1, 8, 1, 4, {19: (1, 4)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": (1, 21)}, "No bAbI task 21; known tasks: 1 to 20"),
        ({"tasks": ()}, "No bAbI task given"),
        ({"tasks": (2, 2)}, "given twice: 2, 2"),
        ({"size": "100k"}, "size must be one of 10k, 1k, got '100k'."),
        ({"format": "line"}, "format must be one of question, story, got 'line'."),
        ({"balance": "stories"}, "balance must be one of questions, tasks, got 'stories'."),
        ({"pool_batches": 0}, "pool_batches must be at least 1, got 0"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"mixing": -1.0}, "mixing must be a number from 0 on, got -1.0"),
    ],
)
def test_unknown_options_are_named(data, options, message):
    with pytest.raises(ValueError, match=message):
        BabiTask(str(data), **options)


def test_batch_numbers_must_make_sense(data):
    task = BabiTask(str(data), tasks=(1,))
    for index, batch_size, message in (
        (-1, 4, "index must not be negative, got -1"),
        (0, 0, "batch_size must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            task.training_batch(index, batch_size, 0)
    with pytest.raises(ValueError, match="numbered from 0"):
        task.order.batch(0, 0, 0)


def test_lists_of_tasks_are_parsed():
    assert parse_tasks("1,2, 19") == (1, 2, 19)
    assert parse_tasks("1-3,20") == (1, 2, 3, 20)
    for text, message in (
        ("", "'' is not a bAbI task"),
        ("1,two", "'two' is not a bAbI task"),
        ("1-99999999999", "No bAbI task 99999999999"),
        ("1-3,2", "given twice"),
        ("5-3", "'5-3' is not a bAbI task"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_tasks(text)
