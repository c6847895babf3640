"""scripts/analyze.py as it is used from a shell, and the share of supporting sentences that it prints."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_babi import FOLDER, make_files

from mnm_rl.analysis import Trace, record, similarities
from mnm_rl.analysis.episodes import make_episode
from mnm_rl.analysis.supports import support_shares, supporting_sentences
from mnm_rl.cores import CORES
from mnm_rl.tasks.babi import BabiTask
from mnm_rl.tasks.babi.files import VARIABLE
from mnm_rl.training.folder import A2C_AGENT, SUPERVISED, RunKind, create_run
from mnm_rl.training.rl.agent import make_agent
from mnm_rl.training.rl.config import A2CConfig
from mnm_rl.training.rl.config import config_to_dict as a2c_to_dict
from mnm_rl.training.rl.environments import make_env
from mnm_rl.training.supervised.config import SupervisedConfig, config_to_dict
from mnm_rl.training.supervised.evaluation import load_run
from mnm_rl.training.supervised.model import SequenceModel
from mnm_rl.training.supervised.trainer import SupervisedTrainer

CORES_TO_LOOK_INTO = [
    name
    for name, (kind, _) in CORES.items()
    if {"read_values", "write_values", "write_keys"} <= {*kind.trace_names}
]
TINY = SupervisedConfig(
    task="babi",
    task_options={"tasks": "1,8"},
    core_settings={"hidden_size": 8, "heads": 2, "key_size": 4, "value_size": 4, "memory_widths": [5]},
    embedding_size=6,
    batch_size=4,
    iterations=2,
)
TEST_FILE = """\
1 Mary went to placea.
2 John went to placea.
3 Where is Mary nowa? \tyes\t1
4 Mary went to placea.
5 John went to placea.
6 Where is Mary nowa? \tno\t5 2
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with tiny files in the official layout."""
    place = tmp_path_factory.mktemp("babi")
    for name, text in {**make_files(), "en-valid-10k/qa1_test.txt": TEST_FILE}.items():
        path = place / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Runs of three cores, trained for two iterations, by name."""
    place = tmp_path_factory.mktemp("runs")
    mnm = TINY.with_task_options(data=str(data))
    table = {"hidden_size": 8, "heads": 1, "key_size": 4, "value_size": 4}
    one_head = {**TINY.core_settings, "heads": 1}
    configs = {
        "mnm": mnm,
        "table": replace(mnm, core="lstm-salu", core_settings=table),
        "lstm": replace(mnm, core="lstm", core_settings={"hidden_size": 8}),
        "copy": replace(TINY, task="double-copy", task_options={"length": 3}, core_settings=one_head),
    }
    for name, config in configs.items():
        create_run(place / name, SUPERVISED, config_to_dict(config))
        SupervisedTrainer(config, config.make_task(), place / name).train()
    create_run(place / "other", RunKind("unheard-of", "curve.csv", "step", None), {})
    small = {"hidden_size": 4}
    agent = A2CConfig(env="MNMMaze-5x5", env_kwargs='{"horizon": 6}', core="lstm", core_settings=small)
    create_run(place / "agent", A2C_AGENT, a2c_to_dict(agent))
    make_agent(agent, make_env(agent, 2)).save(A2C_AGENT.checkpoint_of(place / "agent"))
    return place


@pytest.fixture
def analyze(monkeypatch, capsys, tmp_path, runs):
    """Run the script in this process; returns its exit status, stdout and stderr."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["analyze.py", *map(str, (runs / name, *arguments))])
        status = 0
        try:
            importlib.import_module("mnm_rl.commands.analyze").run_from_command_line()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_question_of_the_test_set(analyze, runs, tmp_path):
    status, out, error = analyze("mnm", "--task-number", 1, "--story", 2, "--out", "pictures")
    assert (status, error) == (0, "")
    assert out.startswith("mnm-p, bAbI task 1, test question 2: the model answers ")
    assert ", right is no\n" in out
    assert "read at nowa         most like written at" in out
    heads = {f"story-end-heads-{name}.png" for name in ("read-written", "written-written", "key-key")}
    pictures = {"question.png", "question-heads.png", "story-end.png", "forgetting.png"} | heads
    assert names(tmp_path / "pictures") == pictures | {"trace.pt"}
    for name in pictures:
        assert f"pictures/{name}\n" in out
        darkest, brightest = Image.open(tmp_path / "pictures" / name).convert("L").getextrema()
        assert (darkest, brightest) == (0, 255)
    trace = Trace.load(tmp_path / "pictures" / "trace.pt")
    model = load_run(runs / "mnm")[2]
    task = load_run(runs / "mnm")[1]
    assert isinstance(task, BabiTask)
    batch = task.sequences["test"].batch(np.array([1]))
    assert torch.equal(trace["read_values"], record(model.core, model.encoder(batch.inputs))["read_values"])


def test_a_story_of_ones_own_and_another_core(analyze, tmp_path):
    text = "Mary went to placea. Where is Mary nowa?"
    status, out, _ = analyze("table", "--text", text, "--out", "own")
    assert status == 0
    assert "lstm-salu, a story of one's own: the model answers " in out
    assert "right is" not in out
    assert "question.png" in names(tmp_path / "own")
    assert "forgetting.png" not in names(tmp_path / "own")


def test_an_agent_in_the_maze(analyze, tmp_path):
    status, out, error = analyze("agent", "--episodes", 3, "--out", "maze")
    assert (status, error) == (0, "")
    written = {"maze-agent.gif", "maze-agent.png", "maze-before-after.png", "trace.pt", "maze-numbers.txt"}
    assert names(tmp_path / "maze") == written
    assert all(f"maze/{name}: " in out for name in written)


def test_another_task(analyze, tmp_path):
    status, out, _ = analyze("copy", "--story", 2)
    assert status == 0
    assert out.startswith("mnm-p, double-copy, test episode 2: the model answers ")
    assert "8 steps later" in out
    assert "nan" not in out, "no write of a sequence of 10 steps is 16 steps ago"
    assert {"question.png", "story-end.png", "forgetting.png", "trace.pt"} == names(tmp_path / "analysis")


def test_supporting_sentences_are_counted_without_the_questions(data):
    task = BabiTask(str(data), tasks=(1,))
    assert supporting_sentences(task, 1) == [{0}, {3, 1}]


def test_shares_of_supporting_sentences(analyze, runs):
    _, task, model = load_run(runs / "mnm")
    assert isinstance(task, BabiTask)
    found, answers = [], []
    for number, supports in enumerate([{0}, {3, 1}]):
        episode = make_episode(task, task.sequences["test"].batch(np.array([number])), "")
        trace = record(model.core, model.encoder(episode.batch.inputs))
        step = int(trace.length) - 1
        assert episode.words[step] == "-"
        cosines = similarities(trace["read_values"][step:], trace["write_values"][: episode.question])
        top = int(cosines.argmax())
        found.append(episode.words[:top].count(".") in supports)
        answers.append(episode.words[top] == ["yes", "no"][number])
    assert isinstance(model, SequenceModel)
    shares = support_shares(model, task, 1, 100)
    assert (shares.questions, shares.found, shares.answer_word) == (2, np.mean(found), np.mean(answers))
    assert (shares.chance, shares.last) == (0.5, 0.5)
    status, out, _ = analyze("mnm", "--supports", 2)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["task", "1", "8"]
    assert f"{shares.found:.0%}" in out.splitlines()[1]


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        (
            "lstm",
            [],
            f"The core lstm has no memory; cores to look into: {', '.join(CORES_TO_LOOK_INTO)}.",
        ),
        ("mnm", ["--story", 99], "There is no story 99 in the test set; its stories are 1 to "),
        ("mnm", ["--story", 0], "There is no story 0 in the test set; its stories are 1 to "),
        ("mnm", ["--story", 3, "--task-number", 1], "in the test set of task 1; its stories are 1 to 2."),
        ("mnm", ["--task-number", 2], "The run has no bAbI task 2; its tasks: 1, 8."),
        ("mnm", ["--text", "Mary goes to placea. Where is Mary nowa?"], "The word 'goes' is not in the voc"),
        ("mnm", ["--text", "x", "--story", 1], "Give one of --story, --text and --supports"),
        ("mnm", ["--supports", 0], "supports must be at least 1, got 0."),
        ("copy", ["--text", "Mary went."], "--text is for runs on bAbI; "),
        ("copy", ["--task-number", 1], "--task-number is for runs on bAbI; "),
        ("other", [], "holds a run of kind unheard-of; known kinds: "),
        ("nothing", [], "There is no run at "),
        ("mnm", ["--episodes", 5], "--episodes is for agents; "),
        ("agent", ["--story", 1], "--story is for supervised runs; "),
        ("agent", ["--episodes", 1], "episodes must be at least 2, got 1."),
    ],
)
def test_bad_input_is_one_sentence(analyze, tmp_path, run, arguments, message):
    status, out, error = analyze(run, *arguments)
    assert (status, out) == (2, "")
    assert error.startswith("analyze.py: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.png"))
