"""Stories cut into sentences, the model that reads them, and runs of it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_babi import FOLDER, make_files
from torch import Tensor

from mnm_rl.tasks import Batch, DictionaryTask, Task
from mnm_rl.tasks.babi import BabiTask
from mnm_rl.tasks.base import batch_generator
from mnm_rl.tasks.sentences import SentenceLayout, cut_into_sentences
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.evaluation import describe_errors, evaluate_run
from mnm_rl.training.supervised.model import SequenceModel, check_model_fits, seeded_model
from mnm_rl.training.supervised.sentences import SentenceModel, different_rows
from mnm_rl.training.supervised.trainer import SupervisedTrainer, evaluate

SMALL = {
    "tpr-rnn": {"hidden_size": 6, "entity_size": 7, "role_size": 5},
    "entnet": {"hidden_size": 8, "slots": 3},
}
every_core = pytest.mark.parametrize("core", SMALL)
SCRIPTS = Path(__file__).parent.parent / "scripts"
WORDS = ["-", ".", "?", "a", "b", "c"]
LAYOUT = SentenceLayout(stop=1, question_mark=2, placeholder=0, longest=4, answer_words=2)


def column(text: str) -> Tensor:
    return torch.tensor([WORDS.index(word) for word in text.split()])


def together(*texts: str) -> tuple[Tensor, Tensor]:
    """Symbols ``[T, B]`` padded with placeholders, as bAbI's are, and lengths."""
    columns = [column(text) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(columns), torch.tensor([len(each) for each in columns])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("babi")
    for name, text in make_files().items():
        path = place / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(place)


def test_sequences_are_cut_at_the_ends_of_sentences():
    stories = cut_into_sentences(*together("a b . c ? - - b .", "? -"), LAYOUT)
    a, b, c = (WORDS.index(word) for word in "abc")
    assert stories.words[:, 0].tolist() == [[a, b, 1, -1], [c, 2, -1, -1], [b, 1, -1, -1]]
    assert stories.words[:, 1].tolist() == [[2, -1, -1, -1], [-1] * 4, [-1] * 4]
    assert stories.statements.T.tolist() == [[True, False, True], [False] * 3]
    assert stories.questions.T.tolist() == [[False, True, False], [True, False, False]]
    places = zip(stories.steps, stories.sequences, stories.asked, stories.answer_words, strict=True)
    assert [tuple(map(int, place)) for place in places] == [(1, 1, 0, 0), (5, 0, 1, 0), (6, 0, 1, 1)]


def test_padding_is_found_by_the_lengths_alone():
    symbols, lengths = together("a . b ? -", "a .")
    assert torch.equal(symbols[2:, 1], torch.zeros(3, dtype=torch.int64))
    whole = cut_into_sentences(symbols[:, :1], None, LAYOUT)
    part = cut_into_sentences(symbols, lengths, LAYOUT)
    assert torch.equal(whole.words[:, 0], part.words[:, 0])
    assert part.steps.tolist() == whole.steps.tolist() == [4]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a . b ? -", "a b c"], r"Sequence 1 of the batch has no word that ends a sentence, '\.' or '\?'\."),
        (["a . b c"], "Sequence 0 of the batch ends, or has an answer, within a sentence"),
        (["a . b - c ."], "Sequence 0 of the batch ends, or has an answer, within a sentence"),
        (["a . b ? - .", "a . -"], "Sequence 1 of the batch has an answer that follows no question"),
        (["- a ."], "Sequence 0 of the batch has an answer that follows no question"),
        (["a b c a ."], "A sentence has 5 words; models of sentences take 4"),
        (["a ? - - -"], "An answer has 3 words; models of sentences give 2"),
    ],
)
def test_what_cannot_be_cut_is_named(texts, message):
    with pytest.raises(ValueError, match=message):
        cut_into_sentences(*together(*texts), LAYOUT)


def test_babi_says_what_ends_its_sentences(data):
    task = BabiTask(data, tasks=(1, 8), format="story")
    (batch,) = task.evaluation_batches("test", 100)
    stories = cut_into_sentences(batch.inputs, batch.lengths, task.sentence_layout)
    texts = [task.vocabulary.decode(row[row >= 0]) for row in stories.words[:, 0]]
    assert all(text.startswith(("mary", "john")) for text in texts if text.endswith("."))
    assert " ".join(filter(None, texts)) == task.vocabulary.decode(
        batch.inputs[: batch.lengths[0], 0]
    ).replace(" -", "")
    assert len(stories.steps) == batch.asked.sum()
    assert stories.questions.sum() == (batch.answers.max(0).values + 1).sum()


def test_different_sentences_are_found_once():
    words = torch.randint(-1, 2, (5, 4, 3), generator=torch.Generator().manual_seed(0))
    different, which = different_rows(words)
    assert torch.equal(different[which], words)
    assert len(different) == len(different.unique(dim=0))


def test_sentences_are_told_apart_even_if_their_numbers_agree(monkeypatch):
    monkeypatch.setattr("mnm_rl.training.supervised.sentences.row_numbers", lambda rows: rows[:, 0] * 0)
    words = torch.randint(-1, 2, (5, 4, 3), generator=torch.Generator().manual_seed(0))
    different, which = different_rows(words)
    assert torch.equal(different[which], words)


def model_of(task: Task, core: str) -> SentenceModel:
    model = seeded_model(task, core, 8, SMALL[core], seed=0)
    assert isinstance(model, SentenceModel)
    return model.double()


@every_core
def test_one_pass_over_a_story_answers_as_one_sequence_for_each_question(core, data):
    stories, questions = (BabiTask(data, tasks=(1, 8), format=form) for form in ("story", "question"))
    model = model_of(stories, core)
    answers = []
    for task in (stories, questions):
        sequences = task.sequences["test"]
        found = []
        for number in range(len(sequences)):  # in the order of the files, in either format
            batch = sequences.batch(torch.tensor([number]).numpy())
            logits, meta_loss, _ = model(batch.inputs, batch.lengths)
            assert not logits[~batch.asked].any()
            assert not meta_loss.any()
            found.append(logits[batch.asked])
        answers.append(torch.cat(found))
    assert answers[0].abs().min() > 0
    torch.testing.assert_close(*answers)


@every_core
def test_padding_and_the_other_stories_of_a_batch_do_not_matter(core, data):
    task = BabiTask(data, tasks=(1, 8), format="story")
    model = model_of(task, core)
    (batch,) = task.evaluation_batches("test", 100)
    logits = model(batch.inputs, batch.lengths)[0]
    assert batch.lengths.min() < batch.lengths.max()
    for b, length in enumerate(batch.lengths.tolist()):
        alone = model(batch.inputs[:length, b : b + 1])[0]
        torch.testing.assert_close(logits[:length, b : b + 1], alone)


@every_core
def test_an_answer_depends_on_statements_before_it_and_not_on_other_questions(core):
    task = TellingTask()
    model = model_of(task, core)

    def answer(text: str, number: int) -> Tensor:
        logits = model(torch.tensor([[task.words.index(word)] for word in text.split()]))[0]
        return logits[[place for place, word in enumerate(text.split()) if word == "-"][number], 0]

    first = answer("p0 q0 . p0 ? - p0 q1 .", 0)
    assert torch.equal(first, answer("p0 q0 . p0 ? - p0 q2 .", 0))
    torch.testing.assert_close(first, answer("p0 q0 . p1 ? - p0 ? -", 1))
    assert not torch.allclose(first, answer("p0 q1 . p0 ? -", 0))
    assert not torch.allclose(first, answer("p0 q0 . p1 ? -", 0))


def test_equal_masks_make_the_order_of_words_irrelevant_and_others_do_not():
    task = TellingTask()
    model = model_of(task, "entnet")
    words = torch.tensor([[0 + 3, 4 + 3, 1, -1], [4 + 3, 3, 1, -1]])
    one, other = model.encoder(words)
    torch.testing.assert_close(one, other)
    with torch.no_grad():
        model.encoder.masks.add_(torch.randn_like(model.encoder.masks))
    one, other = model.encoder(words)
    assert not torch.allclose(one, other)


def test_encoders_sum_what_their_papers_say():
    task, words = TellingTask(), torch.tensor([[3, 1, -1, -1], [4, 2, -1, -1]])
    for core in SMALL:
        encoder = model_of(task, core).encoder
        with torch.no_grad():
            encoder.masks.add_(torch.randn_like(encoder.masks))
        masks, embedding = encoder.masks, encoder.embedding
        for row, found in zip(words.tolist(), encoder(words), strict=True):
            if core == "entnet":  # without its end, and questions by masks of their own
                expected = masks[int(row[1] == 2), 0] * embedding[row[0]]
            else:
                padding = len(task.words)
                symbols = [padding if word < 0 else word for word in row]
                expected = sum(masks[0, place] * embedding[word] for place, word in enumerate(symbols))
            torch.testing.assert_close(found, expected)


class TellingTask(Task):
    """Who is where, with everybody moving: ``p2 q1 . p0 q3 . p2 ? -``."""

    PEOPLE = PLACES = 4
    words = (*WORDS[:3], "p0", "p1", "p2", "p3", "q0", "q1", "q2", "q3")
    input_symbols = output_size = len(words)
    sentence_layout = SentenceLayout(1, 2, 0, 4, 1)  # pyright: ignore

    def training_batch(self, index: int, batch_size: int, seed: int) -> Batch:
        generator = batch_generator(seed, index)
        symbols = []
        for _ in range(batch_size):
            where, text = {}, []
            for _ in range(5):
                person, place = torch.randint(4, (2,), generator=generator).tolist()
                where[person] = place
                text += [3 + person, 3 + self.PEOPLE + place, 1]
            person = list(where)[int(torch.randint(len(where), (), generator=generator))]
            symbols.append([*text, 3 + person, 2, 3 + self.PEOPLE + where[person]])
        targets = torch.tensor(symbols).T
        inputs = torch.cat([targets[:-1], torch.zeros_like(targets[:1])])
        answers = torch.full_like(inputs, -1)
        answers[-1] = 0
        lengths = torch.full((batch_size,), len(inputs))
        return Batch(inputs, targets, answers, lengths, torch.zeros_like(lengths))

    def evaluation_batches(self, split: str, batch_size: int):
        yield self.training_batch(len(split), 200, 10**6)


@pytest.mark.parametrize(
    ("core", "settings", "rate"),
    [
        ("tpr-rnn", {"hidden_size": 20, "entity_size": 16, "role_size": 8}, 5e-3),
        ("entnet", {"hidden_size": 48, "slots": 10}, 5e-3),
    ],
)
def test_it_learns_who_is_where(core, settings, rate):
    task = TellingTask()
    model = seeded_model(task, core, 48, settings, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for iteration in range(450):
        batch = task.training_batch(iteration, 64, 0)
        loss = task.loss(model(batch.inputs, batch.lengths)[0], batch) / 64
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    assert evaluate(model, task, "test").answer_error < 0.02


def config_of(core: str, data: str, **changes) -> SupervisedConfig:
    config = SupervisedConfig(
        task="babi",
        task_options={"data": data, "tasks": "1,8,19", "format": "story"},
        core=core,
        core_settings=SMALL[core],
        embedding_size=8,
        batch_size=4,
        iterations=12,
        validate_every=5,
        log_every=4,
    )
    return replace(config, **changes)


@every_core
def test_a_run_stops_goes_on_and_is_tested(core, data, tmp_path):
    def trained(config, name):
        (tmp_path / name).mkdir(exist_ok=True)
        trainer = SupervisedTrainer(config, config.make_task(), tmp_path / name)
        if trainer.directory is not None and (tmp_path / name / "checkpoint.pt").exists():
            trainer.load(tmp_path / name)
        trainer.train()
        return trainer

    config = config_of(core, data)
    whole = trained(config, "whole")
    trained(replace(config, iterations=7), "parts")
    parts = trained(config, "parts")
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(one, other)


@every_core
def test_the_commands_train_and_evaluate(core, data, tmp_path):
    settings = [f"--core.{name.replace('_', '-')}={value}" for name, value in SMALL[core].items()]
    run = [sys.executable, str(SCRIPTS / "train_supervised.py"), "--task", "babi", "--core", core, *settings]
    options = ["--babi-tasks", "1,8", "--babi-format", "story", "--iterations", "3", "--batch-size", "4"]
    options += ["--data", data, "--log-dir", str(tmp_path / "run"), "--quiet"]
    subprocess.run([*run, *options], check=True, capture_output=True)
    values = json.loads((tmp_path / "run" / "config.json").read_text())
    assert values["config"]["core"] == core
    config, task, counts = evaluate_run(tmp_path / "run")
    assert counts.answers == 24
    table = describe_errors(config, task, counts)
    assert "1: one supporting fact" in table
    assert "TPR-RNN" in table


@every_core
def test_published_sizes_are_those_of_the_core_not_of_the_task(core):
    config = SupervisedConfig(task="babi", core=core)
    config.check()
    assert config.all_core_settings()["hidden_size"] == {"tpr-rnn": 40, "entnet": 100}[core]
    assert SupervisedConfig(task="babi", core="lstm").all_core_settings()["hidden_size"] == 256


@every_core
def test_a_core_of_sentences_on_a_task_without_any_is_refused(core):
    with pytest.raises(
        ValueError, match=rf"The core {core} reads whole sentences, and the task dictionary has"
    ):
        SupervisedConfig(task="dictionary", core=core).check()
    with pytest.raises(ValueError, match=f"The core {core} reads sentences, and DictionaryTask has none"):
        seeded_model(DictionaryTask(1), core, 8, SMALL[core], 0)


def test_the_command_refuses_a_core_of_sentences_in_one_sentence():
    command = [sys.executable, str(SCRIPTS / "train_supervised.py"), "--core", "entnet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "tasks with sentences: babi" in done.stderr + done.stdout


def test_several_layers_of_a_core_of_sentences_are_refused_before_any_work():
    with pytest.raises(ValueError, match="core_layers must be 1 for the core entnet, which reads sentences"):
        SupervisedConfig(task="babi", core="entnet", core_layers=2).check()


def test_a_core_of_symbols_where_sentences_are_read_is_refused():
    with pytest.raises(
        ValueError, match=r"The core lstm does not read sentences; cores that do: tpr-rnn, entnet"
    ):
        SentenceModel(TellingTask(), "lstm", 8, {"hidden_size": 4})


def test_a_core_of_sentences_may_take_a_symbol_as_one(data):
    task = BabiTask(data, tasks=(1,))
    check_model_fits(task, "entnet", 8, SMALL["entnet"], 4)
    batch = task.training_batch(0, 3, 0)
    model = SequenceModel(task, "entnet", 8, SMALL["entnet"])
    assert model(batch.inputs, batch.lengths)[0].shape == (*batch.inputs.shape, task.output_size)


def test_a_run_of_sentences_has_no_pictures_and_says_so(data, tmp_path):
    config = config_of("entnet", data, iterations=1)
    trainer = SupervisedTrainer(config, config.make_task(), None)
    trainer.train()
    assert "rate" not in trainer.validate()
