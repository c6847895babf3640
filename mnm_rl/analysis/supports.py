"""How often what is read for an answer is most like what was written in a sentence that supports it.

Dimensions: ``T`` time, ``B`` batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mnm_rl.analysis.episodes import Episode, make_episode
from mnm_rl.analysis.similarity import similarities
from mnm_rl.analysis.trace import record, require_memory
from mnm_rl.tasks.babi import BabiTask
from mnm_rl.tasks.babi.dataset import FOLDERS
from mnm_rl.tasks.babi.generate.lines import parse_stories
from mnm_rl.training.supervised.model import SequenceModel

BATCH = 50


@dataclass(frozen=True)
class SupportShares:
    """Over some test questions of a bAbI task, shares from 0 to 1.

    Attributes:
        task: the task's number.
        questions: how many questions.
        found: where the written value most like the read one, among all words of the story, lies in a
            supporting sentence.
        answer_word: where it was written at a word of the right answer.
        chance: what a word drawn at random from the story would reach for ``found``.
        last: what always taking the story's last sentence would reach for ``found``.
        answer_chance: what a word drawn at random would reach for ``answer_word``.
        wrong: where the model's answer is wrong.
    """

    task: int
    questions: int
    found: float
    answer_word: float
    chance: float
    last: float
    answer_chance: float
    wrong: float


COLUMNS = {
    "task": "task",
    "questions": "questions",
    "wrong": "wrong",
    "found": "supporting sentence",
    "chance": "at random",
    "last": "last sentence",
    "answer_word": "word of the answer",
    "answer_chance": "at random",
}
"""Field -> heading."""
HEADING = "  ".join(COLUMNS.values())


def describe_shares(shares: SupportShares) -> str:
    """A line under :data:`HEADING`."""
    values = [getattr(shares, name) for name in COLUMNS]
    texts = [f"{value:.0%}" if isinstance(value, float) else str(value) for value in values]
    return "  ".join(text.rjust(len(head)) for text, head in zip(texts, COLUMNS.values(), strict=True))


def supporting_sentences(task: BabiTask, number: int) -> list[frozenset[int]]:
    """For every test question of a task, its supporting sentences among the story's, counted from 0.

    Raises:
        ValueError: if the file is missing.
    """
    name = f"{FOLDERS[task.size]}/qa{number}_test.txt"
    contents = task.source.read([name])
    if name not in contents:
        raise ValueError(f"{task.source.path} lacks {name}; get the whole data set.")
    supports = []
    for story in parse_stories(contents[name].decode()):
        sentences = [line for line, text in enumerate(story, 1) if not text.answer]
        supports += [
            frozenset(sentences.index(line) for line in text.supports) for text in story if text.answer
        ]
    return supports


@torch.no_grad()
def support_shares(model: SequenceModel, task: BabiTask, number: int, questions: int) -> SupportShares:
    """Look at the read value of the step at which the answer is due, all heads together.

    Args:
        model: a trained model whose core has a memory with values.
        task: bAbI in the question format.
        number: which of its tasks.
        questions: how many test questions, evenly spread over the file.

    Raises:
        ValueError: if the core has no such memory, or the run's format is another.
    """
    require_memory(model.core, "read_values", "write_values")
    if task.format != "question":
        raise ValueError("Supporting sentences are counted for runs with one sequence per question only.")
    supports = supporting_sentences(task, number)
    of_task = np.flatnonzero(task.sequences["test"].tasks == number)
    spread = np.linspace(0, len(of_task) - 1, min(questions, len(of_task))).astype(int)
    spread = spread[np.argsort(task.sequences["test"].lengths[of_task[spread]], kind="stable")]
    rows = []
    for start in range(0, len(spread), BATCH):
        chosen = spread[start : start + BATCH]
        rows += _look(model, task, of_task[chosen], [supports[place] for place in chosen])
    return SupportShares(number, len(rows), *np.mean(rows, 0).tolist())


def _look(
    model: SequenceModel, task: BabiTask, chosen: np.ndarray, supports: Sequence[frozenset[int]]
) -> list[tuple[float, ...]]:
    """The shares, from ``found`` on, of each of the chosen questions alone."""
    batch = task.sequences["test"].batch(chosen)
    trace = record(model.core, model.encoder(batch.inputs))
    said = model.head(trace["outputs"]).argmax(-1)
    wrong = ((said != batch.targets) & batch.asked).any(0).tolist()
    rows = []
    for b, sentences in enumerate(supports):
        episode, own = make_episode(task, batch.columns(slice(b, b + 1)), ""), trace.example(b)
        asked = episode.batch.asked[:, 0]
        due = int(asked.int().argmax())
        cosines = similarities(own["read_values"][due : due + 1], own["write_values"][: episode.question])
        answer = {task.vocabulary.symbols[int(number)] for number in episode.batch.targets[asked, 0]}
        rows.append((*_judge(episode, int(cosines.argmax()), sentences, answer), float(wrong[b])))
    return rows


def _judge(episode: Episode, top: int, supports: frozenset[int], answer: set[str]) -> tuple[float, ...]:
    """The shares from ``found`` to ``answer_chance`` of one question, for the story's word ``top``."""
    words = episode.story_words
    ends = np.cumsum([word == "." for word in words])
    sentence_of = np.concatenate([[0], ends[:-1]])
    supporting = np.isin(sentence_of, list(supports))
    last = int(sentence_of[-1]) in supports
    is_answer = [word in answer for word in words]
    chances = (supporting.mean(), last, np.mean(is_answer))
    return tuple(map(float, (supporting[top], is_answer[top], *chances)))
