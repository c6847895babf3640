"""A recurrent network with a tensor of order 3 as its memory: TPR-RNN.

Schlag and Schmidhuber 2018, "Learning to reason with third-order tensor products". Sentences become entities
and roles; a sentence changes three associations of the memory, and a question follows three of them.

Dimensions: ``T`` time, ``S`` sentences, ``B`` batch, ``N`` different sentences, ``Q`` questions, ``I`` input
size, ``D`` hidden size, ``E`` entity size, ``R`` role size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mnm_rl.cores.base import CoreOutput, outlasts_reset, reset_state, steps_with_resets
from mnm_rl.cores.checks import checked_config
from mnm_rl.cores.sentences import SentenceCore, SentenceEncoding
from mnm_rl.cores.tpr_memory import (
    CHANGES,
    look_up,
    look_up_changes,
    solve,
    to_tensor,
    visible_changes,
    write,
)
from mnm_rl.field_types import check_own_fields

Form = Literal["solved", "loop"]

SENTENCES_AT_ONCE = 64
"""A longer sequence of steps is solved in parts, with the tensor in between: a solve's time grows with the
square of the length."""
LEAST_VARIANCE = 1e-7


@dataclass(frozen=True)
class TPRConfig:
    """Settings of the ``tpr-rnn`` core."""

    hidden_size: int = 40
    """D, hidden units of each of the ten networks that make entities and roles of a sentence."""
    entity_size: int = 90
    """E."""
    role_size: int = 20
    """R."""
    form: Form = "solved"
    """``solved``: all sentences of a story by one triangular solve; ``loop``: one after the other, as in the
    paper. The results are the same."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size", "entity_size", "role_size")


class TPRState(NamedTuple):
    """What the core carries from step to step."""

    memory: Tensor
    """F, ``[B, E, R, E]``."""


class TPRCore(SentenceCore[TPRState]):
    """Writes a sentence by Eq. 4 to 14, and answers by Eq. 17 to 19.

    Its output is the sum of what was found in three steps, ``i1 + i2 + i3``, of size E.

    Args:
        input_size: ``I``.
        config: all other settings.
    """

    config_class = TPRConfig
    trace_names = ("write_sizes", "memory_distances")
    quick_resets = True
    encoding = SentenceEncoding(
        size=159,
        own_question_masks=False,
        ends_count=True,
        padding_counts=True,
        mean=True,
        embedding_scale=0.1,
    )

    def __init__(self, input_size: int, config: TPRConfig | None = None):
        super().__init__()
        self.config = config = checked_config(self, input_size, config, TPRConfig)
        self.input_size = input_size
        self.output_size = config.entity_size
        self.statement = EntitiesAndRoles(input_size, config, entities=2)
        self.question = EntitiesAndRoles(input_size, config, entities=1)
        self.gains = nn.Parameter(torch.ones(3))
        self.biases = nn.Parameter(torch.zeros(3))

    def initial_state(self, batch_size: int) -> TPRState:
        """Zeros."""
        size, roles = self.config.entity_size, self.config.role_size
        return TPRState(self.gains.new_zeros(batch_size, size, roles, size))

    def forward(
        self,
        inputs: Tensor,
        state: TPRState | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[TPRState]:
        """See :meth:`mnm_rl.cores.MemoryCore.forward`.

        The trace has the size of each change of F, and of F, ``[T, B, 1]`` each.
        """
        state = self.initial_state(inputs.shape[1]) if state is None else state
        written, asked = self.statement(inputs), self.question(inputs)
        plain = self.config.form == "loop" or len(inputs) == 1 or torch.compiler.is_exporting()
        if record or plain:
            return self._loop(written, asked, state, resets, record)
        parts, after = [], state
        for start in range(0, len(inputs), SENTENCES_AT_ONCE):
            part = slice(start, start + SENTENCES_AT_ONCE)
            own_resets = None if resets is None else resets[part]
            found, after = self._solved(written.steps(part), asked.steps(part), after, own_resets)
            parts.append(found)
        outputs = torch.cat(parts)
        if outlasts_reset(outputs, resets):
            return self._loop(written, asked, state, resets, record)
        return CoreOutput(outputs, after, outputs.new_zeros(outputs.shape[:2]))

    def read(self, sentences: Tensor, story: Tensor, writes: Tensor, asks: Tensor) -> Tensor:
        """See :meth:`mnm_rl.cores.sentences.SentenceCore.read`."""
        written, asked = self.statement(sentences), self.question(sentences)
        if self.config.form == "loop":
            return self._read_in_a_loop(written.at(story), asked.at(story), writes, asks)
        entities, roles = written.at(story.T)
        changes = solve(entities * writes.T[..., None, None], roles)
        places, exist = question_places(asks)
        entities, roles = asked.at(story.T.gather(1, places))
        seen = visible_changes(places, len(story))
        answers = self._infer(
            entities.squeeze(2), roles, lambda entity, role: look_up_changes(changes, entity, role, seen)
        )
        outputs = answers.new_zeros(*story.shape, self.output_size)
        b, q = exist.nonzero(as_tuple=True)
        return outputs.index_put((places[b, q], b), answers[b, q])

    def _read_in_a_loop(self, written: Vectors, asked: Vectors, writes: Tensor, asks: Tensor) -> Tensor:
        """What :meth:`read` returns, from vectors of each sentence ``[S, B, ...]``."""
        memory = self.initial_state(writes.shape[1]).memory
        nothing = memory.new_zeros(writes.shape[1], self.output_size)
        outputs = []
        for t, (writing, asking) in enumerate(zip(writes, asks, strict=True)):
            if writing.any():
                new = write(memory, written.entities[t], written.roles[t])
                memory = torch.where(writing.view(-1, 1, 1, 1), new, memory)
            answers = self._answer(memory, asked, t) * asking.unsqueeze(1) if asking.any() else nothing
            outputs.append(answers)
        return torch.stack(outputs)

    def _loop(
        self, written: Vectors, asked: Vectors, state: TPRState, resets: Tensor | None, record: bool
    ) -> CoreOutput[TPRState]:
        """One step after the other, as in the paper."""
        length, batch = written.entities.shape[:2]
        initial = self.initial_state(batch)
        any_reset = steps_with_resets(resets, length)
        outputs, sizes = [], []
        for t in range(length):
            if resets is not None and any_reset[t]:
                state = reset_state(state, initial, resets[t])
            old, state = state.memory, TPRState(write(state.memory, written.entities[t], written.roles[t]))
            outputs.append(self._answer(state.memory, asked, t))
            if record:
                sizes.append([(each.flatten(1)).norm(dim=1) for each in (state.memory - old, state.memory)])
        outputs = torch.stack(outputs)
        trace = None
        if record:
            columns = zip(self.trace_names, zip(*sizes, strict=True), strict=True)
            trace = {name: torch.stack(column).unsqueeze(2) for name, column in columns}
        return CoreOutput(outputs, state, outputs.new_zeros(length, batch), trace)

    def _answer(self, memory: Tensor, asked: Vectors, t: int) -> Tensor:
        """The answer ``[B, E]`` to the question of step t."""
        entities, roles = asked.entities[t], asked.roles[t].unsqueeze(1)
        return self._infer(entities, roles, lambda entity, role: look_up(memory, entity, role)).squeeze(1)

    def _solved(
        self, written: Vectors, asked: Vectors, state: TPRState, resets: Tensor | None
    ) -> tuple[Tensor, TPRState]:
        """Outputs ``[S, B, E]`` of all steps, and the state after them."""
        entities, roles = (each.transpose(0, 1) for each in written)
        episodes = None if resets is None else resets.T.cumsum(1)
        changes = solve(entities, roles, episodes, state.memory)
        length = len(asked.entities)
        places = torch.arange(length, device=entities.device).unsqueeze(0)
        seen = visible_changes(places, length, episodes, episodes)
        first = 1 if episodes is None else (episodes == 0).unsqueeze(2)

        def find(entity: Tensor, role: Tensor) -> Tensor:
            return look_up_changes(changes, entity, role, seen) + first * look_up(state.memory, entity, role)

        question_entities, question_roles = (each.transpose(0, 1) for each in asked)
        outputs = self._infer(question_entities.squeeze(2), question_roles, find)
        memory = state.memory
        if episodes is not None:
            lasts = (episodes == episodes[:, -1:]).repeat_interleave(CHANGES, 1)
            changes = changes._replace(values=changes.values * lasts.unsqueeze(2))
            memory = memory * (episodes[:, -1] == 0).view(-1, 1, 1, 1)
        return outputs.transpose(0, 1), TPRState(memory + to_tensor(changes))

    def _infer(self, entities: Tensor, roles: Tensor, find: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """``i1 + i2 + i3``, ``[B, Q, E]``, Eq. 17 to 19.

        Args:
            entities: n, ``[B, Q, E]``.
            roles: l1, l2 and l3, ``[B, Q, 3, R]``.
            find: ``F(e, r)``.
        """
        found = []
        for step, role in enumerate(roles.unbind(2)):
            entities = _normalized(find(entities, role)) * self.gains[step] + self.biases[step]
            found.append(entities)
        return found[0] + found[1] + found[2]


class Vectors(NamedTuple):
    """What a sentence stands for.

    Attributes:
        entities: ``[..., number of them, E]``.
        roles: ``[..., 3, R]``.
    """

    entities: Tensor
    roles: Tensor

    def steps(self, part: slice) -> Vectors:
        """Those of some steps, the first dimension."""
        return Vectors(self.entities[part], self.roles[part])

    def at(self, chosen: Tensor) -> Vectors:
        """Those of chosen sentences, by their numbers ``[...]``."""
        return Vectors(*[part.index_select(0, chosen.flatten()).unflatten(0, chosen.shape) for part in self])


class EntitiesAndRoles(nn.Module):
    """Networks with one hidden layer each, ``tanh(W2 tanh(W1 s + b1) + b2)``, side by side.

    Args:
        input_size: ``I``.
        config: of the core.
        entities: how many entities; there are always three roles.
    """

    def __init__(self, input_size: int, config: TPRConfig, entities: int):
        super().__init__()
        self.counts = (entities, 3)
        number, width = sum(self.counts), config.hidden_size
        self.hidden_weights = nn.Parameter(_glorot(number, input_size, width))
        self.hidden_biases = nn.Parameter(torch.zeros(number, width))
        self.entity_weights = nn.Parameter(_glorot(entities, width, config.entity_size))
        self.entity_biases = nn.Parameter(torch.zeros(entities, config.entity_size))
        self.role_weights = nn.Parameter(_glorot(3, width, config.role_size))
        self.role_biases = nn.Parameter(torch.zeros(3, config.role_size))

    def forward(self, sentences: Tensor) -> Vectors:
        """Of sentences ``[..., I]``."""
        # One product for all of them.
        weights = self.hidden_weights.transpose(0, 1).flatten(1)
        hidden = (sentences @ weights).unflatten(-1, self.hidden_biases.shape)
        hidden = torch.tanh(hidden + self.hidden_biases)
        first, second = hidden.split(self.counts, -2)
        entities = torch.einsum("...nh,nhe->...ne", first, self.entity_weights) + self.entity_biases
        roles = torch.einsum("...nh,nhr->...nr", second, self.role_weights) + self.role_biases
        return Vectors(torch.tanh(entities), torch.tanh(roles))


def question_places(asks: Tensor) -> tuple[Tensor, Tensor]:
    """Where the questions of each story are.

    Args:
        asks: boolean ``[S, B]``.

    Returns:
        places int64 ``[B, Q]`` in ascending order, and boolean ``[B, Q]``, false in the padding.
    """
    counts = asks.sum(0)
    most = max(1, int(counts.max()))
    # Stable: what is asked comes first, in its order.
    places = (~asks).to(torch.uint8).sort(dim=0, stable=True).indices[:most].T
    return places, torch.arange(most, device=asks.device) < counts.unsqueeze(1)


def _normalized(vectors: Tensor) -> Tensor:
    """To mean 0 and variance 1 over the last dimension."""
    return nn.functional.layer_norm(vectors, vectors.shape[-1:], eps=LEAST_VARIANCE)


def _glorot(number: int, inputs: int, outputs: int) -> Tensor:
    limit = (6 / (inputs + outputs)) ** 0.5
    return torch.empty(number, inputs, outputs).uniform_(-limit, limit)
