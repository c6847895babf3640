"""A recurrent network whose memory is a set of slots that are updated side by side: EntNet.

Henaff et al. 2017, "Tracking the world state with recurrent entity networks", section 2.

Dimensions: ``T`` time, ``S`` sentences, ``B`` batch, ``N`` different sentences, ``I`` input size,
``M`` slots, ``D`` width of a slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mnm_rl.cores.base import CoreOutput, steps_with_resets
from mnm_rl.cores.checks import checked_config
from mnm_rl.cores.entity_memory import EntityInputs, advance, run_memory
from mnm_rl.cores.sentences import SentenceCore, SentenceEncoding
from mnm_rl.field_types import check_own_fields

Form = Literal["fused", "loop"]

INITIAL_SCALE = 0.1
"""Deviation of all initial weights."""


@dataclass(frozen=True)
class EntNetConfig:
    """Settings of the ``entnet`` core."""

    hidden_size: int = 100
    """D, width of a slot."""
    slots: int = 20
    """M."""
    form: Form = "fused"
    """``fused``: all steps as one operation with gradients by hand; ``loop``: step by step with torch's
    gradients. The results are the same, the time too; ``fused`` takes half the memory."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size", "slots")


class EntNetState(NamedTuple):
    """What the core carries from step to step."""

    memory: Tensor
    """h, ``[B, M, D]``; the keys at the start, and of length 1 from the first sentence on."""


class EntNetCore(SentenceCore[EntNetState]):
    """Every slot has a key w and decides by it, and by what it holds, how much of a sentence it takes in.

    With the sentence s, for every slot j (Eq. 2 to 5; the bias c_j is in the authors' code only):
    ``g_j = sigmoid(s . h_j + s . w_j + c_j)``, ``h_j <- h_j + g_j phi(U h_j + V s + W w_j + b)``, and
    ``h_j <- h_j / |h_j|``. A question q is answered by ``phi(q + H sum_j p_j h_j)`` with the attention
    ``p = softmax(q . h_j)`` (Eq. 6 but for its output layer R, which is the model's). phi is a PReLU with one
    slope for each unit, the same everywhere, and starts as the identity.

    Inputs that are not as wide as a slot go through a linear layer first, which the paper does not have.

    Args:
        input_size: ``I``.
        config: all other settings.
    """

    config_class = EntNetConfig
    trace_names = ("gates", "attention")
    encoding = SentenceEncoding(
        size=100,
        own_question_masks=True,
        ends_count=False,
        padding_counts=False,
        mean=False,
        embedding_scale=INITIAL_SCALE,
    )

    def __init__(self, input_size: int, config: EntNetConfig | None = None):
        super().__init__()
        self.config = config = checked_config(self, input_size, config, EntNetConfig)
        self.input_size = input_size
        self.output_size = size = config.hidden_size
        self.encoder = nn.Identity() if input_size == size else nn.Linear(input_size, size, bias=False)
        self.keys = nn.Parameter(_normal(config.slots, size))
        self.gate_biases = nn.Parameter(torch.zeros(config.slots))
        self.of_slot, self.of_sentence, self.of_key = (nn.Parameter(_normal(size, size)) for _ in range(3))
        """U, V and W."""
        self.bias = nn.Parameter(torch.zeros(size))
        self.of_read = nn.Parameter(_normal(size, size))
        """H."""
        self.slopes = nn.Parameter(torch.ones(size))

    def initial_state(self, batch_size: int) -> EntNetState:
        """Every slot holds its key."""
        return EntNetState(self.keys.expand(batch_size, -1, -1).clone())

    def forward(
        self,
        inputs: Tensor,
        state: EntNetState | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[EntNetState]:
        """See :meth:`mnm_rl.cores.MemoryCore.forward`.

        The trace has the gates, and the attention of the reading, ``[T, B, M]`` each.
        """
        sentences = self.encoder(inputs)
        start = self.initial_state(inputs.shape[1]) if state is None else state
        parts = EntityInputs(
            start.memory, self.keys, sentences, *self._of_sentences(sentences), *self._shared()
        )
        fused = self.config.form == "fused" and len(inputs) > 1 and not torch.compiler.is_exporting()
        gates = None
        if record or not fused:
            gates, memories = _loop(parts, None, resets)
        else:
            memories = run_memory(parts, None, resets)
        outputs, attention = self._answer(memories, sentences)
        trace = None if gates is None or not record else {"gates": gates, "attention": attention}
        meta_loss = outputs.new_zeros(outputs.shape[:2])
        return CoreOutput(outputs, EntNetState(memories[-1]), meta_loss, trace)

    def read(self, sentences: Tensor, story: Tensor, writes: Tensor, asks: Tensor) -> Tensor:
        """See :meth:`mnm_rl.cores.sentences.SentenceCore.read`."""
        sentences = self.encoder(sentences)

        def of_steps(part: Tensor) -> Tensor:
            return part.index_select(0, story.flatten()).unflatten(0, story.shape)

        gate_parts, candidate_parts = map(of_steps, self._of_sentences(sentences))
        start = self.initial_state(story.shape[1]).memory
        told = of_steps(sentences)
        parts = EntityInputs(start, self.keys, told, gate_parts, candidate_parts, *self._shared())
        if self.config.form == "fused":
            memories = run_memory(parts, writes, None)
        else:
            _, memories = _loop(parts, writes, None)
        t, b = asks.nonzero(as_tuple=True)
        found, _ = self._answer(memories[t, b], sentences[story[t, b]])
        return found.new_zeros(*story.shape, self.output_size).index_put((t, b), found)

    def _shared(self) -> tuple[Tensor, Tensor, Tensor]:
        """W w_j, U and the slopes."""
        return self.keys @ self.of_key.T, self.of_slot, self.slopes

    def _of_sentences(self, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """The parts of all gates ``[..., M]`` and candidates ``[..., D]`` that need no memory."""
        gates = sentences @ self.keys.T + self.gate_biases
        return gates, sentences @ self.of_sentence.T + self.bias

    def _answer(self, memory: Tensor, questions: Tensor) -> tuple[Tensor, Tensor]:
        """Answers ``[..., D]`` and attention ``[..., M]`` to questions ``[..., D]``."""
        attention = (memory @ questions.unsqueeze(-1)).squeeze(-1).softmax(-1)
        read = (attention.unsqueeze(-2) @ memory).squeeze(-2)
        return self._phi(questions + read @ self.of_read.T), attention

    def _phi(self, x: Tensor) -> Tensor:
        """PReLU with the slope of each unit, the last dimension."""
        return torch.where(x > 0, x, self.slopes * x)


def _loop(parts: EntityInputs, writes: Tensor | None, resets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gates ``[T, B, M]`` and states ``[T, B, M, D]`` of :func:`run_memory`, step by step."""
    memory = parts.start
    any_reset = steps_with_resets(resets, len(parts.sentences))
    memories, gates = [], []
    for t, sentences in enumerate(parts.sentences):
        if resets is not None and any_reset[t]:
            memory = torch.where(resets[t].view(-1, 1, 1), parts.initial, memory)
        fixed = parts.candidate_parts[t].unsqueeze(1) + parts.key_parts
        gate, _, _, new = advance(memory, sentences, parts.gate_parts[t], fixed, parts.of_slot, parts.slopes)
        memory = new if writes is None else torch.where(writes[t].view(-1, 1, 1), new, memory)
        memories.append(memory)
        gates.append(gate)
    return torch.stack(gates), torch.stack(memories)


def _normal(*shape: int) -> Tensor:
    return INITIAL_SCALE * torch.randn(shape)
