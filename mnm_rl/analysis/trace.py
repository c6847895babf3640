"""What a memory did at every step of a sequence, as named tensors in one object.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``O`` output size, ``H`` heads, ``L`` memory layers;
sizes ``d_k`` key, ``d_v`` value.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnm_rl.cores import CORES, CoreChoice, MemoryCore, core_name, find_core
from mnm_rl.files import atomic_write

FORMAT = "mnm_rl trace 1"


@dataclass(frozen=True)
class Trace:
    """Named tensors ``[T, B, ...]`` of a run of a core.

    Those of :func:`record`, as far as the core has them (Munkhdalai et al. 2019, Eq. 1 to 4):

    * ``read_keys``, ``write_keys`` ``[T, B, H, d_k]``, ``write_values``, ``read_values`` ``[T, B, H, d_v]``
    * ``rates`` beta in [0, 1], ``[T, B, 1]`` or one per layer ``[T, B, L]``
    * ``write_sizes`` ``[T, B, L]``: Frobenius norm of a step's change of each layer
    * ``memory_distances`` ``[T, B, L]``: Frobenius norm of each layer minus its initial weights
    * ``outputs`` ``[T, B, O]``, ``meta_loss`` ``[T, B]``; boolean ``resets`` ``[T, B]``, if there were any

    Attributes:
        tensors: by name.
        metadata: numbers and texts, such as the core's name.

    Raises:
        ValueError: if the tensors do not agree on ``T`` and ``B``.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {name: tensor.shape for name, tensor in self.tensors.items()}
        if len({shape[:2] for shape in shapes.values()}) != 1 or min(map(len, shapes.values())) < 2:
            listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise ValueError(
                f"The tensors of a trace are all [T, B, ...] with the same T and B, not: {listed}."
            )

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of this name; a :class:`ValueError` with the names that there are, if there is none."""
        if name not in self.tensors:
            raise ValueError(f"{self._owner} has no {name}; it has {', '.join(self.tensors)}.")
        return self.tensors[name]

    @property
    def length(self) -> int:
        """``T``."""
        return next(iter(self.tensors.values())).shape[0]

    @property
    def batch_size(self) -> int:
        """``B``."""
        return next(iter(self.tensors.values())).shape[1]

    @property
    def _owner(self) -> str:
        return f"The trace of the core {self.metadata['core']}" if "core" in self.metadata else "This trace"

    def example(self, b: int) -> Trace:
        """The trace of one example of the batch, with ``B`` = 1."""
        return Trace({name: tensor[:, b : b + 1] for name, tensor in self.tensors.items()}, self.metadata)

    def to(self, device: torch.device | str) -> Trace:
        """The same trace on another device."""
        return Trace({name: tensor.to(device) for name, tensor in self.tensors.items()}, self.metadata)

    def save(self, path: str | os.PathLike) -> None:
        """Write the trace to a file, as a whole or not at all."""
        with atomic_write(path) as temporary:
            # Copies: a file of parts of tensors would hold all of them.
            tensors = {name: tensor.clone() for name, tensor in self.tensors.items()}
            torch.save({"format": FORMAT, "tensors": tensors, "metadata": self.metadata}, temporary)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Trace:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: if there is no such file, or it is not a trace.
        """
        if not Path(path).is_file():
            raise ValueError(f"There is no file {path}.")
        try:
            document: Any = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(f"{path} is not a trace, or a damaged one.") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"{path} is not a trace of this version of mnm_rl.")
        return cls(document["tensors"], document["metadata"])


@torch.no_grad()
def record(core: MemoryCore, inputs: Tensor, state: Any = None, resets: Tensor | None = None) -> Trace:
    """Run a core over a batch of sequences and keep what its memory did, without gradients.

    The recorded run takes the plain loop, whatever the core's kernel; runs that are not recorded do not pay.

    Args:
        core: any core with a memory.
        inputs: ``[T, B, I]``.
        state: the state before the first step; the initial state if not given.
        resets: boolean ``[T, B]``; where true, an episode starts at that step.

    Raises:
        ValueError: if the core has no memory to look into, or the shapes do not fit.
    """
    require_memory(core)
    output = core(inputs, state, resets, record=True)
    tensors = {**(output.trace or {}), "outputs": output.outputs, "meta_loss": output.meta_loss}
    if resets is not None:
        tensors["resets"] = resets
    return Trace(tensors, {"core": core_name(core)})


def require_memory(core: MemoryCore | CoreChoice, *names: str) -> None:
    """Make sure that there is a memory to look into.

    Args:
        core: a core, or what stands for one.
        names: tensors that its traces must have.

    Raises:
        ValueError: if it has no memory, or traces without these tensors; the message names cores that do.
    """
    # A core made of others has the names itself.
    own = core.trace_names if isinstance(core, MemoryCore) else find_core(core)[0].trace_names
    name = core_name(core)
    missing = [wanted for wanted in names if wanted not in own]
    if own and not missing:
        return
    lack = f"a memory without {missing[0].replace('_', ' ')}" if own else "no memory"
    others = [
        other for other, (its, _) in CORES.items() if its.trace_names and {*names} <= {*its.trace_names}
    ]
    raise ValueError(f"The core {name} has {lack}; cores to look into: {', '.join(others)}.")
