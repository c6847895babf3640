"""The neural Turing machine: an LSTM with heads that read and write the slots of a memory.

Graves, Wayne and Danihelka 2014, sections 3.1 to 3.3. This is the plain form, by the equations.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``H`` read heads and as many write heads, ``N`` slots,
``W`` slot size, ``S`` shift values; sizes ``d_h`` controller, ``d_o`` output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnm_rl.cores.base import CoreOutput, MemoryCore, reset_state, steps_with_resets
from mnm_rl.cores.checks import checked_config
from mnm_rl.field_types import check_own_fields
from mnm_rl.kernels import departure
from mnm_rl.kernels.ntm import Kernel, scan
from mnm_rl.kernels.ntm_problem import (
    CLIP,
    SMALLEST_NORM,
    SMALLEST_WEIGHT,
    NTMParameters,
    NTMSizes,
    NTMState,
)
from mnm_rl.kernels.recurrent import is_ordinary_call

INITIAL_MEMORY = 1e-6
"""Every number of the memory at the start of an episode."""
INITIAL_FOCUS = 8.0
"""By so much more than the others is the first slot in the logits of the weights that heads begin with."""


@dataclass(frozen=True)
class NTMConfig:
    """Settings of the ``ntm`` core."""

    hidden_size: int = 100
    """d_h, width of the controller."""
    output_size: int | None = None
    """d_o, size of the output y_t; the controller's width if not given."""
    slots: int = 128
    """N, slots of the memory."""
    slot_size: int = 20
    """W, numbers in a slot."""
    heads: int = 1
    """H, heads that read, and as many that write."""
    shifts: int = 3
    """S, an odd number: a head moves by at most (S - 1) / 2 slots in a step, either way."""
    kernel: Literal["auto", "torch", "reference"] = "auto"
    """What runs the time loop: ``reference`` is the plain form, ``torch`` has a backward pass of its own, and
    ``auto`` is that in C++ where it can be had."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size", "slots", "slot_size", "heads", "shifts", "output_size")
        if self.shifts % 2 == 0 or self.shifts > self.slots:
            raise ValueError(
                f"shifts must be odd and at most the number of slots, {self.slots}, got {self.shifts}."
            )


class HeadParameters(NamedTuple):
    """What the controller tells the heads in a step; write heads first, then read heads."""

    keys: Tensor
    """k in [-1, 1], ``[B, 2 H, W]``."""
    adds: Tensor
    """a in [-1, 1], of the write heads, ``[B, H, W]``."""
    erases: Tensor
    """e in [0, 1], of the write heads, ``[B, H, W]``."""
    gates: Tensor
    """g in [0, 1], ``[B, 2 H, 1]``."""
    strengths: Tensor
    """beta > 0, ``[B, 2 H, 1]``."""
    sharpenings: Tensor
    """gamma > 1, ``[B, 2 H, 1]``."""
    shifts: Tensor
    """s, which sums to 1, ``[B, 2 H, S]``, from the farthest shift back to the farthest forward."""


class NTMCore(MemoryCore[NTMState]):
    """Neural Turing machine with an LSTM controller (Graves et al. 2014).

    A step takes the input and the last reads into the controller, addresses the memory as it was for all
    heads, writes, reads from the memory as it is after the write, and puts out
    ``y_t = W_y [h_t; r_t] + b_y``.
    The paper leaves open whether addressing sees the write of the same step; here it does not.

    An episode begins with a constant memory, and with weights and reads that are learned.

    Args:
        input_size: ``I``.
        config: all other settings.
    """

    config_class = NTMConfig
    trace_names = ("write_weights", "read_weights", "write_values", "read_values")

    def __init__(self, input_size: int, config: NTMConfig | None = None):
        super().__init__()
        self.config = config = checked_config(self, input_size, config, NTMConfig)
        self.input_size = input_size
        self.output_size = config.output_size or config.hidden_size
        heads, size = 2 * config.heads, config.slot_size
        self._sizes = NTMSizes(config.heads, size, config.shifts)
        read_size = config.heads * size
        self.controller = nn.LSTMCell(input_size + read_size, config.hidden_size)
        self.interaction = nn.Linear(config.hidden_size, sum(self._sizes.told))
        self.output = nn.Linear(config.hidden_size + read_size, self.output_size)
        # All slots begin alike, so that only the initial weights tell one from another. Heads that begin at
        # the same slot find at once what the others have written.
        focus = nn.functional.one_hot(torch.zeros(heads, dtype=torch.int64), config.slots)
        self.initial_weights = nn.Parameter(INITIAL_FOCUS * focus.to(torch.get_default_dtype()))
        self.initial_reads = nn.Parameter(0.1 * torch.randn(config.heads, size))

    def initial_state(self, batch_size: int) -> NTMState:
        """Zeros in the controller, a constant memory, and learned weights and reads."""
        config, zeros = self.config, self.initial_weights.new_zeros
        shape = (batch_size, config.slots, config.slot_size)
        return NTMState(
            hidden=zeros(batch_size, config.hidden_size),
            cell=zeros(batch_size, config.hidden_size),
            reads=self.initial_reads.tanh().expand(batch_size, -1, -1),
            weights=self.initial_weights.softmax(1).expand(batch_size, -1, -1),
            memory=self.initial_weights.new_full((), INITIAL_MEMORY).expand(shape),
        )

    def forward(
        self,
        inputs: Tensor,
        state: NTMState | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[NTMState]:
        """See :meth:`MemoryCore.forward`; a trace is made by the plain loop.

        It has the weights of the heads, ``[T, B, H, N]``, and what was added and read, ``[T, B, H, W]``.
        """
        state = self.initial_state(inputs.shape[1]) if state is None else state
        kernel = self.config.kernel
        if record or kernel == "reference" or self._needs_plain_loop():
            return self._loop(inputs, state, resets, record)
        return self._scan(inputs, state, resets, kernel)

    def _needs_plain_loop(self) -> bool:
        """Whether the operation would leave out something, or does not work here."""
        changed = departure(
            self, NTMCore, ("initial_state", "head_parameters", "_advance", "_loop"), _MODULES
        )
        return changed is not None or not is_ordinary_call()

    def _loop(
        self, inputs: Tensor, state: NTMState, resets: Tensor | None, record: bool
    ) -> CoreOutput[NTMState]:
        """The plain form: autograd over :meth:`_advance`."""
        initial = self.initial_state(inputs.shape[1])
        any_reset = steps_with_resets(resets, len(inputs))
        states, adds = [], []
        for t, x in enumerate(inputs.unbind(0)):
            if resets is not None and any_reset[t]:
                state = reset_state(state, initial, resets[t])
            state = self._advance(x, state)
            states.append(state)
            if record:
                adds.append(self.head_parameters(state.hidden).adds)
        hidden, reads, weights = (
            torch.stack([getattr(each, name) for each in states]) for name in ("hidden", "reads", "weights")
        )
        outputs = self.output(torch.cat([hidden, reads.flatten(2)], 2))
        trace = None
        if record:
            recorded = (*weights.chunk(2, dim=2), torch.stack(adds), reads)
            trace = dict(zip(self.trace_names, recorded, strict=True))
        return CoreOutput(outputs, state, outputs.new_zeros(outputs.shape[:2]), trace)

    def _scan(
        self, inputs: Tensor, state: NTMState, resets: Tensor | None, kernel: Kernel
    ) -> CoreOutput[NTMState]:
        """The same by :func:`mnm_rl.kernels.ntm.scan`."""
        cell = self.controller
        of_inputs, of_reads = cell.weight_ih.tensor_split([self.input_size], dim=1)
        projected = F.linear(inputs, of_inputs, cell.bias_ih + cell.bias_hh)
        recurrent = torch.cat([cell.weight_hh, of_reads], 1)
        parameters = NTMParameters(recurrent, self.interaction.weight, self.interaction.bias)
        initial = self.initial_state(inputs.shape[1])
        controls, state = scan(self._sizes, projected, parameters, state, initial, resets, kernel)
        outputs = self.output(controls)
        return CoreOutput(outputs, state, outputs.new_zeros(outputs.shape[:2]))

    def step(
        self, inputs: Tensor, state: NTMState | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, NTMState]:
        """See :meth:`MemoryCore.step`."""
        state = self.initial_state(len(inputs)) if state is None else state
        if resets is not None and resets.any():
            state = reset_state(state, self.initial_state(len(inputs)), resets)
        state = self._advance(inputs, state)
        return self.output(torch.cat([state.hidden, state.reads.flatten(1)], 1)), state

    def _advance(self, x: Tensor, before: NTMState) -> NTMState:
        """One step (Graves et al. 2014, Figure 1), from the input ``[B, I]``."""
        seen = torch.cat([x, before.reads.flatten(1)], 1)
        hidden, cell = self.controller(seen, (before.hidden, before.cell))
        told = self.head_parameters(hidden)
        weights = address(before.memory, before.weights, told)
        write_weights, read_weights = weights.chunk(2, dim=1)
        memory = write(before.memory, write_weights, told.erases, told.adds)
        return NTMState(hidden, cell, read_weights @ memory, weights, memory)

    def head_parameters(self, hidden: Tensor) -> HeadParameters:
        """What the controller tells the heads; ``hidden`` is ``[B, d_h]``."""
        config = self.config
        parts = self.interaction(hidden).clamp(-CLIP, CLIP).split(self._sizes.told, dim=1)
        keys, adds, erases, gates, strengths, sharpenings, shifts = parts
        return HeadParameters(
            keys=torch.tanh(keys).unflatten(1, (-1, config.slot_size)),
            adds=torch.tanh(adds).unflatten(1, (-1, config.slot_size)),
            erases=torch.sigmoid(erases).unflatten(1, (-1, config.slot_size)),
            gates=torch.sigmoid(gates).unsqueeze(2),
            strengths=F.softplus(strengths).unsqueeze(2),
            sharpenings=1 + F.softplus(sharpenings).unsqueeze(2),
            shifts=shifts.unflatten(1, (-1, config.shifts)).softmax(2),
        )


_MODULES: dict[str, type[nn.Module]] = {"controller": nn.LSTMCell, "interaction": nn.Linear}
"""Modules whose parameters the operation takes."""


def address(memory: Tensor, weights: Tensor, told: HeadParameters) -> Tensor:
    """The weights of all heads (Graves et al. 2014, Eq. 5 to 9 and Figure 2).

    Args:
        memory: ``[B, N, W]``.
        weights: of the step before, ``[B, 2 H, N]``.
        told: by the controller.

    Returns:
        ``[B, 2 H, N]``, each head's summing to 1.
    """
    content = (told.strengths * cosine_similarity(told.keys, memory)).softmax(2)  # Eq. 5
    gated = told.gates * content + (1 - told.gates) * weights  # Eq. 7
    return sharpen(shift(gated, told.shifts), told.sharpenings)


def cosine_similarity(keys: Tensor, memory: Tensor) -> Tensor:
    """Of keys ``[B, 2 H, W]`` with slots ``[B, N, W]`` (Graves et al. 2014, Eq. 6): ``[B, 2 H, N]``."""
    key_norms, slot_norms = (torch.linalg.vector_norm(vectors, dim=2) for vectors in (keys, memory))
    return keys @ memory.mT / (key_norms.unsqueeze(2) * slot_norms.unsqueeze(1) + SMALLEST_NORM)


def shift(weights: Tensor, shifts: Tensor) -> Tensor:
    """Circular convolution of ``[B, 2 H, N]`` with ``[B, 2 H, S]`` (Graves et al. 2014, Eq. 8)."""
    farthest = shifts.shape[2] // 2
    moved = [weights.roll(by, dims=2) for by in range(-farthest, farthest + 1)]
    return (torch.stack(moved, 3) * shifts.unsqueeze(2)).sum(3)


def sharpen(weights: Tensor, powers: Tensor) -> Tensor:
    """Weights ``[B, 2 H, N]`` raised to powers ``[B, 2 H, 1]``, to sum 1 (Graves et al. 2014, Eq. 9).

    By way of logarithms, in which no power is too small for a number: a flat weighting to the power 20 is.
    """
    return (powers * (weights + SMALLEST_WEIGHT).log()).softmax(2)


def write(memory: Tensor, weights: Tensor, erases: Tensor, adds: Tensor) -> Tensor:
    """All heads erase, then all add (Graves et al. 2014, Eq. 3 and 4).

    Args:
        memory: ``[B, N, W]``.
        weights: ``[B, H, N]``.
        erases: ``[B, H, W]``.
        adds: ``[B, H, W]``.
    """
    kept = (1 - weights.unsqueeze(3) * erases.unsqueeze(2)).prod(1)
    return memory * kept + weights.mT @ adds
