"""The tensors of the ``torch`` backend's time loop: what goes in, and what a step leaves behind.

Dimensions as in :mod:`mnm_rl.kernels.reversible`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor

from mnm_rl.kernels.memory_step import MemoryRecord
from mnm_rl.kernels.problem import MNMState, ScanParameters, ScanSettings


class Call(NamedTuple):
    """The arguments of a scan that have no gradient."""

    settings: ScanSettings
    resets: Tensor | None
    initial_memory: Tensor
    delay_weights: Tensor
    """lambda_tau of Eq. 5 as a tensor, ``[N]``: made once, because a GPU waits for numbers that come one by
    one."""


class Step(NamedTuple):
    """What one step leaves for the backward pass."""

    control_before: Tensor
    """[h_{t-1}; v^r_{t-1}], ``[B, d_h + d_v]``."""
    cell_before: Tensor
    gates: tuple[Tensor, ...]
    """i, f, g, o after their nonlinearities, ``[B, d_h]`` each."""
    cell: Tensor
    hidden: Tensor
    vectors: Tensor
    """Interaction vectors, ``[B, U]``."""
    values: Tensor
    """Write values of delays 0 ... N - 1, ``[B, N, H, d_v]``."""
    memory: MemoryRecord

    def tensors(self) -> list[Tensor]:
        """All of them in a row."""
        single = (self.cell, self.hidden, self.vectors, self.values, self.memory.rates)
        record = (*self.memory.written, *self.memory.errors, *self.memory.read)
        return [self.control_before, self.cell_before, *self.gates, *single, *record]

    @staticmethod
    def from_tensors(row: Iterator[Any], layers: int) -> Step:
        """The inverse of :meth:`tensors`, from the front of what is left in ``row``."""
        control_before, cell_before, *gates = take(row, 6)
        cell, hidden, vectors, values, rates = take(row, 5)
        written, errors, read = take(row, layers + 1), take(row, layers), take(row, layers + 1)
        record = MemoryRecord(rates, written, errors, read)
        return Step(control_before, cell_before, tuple(gates), cell, hidden, vectors, values, record)


class Tensors(NamedTuple):
    """The arguments of a scan that have a gradient."""

    inputs: Tensor
    parameters: ScanParameters
    state: MNMState

    @staticmethod
    def from_tensors(row: Iterator[Any]) -> Tensors:
        """From the front of what is left in ``row``, one after the other."""
        (inputs,) = take(row, 1)
        parameters = ScanParameters(*take(row, len(ScanParameters._fields)))
        return Tensors(inputs, parameters, MNMState(*take(row, len(MNMState._fields))))


def take(row: Iterator[Any], count: int) -> list[Tensor]:
    """The first of what is left in ``row``."""
    return list(islice(row, count))
