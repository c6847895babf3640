"""Training stories with their people, places and things renamed at random.

A story stays a story of its task, and its answers stay right, when words of one kind change places with each
other in all of it: of 9,000 questions that makes as many more as there are ways to rename. It does not invent
words: those of a task are exchanged among themselves.

Dimensions: ``B`` batch, ``V`` symbols.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mnm_rl.tasks.babi.encoding import Corpus
from mnm_rl.tasks.babi.vocabulary import Vocabulary
from mnm_rl.tasks.base import Batch

WOMEN = frozenset({"emily", "gertrude", "jessica", "julie", "lily", "mary", "sandra", "winona"})
MEN = frozenset({"antoine", "bernhard", "bill", "brian", "daniel", "fred", "greg", "jason", "jeff"})
MEN |= {"john", "julius", "sumit", "yann"}
PLACES = frozenset({"bathroom", "bedroom", "garden", "hallway", "kitchen", "office"})
PLACES |= {"cinema", "park", "school"}
THINGS = frozenset({"apple", "football", "milk"})
ANIMALS = frozenset({"frog", "lion", "rhino", "swan"})
COLOURS = frozenset({"gray", "green", "white", "yellow"})

MOTIVES_TASK = 20
"""There, places and things mean something: who is thirsty goes to the kitchen and gets the milk."""


class Renaming:
    """Exchanges words of one kind among those that the task of a story has."""

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary) -> None:
        self._size = len(vocabulary)
        self._groups = {
            int(task): _groups(int(task), vocabulary.symbols, _numbers(corpus, int(task)).tolist())
            for task in np.unique(corpus.story_tasks)
        }

    def rename(self, batch: Batch, generator: np.random.Generator) -> Batch:
        """The batch with every sequence renamed in its own way; the same generator gives the same names."""
        tables = np.tile(np.arange(self._size), (len(batch.kinds), 1))  # [B, V]
        for table, task in zip(tables, batch.kinds.tolist(), strict=True):
            for group in self._groups[task]:
                table[group] = generator.permutation(group)
        names = torch.from_numpy(tables).T  # [V, B]
        return batch._replace(inputs=names.gather(0, batch.inputs), targets=names.gather(0, batch.targets))


def _groups(task: int, symbols: Sequence[str], numbers: Collection[int]) -> list[NDArray[np.int64]]:
    """Numbers of those of a task's symbols that may change places."""
    words = {symbols[number] for number in numbers}
    people = [WOMEN, MEN] if {"he", "she"} & words else [WOMEN | MEN]
    kinds = people if task == MOTIVES_TASK else [*people, PLACES, THINGS, ANIMALS, COLOURS]
    return [np.array([n for n in numbers if symbols[n] in kind], np.int64) for kind in kinds]


def _numbers(corpus: Corpus, task: int) -> NDArray[np.integer]:
    """All symbols of a task, answers included."""
    stories = np.repeat(corpus.story_tasks, np.diff(corpus.statement_ends))
    questions = np.repeat(corpus.question_tasks, np.diff(corpus.ask_ends))
    return np.union1d(corpus.statements[stories == task], corpus.ask_targets[questions == task])
