"""Tasks from outside of the package, in which no sentence or bar says where a question begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

from mnm_rl.analysis.episodes import held_out_episode
from mnm_rl.analysis.labels import question_start
from mnm_rl.tasks import Batch, TaskOptions
from mnm_rl.tasks.base import whole_sequences
from mnm_rl.tasks.generated import GeneratedTask


@dataclass(frozen=True)
class EchoTask(GeneratedTask):
    """At some steps the symbol of the step before is asked for; symbols have no names."""

    input_symbols = 4
    output_size = 4
    asked: tuple[bool, ...]
    held_out_episodes = 8

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        inputs = torch.randint(4, (len(self.asked), batch_size), generator=generator)
        asked = torch.tensor(self.asked).unsqueeze(1).expand_as(inputs)
        return whole_sequences(inputs, inputs.roll(1, 0), asked)


@dataclass(frozen=True)
class EchoOptions(TaskOptions):
    """Where it is asked: a word of 0 and 1."""

    task_class = EchoTask
    asked: str = "111"

    def make(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> EchoTask:
        return EchoTask(tuple(letter == "1" for letter in self.asked))


ECHO = f"{__name__}:EchoOptions"


@pytest.mark.parametrize(
    ("asked", "question"), [("0001", 3), ("1111", 3), ("0100110", 4), ("1001", 3), ("10", 1), ("1", 0)]
)
def test_the_last_question_has_something_before_it_where_that_can_be(asked, question):
    flags = [letter == "1" for letter in asked]
    assert question_start(tuple("abcdefg"[: len(asked)]), flags) == question
    episode = held_out_episode(EchoOptions(asked).make(), 1)
    assert (episode.question, len(episode.story_words)) == (question, question)


@pytest.mark.parametrize(
    ("core", "asked"), [("mnm-p", "001"), ("mnm-p", "111"), ("mnm-p", "1"), ("ntm", "111"), ("dnc", "001")]
)
def test_they_are_trained_with_pictures_in_tensorboard(run_script, tmp_path, core, asked):  # noqa: F811
    sizes = ["--batch-size", "4", "--iterations", "2", "--validate-every", "1", "--embedding-size", "3"]
    words = ["--task", ECHO, "--asked", asked, "--core", core, "--log-dir", tmp_path / "run", *sizes]
    status, _, error = run_script("train_supervised", *words)
    assert status == 0, error
    assert any((tmp_path / "run").glob("events.*"))


@pytest.mark.parametrize("asked", ["001", "111", "1"])
def test_they_are_looked_into_or_it_is_said_why_not(run_script, tmp_path, asked):  # noqa: F811
    sizes = ["--batch-size", "4", "--iterations", "1", "--embedding-size", "3", "--no-tensorboard"]
    words = ["--task", ECHO, "--asked", asked, "--core", "mnm-p", "--log-dir", tmp_path / "run", *sizes]
    assert run_script("train_supervised", *words)[0] == 0
    pictures = tmp_path / "pictures"
    status, _, error = run_script("analyze", tmp_path / "run", "--out", pictures, "--trusted")
    if asked == "1":
        assert status == 2
        assert "The test episode 1 has a single step; there is nothing that it could remember." in error
    else:
        assert status == 0, error
        assert (pictures / "question.png").exists()
