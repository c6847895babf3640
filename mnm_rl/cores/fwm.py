"""Fast weight memory (FWM): an LSTM that writes to a tensor by a delta rule, and reads in several hops.

Schlag, Munkhdalai and Schmidhuber 2021, "Learning associative inference using fast weight memory", section 3.
What is read goes to the output alone and not back to the LSTM, so that the LSTM runs over a whole sequence
at once, and so do all reads and nearly all of the writes (:mod:`mnm_rl.kernels.fwm`).

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``N`` reads; sizes ``d_h`` LSTM, ``d_s`` entity (a
subject or a target), ``d_r`` relation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mnm_rl.cores.base import CoreOutput, MemoryCore, outlasts_reset, reset_state
from mnm_rl.cores.capacity import MOST_REPEATS
from mnm_rl.cores.checks import checked_config
from mnm_rl.cores.recurrent import LSTMConfig, LSTMCore, LSTMState
from mnm_rl.field_types import check_own_fields
from mnm_rl.kernels import fwm as kernel
from mnm_rl.kernels import fwm_cpu
from mnm_rl.kernels.fwm import Commands, plain_step

Kernel = Literal["auto", "reference", "chunked", "cpu"]
"""``cpu`` is an operation in C++, ``chunked`` takes many steps at once in torch, ``reference`` is the plain
loop. ``auto`` is ``cpu`` where that compiles and takes the sizes, else ``chunked`` for more than one step,
but for the plain loop where torch must see into each operation."""
OPENING = 1.0
"""Added to what the rate is the logistic function of, so that a new core writes."""
FORGET_BIAS = 1.0
"""Where the bias of the LSTM's forget gate starts."""


@dataclass(frozen=True)
class FWMConfig:
    """Settings of the ``fwm`` core; the defaults are those of the paper for language."""

    hidden_size: int = 256
    """d_h, width of the LSTM and of the output."""
    entity_size: int = 32
    """d_s, of the subjects and targets of the memory: what is read is looked up as a subject next."""
    relation_size: int = 32
    """d_r."""
    reads: int = 3
    """N, look-ups one after the other in every step."""
    residual: bool = True
    """Whether the LSTM's output is added to what was read. The paper's question answering leaves it out."""
    kernel: Kernel = "auto"
    """How sequences are computed; see :data:`Kernel`."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size", "entity_size", "relation_size", "reads")
        if self.reads > MOST_REPEATS:
            raise ValueError(f"reads must be at most {MOST_REPEATS}, got {self.reads}.")


class FWMState(NamedTuple):
    """What the core carries from step to step."""

    hidden: Tensor
    """h, ``[B, d_h]``."""
    cell: Tensor
    """The LSTM's cell state, ``[B, d_h]``."""
    memory: Tensor
    """F, ``[B, d_s, d_r, d_s]``, of subject, relation and target; its Frobenius norm is at most 1."""


class FWMCore(MemoryCore[FWMState]):
    """``y = h + W_o n_N``, with h the LSTM's output and n_N the last of N values read.

    ``[s; r; t] = tanh(W_w h)``, ``beta = sigmoid(w_b h + 1)``; ``n_0 = W_n h``, ``e_i = tanh(W_i h)``.

    Args:
        input_size: ``I``.
        config: all other settings.
    """

    config_class = FWMConfig
    quick_resets = True
    trace_names = ("rates", "write_keys", "write_values", "read_values", "write_sizes", "memory_distances")

    def __init__(self, input_size: int, config: FWMConfig | None = None):
        super().__init__()
        self.config = config = checked_config(self, input_size, config, FWMConfig)
        self.input_size = input_size
        self.output_size = width = config.hidden_size
        entity, relation = config.entity_size, config.relation_size
        self._write_sizes = [entity, relation, entity, 1]
        self._read_sizes = [entity, config.reads * relation]
        self.controller = LSTMCore(input_size, LSTMConfig(hidden_size=width, forget_bias=FORGET_BIAS))
        self.write = nn.Linear(width, sum(self._write_sizes))
        self.read = nn.Linear(width, sum(self._read_sizes))
        self.output = nn.Linear(entity, width)

    def initial_state(self, batch_size: int) -> FWMState:
        """Zeros."""
        entity, relation = self.config.entity_size, self.config.relation_size
        zeros = self.write.weight.new_zeros
        return FWMState(
            zeros(batch_size, self.config.hidden_size),
            zeros(batch_size, self.config.hidden_size),
            zeros(batch_size, entity, relation, entity),
        )

    def forward(
        self,
        inputs: Tensor,
        state: FWMState | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[FWMState]:
        """See :meth:`MemoryCore.forward`."""
        state = self.initial_state(inputs.shape[1]) if state is None else state
        hidden, control, _, _ = self.controller(inputs, LSTMState(state.hidden, state.cell), resets)
        commands = self._commands(hidden.transpose(0, 1))
        batch_resets = None if resets is None else resets.T
        if record:
            read, memory, trace = _recorded(commands, state.memory, batch_resets)
        else:
            read, memory, trace = *self._run(commands, state.memory, batch_resets), None
        meta_loss = inputs.new_zeros(inputs.shape[:2])
        outputs = self._outputs(hidden, read.transpose(0, 1))
        return CoreOutput(outputs, FWMState(control.hidden, control.cell, memory), meta_loss, trace)

    def step(
        self, inputs: Tensor, state: FWMState | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, FWMState]:
        """See :meth:`MemoryCore.step`."""
        initial = None
        if state is None or resets is not None:
            initial = self.initial_state(len(inputs))
        state = initial if state is None else state
        assert state is not None
        if resets is not None and initial is not None:
            state = reset_state(state, initial, resets)
        hidden, control = self.controller.step(inputs, LSTMState(state.hidden, state.cell))
        commands = self._commands(hidden.unsqueeze(1))
        if self._form(commands, state.memory) == "cpu":
            reads, memory = fwm_cpu.scan(commands, state.memory)
            read = reads[:, 0]
        else:
            memory, _, read = plain_step(state.memory, [tensor[:, 0] for tensor in commands])
        return self._outputs(hidden, read), FWMState(control.hidden, control.cell, memory)

    def _run(self, commands: Commands, memory: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        form = self._form(commands, memory)
        if form == "cpu":
            return fwm_cpu.scan(commands, memory, resets)
        if form == "chunked":
            result = kernel.scan(commands, memory, resets)
            if not outlasts_reset(result[0], resets):
                return result
        return kernel.plain(commands, memory, resets)

    def _commands(self, hidden: Tensor) -> Commands:
        """From h ``[B, T, d_h]``."""
        subjects, relations, targets, rates = self.write(hidden).split(self._write_sizes, 2)
        queries, read_relations = self.read(hidden).split(self._read_sizes, 2)
        return Commands(
            torch.tanh(subjects),
            torch.tanh(relations),
            torch.tanh(targets),
            torch.sigmoid(rates.squeeze(2) + OPENING),
            queries,
            torch.tanh(read_relations).unflatten(2, (self.config.reads, -1)),
        )

    def _outputs(self, hidden: Tensor, read: Tensor) -> Tensor:
        return hidden + self.output(read) if self.config.residual else self.output(read)

    def _form(self, commands: Commands, memory: Tensor) -> Kernel:
        """What computes these, one of those that :data:`Kernel` has besides ``auto``."""
        kernel = self.config.kernel
        if kernel in ("auto", "cpu"):
            if fwm_cpu.fits(commands, memory):
                return "cpu"
            if kernel == "cpu":
                raise ValueError(
                    "The kernel 'cpu' takes plain tensors on the processor, with entities of at most 64 "
                    "numbers (32 without AVX-512, half as many in float64), and needs a C++ compiler."
                )
        if kernel != "auto":
            return kernel
        is_seen_into = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
        return "chunked" if commands.rates.shape[1] > 1 and not is_seen_into else "reference"


def _recorded(
    commands: Commands, memory: Tensor, resets: Tensor | None
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The plain loop, and what it did; ``[T, B, 1, ...]`` of vectors, ``[T, B, 1]`` of numbers."""
    reads, sizes = [], []
    for t in range(commands.rates.shape[1]):
        if resets is not None:
            memory = memory.masked_fill(resets[:, t].view(-1, 1, 1, 1), 0)
        before, (memory, _, read) = memory, plain_step(memory, [tensor[:, t] for tensor in commands])
        reads.append(read)
        sizes.append([torch.linalg.vector_norm(x.flatten(1), dim=1) for x in (memory - before, memory)])
    written, held = (torch.stack(column).unsqueeze(2) for column in zip(*sizes, strict=True))
    trace = {
        "rates": commands.rates.T.unsqueeze(2),
        "write_keys": kernel.keys(commands.subjects, commands.relations).transpose(0, 1).unsqueeze(2),
        "write_values": commands.targets.transpose(0, 1).unsqueeze(2),
        "read_values": torch.stack(reads).unsqueeze(2),
        "write_sizes": written,
        "memory_distances": held,
    }
    return torch.stack(reads, 1), memory, trace
