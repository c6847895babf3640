"""A sequence of a supervised task with a word for every step: what the axes of a similarity map say."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mnm_rl.analysis.labels import name_steps, question_start
from mnm_rl.tasks import Batch, Task
from mnm_rl.tasks.babi import BabiTask, Vocabulary
from mnm_rl.tasks.babi.encoding import Sequences
from mnm_rl.tasks.babi.stories import PLACEHOLDER
from mnm_rl.tasks.base import whole_sequences

LONGEST_ANSWER = 12
"""Longer answers are described by their number of errors."""


@dataclass(frozen=True)
class Episode:
    """One sequence of a task.

    Attributes:
        name: where it comes from.
        batch: the sequence, a batch of one.
        words: a label for every step.
        question: the step at which the question begins; all before it is the story.
        answered: whether the right answer is known.
    """

    name: str
    batch: Batch
    words: tuple[str, ...]
    question: int
    answered: bool = True

    @property
    def story_words(self) -> tuple[str, ...]:
        """The words before the question."""
        return self.words[: self.question]


def make_episode(task: Task, batch: Batch, name: str) -> Episode:
    """A batch of one sequence with its words."""
    words = name_steps(task, batch)
    return Episode(name, batch, words, question_start(words, batch.asked[:, 0].tolist()))


def held_out_episode(task: Task, number: int, split: str = "test", kind: int | None = None) -> Episode:
    """A sequence of a held-out set.

    Args:
        task: where it comes from.
        number: counted from 1; for bAbI in the order of the tasks and of their files.
        split: ``"valid"`` or ``"test"``.
        kind: bAbI: count the sequences of the task with this number only.

    Raises:
        ValueError: if there is no such sequence; the message says which there are.
    """
    if isinstance(task, BabiTask):
        chosen = _of_kind(task.sequences[split], kind)
        where = f"the {split} set" if kind is None else f"the {split} set of task {kind}"
        _require_range(number, len(chosen), where)
        batch = task.sequences[split].batch(chosen[number - 1 : number])
        unit = "story" if task.format == "story" else "question"
        place = f"{split} {unit} {number}" + ("" if kind is not None else " of all tasks")
        return make_episode(task, batch, f"bAbI task {int(batch.kinds[0])}, {place}")
    if kind is not None:
        raise ValueError("Only bAbI's tasks have numbers; leave the task's number out.")
    episodes = list(task.evaluation_batches(split, 1))
    _require_range(number, len(episodes), f"the {split} set")
    return make_episode(task, episodes[number - 1], f"{split} episode {number}")


def text_episode(vocabulary: Vocabulary, text: str) -> Episode:
    """A story of one's own, with a question at its end.

    Args:
        vocabulary: bAbI's.
        text: sentences that end in ``.``, then a question that ends in ``?``; after it ``-`` for each word of
            the answer, or nothing for an answer of one word.

    Raises:
        ValueError: if the text is not of this form, or the vocabulary lacks a word.
    """
    words = re.sub(r"([.?])", r" \1 ", text.lower()).split()
    if words and words[-1] == "?":
        words.append(PLACEHOLDER)
    if not re.fullmatch(r"([^?.-]+ [.] )+[^?.-]+ [?]( -)+", " ".join(words)):
        raise ValueError(
            "The text must be sentences that end in . and then one question that ends in ?, such as "
            f"'Mary went to the kitchen . Where is Mary ?', not {text!r}."
        )
    for word in words:
        if word not in vocabulary.numbers:
            raise ValueError(_unknown_word(word, vocabulary.symbols))
    inputs = torch.tensor(vocabulary.encode(words)).unsqueeze(1)
    batch = whole_sequences(inputs, inputs, inputs == vocabulary.placeholder)
    question = question_start(tuple(words), batch.asked[:, 0].tolist())
    return Episode("a story of one's own", batch, tuple(words), question, answered=False)


def typical_batch(task: Task, size: int, split: str = "valid") -> Batch:
    """Held-out sequences to look at: for bAbI those of middle length, for other tasks the first."""
    if not isinstance(task, BabiTask):
        return next(iter(task.evaluation_batches(split, size)))
    sequences = task.sequences[split]
    order = np.argsort(sequences.lengths, kind="stable")
    first = max(0, (len(order) - size) // 2)
    return sequences.batch(order[first : first + size])


def describe_answer(task: Task, episode: Episode, logits: Tensor) -> str:
    """What the model says at the last answer, and what is right, in a few words.

    Args:
        task: whose episode it is.
        episode: the episode.
        logits: ``[T, 1, output_size]``.
    """
    batch, names = episode.batch, task.symbol_names
    steps = batch.answers[:, 0] == batch.answers.max()
    if names is None or int(steps.sum()) > LONGEST_ANSWER:
        counts = task.count_errors(logits, batch)
        unit = "bits" if task.input_features else "symbols"
        return f"{counts.wrong_symbols} of {counts.symbols} {unit} wrong"
    said = " ".join(names[int(number)] for number in logits[steps, 0].argmax(-1))
    right = " ".join(names[int(number)] for number in batch.targets[steps, 0])
    return f"the model answers {said}" + (f", right is {right}" if episode.answered else "")


def _of_kind(sequences: Sequences, kind: int | None) -> np.ndarray:
    if kind is None:
        return np.arange(len(sequences))
    if kind not in sequences.tasks:
        known = ", ".join(map(str, sorted({*sequences.tasks.tolist()})))
        raise ValueError(f"The run has no bAbI task {kind}; its tasks: {known}.")
    return np.flatnonzero(sequences.tasks == kind)


def _require_range(number: int, count: int, where: str) -> None:
    if not 1 <= number <= count:
        raise ValueError(f"There is no story {number} in {where}; its stories are 1 to {count:,}.")


def _unknown_word(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=3)
    hint = f"similar ones that it has: {', '.join(near)}" if near else "none that it has is similar"
    return f"The word {word!r} is not in the vocabulary of {len(known)} symbols; {hint}."
