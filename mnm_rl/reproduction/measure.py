"""Time and memory of one training step in a fresh process: ``python -m mnm_rl.reproduction.measure``.

Dimensions: ``T`` time, ``B`` batch.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.curves import CurveFile
from mnm_rl.training.folder import MEASUREMENT, create_run
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.model import Model
from mnm_rl.training.supervised.trainer import build_model


@dataclass(frozen=True)
class MeasurementConfig:
    """What is measured: forward and backward pass of the dictionary task's model on random symbols."""

    core: str = "mnm-p"
    """The memory, in the paper's size for the algorithmic tasks."""
    sequence_length: int = 100
    """T."""
    batch_size: int = 32
    """B."""
    hidden_size: int = 100
    """Width of the controller."""
    seed: int = 0
    """Of parameters and symbols."""
    rounds: int = 5
    """Training steps that are timed."""


@dataclass(frozen=True)
class Args:
    """Where to write, and what to measure."""

    log_dir: str
    """Folder for config.json and measurement.csv."""
    run: tyro.conf.OmitArgPrefixes[MeasurementConfig] = field(default_factory=MeasurementConfig)


def main(args: Args) -> None:
    """Measure and write."""
    config, directory = args.run, Path(args.log_dir)
    size = {"hidden_size": config.hidden_size}
    supervised = SupervisedConfig(task="dictionary", core=config.core, core_settings=size)
    supervised.check()
    create_run(directory, MEASUREMENT, dataclasses.asdict(config))
    task = supervised.make_task()
    model = build_model(dataclasses.replace(supervised, seed=config.seed), task)
    torch.manual_seed(config.seed)
    symbols = torch.randint(task.output_size, (config.sequence_length, config.batch_size))
    # Whatever is done once in a process, such as loading a kernel, is done here.
    training_step(model, symbols[:2])
    curve = CurveFile(directory / MEASUREMENT.curve, MEASUREMENT.counted)
    reset_peak()
    before = resident_mebibytes("VmRSS")
    for number in range(1, config.rounds + 1):
        start, processor = time.perf_counter(), time.process_time()
        training_step(model, symbols)
        curve.append(
            {
                "round": number,
                "seconds": time.perf_counter() - start,
                "processor_seconds": time.process_time() - processor,
                "peak_mebibytes": resident_mebibytes("VmHWM") - before,
            }
        )


def training_step(model: Model, symbols: Tensor) -> None:
    """Forward and backward pass on symbols ``[T, B]``, each of which is also to be predicted."""
    model.zero_grad(set_to_none=True)
    logits, meta_loss, _ = model(symbols)
    loss = F.cross_entropy(logits.flatten(0, 1), symbols.flatten()) + meta_loss.mean()
    loss.backward()


def resident_mebibytes(name: str) -> float:
    """Present (``VmRSS``) or largest (``VmHWM``) resident size; not a number off Linux."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), math.nan)


def reset_peak() -> None:
    """Let the largest resident size start at the present one, where the system allows that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


if __name__ == "__main__":
    torch.set_num_threads(1)
    with one_sentence_errors("measure"):
        main(tyro.cli(Args, description=__doc__))
