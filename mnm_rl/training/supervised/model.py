"""A core between an input layer and an output layer: what is trained on a supervised task.

Dimensions: ``T`` time, ``B`` batch, ``F`` input features, ``I`` input size of the core.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mnm_rl.cores import make_core, make_layers, reads_sentences
from mnm_rl.sizes import check_fits
from mnm_rl.tasks import Task
from mnm_rl.training.supervised.carried import CarriedState
from mnm_rl.training.supervised.packing import make_packing
from mnm_rl.training.supervised.sentences import SentenceModel

EVALUATION_BATCH = 250
"""Sequences of a held-out set that are looked at together."""


class SequenceModel(nn.Module):
    """Embedding (or linear layer, for vectors), core, linear output layer.

    Args:
        task: says what goes in and how many logits come out.
        core: name of the core.
        embedding_size: ``I`` = d_i.
        settings: the core's settings.
        layers: so many cores on top of each other.
    """

    def __init__(self, task: Task, core: str, embedding_size: int, settings: dict[str, Any], layers: int = 1):
        super().__init__()
        if task.input_symbols is not None:
            self.encoder = nn.Embedding(task.input_symbols, embedding_size)
        else:
            assert task.input_features is not None
            self.encoder = nn.Linear(task.input_features, embedding_size)
        self.core = make_layers(core, embedding_size, layers, **settings)
        self.head = nn.Linear(self.core.output_size, task.output_size)

    def forward(
        self,
        inputs: Tensor,
        lengths: Tensor | None = None,
        *,
        record: bool = False,
        carried: CarriedState | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor] | None]:
        """Logits ``[T, B, output_size]``, the core's meta loss ``[T, B]``, and its trace.

        Args:
            inputs: int64 ``[T, B]`` or float ``[T, B, F]``.
            lengths: int64 ``[B]``: steps before the padding begins, where results do not matter.
            record: ask the core for a trace.
            carried: where the state before the first step is, and where that after the last goes; without
                it the initial state comes before.
        """
        if carried is not None:
            output = self.core(self.encoder(inputs), carried.state, record=record)
            carried.put(self.core, output.state)
            return self.head(output.outputs), output.meta_loss, output.trace
        packing = None
        if lengths is not None and not record and self.core.quick_resets and inputs.device.type == "cpu":
            packing = make_packing(lengths)
        if packing is None:
            output = self.core(self.encoder(inputs), record=record)
            return self.head(output.outputs), output.meta_loss, output.trace
        output = self.core(self.encoder(packing.pack(inputs)), resets=packing.resets)
        return packing.unpack(self.head(output.outputs)), packing.unpack(output.meta_loss), None


Model = SequenceModel | SentenceModel
"""What is trained: which of them, the core decides."""


def check_model_fits(
    task: Task, core: str, embedding_size: int, settings: dict[str, Any], batch_size: int
) -> None:
    """Make sure that a model and its largest batch, at least, can be held in memory; little is built.

    Args:
        task: as in :class:`SequenceModel`.
        core: as there.
        embedding_size: as there.
        settings: as there.
        batch_size: ``B``.

    Raises:
        ValueError: they cannot; or as :func:`mnm_rl.cores.make_core`.
    """
    wide = task.input_symbols or task.input_features or 0
    check_fits(4 * wide * embedding_size, f"a first layer with embedding_size {embedding_size}")
    with torch.device("meta"):
        output_size = make_core(core, embedding_size, **settings).output_size
    # Of every step, back-propagation needs what went into each layer, and the logits.
    per_step = task.bytes_per_step + 4 * (embedding_size + output_size + task.output_size)
    largest = max(batch_size, EVALUATION_BATCH)
    needed = largest * task.least_steps * per_step
    check_fits(needed, f"batches of {largest} sequences of {task.least_steps} steps")


def count_parameters(module: nn.Module) -> int:
    """Number of trained numbers."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def seeded_model(
    task: Task, core: str, embedding_size: int, settings: dict[str, Any], seed: int, layers: int = 1
) -> Model:
    """A model whose initial parameters, initial memory included, depend on the seed alone.

    Raises:
        ValueError: the core reads sentences, and the task has none.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not reads_sentences(core):
            return SequenceModel(task, core, embedding_size, settings, layers)
        return SentenceModel(task, core, embedding_size, settings)
