"""A model that reads stories sentence by sentence: an encoder of sentences, a core, an output layer.

Dimensions: ``T`` time, ``B`` batch, ``S`` sentences, ``N`` different sentences, ``L`` words of a sentence,
``V`` symbols, ``I`` input size of the core, ``O`` logits of a step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mnm_rl.cores import SentenceCore, make_core, sentence_core_names
from mnm_rl.cores.sentences import SentenceEncoding
from mnm_rl.tasks import Task
from mnm_rl.tasks.sentences import SentenceLayout, cut_into_sentences
from mnm_rl.training.supervised.carried import CarriedState


class SentenceModel(nn.Module):
    """Is called as :class:`mnm_rl.training.supervised.model.SequenceModel` is, and reads sentences inside.

    Questions are not written to the memory, and answers to all of them come from one pass over a story. Every
    word of an answer has an output layer of its own on the same vector: the model sees no placeholder.

    Args:
        task: says what goes in and how many logits come out.
        core: name of the core.
        embedding_size: ``I``.
        settings: the core's settings.

    Raises:
        ValueError: the task has no sentences, or the core does not read any.
    """

    def __init__(self, task: Task, core: str, embedding_size: int, settings: dict[str, Any]):
        super().__init__()
        built = make_core(core, embedding_size, **settings)
        if not isinstance(built, SentenceCore):
            names = ", ".join(sentence_core_names())
            raise ValueError(f"The core {core} does not read sentences; cores that do: {names}.")
        if task.sentence_layout is None or task.input_symbols is None:
            raise ValueError(f"The core {core} reads sentences, and {type(task).__name__} has none.")
        self.layout = task.sentence_layout
        self.encoder = SentenceEncoder(task.input_symbols, embedding_size, self.layout, built.encoding)
        self.core = built
        self.head = nn.Linear(built.output_size, self.layout.answer_words * task.output_size)

    def forward(
        self,
        inputs: Tensor,
        lengths: Tensor | None = None,
        *,
        record: bool = False,
        carried: CarriedState | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        """Logits ``[T, B, O]``, zeros but for the steps with placeholders, a meta loss of zeros, no trace.

        Args:
            inputs: int64 ``[T, B]``.
            lengths: int64 ``[B]``: steps before the padding begins; without them there is none.
            record: changes nothing: steps of the memory are not steps of the sequence.
            carried: not taken: a story is read from its beginning.

        Raises:
            ValueError: a state is to be carried, or as :func:`mnm_rl.tasks.sentences.cut_into_sentences`.
        """
        del record
        if carried is not None:
            raise ValueError("A model that reads sentences carries no state from one batch to the next.")
        stories = cut_into_sentences(inputs, lengths, self.layout)
        different, story = different_rows(stories.words)
        sentences = self.encoder(different)
        answers = self.core.read(sentences, story, stories.statements, stories.questions)
        of_words = self.head(answers[stories.asked, stories.sequences])
        of_words = of_words.unflatten(1, (self.layout.answer_words, -1))
        chosen = of_words[torch.arange(len(of_words), device=inputs.device), stories.answer_words]
        logits = chosen.new_zeros(*inputs.shape, chosen.shape[-1])
        logits = logits.index_put((stories.steps, stories.sequences), chosen)
        return logits, logits.new_zeros(inputs.shape), None


class SentenceEncoder(nn.Module):
    """``s = sum_l m_l * E[w_l]``, with a mask m of size I for each place of a word.

    Args:
        symbols: ``V``.
        size: ``I``.
        layout: of the task.
        encoding: what the core's model does.
    """

    def __init__(self, symbols: int, size: int, layout: SentenceLayout, encoding: SentenceEncoding):
        super().__init__()
        self.layout, self.encoding, self.padding = layout, encoding, symbols
        self.embedding = nn.Parameter(torch.empty(symbols + encoding.padding_counts, size))
        scale = encoding.embedding_scale
        if encoding.mean:
            nn.init.uniform_(self.embedding, -scale, scale)
        else:
            nn.init.normal_(self.embedding, 0, scale)
        kinds = 1 + encoding.own_question_masks
        first = 1 / layout.longest if encoding.mean else 1.0
        self.masks = nn.Parameter(torch.full((kinds, layout.longest, size), first))

    def forward(self, words: Tensor) -> Tensor:
        """Vectors ``[N, I]`` of sentences ``[N, L]``; -1 behind the last word."""
        encoding, embedding = self.encoding, self.embedding
        is_question = (words == self.layout.question_mark).any(1).long()
        if not encoding.ends_count:
            is_end = (words == self.layout.question_mark) | (words == self.layout.stop)
            words = words.masked_fill(is_end, -1)
        if not encoding.padding_counts:
            embedding = torch.cat([embedding, embedding.new_zeros(1, embedding.shape[1])])
        words = torch.where(words < 0, self.padding, words)
        vectors = embedding.index_select(0, words.flatten()).unflatten(0, words.shape)
        if not encoding.own_question_masks:
            return torch.einsum("nli,li->ni", vectors, self.masks[0])
        masked = torch.einsum("nli,kli->nki", vectors, self.masks)
        return masked[torch.arange(len(words), device=words.device), is_question]


def different_rows(words: Tensor) -> tuple[Tensor, Tensor]:
    """The different sentences ``[N, L]``, and which of them each one ``[S, B]`` is, of ``[S, B, L]``.

    Rows are told apart by a number made of them; if two ever had the same one, by all of their words.
    """
    rows = words.flatten(0, 1)
    found, which = row_numbers(rows).unique(return_inverse=True)
    places = torch.arange(len(rows), device=rows.device)
    different = rows[torch.empty_like(found).scatter_(0, which, places)]
    if not torch.equal(different[which], rows):
        different, which = rows.unique(dim=0, return_inverse=True)
    return different, which.view(words.shape[:2])


def row_numbers(rows: Tensor) -> Tensor:
    """A number for each row, hardly ever the same for rows that differ."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(1, 2**62, (rows.shape[1],), generator=generator)
    return ((rows + 2) * factors.to(rows.device)).sum(1)
