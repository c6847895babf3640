"""The whole time loop of an MNM core as one differentiable operation, in several forms with the same results.

* ``reference``: autograd over the equations, in ``mnm_rl/cores/mnm.py``. Keeps every step's memory.
* ``torch``: hand-written backward pass in plain torch, for any device and dtype.
* ``graphs``: the same operations, recorded in CUDA graphs, for CUDA devices.
* ``cpu``: C++, prebuilt in the wheel or compiled on first use, for float32 and float64 on the CPU.
* ``triton``: for float32 and float64 on CUDA devices; needs the package triton.

The last four keep vectors instead of memories: their backward pass undoes each low-rank write.

Where an episode starts (``resets``), the state before the step is replaced by the initial state, no gradient
flows across, and the backward pass needs the memory of the episode that ended:

=============  ============================================  ================================================
backend        forward                                       backward
=============  ============================================  ================================================
``reference``  ``reset_state`` of ``cores/base.py``          autograd
``torch``      ``_Forward._reset`` of ``reversible.py``      ``_Backward._reset_backward``, ``_rebuild``
``graphs``     ``_restart`` of ``graphs.py``                 autograd; between two graphs the memory is kept
``cpu``        ``is_reset`` of ``cpp/loop.h``,               ``cross_reset``, ``rebuild_memory_before_reset``
               ``memory_at_start_or_reset``, ``forward.h``   of ``cpp/backward.h``
``triton``     ``is_reset`` and ``known`` of ``tiles.py``,   ``_reset_backward`` of ``backward.py``,
               ``_reset_memory`` of ``forward.py``           ``_forgotten`` of ``operation.py``
=============  ============================================  ================================================

Dimensions: ``T`` time, ``B`` batch, ``I`` input size; all others as in :mod:`mnm_rl.kernels.problem`.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any, Literal

import torch
from torch import Tensor

from mnm_rl.kernels import cpu, graphs, reversible
from mnm_rl.kernels.build import BuildError
from mnm_rl.kernels.departures import a_hook, departure
from mnm_rl.kernels.problem import MNMState, ScanParameters, ScanResult, ScanSettings

Backend = Literal["auto", "reference", "torch", "cpu", "triton", "graphs"]
"""``auto`` takes ``cpu`` on the CPU where it can be compiled, ``graphs`` on CUDA devices, else ``torch``, and
``reference`` for a core that these cannot run. ``triton`` has to be asked for by name as long as its tests
have not run on a GPU: only there would a missing barrier show."""


RULES_OF_KERNELS: dict[str, frozenset[str]] = {
    "torch": reversible.WRITE_RULES,
    "cpu": cpu.WRITE_RULES,
    "triton": frozenset({"local", "gradient"}),  # here, because its package needs triton
    "graphs": graphs.WRITE_RULES,
}
"""Kernel -> the rules of :data:`mnm_rl.memory.WRITE_RULES` that it has; the reference loop has all."""


def choose(
    backend: Backend,
    device: torch.device,
    dtype: torch.dtype,
    write_rule: str = "local",
    obstacle: str | None = None,
) -> str:
    """The backend that ``backend`` stands for, for a core on this device and of this dtype.

    Args:
        backend: ``auto``, or a backend by its name.
        device: of the inputs.
        dtype: of the inputs.
        write_rule: of the core; ``auto`` takes the reference loop for a rule that no kernel has here.
        obstacle: why only the reference loop can run the core (:func:`departure`), if that is so.

    Raises:
        ValueError: a kernel was asked for by name that has not the write rule, or cannot run the core for
            the ``obstacle``; or ``cpu``, ``triton`` or ``graphs`` on another device or for another dtype.
        BuildError: ``cpu`` was asked for by name and cannot be compiled, or ``triton`` and is not installed.
    """
    fits_cpu = device.type == "cpu" and dtype in cpu.DTYPES
    if backend == "reference":
        return backend
    if backend == "auto":
        if obstacle is None and fits_cpu and write_rule in RULES_OF_KERNELS["cpu"] and _compiles():
            return "cpu"
        name = "graphs" if device.type in graphs.DEVICES else "torch"
        return name if obstacle is None and write_rule in RULES_OF_KERNELS[name] else "reference"
    _check_core(backend, write_rule, obstacle)
    if backend == "triton":
        _check_triton(device, dtype)
    if backend == "graphs" and device.type not in graphs.DEVICES:
        raise ValueError(f"The graphs kernel runs on CUDA devices, not on {device}.")
    if backend == "cpu":
        if not fits_cpu:
            raise ValueError(f"The cpu kernel takes float32 or float64 on the CPU, not {dtype} on {device}.")
        cpu.operators()
    return backend


def _check_core(kernel: str, write_rule: str, obstacle: str | None) -> None:
    if obstacle is not None:
        raise ValueError(
            f"The {kernel} kernel cannot run this core, because {obstacle}; "
            "take kernel='reference' or kernel='auto'."
        )
    if write_rule not in RULES_OF_KERNELS[kernel]:
        having = ["reference", *[name for name, rules in RULES_OF_KERNELS.items() if write_rule in rules]]
        raise ValueError(
            f"The {kernel} kernel has no write rule {write_rule!r}, only "
            f"{', '.join(sorted(RULES_OF_KERNELS[kernel]))}; kernels that have it: {', '.join(having)}."
        )


def _triton() -> Any:
    """The Triton backend; imported late, because triton is optional and takes a second to import."""
    try:
        return importlib.import_module("mnm_rl.kernels.triton")
    except ImportError as error:
        raise BuildError("The triton kernel needs the package triton: pip install triton.") from error


def _check_triton(device: torch.device, dtype: torch.dtype) -> None:
    if dtype not in cpu.DTYPES:
        raise ValueError(f"The triton kernel takes float32 or float64, not {dtype}.")
    if device.type != "cuda" and not (device.type == "cpu" and _triton().INTERPRETED):
        raise ValueError(
            f"The triton kernel runs on CUDA devices, or with TRITON_INTERPRET=1 on the CPU, not on {device}."
        )
    _triton()


@functools.cache
def _compiles() -> bool:
    try:
        cpu.operators()
    except (BuildError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        warnings.warn(
            f"mnm_rl: slower torch backend instead of the C++ kernel: {reason} (mnm-rl info says more)",
            stacklevel=2,
        )
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
        state: the state before the first step, any tuple with the fields of :class:`MNMState`.
        resets: boolean ``[T, B]``; where true, the state is replaced by zeros and the initial memory before
            the step.
        initial_memory: phi_0, ``[F]``; gets no gradient.
        backend: ``torch``, ``cpu``, ``triton`` or ``graphs``, as :func:`choose` returns them.
    """
    runs = {
        "torch": lambda: reversible.scan,
        "cpu": lambda: cpu.scan,
        "triton": lambda: _triton().scan,
        "graphs": lambda: graphs.scan,
    }
    if backend not in runs:
        raise ValueError(f"There is no scan for the backend {backend!r}; there are {', '.join(runs)}.")
    return runs[backend]()(parameters, settings, inputs, MNMState(*state), resets, initial_memory)


__all__ = [
    "RULES_OF_KERNELS",
    "Backend",
    "BuildError",
    "MNMState",
    "ScanParameters",
    "ScanResult",
    "ScanSettings",
    "a_hook",
    "choose",
    "departure",
    "scan",
]
