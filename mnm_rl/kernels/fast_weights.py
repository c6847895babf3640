"""Fast weights that attend to the recent past (Ba et al. 2016), as attention over the hidden states.

    z = W_h h + W_x x + b,   A <- lambda A + eta h h^T                                   at every step
    h' = f(LN(z)),   then S times   h' <- f(LN(z + A h')),   then   h <- h'

with f the rectifier. A is never more than a sum over past hidden states, so that a product with it needs no
matrix, as the paper says; here there is one at the begin of each chunk:

    A h' = lambda^(j + 1) A_0 h' + eta sum_{i <= j} lambda^(j - i) h_i (h_i . h')        at step j of a chunk

:func:`scan` does so, and its backward pass, written out below, keeps hidden states where autograd through
:func:`plain`, which is the same with the matrix, keeps a matrix for every step.

Dimensions: ``T`` time, ``B`` batch, ``S`` inner steps, ``C`` steps of a chunk; size ``D`` of h.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

EPSILON = 1e-5
"""Added to the variance in LN."""
LEAST_CHUNK = 32
"""C is half of D, where a chunk of hidden states is as large as the matrix, but no less than this."""


class Parameters(NamedTuple):
    """What is trained, apart from the products with the inputs."""

    weight: Tensor
    """W_h, ``[D, D]``."""
    gain: Tensor
    """Of LN, ``[D]``."""
    bias: Tensor
    """Of LN, ``[D]``."""


class Settings(NamedTuple):
    """Numbers that the equations depend on."""

    decay: float
    """lambda."""
    rate: float
    """eta."""
    inner_steps: int
    """S."""


class FastWeightsResult(NamedTuple):
    """What a scan returns."""

    outputs: Tensor
    """h after every step, ``[T, B, D]``."""
    memory: Tensor
    """A after the last step, ``[B, D, D]``."""


def plain_step(
    encoded: Tensor, hidden: Tensor, memory: Tensor, parameters: Parameters, settings: Settings
) -> tuple[Tensor, Tensor]:
    """One step.

    Args:
        encoded: W_x x + b, ``[B, D]``.
        hidden: h, ``[B, D]``.
        memory: A, ``[B, D, D]``.
        parameters: the trained ones.
        settings: all others.

    Returns:
        h and A after the step.
    """
    z = torch.addmm(encoded, hidden, parameters.weight.T)
    memory = torch.baddbmm(
        memory, hidden.unsqueeze(2), hidden.unsqueeze(1), beta=settings.decay, alpha=settings.rate
    )
    hidden = _activation(z, parameters)
    for _ in range(settings.inner_steps):
        hidden = _activation(z + (memory @ hidden.unsqueeze(2)).squeeze(2), parameters)
    return hidden, memory


def _activation(x: Tensor, parameters: Parameters) -> Tensor:
    return torch.relu(functional.layer_norm(x, x.shape[-1:], parameters.gain, parameters.bias, EPSILON))


def plain(
    encoded: Tensor,
    hidden: Tensor,
    memory: Tensor,
    parameters: Parameters,
    settings: Settings,
    resets: Tensor | None = None,
) -> FastWeightsResult:
    """What :func:`scan` does, step by step and with the matrix."""
    outputs = []
    for t, entry in enumerate(encoded.unbind(0)):
        if resets is not None:
            hidden = hidden.masked_fill(resets[t].unsqueeze(1), 0)
            memory = memory.masked_fill(resets[t].view(-1, 1, 1), 0)
        hidden, memory = plain_step(entry, hidden, memory, parameters, settings)
        outputs.append(hidden)
    return FastWeightsResult(torch.stack(outputs), memory)


def scan(
    encoded: Tensor,
    hidden: Tensor,
    memory: Tensor | None,
    parameters: Parameters,
    settings: Settings,
    resets: Tensor | None = None,
) -> FastWeightsResult:
    """Run a sequence; differentiable once in all tensors with floating-point numbers.

    Args:
        encoded: W_x x + b, ``[T, B, D]``.
        hidden: h before the first step, ``[B, D]``.
        memory: A before the first step, ``[B, D, D]``; None for zeros, which costs less.
        parameters: the trained ones.
        settings: all others.
        resets: boolean ``[T, B]``; where true, h and A are zero before it, and no gradient flows across.
    """
    outputs, last = _Scan.apply(settings, resets, encoded, hidden, memory, *parameters)  # pyright: ignore
    return FastWeightsResult(outputs, last)


class _Weights:
    """How much is left of what was written in a chunk, and of A before it.

    Args:
        settings: with lambda and eta.
        resets: boolean ``[C, B]``, or None.
        like: ``[C, B, D]`` of the dtype and device.
    """

    def __init__(self, settings: Settings, resets: Tensor | None, like: Tensor):
        count, batch = like.shape[:2]
        steps = torch.arange(count, device=like.device)
        ages = (steps.unsqueeze(1) - steps).clamp(min=0)
        powers = torch.as_tensor(settings.decay, dtype=like.dtype, device=like.device).pow(
            torch.arange(count + 1, device=like.device)
        )
        self.writes = (settings.rate * powers[ages]).tril().expand(batch, count, count)
        """``[B, C, C]``: at the step of the first index, of the write in that of the second."""
        self.start = powers[1:].expand(batch, count)
        """``[B, C]``, of A before the chunk."""
        self.keep = None
        if resets is not None:
            starts = resets.T.cumsum(1)
            self.writes = self.writes * (starts.unsqueeze(2) == starts.unsqueeze(1))
            self.start = self.start * (starts == 0)
            self.keep = (~resets).to(like.dtype).unsqueeze(2)


class _Kept(NamedTuple):
    """What a chunk's forward pass leaves for its backward pass."""

    past: Tensor
    """h before each step, zero where an episode starts, ``[B, C, D]``."""
    states: Tensor
    """f(LN(.)) of each inner step, the last of them h after the step, ``[S + 1, B, C, D]``."""
    normalized: Tensor
    """What LN made, before its gain and bias, ``[S + 1, C, B, D]``."""
    scales: Tensor
    """What LN multiplied by, ``[S + 1, C, B, 1]``."""


class _Chunk:
    """Some steps, forward and backward.

    Args:
        encoded: ``[C, B, D]``.
        memory: A before them, ``[B, D, D]``, or None for zeros.
        parameters: the trained ones.
        settings: all others.
        resets: boolean ``[C, B]``, or None.
    """

    def __init__(
        self,
        encoded: Tensor,
        memory: Tensor | None,
        parameters: Parameters,
        settings: Settings,
        resets: Tensor | None,
    ):
        self.encoded, self.memory, self.parameters, self.settings = encoded, memory, parameters, settings
        self.weights = _Weights(settings, resets, encoded)

    def restore(self, kept: _Kept) -> None:
        """Take what an equal chunk has computed."""
        self.past, self.states, self.normalized, self.scales = self.kept = kept

    def forward(self, hidden: Tensor) -> None:
        """All steps, from h before them ``[B, D]``."""
        (count, batch, size), rows = self.encoded.shape, self.settings.inner_steps + 1
        empty = self.encoded.new_empty
        states, normalized = empty(rows, batch, count, size), empty(rows, count, batch, size)
        self.restore(_Kept(empty(batch, count, size), states, normalized, empty(rows, count, batch, 1)))
        for j, entry in enumerate(self.encoded.unbind(0)):
            hidden = hidden if self.weights.keep is None else hidden * self.weights.keep[j]
            self.past[:, j] = hidden
            z = torch.addmm(entry, hidden, self.parameters.weight.T)
            hidden = self._activate(0, j, z)
            for s in range(self.settings.inner_steps):
                hidden = self._activate(s + 1, j, z + self._fast_product(j, hidden))

    def _activate(self, s: int, j: int, x: Tensor) -> Tensor:
        _, gain, bias = self.parameters
        normal, _, scale = torch.native_layer_norm(x, x.shape[-1:], None, None, EPSILON)
        self.normalized[s, j], self.scales[s, j] = normal, scale
        hidden = torch.relu(torch.addcmul(bias, normal, gain))
        self.states[s, :, j] = hidden
        return hidden

    def _fast_product(self, j: int, x: Tensor) -> Tensor:
        """A x at step j, ``[B, D]``."""
        past = self.past[:, : j + 1]
        attention = (past @ x.unsqueeze(2)).squeeze(2) * self.weights.writes[:, j, : j + 1]
        product = (attention.unsqueeze(1) @ past).squeeze(1)
        if self.memory is not None:
            product = product + self.weights.start[:, j, None] * (self.memory @ x.unsqueeze(2)).squeeze(2)
        return product

    def memory_after(self) -> Tensor:
        """A after the last step."""
        weighted = self.past * self.weights.writes[:, -1].unsqueeze(2)
        written = weighted.mT @ self.past
        if self.memory is None:
            return written
        return torch.addcmul(written, self.weights.start[:, -1].view(-1, 1, 1), self.memory)

    def backward(self, d_outputs: Tensor, d_hidden: Tensor, d_memory: Tensor) -> _Gradients:
        """The gradients, from those of the outputs ``[C, B, D]``, and of h and A after the last step."""
        count, inner = len(self.encoded), self.settings.inner_steps
        past, weights, parameters = self.past, self.weights, self.parameters
        d_past = weights.writes[:, -1].unsqueeze(2) * (past @ (d_memory + d_memory.mT))
        d_normalized = torch.empty_like(self.normalized)  # after gain and bias
        d_sums = torch.empty_like(self.states)  # of what goes into LN; from the second on, of A h'
        for j in reversed(range(count)):
            d_state = d_outputs[j] + d_hidden
            for s in reversed(range(inner + 1)):
                d_normalized[s, j] = d_state * (self.states[s, :, j] > 0)
                d_sums[s, :, j] = self._through_norm(s, j, d_normalized[s, j] * parameters.gain)
                if s > 0:
                    d_state = self._transposed_product(j, d_sums[s, :, j])
            d_hidden = d_sums[:, :, j].sum(0) @ parameters.weight + d_past[:, j]
            d_hidden = d_hidden + self._from_later_reads(j, d_sums)
            d_hidden = d_hidden if weights.keep is None else d_hidden * weights.keep[j]
        d_encoded = d_sums.sum(0)
        return _Gradients(
            encoded=d_encoded.transpose(0, 1),
            hidden=d_hidden,
            memory=self._memory_gradient(d_memory, d_sums),
            weight=d_encoded.flatten(0, 1).T @ past.flatten(0, 1),
            gain=(d_normalized * self.normalized).sum((0, 1, 2)),
            bias=d_normalized.sum((0, 1, 2)),
        )

    def _through_norm(self, s: int, j: int, d: Tensor) -> Tensor:
        """Of what goes into LN, from the gradient of what comes out, before gain and bias."""
        normal = self.normalized[s, j]
        shift = d.mean(1, keepdim=True) + normal * (d * normal).mean(1, keepdim=True)
        return self.scales[s, j] * (d - shift)

    def _transposed_product(self, j: int, d: Tensor) -> Tensor:
        """``A^T d`` at step j."""
        past = self.past[:, : j + 1]
        attention = (past @ d.unsqueeze(2)).squeeze(2) * self.weights.writes[:, j, : j + 1]
        product = (attention.unsqueeze(1) @ past).squeeze(1)
        if self.memory is not None:
            product = product + self.weights.start[:, j, None] * (d.unsqueeze(1) @ self.memory).squeeze(1)
        return product

    def _from_later_reads(self, j: int, d_sums: Tensor) -> Tensor:
        """Of the hidden state written in step j, from the products with A since."""
        written, weights = self.past[:, j].unsqueeze(2), self.weights.writes[:, j:, j]
        total = torch.zeros_like(self.past[:, j])
        for d, state in zip(d_sums[1:, :, j:], self.states[:-1, :, j:], strict=True):
            by_state = ((state @ written).squeeze(2) * weights).unsqueeze(1)
            by_d = ((d @ written).squeeze(2) * weights).unsqueeze(1)
            total = total + (by_state @ d + by_d @ state).squeeze(1)
        return total

    def _memory_gradient(self, d_memory: Tensor, d_sums: Tensor) -> Tensor:
        """Of A before the chunk."""
        start = self.weights.start
        total = start[:, -1].view(-1, 1, 1) * d_memory
        for d, state in zip(d_sums[1:], self.states[:-1], strict=True):
            total = torch.baddbmm(total, (d * start.unsqueeze(2)).mT, state)
        return total


class _Gradients(NamedTuple):
    """Of what a chunk was given."""

    encoded: Tensor
    hidden: Tensor
    memory: Tensor
    weight: Tensor
    gain: Tensor
    bias: Tensor


class _Scan(torch.autograd.Function):
    """The sequence as one operation."""

    @staticmethod
    def forward(ctx: Any, settings: Settings, resets: Tensor | None, *row: Any) -> tuple[Tensor, Tensor]:  # pyright: ignore
        encoded, hidden, memory, *parameters = row
        outputs, kept = [], []
        for entries, starts in _pieces(encoded, resets):
            chunk = _Chunk(entries, memory, Parameters(*parameters), settings, starts)
            chunk.forward(hidden)
            kept += [memory, *chunk.kept]
            outputs.append(chunk.states[-1].transpose(0, 1))
            hidden, memory = outputs[-1][-1], chunk.memory_after()
        ctx.settings, ctx.resets, ctx.has_memory = settings, resets, kept[0] is not None
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(encoded, *parameters, *kept)
        return torch.cat(outputs), memory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_memory: Tensor) -> tuple[Tensor | None, ...]:
        encoded, *saved = ctx.saved_tensors
        parameters, kept = Parameters(*saved[:3]), saved[3:]
        width = 1 + len(_Kept._fields)
        d_hidden, parts, end = torch.zeros_like(d_outputs[0]), [], len(d_outputs)
        for i, (entries, starts) in reversed(list(enumerate(_pieces(encoded, ctx.resets)))):
            memory, *of_chunk = kept[i * width : (i + 1) * width]
            chunk = _Chunk(entries, memory, parameters, ctx.settings, starts)
            chunk.restore(_Kept(*of_chunk))
            parts.append(chunk.backward(d_outputs[end - len(entries) : end], d_hidden, d_memory))
            d_hidden, d_memory, end = parts[-1].hidden, parts[-1].memory, end - len(entries)
        d_encoded = torch.cat([part.encoded for part in reversed(parts)])
        of_parameters = [sum(d) for d in zip(*(part[3:] for part in parts), strict=True)]
        return None, None, d_encoded, d_hidden, d_memory if ctx.has_memory else None, *of_parameters  # pyright: ignore


def _pieces(encoded: Tensor, resets: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    """The steps and starts of each chunk."""
    count = max(LEAST_CHUNK, encoded.shape[2] // 2)
    entries = encoded.split(count)
    return list(zip(entries, [None] * len(entries) if resets is None else resets.split(count), strict=True))
