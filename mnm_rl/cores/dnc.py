"""A differentiable neural computer: slots that are found by content, allocated, freed, and linked in order.

Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory", with masked
look-up and de-allocation by default, the variant that did best on bAbI in Csordas and Schmidhuber 2019. The
published machine is ``masked=False, deallocating=False``.

:meth:`DNCCore._loop` is the plain form; sequences run through :func:`mnm_rl.kernels.dnc.scan`, which keeps
vectors per step instead of memories and links, wherever it has what the settings ask for.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``N`` slots, ``W`` size of a slot, ``R`` read heads;
sizes ``d_h`` controller, ``d_o`` output.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mnm_rl.cores.base import CoreOutput, MemoryCore, reset_state, steps_with_resets
from mnm_rl.cores.checks import checked_config
from mnm_rl.field_types import check_own_fields
from mnm_rl.kernels import departure
from mnm_rl.kernels import dnc as kernel
from mnm_rl.kernels.dnc_problem import Parameters, State, segment_length
from mnm_rl.memory import dnc as memory_of
from mnm_rl.memory.dnc import Interface, Switches


@dataclass(frozen=True)
class DNCConfig:
    """Settings of the ``dnc`` core."""

    hidden_size: int = 200
    """d_h, width of the controller."""
    output_size: int | None = None
    """d_o, size of the output; the controller's width if not given."""
    slots: int = 64
    """N."""
    slot_size: int = 32
    """W."""
    read_heads: int = 4
    """R."""
    masked: bool = True
    """Look-up by a learned part of each slot (Csordas and Schmidhuber 2019, section 3.1)."""
    mask_minimum: float = 0.0
    """Masks lie between this and 1; for masked look-up."""
    deallocating: bool = True
    """A freed slot loses its contents, too (Csordas and Schmidhuber 2019, section 3.2)."""
    links: bool = True
    """Slots remember in which order they were written; without, contents alone are looked up."""
    sharpened: bool = False
    """What links lead to is sharpened (Csordas and Schmidhuber 2019, section 3.3)."""
    usage_gradient: bool = False
    """Gradients flow from the usage into the write weights of the step before."""
    link_gradient: bool = True
    """Gradients flow through links into the write weights; never in Rae et al. 2016."""
    sparse_reads: int | None = None
    """Slots that a read head reads at most; all if not given."""
    sparse_writes: int | None = None
    """Slots that are written at most in a step."""
    sparse_links: int | None = None
    """Slots that any slot is linked back to at most."""
    kernel: Literal["auto", "reference"] = "auto"
    """``reference`` for the plain loop."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size", "slots", "slot_size", "read_heads", "output_size")
        if not 0 <= self.mask_minimum < 1:
            raise ValueError(f"mask_minimum must be at least 0 and below 1, got {self.mask_minimum}.")
        for name in ("sparse_reads", "sparse_writes", "sparse_links"):
            count = getattr(self, name)
            if count is not None and not 1 <= count <= self.slots:
                raise ValueError(f"{name} must be from 1 to the number of slots, {self.slots}, got {count}.")
        if self.mask_minimum and not self.masked:
            raise ValueError("mask_minimum is for masked look-up, and masked is false.")
        for name in ("sharpened", "sparse_links"):
            if getattr(self, name) and not self.links:
                raise ValueError(f"{name} is for memories with links, and links is false.")

    @property
    def switches(self) -> Switches:
        """What the memory needs to know of the settings."""
        return Switches(**{name: getattr(self, name) for name in Switches._fields})

    @property
    def is_sparse(self) -> bool:
        """Whether anything is cut to its largest entries."""
        limits = (self.sparse_reads, self.sparse_writes, self.sparse_links)
        return any(limit is not None and limit < self.slots for limit in limits)


class DNCState(NamedTuple):
    """What the core carries from step to step."""

    hidden: Tensor
    """h, ``[B, d_h]``."""
    cell: Tensor
    """The controller's cell state, ``[B, d_h]``."""
    reads: Tensor
    """r of the last step, ``[B, R, W]``."""
    memory: Tensor
    """M, ``[B, N, W]``."""
    usage: Tensor
    """u, ``[B, N]``."""
    write_weights: Tensor
    """w^w of the last step, ``[B, N]``."""
    read_weights: Tensor
    """w^r of the last step, ``[B, R, N]``."""
    precedence: Tensor
    """p, ``[B, N]``."""
    link: Tensor
    """L, ``[B, N, N]``: how far the slot of the first index was written after that of the second."""


class UnlinkedState(NamedTuple):
    """What a core without links carries from step to step; fields as in :class:`DNCState`."""

    hidden: Tensor
    cell: Tensor
    reads: Tensor
    memory: Tensor
    usage: Tensor
    write_weights: Tensor
    read_weights: Tensor


class _Trace(NamedTuple):
    """What a step leaves in a trace."""

    read_keys: Tensor
    """``[B, R, W]``."""
    write_keys: Tensor
    """``[B, 1, W]``."""
    write_values: Tensor
    """The write vector, ``[B, 1, W]``."""
    read_values: Tensor
    """Mean of what the heads read, ``[B, 1, W]``."""
    read_weights: Tensor
    """``[B, R, N]``."""
    write_weights: Tensor
    """``[B, 1, N]``."""
    usage: Tensor
    """``[B, N]``."""
    allocatable: Tensor
    """Sum of the allocation weights, ``[B, 1]``; near zero when the memory is full."""
    write_sizes: Tensor
    """Frobenius norm of the memory's change, ``[B, 1]``."""
    memory_distances: Tensor
    """Frobenius norm of the memory, ``[B, 1]``."""


class DNCCore(MemoryCore[Any]):
    """LSTM controller, one write head, R read heads, ``y_t = W_y [h_t; r_t] + b_y``.

    A trace has the read weights, the write weights, the usage, and keys and values as those of MNM; the read
    value is the mean over heads.

    Args:
        input_size: ``I``.
        config: all other settings.
    """

    config_class = DNCConfig
    trace_names = _Trace._fields

    def __init__(self, input_size: int, config: DNCConfig | None = None):
        super().__init__()
        self.config = config = checked_config(self, input_size, config, DNCConfig)
        self.switches = config.switches
        self.input_size = input_size
        self.output_size = config.output_size or config.hidden_size
        read_size = config.read_heads * config.slot_size
        self.controller = nn.LSTMCell(input_size + read_size, config.hidden_size)
        self.interface = nn.Linear(config.hidden_size, sum(self.switches.part_sizes()))
        self.output = nn.Linear(config.hidden_size + read_size, self.output_size)

    def initial_state(self, batch_size: int) -> DNCState | UnlinkedState:
        """Zeros."""
        heads, slots, size = self.config.read_heads, self.config.slots, self.config.slot_size
        zeros = self.interface.weight.new_zeros
        unlinked = UnlinkedState(
            hidden=zeros(batch_size, self.config.hidden_size),
            cell=zeros(batch_size, self.config.hidden_size),
            reads=zeros(batch_size, heads, size),
            memory=zeros(batch_size, slots, size),
            usage=zeros(batch_size, slots),
            write_weights=zeros(batch_size, slots),
            read_weights=zeros(batch_size, heads, slots),
        )
        if not self.config.links:
            return unlinked
        return DNCState(*unlinked, zeros(batch_size, slots), zeros(batch_size, slots, slots))

    def forward(
        self, inputs: Tensor, state: Any = None, resets: Tensor | None = None, *, record: bool = False
    ) -> CoreOutput[Any]:
        """See :meth:`MemoryCore.forward`."""
        state = self.initial_state(inputs.shape[1]) if state is None else state
        trace = None
        if record:
            controls, state, trace = self._loop(inputs, state, resets, record=True)
        elif self._fits_kernel(inputs, state):
            controls, state = self._scan(inputs, state, resets)
        else:
            controls, state = self._loop_in_segments(inputs, state, resets)
        outputs = self.output(controls)
        return CoreOutput(outputs, state, outputs.new_zeros(outputs.shape[:2]), trace)

    def step(
        self, inputs: Tensor, state: Any = None, resets: Tensor | None = None
    ) -> tuple[Tensor, DNCState | UnlinkedState]:
        """See :meth:`MemoryCore.step`."""
        state = self.initial_state(len(inputs)) if state is None else state
        if torch.is_grad_enabled() or not self._fits_kernel(inputs, state):
            return super().step(inputs, state, resets)
        if resets is not None and resets.any():
            state = reset_state(state, self.initial_state(len(inputs)), resets)
        control, after = kernel.step(self._project(inputs), self._trained(), self.switches, State(*state))
        return self.output(control), type(state)(*after[: len(state)])

    def acting(self) -> AbstractContextManager[None]:
        """See :meth:`MemoryCore.acting`: memory and links are written in place."""
        return kernel.acting(self._trained())

    def _fits_kernel(self, inputs: Tensor, state: Any) -> bool:
        if self.config.kernel == "reference" or self.config.is_sparse:
            return False
        parts = {"controller": nn.LSTMCell, "interface": nn.Linear}
        if departure(self, DNCCore, _METHODS, parts) is not None:
            return False
        return kernel.fits(self.switches, inputs, *state, *self._trained())

    def _project(self, inputs: Tensor) -> Tensor:
        """The inputs' part of the controller's sums, ``[..., 4 d_h]``."""
        cell = self.controller
        weight, bias = cell.weight_ih[:, : self.input_size], cell.bias_ih + cell.bias_hh
        return nn.functional.linear(inputs, weight, bias)

    def _trained(self) -> Parameters:
        cell = self.controller
        from_reads = cell.weight_ih[:, self.input_size :]
        return Parameters(cell.weight_hh, from_reads, self.interface.weight, self.interface.bias)

    def _scan(self, inputs: Tensor, state: Any, resets: Tensor | None) -> tuple[Tensor, Any]:
        controls, after = kernel.scan(
            self._project(inputs), self._trained(), self.switches, State(*state), resets
        )
        return controls, type(state)(*after[: len(state)])

    def _loop_in_segments(self, inputs: Tensor, state: Any, resets: Tensor | None) -> tuple[Tensor, Any]:
        """The plain loop; with gradients, the backward pass repeats it from copies of the state.

        A copy every sqrt(T) steps takes the place of the links of all steps.
        """
        every = segment_length(len(inputs))
        whole = self.config.kernel == "reference" or not torch.is_grad_enabled() or every == 1
        # Transforms of torch.func know no checkpoints.
        if whole or torch._C._are_functorch_transforms_active() or torch.compiler.is_exporting():
            return self._loop(inputs, state, resets)[:2]
        parts, controls = inputs.split(every), []
        for part, cut in zip(
            parts, [None] * len(parts) if resets is None else resets.split(every), strict=True
        ):
            # Nothing in the loop is random, so there is no generator to set back.
            found = checkpoint(self._loop, part, state, cut, use_reentrant=False, preserve_rng_state=False)
            assert isinstance(found, tuple)
            control, state, _ = found
            controls.append(control)
        return torch.cat(controls), state

    def _loop(
        self, inputs: Tensor, state: Any, resets: Tensor | None, record: bool = False
    ) -> tuple[Tensor, Any, dict[str, Tensor] | None]:
        """The plain loop: ``[h_t; r_t]`` of all steps, the state and the trace."""
        initial, kind = self.initial_state(inputs.shape[1]), type(state)
        any_reset = steps_with_resets(resets, len(inputs))
        controls, traces = [], []
        for t, x in enumerate(inputs.unbind(0)):
            if resets is not None and any_reset[t]:
                state = reset_state(state, initial, resets[t])
            before = state
            interface, state = self._advance(x, before)
            controls.append(torch.cat([state.hidden, state.reads.flatten(1)], 1))
            if record:
                traces.append(self._look(interface, before, state))
        columns = zip(_Trace._fields, zip(*traces, strict=True), strict=True) if record else ()
        trace = {name: torch.stack(column) for name, column in columns} if record else None
        return torch.stack(controls), kind(*state), trace

    def _advance(self, x: Tensor, state: Any) -> tuple[Interface, Any]:
        """One step (Methods, in the order of the paper), from the input ``[B, I]``."""
        config, switches = self.config, self.switches
        control = (state.hidden, state.cell)
        hidden, cell = self.controller(torch.cat([x, state.reads.flatten(1)], 1), control)
        xi = memory_of.split_interface(self.interface(hidden), switches)
        retained = memory_of.retention(xi.free_gates, state.read_weights)
        written = state.write_weights if config.usage_gradient else state.write_weights.detach()
        usage = memory_of.next_usage(state.usage, written, retained)
        write_weights = self._write_weights(xi, state.memory, usage)
        memory = memory_of.write(
            state.memory, write_weights, xi.erase, xi.write_vector, retained if config.deallocating else None
        )
        masks = None if xi.masks is None else xi.masks[:, :-1]
        contents = memory_of.content_weights(xi.keys[:, :-1], masks, xi.strengths[:, :-1], memory)
        order: tuple[Tensor, ...] = ()
        if config.links:
            link = memory_of.next_link(state.link, state.precedence, write_weights)
            link = memory_of.keep_largest(link, config.sparse_links, rescale=False)
            order = (memory_of.next_precedence(state.precedence, write_weights), link)
            if not config.link_gradient:
                order, link = (order[0].detach(), link.detach()), link.detach()
            contents = self._mix(xi, contents, link, state.read_weights)
        read_weights = memory_of.keep_largest(contents, config.sparse_reads)
        return xi, type(state)(
            hidden, cell, read_weights @ memory, memory, usage, write_weights, read_weights, *order
        )

    def _write_weights(self, xi: Interface, memory: Tensor, usage: Tensor) -> Tensor:
        """Of slots that are found by content or allocated, ``[B, N]``."""
        masks = None if xi.masks is None else xi.masks[:, -1:]
        contents = memory_of.content_weights(xi.keys[:, -1:], masks, xi.strengths[:, -1:], memory)[:, 0]
        free = memory_of.allocation(usage)
        weights = memory_of.write_weights(xi.write_gate, xi.allocation_gate, free, contents)
        return memory_of.keep_largest(weights, self.config.sparse_writes)

    def _mix(self, xi: Interface, contents: Tensor, link: Tensor, read_weights: Tensor) -> Tensor:
        """``w^r_t = pi_1 b + pi_2 c + pi_3 f``: links are followed from the last reads, ``[B, R, N]``."""
        backward, forward = read_weights @ link, read_weights @ link.mT
        if xi.sharpness is not None:
            backward = memory_of.sharpen(backward, xi.sharpness[:, 0])
            forward = memory_of.sharpen(forward, xi.sharpness[:, 1])
        assert xi.modes is not None
        modes = xi.modes.unsqueeze(3)
        return modes[:, 0] * backward + modes[:, 1] * contents + modes[:, 2] * forward

    def _look(self, xi: Interface, before: Any, after: Any) -> _Trace:
        sizes = [torch.linalg.matrix_norm(x) for x in (after.memory - before.memory, after.memory)]
        free = memory_of.allocation(after.usage)
        return _Trace(
            xi.keys[:, :-1],
            xi.keys[:, -1:],
            xi.write_vector.unsqueeze(1),
            after.reads.mean(1, keepdim=True),
            after.read_weights,
            after.write_weights.unsqueeze(1),
            after.usage,
            free.sum(1, keepdim=True),
            *(size.unsqueeze(1) for size in sizes),
        )


_METHODS = ("initial_state", "_advance", "_write_weights", "_mix", "_loop", "_loop_in_segments")
"""Methods that the operation in C++ stands for."""
