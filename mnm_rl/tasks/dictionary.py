"""Dictionary inference: translate an unseen word after a few examples (Munkhdalai et al. 2019, section 4.1).

Dimensions: ``T`` time, ``B`` batch, ``k`` support pairs, ``l`` letters in a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mnm_rl.field_types import check_own_fields
from mnm_rl.tasks.base import Batch, TaskOptions, batch_generator, whole_sequences
from mnm_rl.tasks.generated import GeneratedTask

LETTERS = 26
END_OF_WORD, END_OF_PAIR, END_OF_SUPPORT, ANSWER = range(LETTERS, LETTERS + 4)
NAMES = (*"abcdefghijklmnopqrstuvwxyz", "→", ";", "|", "?")

INSTANCES = {1: (4, 1), 2: (8, 4), 3: (12, 8), 4: (16, 12)}
"""The paper's four instances: number -> (support pairs k, letters l)."""


def smaller_instances(instance: int) -> tuple[tuple[int, int], ...]:
    """Sizes (k, l) of the paper's instances below this one, smallest first."""
    return tuple(size for number, size in sorted(INSTANCES.items()) if number < instance)


@dataclass(frozen=True)
class DictionaryTask(GeneratedTask):
    """Each episode splits the 26 letters into two random halves and maps one to the other at random.

    ``k`` words of the first half are shown with their translations, then a query word, of which every letter
    has been shown but which is itself new; its translation is to be predicted at ``l`` answer symbols:

        word END_OF_WORD translation END_OF_PAIR  (k times)  END_OF_SUPPORT word END_OF_WORD ANSWER ... ANSWER

    With words of a single letter no query can be both new and made of shown letters; there it is shown.
    """

    input_symbols = output_size = LETTERS + 4
    support_size: int = 8
    """k."""
    length: int = 4
    """l."""
    smaller_sizes: tuple[tuple[int, int], ...] = ()
    """Other sizes (k, l), whose batches take turns in training with those of this size."""

    def __post_init__(self) -> None:
        check_own_fields(self, "support_size", "length")
        for size in self.smaller_sizes:
            DictionaryTask(*size)

    @property
    def least_steps(self) -> int:
        """See :class:`mnm_rl.tasks.base.Task`."""
        sizes = (*self.smaller_sizes, (self.support_size, self.length))
        return min((k + 1) * (2 * length + 2) for k, length in sizes)

    @property
    def symbol_names(self) -> tuple[str, ...]:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return NAMES

    def training_batch(self, index: int, batch_size: int, seed: int) -> Batch:
        """See :class:`mnm_rl.tasks.base.Task`; all episodes of a batch have the same size."""
        sizes = [*self.smaller_sizes, (self.support_size, self.length)]
        task = DictionaryTask(*sizes[index % len(sizes)])
        return task.sample(batch_size, batch_generator(seed, index))

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw ``batch_size`` episodes of ``T = (k + 1) (2 l + 2)`` symbols."""
        k, length = self.support_size, self.length
        letters = torch.rand(batch_size, LETTERS, generator=generator).argsort(1)
        source, translation = letters.split(LETTERS // 2, dim=1)
        support, query = self._draw_words(batch_size, generator)
        words = torch.cat([support, query.unsqueeze(1)], 1).flatten(1)
        shown = source.gather(1, words).view(batch_size, k + 1, length)
        answers = translation.gather(1, words).view(batch_size, k + 1, length)
        pairs = torch.cat([_pad(shown, END_OF_WORD), _pad(answers, END_OF_PAIR)], 2)
        pairs[:, k, length + 1 : 2 * length + 1] = ANSWER
        end = torch.full((batch_size, 1), END_OF_SUPPORT)
        inputs = torch.cat([pairs[:, :k].flatten(1), end, pairs[:, k, :-1]], 1)
        targets = inputs.clone()
        targets[:, -length:] = answers[:, k]
        return whole_sequences(
            inputs.T.contiguous(), targets.T.contiguous(), (inputs == ANSWER).T.contiguous()
        )

    def _draw_words(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Support ``[B, k, l]`` and query ``[B, l]``, as positions in the first half of the letters."""
        half = LETTERS // 2
        support = torch.randint(half, (batch_size, self.support_size, self.length), generator=generator)
        query = self._draw_query(support, generator)
        # A query is drawn again until it is new; where that cannot be (all letters alike), so is the support.
        while self.length > 1 and (seen := (support == query.unsqueeze(1)).all(2).any(1)).any():
            stuck = seen & (support == support[:, :1, :1]).flatten(1).all(1)
            fresh = torch.randint(half, support.shape, generator=generator)
            support = torch.where(stuck[:, None, None], fresh, support)
            query = torch.where(seen.unsqueeze(1), self._draw_query(support, generator), query)
        return support, query

    def _draw_query(self, support: Tensor, generator: torch.Generator) -> Tensor:
        shown = torch.zeros(len(support), LETTERS // 2, dtype=torch.bool)
        shown.scatter_(1, support.flatten(1), torch.ones((), dtype=torch.bool).expand_as(support.flatten(1)))
        return torch.multinomial(shown.float(), self.length, replacement=True, generator=generator)


def _pad(words: Tensor, symbol: int) -> Tensor:
    return torch.cat([words, torch.full_like(words[..., :1], symbol)], -1)


@dataclass(frozen=True)
class DictionaryOptions(TaskOptions):
    """Sizes of dictionary inference: an instance of the paper, or any other."""

    task_class = DictionaryTask
    instance: Literal[1, 2, 3, 4] | None = None
    """The paper's instance, (k, l) = (4, 1), (8, 4), (12, 8), (16, 12); 2 if nothing is given."""
    support_size: int | None = None
    """Support pairs k, instead of an instance."""
    length: int | None = None
    """Letters l in a word, instead of an instance."""
    smaller_instances: bool = False
    """Train on the smaller instances, too, in turn with the one that is validated and tested."""

    def __post_init__(self) -> None:
        check_own_fields(self)
        if self.instance is not None and (self.support_size is not None or self.length is not None):
            raise ValueError("Give either an instance or support_size and length, not both.")
        if (self.support_size is None) != (self.length is None):
            raise ValueError("support_size and length of the task dictionary go together.")
        if self.smaller_instances and self.support_size is not None:
            raise ValueError("smaller_instances belongs to the instances 1 to 4 of the task dictionary.")
        if self.support_size is not None and self.length is not None:
            DictionaryTask(self.support_size, self.length)

    def make(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> DictionaryTask:
        """See :class:`mnm_rl.tasks.base.TaskOptions`."""
        if self.support_size is not None and self.length is not None:
            return DictionaryTask(self.support_size, self.length)
        instance = self.instance or 2
        smaller = smaller_instances(instance) if self.smaller_instances else ()
        return DictionaryTask(*INSTANCES[instance], smaller_sizes=smaller)

    def describe(self) -> str:
        """The instance, if one was named."""
        return "" if self.instance is None else f"instance {self.instance}"
