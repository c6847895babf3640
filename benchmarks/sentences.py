"""Time of TPR-RNN on stories: the solved form beside the loop of the paper, which computes the same.

    OMP_NUM_THREADS=1 python benchmarks/sentences.py
    OMP_NUM_THREADS=1 python benchmarks/sentences.py --sizes 70 8 --no-gradient

Forward and backward pass of :meth:`mnm_rl.cores.SentenceCore.read`, at the published sizes, on stories of
different sentences, every third of which is a question. The forms take turns, round by round, so that what
else runs on the machine hits both; the best round counts, in processor time of this process with one thread,
else in wall time. The largest difference between the answers of both forms, and between their gradients, is
printed beside it, relative to the largest number.

Dimensions: ``S`` sentences, ``B`` stories.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mnm_rl.cores import make_core
from mnm_rl.cores.tpr import TPRCore

SIZES = ((10, 32), (20, 32), (70, 8), (130, 8))
FORMS = ("solved", "loop")


@dataclass(frozen=True)
class Args:
    """What to measure."""

    sizes: tuple[tuple[int, int], ...] = SIZES
    """Sentences of a story, and stories."""
    input_size: int = 159
    """Numbers of a sentence's vector."""
    gradient: bool = True
    """Forward and backward pass, else the forward pass alone."""
    rounds: int = 5
    """Timed rounds; the best one counts."""
    threads: int = 1
    """Threads of torch."""


def main(args: Args) -> None:
    """Print a table."""
    torch.set_num_threads(args.threads)
    table = Table(
        "S", "B", *[f"{form} (ms)" for form in FORMS], "loop / solved", "difference", box=box.MARKDOWN
    )
    for length, batch in args.sizes:
        best, difference = measure(args, length, batch)
        times = [f"{1000 * best[form]:.1f}" for form in FORMS]
        ratio = f"{best['loop'] / best['solved']:.1f}"
        table.add_row(str(length), str(batch), *times, ratio, f"{difference:.0e}")
    Console().print(table)


def measure(args: Args, length: int, batch: int) -> tuple[dict[str, float], float]:
    """Seconds of each form, and the difference of what they compute."""
    cores = {form: build(args.input_size, form) for form in FORMS}
    cores["loop"].load_state_dict(cores["solved"].state_dict())
    generator = torch.Generator().manual_seed(1)
    sentences = 0.1 * torch.randn(length * batch, args.input_size, generator=generator)
    story = torch.arange(length * batch).view(length, batch)
    asks = (torch.arange(length) % 3 == 2).unsqueeze(1).expand(-1, batch)
    best: dict[str, float] = dict.fromkeys(FORMS, float("inf"))
    results: dict[str, list[Tensor]] = {}
    clock = time.process_time if args.threads == 1 else time.perf_counter
    for _ in range(args.rounds + 1):  # the first warms up
        for form, core in cores.items():
            start = clock()
            result = run(core, sentences, story, asks, args.gradient)
            taken = clock() - start
            best[form] = min(best[form], taken) if form in results else best[form]
            results[form] = result
    pairs = zip(results["solved"], results["loop"], strict=True)
    return best, max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def build(input_size: int, form: str) -> TPRCore:
    """A core with the parameters of seed 0."""
    torch.manual_seed(0)
    core = make_core("tpr-rnn", input_size, form=form)
    assert isinstance(core, TPRCore)
    return core


def run(core: TPRCore, sentences: Tensor, story: Tensor, asks: Tensor, gradient: bool) -> list[Tensor]:
    """Answers, and gradients of the parameters."""
    core.zero_grad(set_to_none=True)
    with torch.set_grad_enabled(gradient):
        answers = core.read(sentences, story, ~asks, asks)
    if gradient:
        answers.square().sum().backward()
    gradients = [each.grad for each in core.parameters() if each.grad is not None]
    return [answers.detach(), *gradients]


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
