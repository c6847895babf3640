"""Data that changed under a run, or that do not fit it: said before any work, with file and line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_babi import FOLDER, make_files
from test_own_tasks import EchoTask
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

from mnm_rl.tasks import Batch
from mnm_rl.tasks.babi.catbabi import BEGIN, CatbabiTask
from mnm_rl.tasks.babi.task import BabiTask
from mnm_rl.training.folder import load_state, save_state
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.evaluation import evaluate_run
from mnm_rl.training.supervised.trainer import SupervisedTrainer

both_tasks = pytest.mark.parametrize("task", ["babi", "catbabi"])
SHORT = "1 Mary went to placea.\n2 Where is Mary nowa? \tyes\t1\n"
LONG = SHORT.replace("went to", "went to placea " + "to Mary " * 4 + "to")
MANY = SHORT.replace("yes", "milk,apple,milk,apple")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def write(place: Path, **changes: str) -> str:
    """The files of bAbI, some of them others; ``qa1_test`` is that of the larger set."""
    for name, text in make_files().items():
        path = place / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(changes.get(path.stem, text))
    return str(place)


def renamed(place: Path) -> str:
    """The data with another word in place of one: as many words, and other numbers for some of them."""
    write(place)
    for path in place.rglob("*.txt"):
        path.write_text(path.read_text().replace("apple", "zebra"))
    return str(place)


def words(task: str, data: str, core: str = "lstm", batch_size: int = 3) -> list[str]:
    small = ["--hidden-size", "4", "--embedding-size", "4"]
    options = ["--task", task, "--data", data, "--babi-tasks", "1,8", "--core", core, *small]
    options += ["--iterations", "2", "--validate-every", "2", "--batch-size", str(batch_size)]
    return [*options, "--log-dir", "run", "--quiet", "--no-tensorboard"]


def more(*given: str) -> list[str]:
    return ["--resume", "run", "--iterations", "4", "--quiet", "--no-tensorboard", *given]


def symbols(task: str) -> list[str]:
    saved = load_state(Path("run/checkpoint.pt"))["task"]
    return saved["vocabulary"]["symbols"] if task == "babi" else saved["symbols"]


@both_tasks
def test_a_run_goes_on_with_its_own_symbols_or_not_at_all(task, tmp_path, run_script):  # noqa: F811
    data = write(tmp_path / "data")
    assert run_script("train_supervised", *words(task, data))[0] == 0
    before = symbols(task)
    status, _, error = run_script("train_supervised", *more("--data", renamed(tmp_path / "other")))
    assert status == 2
    assert "qa8_train.txt: 1 word is not in the vocabulary" in error
    assert ": zebra;" in error
    # Fewer words than before, of which each keeps its number.
    write(
        tmp_path / "fewer", **{f"qa{number}_train": make_files()["en-valid/qa1_train.txt"] for number in [5]}
    )
    assert run_script("train_supervised", *more("--data", str(tmp_path / "fewer")))[0] == 0
    assert symbols(task) == before
    # In place.
    renamed(tmp_path / "fewer")
    assert run_script("train_supervised", *more())[0] == 2
    assert symbols(task) == before


@pytest.mark.parametrize(("task", "name"), [("babi", "vocabulary"), ("catbabi", "symbols")])
def test_a_checkpoint_is_not_loaded_into_a_task_with_other_symbols(task, name, tmp_path):
    config = SupervisedConfig(
        task=task,
        task_options={"data": write(tmp_path / "data"), "tasks": "1,8"},
        core="lstm",
        core_settings={"hidden_size": 4},
        embedding_size=4,
        batch_size=3,
        iterations=2,
    )
    (tmp_path / "run").mkdir()
    SupervisedTrainer(config, config.make_task(), tmp_path / "run").train()
    other = config.with_task_options(data=renamed(tmp_path / "other"))
    with pytest.raises(ValueError, match=f"^The task has another {name} than that of the checkpoint"):
        SupervisedTrainer(other, other.make_task(), None).load(tmp_path / "run")
    saved = load_state(tmp_path / "run" / "checkpoint.pt")
    SupervisedTrainer(config, config.make_task(saved["task"]), None).load(tmp_path / "run")
    # What is not plain cannot be compared, and what a task no longer saves need not be.
    saved["task"] = {**saved["task"], "former": torch.zeros(2)}
    save_state(tmp_path / "run" / "checkpoint.pt", saved)
    SupervisedTrainer(config, config.make_task(), None).load(tmp_path / "run")


@pytest.mark.parametrize("core", ["entnet", "tpr-rnn"])
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "qa1_train",
            SHORT + LONG,
            "line 3: a sentence of 15 words, its end included; models of sentences take",
        ),
        ("qa8_valid", MANY, "line 2: an answer of 4 words; models of sentences give 3 at most."),
        ("qa8_test", SHORT + MANY, "line 4: an answer of 4 words; models of sentences give 3 at most."),
    ],
)
def test_what_models_of_sentences_cannot_read_is_named(core, name, text, message, tmp_path, run_script):  # noqa: F811
    data = write(tmp_path / "data", **{name: text})
    status, _, error = run_script("train_supervised", *words("babi", data, core))
    assert status == 2
    assert f"{name}.txt, {message}" in error
    assert not (tmp_path / "run").exists()
    status, _, error = run_script("tune", *words("babi", data, core)[:-4], "--trials", "1", "--out", "out")
    assert (status, f"{name}.txt, {message}" in error, (tmp_path / "out").exists()) == (2, True, False)
    assert run_script("train_supervised", *words("babi", data))[0] == 0  # a core that reads symbols


def test_of_task_3_without_its_file_the_file_that_was_read_is_named(tmp_path):
    tenth = "qa3_three-supporting-facts_train"
    data = write(tmp_path, **{tenth: make_files()[f"en/{tenth}.txt"] + LONG})
    with pytest.raises(ValueError, match=r"en/qa3_three-supporting-facts_train\.txt: a sentence of 15 words"):
        _ = BabiTask(data, tasks=(3,)).sentence_layout


def test_more_words_than_16_bits_hold(tmp_path):
    lines = (f" {' '.join(f'w{n + place}' for place in range(100))}.\n" for n in range(0, 40_000, 100))
    story = "".join(f"{number}{line}" for number, line in enumerate(lines, 1))
    data = write(tmp_path, qa1_train=f"{story}401 Where? \tw39999\t1\n" + SHORT)
    babi, cat = BabiTask(data, tasks=(1,)), CatbabiTask(data, tasks=(1,))
    assert min(babi.input_symbols, cat.input_symbols) > 2**15
    words = [f"w{n}" for n in range(40_000)]
    read = [babi.symbol_names[number] for number in babi.sequences["train"].batch(np.array([0])).targets]
    assert [word for word in read if word not in (".", "?", "where")] == [*words, "w39999"]
    text = [cat.symbol_names[number] for number in cat.texts["train"].symbols]
    assert [word for word in text if word.startswith("w") and word not in ("where", "went")] == [
        *words,
        "w39999",
    ]


def test_fewer_stories_than_sequences_of_a_batch_are_refused_at_once(tmp_path, run_script):  # noqa: F811
    given = words("catbabi", write(tmp_path / "data"), batch_size=17)
    message = "There are 16 training stories, too few for a batch_size of 17"
    status, _, error = run_script("train_supervised", *given)
    assert (status, message in error, (tmp_path / "run").exists()) == (2, True, False)
    status, _, error = run_script("tune", *given[:-4], "--trials", "1", "--out", "out")
    assert (status, message in error, (tmp_path / "out").exists()) == (2, True, False)
    assert run_script("train_supervised", *words("catbabi", str(tmp_path / "data"), batch_size=16))[0] == 0


class Picky(EchoTask):
    """Takes few sequences at a time, and has no validation set where there are four flags."""

    def training_batch(self, index: int, batch_size: int, seed: int) -> Batch:
        if batch_size > 5:
            raise ValueError("Five sequences at most.")
        return super().training_batch(index, batch_size, seed)

    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        if len(self.asked) == 4:
            raise ValueError("Nothing to validate with.")
        return super().evaluation_batches(split, batch_size)


def test_what_any_task_refuses_it_refuses_before_anything_is_written(tmp_path):
    config = SupervisedConfig(core="lstm", core_settings={"hidden_size": 4}, embedding_size=4, iterations=2)
    for size, flags, message in ((6, 3, "Five sequences at most."), (5, 4, "Nothing to validate with.")):
        trainer = SupervisedTrainer(replace(config, batch_size=size), Picky(flags * (True,)), tmp_path)
        with pytest.raises(ValueError, match=message):
            trainer.train()
    assert list(tmp_path.iterdir()) == []


def test_a_word_that_is_a_symbol_of_the_task_is_named(tmp_path, run_script):  # noqa: F811
    text = f"1 Mary went to placea.\n2 Where is Mary nowa? \tyes\t1\n3 Mary went {BEGIN} placea.\n"
    data = write(tmp_path / "data", qa7_train=text)
    status, _, error = run_script("train_supervised", *words("catbabi", data))
    assert status == 2
    assert f"qa7_train.txt, line 3: '{BEGIN}' is a symbol of the task, no word." in error
    assert not (tmp_path / "run").exists()
    assert run_script("train_supervised", *words("babi", data))[0] == 0
    evaluate_run(tmp_path / "run")
