"""The ``graphs`` backend: the ``torch`` backend's loop, recorded in CUDA graphs of a few lengths.

A sequence is cut into pieces of 32, 16, 8, 4, 2 and 1 steps, each length as a graph of its own for the
forward pass and one for the backward pass. So every length of sequence is met exactly, without padding, and
one batch size needs six lengths at most. Between two pieces autograd carries the state. Wherever an episode
starts, a piece begins: the state is replaced between two pieces, by operations that autograd knows, and no
graph has a reset in it.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size; all others as in :mod:`mnm_rl.kernels.problem`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mnm_rl.kernels import reversible
from mnm_rl.kernels.captured import Latest, Replay
from mnm_rl.kernels.problem import MNMState, ScanParameters, ScanResult, ScanSettings
from mnm_rl.kernels.scan_tensors import Call
from mnm_rl.kernels.snapshots import snapshot_ratio

WRITE_RULES = reversible.WRITE_RULES
DEVICES = ("cuda",)
LENGTHS = (32, 16, 8, 4, 2, 1)
"""Of the pieces, in steps: each half of the one before."""
KEPT_GRAPHS = 32
"""Pieces whose graphs are kept, by length, shape and settings: with and without gradient six each."""
STATE_BYTES = 2**31
"""States between pieces may take as much in any case, and else no more than what the steps keep."""


class Piece(NamedTuple):
    """The graphs of one length, for one shape."""

    forward: Replay
    """From the inputs, the parameters and the state to the results, with what the backward pass needs."""
    backward: Replay | None
    """From all these and the gradients of the results to those of the arguments; none without gradient."""


_pieces: Latest[Piece] = Latest(KEPT_GRAPHS)
_refused: set[Hashable] = set()


def forget() -> None:
    """Free all graphs and their buffers; they are recorded again when they are needed."""
    _pieces.clear()
    _refused.clear()


def scan(
    parameters: ScanParameters,
    settings: ScanSettings,
    inputs: Tensor,
    state: MNMState,
    resets: Tensor | None,
    initial_memory: Tensor,
) -> ScanResult:
    """Run the time loop; arguments as in :func:`mnm_rl.kernels.scan`.

    The plain form of the ``torch`` backend runs instead where a graph cannot be recorded, which is said in a
    warning; inside of a recording of the caller's; and where episodes start so often that the states between
    pieces would need too much memory.
    """
    tensors = (inputs, *parameters, *state)
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    starts = [] if resets is None else [t for t, any_ in enumerate(resets.any(1).tolist()) if any_]
    lengths = piece_lengths(inputs.shape[0], starts)
    if _can_record(tensors) and (not keep or _states_fit(settings, tensors, lengths)):
        pieces = _record_pieces(settings, tensors, sorted(set(lengths)), keep)
        if pieces is not None:
            return _run(pieces, parameters, inputs, state, resets, initial_memory, lengths, starts)
    return reversible.scan(parameters, settings, inputs, state, resets, initial_memory)


def piece_lengths(steps: int, starts: Sequence[int]) -> list[int]:
    """Lengths of the pieces of a sequence, the longest that fit.

    Args:
        steps: T.
        starts: steps at which an episode starts anywhere in the batch, in order: there a piece begins.
    """
    lengths = []
    bounds = [0, *[start for start in starts if start > 0], steps]
    for left in (end - start for start, end in pairwise(bounds)):
        for length in LENGTHS:
            lengths += [length] * (left // length)
            left %= length
    return lengths


def _can_record(tensors: Sequence[Tensor | None]) -> bool:
    """Plain tensors on a GPU, and nobody else is recording."""
    plain = all(tensor is None or type(tensor) in (Tensor, nn.Parameter) for tensor in tensors)
    device = tensors[0].device if tensors[0] is not None else None
    if not plain or device is None or device.type not in DEVICES or torch.compiler.is_compiling():
        return False
    return device.type != "cuda" or not torch.cuda.is_current_stream_capturing()


def _states_fit(settings: ScanSettings, tensors: Sequence[Tensor | None], lengths: list[int]) -> bool:
    inputs, memory = tensors[0], tensors[1 + len(ScanParameters._fields) + MNMState._fields.index("memory")]
    hidden = tensors[1 + len(ScanParameters._fields)]
    assert inputs is not None
    assert memory is not None
    assert hidden is not None
    weight = len(lengths) * memory.numel() * memory.element_size()
    lighter = len(lengths) * snapshot_ratio(settings, hidden.shape[1]) <= inputs.shape[0]
    return lighter or weight <= STATE_BYTES


def _record_pieces(
    settings: ScanSettings, tensors: Sequence[Tensor | None], lengths: list[int], keep: bool
) -> dict[int, Piece] | None:
    """The graphs of these lengths, or ``None`` if there is one that cannot be recorded."""
    inputs, *others = tensors
    assert inputs is not None
    context = (settings, keep, *_modes(inputs.device))
    context += tuple(None if other is None else (other.shape, other.dtype) for other in others)
    pieces = {}
    for length in lengths:
        key = (*context, length, inputs.shape[1:])
        if key in _refused:
            return None
        examples = [inputs[:length], *others]
        try:
            pieces[length] = _pieces.get(key, lambda e=examples: _make_piece(settings, e, keep))
        except RuntimeError as error:
            _refused.add(key)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.warn(
                f"mnm_rl: slower torch backend, because a CUDA graph cannot be recorded: {reason}",
                stacklevel=2,
            )
            return None
    return pieces


def _modes(device: torch.device) -> tuple[Hashable, ...]:
    """What a recording depends on besides its arguments: a repetition would not notice that it changed."""
    modes = (torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision())
    if device.type != "cuda":
        return (device, *modes)
    return (device, torch.cuda.current_stream(device).cuda_stream, *modes)


def _make_piece(settings: ScanSettings, examples: Sequence[Tensor | None], keep: bool) -> Piece:
    """Record both passes at once, so that what cannot be recorded shows before anything has run."""
    given = [example is not None for example in examples]
    present = [example.detach() for example in examples if example is not None]
    inputs, steps = present[0], len(present[0])
    # Without resets nobody asks for the initial memory.
    call = Call(settings, None, inputs.new_empty(0), inputs.new_tensor(settings.recall_weights))
    shapes: list[torch.Size] = []

    def forward(*tensors: Tensor) -> list[Tensor]:
        results, kept = reversible.run_forward(call, _spread(tensors, given), keep)
        shapes[:] = [tensor.shape for tensor in kept]
        return [*results, *([torch.cat([tensor.reshape(-1) for tensor in kept])] if keep else [])]

    def backward(*tensors: Tensor) -> list[Tensor]:
        own, (memory, flat), gradients = _cut(tensors, len(present), 2)
        parts = flat.split([math.prod(shape) for shape in shapes])
        kept = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        saved = [*_spread(own, given), memory, *kept]
        found = reversible.run_backward(call, steps, saved, gradients)
        return [gradient for gradient in found if gradient is not None]

    with torch.cuda.device_of(inputs):
        recorded = Replay(forward, present)
        if not keep:
            return Piece(recorded, None)
        *results, kept = recorded(present)
        memory_after = results[2 + MNMState._fields.index("memory")]
        return Piece(recorded, Replay(backward, [*present, memory_after, kept, *results]))


def _spread(tensors: Sequence[Tensor], given: Sequence[bool]) -> list[Tensor | None]:
    """The tensors, with ``None`` where none was given."""
    row = iter(tensors)
    return [next(row) if there else None for there in given]


def _cut(row: Sequence[Tensor], first: int, second: int) -> tuple[Sequence[Tensor], ...]:
    return row[:first], row[first : first + second], row[first + second :]


def _run(
    pieces: dict[int, Piece],
    parameters: ScanParameters,
    inputs: Tensor,
    state: MNMState,
    resets: Tensor | None,
    initial_memory: Tensor,
    lengths: list[int],
    starts: list[int],
) -> ScanResult:
    controls, meta_losses, t = [], [], 0
    begins = set(starts)
    for length, part in zip(lengths, inputs.split(lengths), strict=True):
        if resets is not None and t in begins:
            state = _restart(state, initial_memory, resets[t])
        found = _Piece.apply(pieces[length], part, *parameters, *state)
        control, meta_loss, *final = found
        state = MNMState(*final)
        controls.append(control)
        meta_losses.append(meta_loss)
        t += length
    return ScanResult(torch.cat(controls), torch.cat(meta_losses), state)


def _restart(state: MNMState, initial_memory: Tensor, mask: Tensor) -> MNMState:
    """Zeros and the initial memory where ``mask`` ``[B]`` is true."""
    fields = [torch.where(mask.view(-1, *[1] * (x.dim() - 1)), torch.zeros_like(x), x) for x in state]
    memory = torch.where(mask[:, None], initial_memory, state.memory)
    return MNMState(*fields)._replace(memory=memory)


class _Piece(torch.autograd.Function):
    """Some steps as one differentiable operation; tensors are the inputs, the parameters and the state."""

    @staticmethod
    def forward(ctx: Any, piece: Piece, *tensors: Tensor | None) -> tuple[Tensor, ...]:  # pyright: ignore
        results = piece.forward([tensor for tensor in tensors if tensor is not None])
        if piece.backward is None:
            return tuple(results)
        *results, kept = results
        ctx.piece = piece
        memory = results[2 + MNMState._fields.index("memory")]
        ctx.save_for_backward(*tensors, memory, kept)
        return tuple(results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # Once: under torch's checkpointing each access would repeat the forward pass.
        saved = ctx.saved_tensors
        tensors, (memory, kept) = saved[:-2], saved[-2:]
        present = [tensor for tensor in tensors if tensor is not None]
        found = iter(ctx.piece.backward([*present, memory, kept, *gradients]))
        return None, *[None if tensor is None else next(found) for tensor in tensors]
