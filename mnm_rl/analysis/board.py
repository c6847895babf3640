"""What a memory does, in TensorBoard, while a supervised model is being trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from mnm_rl.analysis.episodes import describe_answer, make_episode, typical_batch
from mnm_rl.analysis.forgetting import DELAYS, Forgetting, recall_errors
from mnm_rl.analysis.pictures import draw_forgetting, draw_question
from mnm_rl.analysis.trace import Trace, record
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.tasks import Task
from mnm_rl.training.supervised.model import Model, SequenceModel

SEQUENCES = 16
STORY_WORDS = 80


def add_recall(writer: SummaryWriter, forgetting: Forgetting, step: int) -> None:
    """Write a forgetting curve at :data:`DELAYS` as numbers, as far as it goes."""
    for tau, error, cosine in zip(DELAYS, *forgetting, strict=True):
        _add_number(writer, f"memory_recall_error/delay_{tau}", error, step)
        _add_number(writer, f"memory_recall_cosine/delay_{tau}", cosine, step)


class MemoryBoard:
    """Writes pictures and numbers of the memory on the same held-out sequences again and again.

    A similarity map of the first sequence; histograms of rates, and by layer of write sizes and of the
    distances that the memory has gone from its initial weights at the end of a sequence, with their means;
    recall by delay, as a picture and as numbers. Cores without a memory leave nothing. No random number is
    drawn, so that training goes on as it would have.

    Args:
        writer: of the run.
        model: the model in training.
        task: its task.
    """

    def __init__(self, writer: SummaryWriter, model: Model, task: Task):
        self._writer, self._model, self._task = writer, model, task
        self._batch = typical_batch(task, SEQUENCES)

    @torch.no_grad()
    def show(self, iteration: int) -> None:
        """Look at the memory as it is now."""
        core = self._model.core
        # Steps of a memory of sentences are not those of the symbols.
        if not core.trace_names or not isinstance(self._model, SequenceModel):
            return
        device = next(core.parameters()).device
        trace = record(core, self._model.encoder(self._batch.inputs.to(device)))
        self._show_activity(trace.to("cpu"), iteration)
        if "read_values" in trace:
            self._show_map(trace, iteration)
        if isinstance(core, MNMCore):
            forgetting = recall_errors(core, trace, present=self._batch.present.to(device))
            figure = draw_forgetting(DELAYS, forgetting, f"iteration {iteration}")
            self._writer.add_figure("memory/forgetting_curve", figure, iteration)
            add_recall(self._writer, forgetting, iteration)

    def _add_histogram(self, name: str, values: Tensor, iteration: int) -> None:
        """Of the finite values: TensorBoard takes no others, and training has its own ways with them."""
        if (finite := values[values.isfinite()]).numel():
            self._writer.add_histogram(name, finite, iteration)

    def _show_activity(self, trace: Trace, iteration: int) -> None:
        present, last = self._batch.present, self._batch.lengths - 1
        if "rates" in trace:
            self._add_histogram("memory/rates", trace["rates"][present], iteration)
        for layer in range(trace["write_sizes"].shape[2] if "write_sizes" in trace else 0):
            sizes = trace["write_sizes"][..., layer][present]
            distances = trace["memory_distances"][last, torch.arange(len(last)), layer]
            for name, numbers in (("write_size", sizes), ("distance_from_start", distances)):
                self._add_histogram(f"memory/{name}_layer_{layer + 1}", numbers, iteration)
                _add_number(self._writer, f"memory_{name}/layer_{layer + 1}", numbers.mean(), iteration)

    def _show_map(self, trace: Trace, iteration: int) -> None:
        first = self._batch.columns(slice(0, 1))
        episode = make_episode(self._task, first, "")
        if not episode.question:
            return  # a single step: nothing was written before
        logits = self._model.head(trace["outputs"][: len(first.inputs), :1]).cpu()
        title = f"iteration {iteration}: {describe_answer(self._task, episode, logits)}"
        figure = draw_question(trace.example(0).to("cpu"), episode, "together", STORY_WORDS, title)
        self._writer.add_figure("memory/similarity_of_reads_and_writes", figure, iteration)


def _add_number(writer: SummaryWriter, name: str, value: Tensor, step: int) -> None:
    if value.isfinite():
        writer.add_scalar(name, value, step)
