"""Sequences of symbols as stories of sentences, cut at the symbols that end a sentence.

A question is followed by placeholders, one for each word of its answer, which are no part of a sentence.

Dimensions: ``T`` time, ``B`` batch, ``S`` sentences of the longest story, ``L`` words of a sentence.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SentenceLayout(NamedTuple):
    """How the sequences of a task are made of sentences.

    Attributes:
        stop: number of the symbol that ends a statement.
        question_mark: of the one that ends a question.
        placeholder: of the one that stands for a word of an answer.
        longest: words of the longest sentence that may come, its end included.
        answer_words: words of the longest answer that may come.
    """

    stop: int
    question_mark: int
    placeholder: int
    longest: int
    answer_words: int


class Stories(NamedTuple):
    """Sequences cut into sentences.

    Attributes:
        words: int64 ``[S, B, L]``; -1 behind a sentence's last word.
        statements: boolean ``[S, B]``.
        questions: boolean ``[S, B]``.
        steps: int64 ``[A]``, the steps with a placeholder, and
        sequences: int64 ``[A]``, the sequences that they are in;
        asked: int64 ``[A]``, the sentences with their questions;
        answer_words: int64 ``[A]``, the places of the words in their answers.
    """

    words: Tensor
    statements: Tensor
    questions: Tensor
    steps: Tensor
    sequences: Tensor
    asked: Tensor
    answer_words: Tensor


def cut_into_sentences(symbols: Tensor, lengths: Tensor | None, layout: SentenceLayout) -> Stories:
    """Cut sequences at the ends of their sentences.

    Args:
        symbols: int64 ``[T, B]``.
        lengths: int64 ``[B]``, steps before the padding begins; without them there is none.
        layout: of the task.

    Raises:
        ValueError: a sequence does not end with a sentence, has an answer that follows no question, or a
            longer sentence or answer than the layout allows.
    """
    time = torch.arange(len(symbols), device=symbols.device).unsqueeze(1)
    present = torch.ones_like(symbols, dtype=torch.bool) if lengths is None else time < lengths
    is_question_end = (symbols == layout.question_mark) & present
    is_end = is_question_end | ((symbols == layout.stop) & present)
    is_answer = (symbols == layout.placeholder) & present
    is_word = present & ~is_answer
    _check_ends(is_word, is_end, is_answer, is_question_end)
    ended = is_end.cumsum(0)
    sentence = ended - is_end.long()
    place = _places_in_runs(is_word, _previous(is_end | is_answer), time)
    answer_place = _places_in_runs(is_answer, ~_previous(is_answer), time)
    _check_lengths(place, answer_place, layout)

    words = symbols.new_full((int(ended[-1].max()), symbols.shape[1], layout.longest), -1)
    step, sequence = is_word.nonzero(as_tuple=True)
    words[sentence[step, sequence], sequence, place[step, sequence]] = symbols[step, sequence]
    questions = (words == layout.question_mark).any(2)
    statements = (words == layout.stop).any(2)
    step, sequence = is_answer.nonzero(as_tuple=True)
    asked = ended[step, sequence] - 1
    return Stories(words, statements, questions, step, sequence, asked, answer_place[step, sequence])


def _previous(flags: Tensor) -> Tensor:
    """Whether a flag is set at the step before; at the first step, yes."""
    return torch.cat([torch.ones_like(flags[:1]), flags[:-1]])


def _places_in_runs(inside: Tensor, begins: Tensor, time: Tensor) -> Tensor:
    """``[T, B]``: how far each step that is inside of a run is from its beginning; -1 for other steps."""
    first = torch.where(inside & begins, time, 0).cummax(0).values
    return torch.where(inside, time - first, -1)


def _check_ends(is_word: Tensor, is_end: Tensor, is_answer: Tensor, is_question_end: Tensor) -> None:
    """Make sure that sentences end, and that answers follow questions."""
    ends = torch.cat([~is_word[1:], torch.ones_like(is_word[:1])])
    open_ended = (is_word & ends & ~is_end).any(0)
    if open_ended.any():
        number = int(open_ended.nonzero()[0])
        if not is_end[:, number].any():
            raise ValueError(f"Sequence {number} of the batch has no word that ends a sentence, '.' or '?'.")
        raise ValueError(f"Sequence {number} of the batch ends, or has an answer, within a sentence.")
    follows = _previous(is_question_end | is_answer)
    follows[0] = False
    if (alone := (is_answer & ~follows).any(0)).any():
        number = int(alone.nonzero()[0])
        raise ValueError(f"Sequence {number} of the batch has an answer that follows no question.")


def _check_lengths(place: Tensor, answer_place: Tensor, layout: SentenceLayout) -> None:
    """Make sure that sentences and answers are not longer than they may be."""
    longest, most = int(place.max()) + 1, int(answer_place.max()) + 1
    if longest > layout.longest:
        raise ValueError(f"A sentence has {longest} words; models of sentences take {layout.longest}.")
    if most > layout.answer_words:
        raise ValueError(f"An answer has {most} words; models of sentences give {layout.answer_words}.")
