"""Concatenated bAbI: texts without end, the state that is carried through them, and runs on them."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_babi import FOLDER, make_files
from test_cores import SMALL

from mnm_rl.cores import core_names, make_core, reads_sentences
from mnm_rl.tasks.babi.catbabi import BEGIN, CatbabiOptions, CatbabiTask
from mnm_rl.tasks.babi.streams import Streams
from mnm_rl.tasks.base import Batch, ErrorCounts
from mnm_rl.training.folder import load_state, save_state
from mnm_rl.training.supervised.carried import CarriedState
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.evaluation import describe_errors, evaluate_run
from mnm_rl.training.supervised.model import SequenceModel, seeded_model
from mnm_rl.training.supervised.trainer import SupervisedTrainer

SCRIPTS = Path(__file__).parent.parent / "scripts"
TOKEN_CORES = [name for name in core_names() if not reads_sentences(name)]
every_core = pytest.mark.parametrize("core", TOKEN_CORES)


def write(place: Path, **changes: str) -> str:
    for name, text in {**make_files(), **changes}.items():
        path = place / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(place)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("babi"))


@pytest.fixture(scope="module")
def task(data):
    return CatbabiTask(data, tasks=(1, 8, 19), window=7)


def joined(batches: list[Batch], column: int) -> list[int]:
    """The inputs of a column over several batches."""
    return torch.cat([batch.inputs[: batch.lengths[column], column] for batch in batches]).tolist()


def test_batches_go_on_where_the_last_one_ended_and_targets_are_what_comes_next(task):
    batches = [task.training_batch(index, 4, seed=1) for index in range(30)]
    for b in range(4):
        inputs = joined(batches, b)
        targets = torch.cat([batch.targets[:, b] for batch in batches]).tolist()
        assert targets[:-1] == inputs[1:]
    assert all(batch.lengths.tolist() == [7] * 4 for batch in batches)


def test_a_batch_is_a_function_of_its_index_and_seed(task, data):
    for index in (0, 39, 17, 40, 2):  # forwards and backwards
        fresh = CatbabiTask(data, tasks=(1, 8, 19), window=7).training_batch(index, 4, seed=1)
        found = task.training_batch(index, 4, seed=1)
        assert all(torch.equal(a, b) for a, b in zip(found, fresh, strict=True))
    assert not torch.equal(task.training_batch(2, 4, seed=2).inputs, found.inputs)


def test_every_story_comes_once_in_every_round():
    streams = Streams(np.array([3, 1, 4, 2, 5]), 2, seed=0)
    for b in range(2):
        whole = streams.part(b, 0, 60)
        starts = np.flatnonzero(whole[:, 1] == 0)
        for piece, place in whole[: starts[-1]]:
            assert 0 <= place < [3, 1, 4, 2, 5][piece]
        assert np.array_equal(streams.part(b, 13, 20), whole[13:33])
    per_round = [Counter(), Counter()]
    for b, count in ((0, 3), (1, 2)):
        whole = streams.part(b, 0, 60)
        pieces = whole[whole[:, 1] == 0, 0].tolist()
        for number, counter in enumerate(per_round):
            counter.update(pieces[number * count : (number + 1) * count])
    assert per_round == [Counter(range(5))] * 2


def test_a_text_is_the_stories_with_each_answer_as_one_symbol(task, data):
    lines = (Path(data) / FOLDER / "en-valid-10k" / "qa8_test.txt").read_text().splitlines()
    words = []
    for line in lines:
        number, _, rest = line.partition(" ")
        text, *answer = rest.split("\t")
        words += [BEGIN] * (number == "1")
        words += [*text.strip()[:-1].lower().split(), text.strip()[-1], *answer[:1]]
    text = task.texts["test"]
    of_task = np.repeat(text.tasks, np.diff(text.ends)) == 8
    assert [task.symbols[n] for n in text.symbols[of_task]] == words
    assert "milk,apple" in words


def test_question_marks_are_asked_about_by_the_task_of_their_story(task):
    batches = list(task.evaluation_batches("test", 5))
    counts = ErrorCounts()
    for batch in batches:
        assert torch.equal(batch.asked, (batch.inputs == task.symbols.index("?")) & batch.present)
        right = torch.nn.functional.one_hot(batch.targets, task.output_size).float()
        counts += task.count_errors(right, batch)
    assert counts == ErrorCounts(0, 28, 0, 28, {1: (0, 12), 8: (0, 12), 19: (0, 4)})


def test_one_wrong_answer_counts_for_its_own_task(task):
    batch = next(batch for batch in task.evaluation_batches("test", 1) if batch.asked.any())
    right = torch.nn.functional.one_hot(batch.targets, task.output_size).float()
    steps = batch.asked[:, 0].nonzero()[:, 0]
    right[steps[0], 0] = 0
    kind = int(batch.step_kinds[steps[0], 0])
    counts = task.count_errors(right, batch)
    assert counts.wrong_answers == 1
    assert counts.by_kind[kind][0] == 1


def test_every_held_out_question_is_asked_once_however_many_columns(task):
    for columns in (1, 3, 100):
        batches = list(task.evaluation_batches("test", columns))
        assert sum(int(batch.asked.sum()) for batch in batches) == 28
    with pytest.raises(ValueError, match="Unknown set 'train'; known sets: valid, test"):
        next(task.evaluation_batches("train", 3))


def test_language_mode_learns_every_symbol_and_counts_the_answers(task, data):
    language = CatbabiTask(data, tasks=(1, 8, 19), window=7, mode="language")
    batch, other = (each.training_batch(3, 4, 0) for each in (language, task))
    assert torch.equal(batch.inputs, other.inputs)
    assert batch.asked.all()
    logits = torch.randn(7, 4, language.output_size)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.targets.flatten(), reduction="sum"
    )
    torch.testing.assert_close(language.loss(logits, batch), expected)
    assert language.count_errors(logits, batch) == task.count_errors(logits, other)


def test_errors_by_step_are_those_by_sequence_where_they_agree(task):
    batch = next(task.evaluation_batches("test", 100))
    logits = torch.randn(*batch.inputs.shape, task.output_size)
    kinds = batch.step_kinds[0]
    same = batch._replace(step_kinds=kinds.expand_as(batch.step_kinds))
    by_sequence = batch._replace(step_kinds=torch.empty(0), kinds=kinds)
    one, other = (task.count_errors(logits, each) for each in (same, by_sequence))
    asked = {kind: counted for kind, counted in other.by_kind.items() if counted[1]}
    assert (one.wrong_answers, one.answers, one.by_kind) == (other.wrong_answers, other.answers, asked)


def test_a_share_of_a_batch_keeps_the_kinds_of_its_steps(task):
    batch = task.training_batch(0, 4, 0)
    share = batch.columns(slice(1, None, 2))
    assert torch.equal(share.step_kinds, batch.step_kinds[:, 1::2])
    assert torch.equal(share.to("cpu").step_kinds, share.step_kinds)


@every_core
def test_a_carried_state_makes_one_sequence_of_all_batches(core, task):
    torch.manual_seed(0)
    model = SequenceModel(task, core, 4, SMALL[core]).double()
    batches = [task.training_batch(index, 3, 0) for index in range(4)]
    carried, parts = CarriedState(), []
    for batch in batches:
        parts.append(model(batch.inputs, batch.lengths, carried=carried)[0])
        assert not any(field.requires_grad for field in carried.state)
    whole = model(torch.cat([batch.inputs for batch in batches]))[0]
    torch.testing.assert_close(torch.cat(parts), whole)
    alone = model(batches[1].inputs)[0]
    assert not torch.allclose(parts[1], alone)


def test_a_table_that_grows_keeps_its_latest_slots(task, monkeypatch):
    monkeypatch.setattr("mnm_rl.training.supervised.carried.MOST_SLOTS", 10)
    core = make_core("lstm-salu", 4, **SMALL["lstm-salu"])
    state = core(torch.randn(9, 3, 4)).state
    carried = CarriedState()
    carried.put(core, state)
    assert carried.state.keys.shape == (3, 10, 3)
    assert torch.equal(carried.state.values, state.values[:, -10:])
    assert torch.equal(carried.state.written, state.written[:, -10:])
    core(torch.randn(2, 3, 4), carried.state)


def config_of(core: str, data: str, **changes) -> SupervisedConfig:
    config = SupervisedConfig(
        task="catbabi",
        task_options={"data": data, "tasks": "1,8,19", "window": 9},
        core=core,
        core_settings=SMALL[core],
        embedding_size=5,
        batch_size=3,
        iterations=12,
        validate_every=5,
        log_every=4,
    )
    return replace(config, **changes)


def trained(config: SupervisedConfig, directory: Path, resume: bool = False) -> SupervisedTrainer:
    directory.mkdir(exist_ok=True)
    trainer = SupervisedTrainer(config, config.make_task(), directory)
    if resume:
        trainer.load(directory)
    trainer.train()
    return trainer


@pytest.mark.parametrize("core", ["mnm-p", "lstm", "lstm-salu", "plastic"])
def test_a_resumed_run_carries_its_state_on(core, data, tmp_path):
    config = config_of(core, data)
    whole = trained(config, tmp_path / "whole")
    trained(replace(config, iterations=7), tmp_path / "parts")
    parts = trained(config, tmp_path / "parts", resume=True)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(one, other)
    saved = load_state(tmp_path / "whole" / "checkpoint.pt")["carried"]
    assert all(torch.equal(saved[name], getattr(parts._carried.state, name)) for name in saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved | {"hidden": saved["hidden"][1:]}, "hidden of the carried state is not"),
        (
            lambda saved: saved | {"cell": saved["cell"] * float("nan")},
            "cell of the carried state is not finite",
        ),
        (lambda saved: {"cell": saved["cell"]}, "the carried state does not have hidden, cell"),
        (lambda saved: 5, "the carried state does not have hidden, cell"),
    ],
)
def test_a_damaged_state_is_named(change, message, data, tmp_path):
    trained(config_of("lstm", data, iterations=3), tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.pt"
    state = load_state(path)
    save_state(path, state | {"carried": change(state["carried"])})
    with pytest.raises(ValueError, match=message):
        trained(config_of("lstm", data), tmp_path / "run", resume=True)


def test_a_state_that_is_not_finite_does_not_go_on(data):
    config = config_of("lstm", data)
    trainer = SupervisedTrainer(config, config.make_task(), None)
    trainer._iterate()
    assert trainer._carried.state is not None
    trainer._carried.state.hidden.fill_(float("nan"))
    trainer._iterate()
    assert trainer.optimizer.skipped == 1
    assert trainer._carried.state is None


def test_a_window_without_a_question_is_no_update_that_fails(data):
    config = config_of("lstm", data, task_options={"data": data, "tasks": "1", "window": 1}, batch_size=1)
    trainer = SupervisedTrainer(config, config.make_task(), None)
    trainer.train()
    assert trainer.optimizer.skipped == 0


def test_the_commands_train_resume_and_evaluate(data, tmp_path):
    run = [sys.executable, str(SCRIPTS / "train_supervised.py")]
    options = [
        "--task",
        "catbabi",
        "--core",
        "gru",
        "--hidden-size",
        "6",
        "--mode",
        "language",
        "--window",
        "9",
    ]
    options += ["--babi-tasks", "1,8", "--iterations", "3", "--batch-size", "3", "--data", data]
    subprocess.run([*run, *options, "--log-dir", str(tmp_path / "run"), "--quiet"], check=True)
    subprocess.run([*run, "--resume", str(tmp_path / "run"), "--iterations", "5", "--quiet"], check=True)
    values = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert values["task_options"]["mode"] == "language"
    config, task, counts = evaluate_run(tmp_path / "run")
    assert counts.answers == 24
    table = describe_errors(config, task, counts)
    assert "93.04" in table
    assert "8: lists/sets" in table


def test_a_trained_model_is_tested_with_its_own_symbols(data, tmp_path):
    config = config_of("lstm", data, iterations=1)
    trained(config, tmp_path / "run")
    saved = config.make_task().saved()
    assert CatbabiOptions(data=data, tasks="1").make(saved).symbols == tuple(saved["symbols"])
    files = make_files()
    name = "en-valid-10k/qa8_test.txt"
    other = write(tmp_path / "other", **{name: files[name].replace("\tyes\t", "\tapple,apple\t")})
    with pytest.raises(ValueError, match="does not know the answer 'apple,apple' of the test set"):
        CatbabiOptions(data=other, tasks="1,8,19").make(saved)
    with pytest.raises(ValueError, match=f"The saved symbols must hold {BEGIN}"):
        CatbabiOptions(data=data).make({"symbols": ["a"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"mode": "answers"}, "mode must be one of question, language, got 'answers'."),
        ({"tasks": (21,)}, "No bAbI task 21"),
        ({"size": "100k"}, "size must be one of 10k, 1k, got '100k'."),
        ({"origin": "both"}, "origin must be one of any, official, generated, got 'both'."),
    ],
)
def test_unknown_options_are_named(options, message, data):
    with pytest.raises(ValueError, match=message):
        CatbabiTask(data, **options)


def test_too_many_columns_are_named(task):
    with pytest.raises(ValueError, match="There are 24 training stories, too few for a batch_size of 25"):
        task.training_batch(0, 25, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1 Mary went away.\n1 John went away.\n2 Where is John? \taway\t1\n",
            "the story before it has no question",
        ),
        ("1 Mary went away\n2 Where is Mary? \taway\t1\n", "expected 'ID statement"),
    ],
)
def test_a_text_without_a_question_or_the_end_of_a_sentence_is_named(text, message, tmp_path):
    place = write(tmp_path, **{"en-valid-10k/qa1_train.txt": text})
    with pytest.raises(ValueError, match=rf"qa1_train.txt, line \d: .*{message}"):
        CatbabiTask(place, tasks=(1,))


def test_a_core_of_sentences_is_refused(data):
    with pytest.raises(ValueError, match="tpr-rnn reads whole sentences, and the task catbabi has none"):
        config_of("tpr-rnn", data).check()


def test_several_processes_are_refused(data, monkeypatch):
    monkeypatch.setattr("mnm_rl.training.supervised.trainer.process_share", lambda: (0, 3))
    config = config_of("lstm", data)
    with pytest.raises(ValueError, match="catbabi carries a state between batches, in one process only"):
        SupervisedTrainer(config, config.make_task(), None)


def test_it_learns_to_answer(tmp_path):
    places = ("park", "school", "office", "garden")
    story = "1 Mary went to the {}.\n2 John went away.\n3 Where is Mary? \t{}\t1\n"
    text = "".join(story.format(place, place) for place in places)
    names = [f"en-valid-10k/qa1_{split}.txt" for split in ("train", "valid", "test")]
    task = CatbabiTask(write(tmp_path, **dict.fromkeys(names, text)), tasks=(1,), window=20)
    model = seeded_model(task, "gru", 16, {"hidden_size": 32}, 0)
    optimizer, carried = torch.optim.Adam(model.parameters(), 1e-2), CarriedState()
    errors = ErrorCounts()
    for iteration in range(150):
        batch = task.training_batch(iteration, 4, 0)
        logits, _, _ = model(batch.inputs, carried=carried)
        optimizer.zero_grad()
        task.loss(logits, batch).backward()
        optimizer.step()
        if iteration >= 100:
            errors += task.count_errors(logits.detach(), batch)
    assert errors.answers > 200
    assert errors.answer_error < 0.03
