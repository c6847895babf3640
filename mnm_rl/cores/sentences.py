"""The interface of cores whose steps are whole sentences.

Dimensions: ``N`` different sentences, ``S`` sentences of a story, ``B`` batch, ``I`` size of a sentence's
vector, ``O`` output size.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from torch import Tensor

from mnm_rl.cores.base import MemoryCore
from mnm_rl.cores.registry import CORES, CoreChoice, find_core

StateT = TypeVar("StateT", bound=tuple)


@dataclass(frozen=True)
class SentenceEncoding:
    """How the model that was published with a core makes a vector of a sentence.

    All of them sum the embeddings of its words, each multiplied elementwise by a mask for its position.
    """

    size: int
    """``I``, unless a run says otherwise."""
    own_question_masks: bool
    """Whether questions have masks of their own."""
    ends_count: bool
    """Whether the full stop or question mark is a word like any other; otherwise it is left out."""
    padding_counts: bool
    """Whether the places behind the last word hold a word with an embedding of its own, or nothing."""
    mean: bool
    """Whether the sum is divided by the number of places."""
    embedding_scale: float
    """Embeddings start uniform within this (``mean``), or normal with this deviation."""


class SentenceCore(MemoryCore[StateT]):
    """A memory whose steps are sentences: it writes statements, and answers questions from what it holds.

    As any core it takes one vector per step, and then a step is both: it is written, and answered right after
    (:meth:`forward`). A story tells the two apart (:meth:`read`).
    """

    encoding: ClassVar[SentenceEncoding]

    @abstractmethod
    def read(self, sentences: Tensor, story: Tensor, writes: Tensor, asks: Tensor) -> Tensor:
        """Answers ``[S, B, O]`` to the questions of stories; zeros where nothing is asked.

        As few sentences differ, whatever depends on a sentence alone is computed once for each of them.

        Args:
            sentences: ``[N, I]``, the different ones.
            story: int64 ``[S, B]``, which of them are told.
            writes: boolean ``[S, B]``, the statements. What neither writes nor asks is padding.
            asks: boolean ``[S, B]``, the questions: each is answered from the statements before it.
        """


def reads_sentences(core: CoreChoice) -> bool:
    """Whether the steps of a core are sentences.

    Raises:
        ValueError: there is no such core.
        TypeError: it is not a core.
    """
    return issubclass(find_core(core)[0], SentenceCore)


def sentence_core_names() -> tuple[str, ...]:
    """The registered names of cores whose steps are sentences."""
    return tuple(name for name, (core_class, _) in CORES.items() if issubclass(core_class, SentenceCore))
