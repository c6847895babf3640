"""Time of one acting step of every core, against what arithmetic and memory allow and torch's LSTM cell.

    OMP_NUM_THREADS=1 python benchmarks/acting.py
    OMP_NUM_THREADS=1 python benchmarks/acting.py --cores mnm-p mnm-g --heads 3
    OMP_NUM_THREADS=2 python benchmarks/acting.py --cores mnm-p --environments 64 256 --threads 2

*Agent* is what a rollout does between two steps of the environments: from an observation of the maze to the
action and the state after the step; *core* is the core's share of it. The bound is the longer of two times:

* arithmetic: the multiply-adds of a step at the rate of a square matrix product. Every weight matrix counts
  once for each environment (MNM: as often as its heads use it), a memory once for reading and once for
  writing, or, of MNM, with each of its passes;
* memory: reading the parameters, and reading and writing the state, at the rate of a copy of as many bytes.

It is a bound from below: many a core passes over its memory more often than twice. `nn.LSTMCell` has the
width of the core's output, and is given tensors that are ready.

All of them take turns, round by round, so that what else runs on the machine hits them alike; the best round
counts. With one thread, time is the processor time of this process, else wall time.

Dimensions: ``B`` environments.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from mnm_rl.agents.policies import RecurrentActorCriticPolicy
from mnm_rl.agents.quick_acting import QuickActing
from mnm_rl.cores import core_names, find_core, sentence_core_names
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.envs import MazeRules

TOKEN_CORES = tuple(name for name in core_names() if name not in sentence_core_names())


@dataclass(frozen=True)
class Args:
    """What to measure."""

    cores: tuple[str, ...] = TOKEN_CORES
    """Cores, with their default sizes."""
    environments: tuple[int, ...] = (1, 16, 64, 256)
    """Environments that act together."""
    heads: int = 1
    """Heads of the MNM cores."""
    rounds: int = 5
    """Rounds; the best one counts."""
    steps: int = 200
    """Steps of a rollout; what is done once in each counts, too."""
    threads: int = 1
    """Threads of torch."""

    def __post_init__(self) -> None:
        for name in self.cores:
            if name not in TOKEN_CORES:
                _refuse(f"--cores must be some of {', '.join(TOKEN_CORES)}, got {name}.")
        for name in ("heads", "rounds", "steps", "threads"):
            if getattr(self, name) < 1:
                _refuse(f"--{name} must be at least 1, got {getattr(self, name)}.")
        if min(self.environments, default=0) < 1:
            _refuse(f"--environments must be numbers of at least 1, got {self.environments}.")


def _refuse(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(2)


@dataclass
class Contest:
    """What is timed for one core and one number of environments, and what a step needs."""

    runs: dict[str, Callable[[], Any]]
    """Agent, core and LSTM cell: each makes one rollout."""
    multiply_adds: int
    bytes: int


def make_policy(args: Args, name: str) -> RecurrentActorCriticPolicy:
    """A policy for the maze with this core."""
    rules, settings = MazeRules(), {"heads": args.heads} if is_mnm(name) else {}
    torch.manual_seed(0)
    policy = RecurrentActorCriticPolicy(
        rules.observation_space, rules.action_space, lambda _: 1e-3, core=name, core_kwargs=settings
    )
    policy.set_training_mode(False)
    return policy


def is_mnm(name: str) -> bool:
    """Whether the core is one of the paper."""
    return issubclass(find_core(name)[0], MNMCore)


def multiply_adds(policy: RecurrentActorCriticPolicy) -> int:
    """Of one environment's step, heads of the policy included; a lower bound, see the page's head."""
    core = policy.core
    weights = (*core.parameters(), *policy.action_net.parameters())
    count = sum(weight.numel() for weight in weights if weight.dim() == 2)
    if not isinstance(core, MNMCore):
        return count + 2 * sum(field.numel() for field in policy.initial_state(1))
    config, predicts = core.config, core._rule.predicts_activations
    if predicts:
        count += (config.heads - 1) * config.value_size * sum(config.widths[1:])
    passes = 2 + 1 + len(config.recall_weights) + (not predicts)
    return count + passes * config.heads * sum(rows * columns for columns, rows in pairwise(config.widths))


def contest(args: Args, name: str, batch: int) -> Contest:
    """What takes turns."""
    policy = make_policy(args, name)
    observations = np.random.default_rng(0).random((args.steps, batch, 11), dtype=np.float32)
    starts = np.zeros(batch, dtype=bool)
    rows = torch.from_numpy(observations)
    cell = nn.LSTMCell(11, policy.core.output_size)

    def act() -> None:
        with policy.core.acting():
            step, state = QuickActing(policy), policy.initial_state(batch)
            for observation in observations:
                _, state = step(observation, state, starts)

    @torch.no_grad()
    def run_core() -> None:
        with policy.core.acting():
            step, state = policy.core.quick_step(), policy.initial_state(batch)
            for row in rows:
                _, state = step(row, state, None) if step else policy.core.step(row, state)

    @torch.no_grad()
    def run_cell() -> None:
        state = torch.zeros(2, batch, policy.core.output_size).unbind(0)
        for row in rows:
            state = cell(row, state)

    parameters = sum(parameter.nbytes for parameter in policy.core.parameters())
    state = sum(field.nbytes for field in policy.initial_state(batch))
    runs: dict[str, Callable[[], Any]] = {"agent": act, "core": run_core, "cell": run_cell}
    return Contest(runs, batch * multiply_adds(policy), parameters + 2 * state)


def measure(args: Args, found: Contest) -> dict[str, float]:
    """Best microseconds per step of each run, and those of the two bounds."""
    clock = time.process_time if args.threads == 1 else time.perf_counter
    matrix = torch.randn(512, 512)
    source = torch.ones(max(1, found.bytes // 8))  # a copy of half as many bytes reads and writes all
    target = torch.empty_like(source)
    copies = max(1, 10_000_000 // found.bytes)

    def seconds(run: Callable[[], Any]) -> float:
        begun = clock()
        run()
        return clock() - begun

    best: dict[str, float] = {}
    for number in range(args.rounds + 1):
        times = {name: seconds(run) / args.steps for name, run in found.runs.items()}
        times["arithmetic"] = seconds(lambda: matrix @ matrix) * found.multiply_adds / 512**3
        times["memory"] = seconds(lambda: [target.copy_(source) for _ in range(copies)]) / copies
        if number > 0:  # the first one warms up
            best = {name: min(best.get(name, one), one) for name, one in times.items()}
    return {name: 1e6 * one for name, one in best.items()}


def main(args: Args) -> None:
    """Measure and print a table."""
    torch.set_num_threads(args.threads)
    columns = (
        "core",
        "B",
        "agent",
        "core",
        "arithmetic",
        "memory",
        "agent / bound",
        "core / bound",
        "LSTMCell",
    )
    print(f"Microseconds per step, {args.threads} thread(s), MNM cores with {args.heads} head(s);")
    print("LSTMCell is nn.LSTMCell of the same width, in brackets the core's time in its times")
    table = Table(box=box.MARKDOWN)
    for column in columns:
        table.add_column(column, justify="left" if column == "core" and not table.columns else "right")
    for name in args.cores:
        for batch in args.environments:
            times = measure(args, contest(args, name, batch))
            bound = max(times["arithmetic"], times["memory"])
            shown = [f"{times[column]:,.0f}" for column in ("agent", "core", "arithmetic", "memory")]
            ratios = [f"{times[run] / bound:.2f}" for run in ("agent", "core")]
            cell = f"{times['cell']:,.0f} ({times['core'] / times['cell']:.1f})"
            table.add_row(name, str(batch), *shown, *ratios, cell)
    Console(width=110).print(table)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
