"""The whole time loop of an MNM core as one differentiable operation, in several forms with the same results.

* ``reference``: autograd over the equations, in ``mnm_rl/cores/mnm.py``. Keeps every step's memory.
* ``torch``: hand-written backward pass in plain torch, for any device and dtype.
* ``cpu``: C++, compiled on first use, for float32 and float64 on the CPU.

The last two keep vectors instead of memories: their backward pass undoes each low-rank write.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size; all others as in :mod:`mnm_rl.kernels.problem`.
"""

from __future__ import annotations

import functools
import warnings
from typing import Literal

import torch
from torch import Tensor

from mnm_rl.kernels import cpu, reversible
from mnm_rl.kernels.build import BuildError
from mnm_rl.kernels.problem import ScanParameters, ScanResult, ScanSettings, ScanState

Backend = Literal["auto", "reference", "torch", "cpu"]
"""``auto`` takes ``cpu`` where it can be compiled, else ``torch``."""


def choose(backend: Backend, device: torch.device, dtype: torch.dtype) -> str:
    """The backend that ``backend`` stands for, on this device and for this dtype.

    Raises:
        ValueError: ``cpu`` was asked for by name on another device or for another dtype.
        BuildError: ``cpu`` was asked for by name and cannot be compiled.
    """
    fits = device.type == "cpu" and dtype in cpu.DTYPES
    if backend == "auto":
        return "cpu" if fits and _compiles() else "torch"
    if backend == "cpu":
        if not fits:
            raise ValueError(f"The cpu kernel takes float32 or float64 on the CPU, not {dtype} on {device}.")
        cpu.operators()
    return backend


@functools.cache
def _compiles() -> bool:
    try:
        cpu.operators()
    except (BuildError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        warnings.warn(f"mnm_rl: slower torch backend instead of the C++ kernel: {reason}", stacklevel=2)
        return False
    return True


def scan(
    parameters: ScanParameters,
    settings: ScanSettings,
    inputs: Tensor,
    state: tuple[Tensor, ...],
    resets: Tensor | None,
    initial_memory: Tensor,
    backend: str,
) -> ScanResult:
    """Run the time loop; differentiable in the parameters, the inputs and the state.

    Args:
        parameters: the trained tensors.
        settings: all else that the equations depend on.
        inputs: ``[T, B, I]``.
        state: the state before the first step, any tuple with the fields of :class:`ScanState`.
        resets: boolean ``[T, B]``; where true, the state is replaced by zeros and the initial memory before
            the step.
        initial_memory: phi_0, ``[F]``; gets no gradient.
        backend: ``torch`` or ``cpu``, as :func:`choose` returns them.
    """
    run = {"torch": reversible.scan, "cpu": cpu.scan}.get(backend)
    if run is None:
        raise ValueError(f"There is no scan for the backend {backend!r}; there are torch and cpu.")
    return run(parameters, settings, inputs, ScanState(*state), resets, initial_memory)


__all__ = [
    "Backend",
    "BuildError",
    "ScanParameters",
    "ScanResult",
    "ScanSettings",
    "ScanState",
    "choose",
    "scan",
]
