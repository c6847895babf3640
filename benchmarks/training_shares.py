"""Where the time of a training run goes: environments or batches, acting, training, and the rest.

    OMP_NUM_THREADS=1 python benchmarks/training_shares.py train-a2c
    OMP_NUM_THREADS=1 python benchmarks/training_shares.py train-a2c --core lstm --core.hidden-size 100
    OMP_NUM_THREADS=1 python benchmarks/training_shares.py train-ppo --timesteps 30000
    OMP_NUM_THREADS=1 python benchmarks/training_shares.py train-supervised --task dictionary --instance 2

Runs the command with the options that are given, in a folder that is deleted afterwards, with a clock around
its parts; 320 episodes or 200 iterations if no length is given. The first update, in which memory is claimed
and things are imported, does not count, and neither do loading and the last checkpoint; the validations of a
supervised run do, as often as it has them. Kernels are the operations in C++;
what torch computes in plain operations counts as around them. With one thread, time is the processor time of
this process, else wall time.

Of an agent with an MNM core it also tells what part of the bound it reaches: as if nothing had to be computed
but the core's products, once to act and as often as a rollout is learned from, forward and backward.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peak import processor_peak
from rich import box
from rich.console import Console
from rich.table import Table
from scan import operations, product_rate

from mnm_rl.agents import RecurrentA2C, RecurrentPPO
from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.agents.quick_acting import QuickActing
from mnm_rl.commands import main as commands
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.kernels import cpu
from mnm_rl.training.rl.recorder import RunRecorder
from mnm_rl.training.supervised.trainer import SupervisedTrainer

LENGTHS = ("--episodes", "--timesteps", "--preset", "--iterations")
AGENT_PARTS = {
    "environments": "the environments' step",
    "acting, kernel": "acting: operations in C++",
    "acting": "acting: around them",
    "rollout": "the rest of a rollout: buffer, callbacks",
    "training, kernel": "training: operations in C++",
    "training": "training: around them, backward pass included",
    "clipping": "training: clipping of the gradient",
    "optimizer": "training: the optimizer's step",
    "recorder": "curves and checkpoints",
    "other": "the rest: logging, between rollout and update",
}
"""Part -> what it is called in the table. What runs inside of another part counts for itself alone."""
SUPERVISED_PARTS = {
    "batches": "batches",
    "training, kernel": "training: operations in C++",
    "training": "training: around them, backward pass included",
    "clipping": "training: clipping of the gradient",
    "optimizer": "training: the optimizer's step",
    "validation, kernel": "validation: operations in C++",
    "validation": "validation: around them",
    "recorder": "curves and checkpoints",
    "other": "the rest",
}
"""The same for supervised runs."""
WITH_KERNELS = ("acting", "training", "validation")
"""Parts whose operations in C++ are a part of their own."""


class Shares:
    """Seconds of each part, since the last :meth:`begin`."""

    def __init__(self) -> None:
        self.begin()
        self.agent: Any = None
        """What is trained; None in a supervised run."""

    def begin(self) -> None:
        """Forget all, and count from here on."""
        self._clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        self._running = ["other"]
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = self._clock()
        self.updates, self.steps, self.counts = 0, 0, False
        self.taken: dict[str, float] = {}
        """The seconds up to the end of the last update."""

    def _turn(self) -> None:
        now = self._clock()
        self.seconds[self._running[-1]] += now - self._last
        self._last = now

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The function with its time counted; a kernel's for what calls it."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            outer = next((name for name in WITH_KERNELS if name in self._running), "training")
            self._running.append(f"{outer}, kernel" if part == "kernel" else part)
            try:
                return function(*args, **kwargs)
            finally:
                self._turn()
                self._running.pop()

        return run

    def put_into(self, owner: Any, name: str, part: str) -> None:
        """Replace an attribute by the same with a clock."""
        setattr(owner, name, self.timed(getattr(owner, name), part))


class TimedOperators:
    """The operators of the kernels, each with a clock."""

    def __init__(self, operators: Any, shares: Shares):
        self._operators, self._shares = operators, shares

    def __getattr__(self, name: str) -> Any:
        operator = getattr(self._operators, name)
        run = self._shares.timed(operator, "kernel")
        run.default = self._shares.timed(operator.default, "kernel")  # pyright: ignore[reportFunctionMemberAccess]
        setattr(self, name, run)
        return run


def watch_operators(shares: Shares) -> None:
    """Put clocks around what all runs have: the kernels and the clipping."""
    operators = TimedOperators(cpu.operators(), shares)
    cpu.operators = lambda: operators  # pyright: ignore[reportAttributeAccessIssue]
    shares.put_into(torch.nn.utils, "clip_grad_norm_", "clipping")


def watch_agent(shares: Shares) -> None:
    """Put clocks around the parts of an agent's run."""
    shares.put_into(QuickActing, "__call__", "acting")
    for name in ("_on_rollout_start", "save"):
        shares.put_into(RunRecorder, name, "recorder")
    set_up, collect = RecurrentOnPolicyAlgorithm._setup_model, RecurrentOnPolicyAlgorithm.collect_rollouts

    def set_up_with_clocks(self: Any) -> None:
        set_up(self)
        shares.agent = self
        self.env.step = shares.timed(self.env.step, "environments")
        shares.put_into(self.policy.optimizer, "step", "optimizer")

    timed_collect, rollouts = shares.timed(collect, "rollout"), [0]

    def collect_after_the_first(*args: Any, **kwargs: Any) -> bool:
        rollouts[0] += 1
        if rollouts[0] == 2:
            shares.begin()
            shares.counts = True
        return timed_collect(*args, **kwargs)

    RecurrentOnPolicyAlgorithm._setup_model = set_up_with_clocks
    RecurrentOnPolicyAlgorithm.collect_rollouts = collect_after_the_first
    for algorithm in (RecurrentA2C, RecurrentPPO):
        shares.put_into(algorithm, "train", "training")
        algorithm.train = _counted(algorithm.train, shares)


def _counted(train: Callable[..., Any], shares: Shares) -> Callable[..., Any]:
    """An update after which the numbers are taken: what follows the last one does not count."""

    def run(self: Any) -> None:
        train(self)
        shares.updates += 1
        shares.taken = dict(shares.seconds)
        shares.steps = shares.updates * self.n_steps * self.n_envs

    return run


def watch_supervised(shares: Shares) -> None:
    """Put clocks around the parts of a supervised run."""
    set_up, iterate = SupervisedTrainer.__init__, SupervisedTrainer._iterate
    shares.put_into(SupervisedTrainer, "validate", "validation")
    validate = SupervisedTrainer.validate
    for name in ("save", "_log"):
        shares.put_into(SupervisedTrainer, name, "recorder")
    timed_iterate, symbols = shares.timed(iterate, "training"), [0]

    def set_up_with_clocks(self: Any, *args: Any, **kwargs: Any) -> None:
        set_up(self, *args, **kwargs)
        shares.put_into(self.optimizer.optimizer, "step", "optimizer")
        kind = type(self.task)
        batch = shares.timed(kind.training_batch, "batches")

        def counted(*args: Any) -> Any:
            made = batch(*args)
            symbols[0] = int(made.lengths.sum())
            return made

        kind.training_batch = counted  # tasks are frozen

    def iterate_and_count(self: Any) -> None:
        timed_iterate(self)
        if self.progress.iteration == 1:
            shares.begin()
            shares.counts = self.config.iterations > 1
            return
        shares.updates += 1
        shares.steps += symbols[0]
        shares.taken = dict(shares.seconds)

    def validate_and_take(self: Any) -> dict[str, Any]:
        row = validate(self)
        shares.taken = dict(shares.seconds)
        return row

    SupervisedTrainer.__init__ = set_up_with_clocks
    SupervisedTrainer._iterate = iterate_and_count
    SupervisedTrainer.validate = validate_and_take


def print_shares(shares: Shares, title: str, parts: Mapping[str, str]) -> None:
    """A table, and the speed."""
    total = sum(shares.taken.values())
    print(f"{title}: {shares.updates} updates, {shares.steps / total:,.0f} steps/s")
    table = Table(box=box.MARKDOWN)
    table.add_column("part")
    table.add_column("ms per update", justify="right")
    table.add_column("share", justify="right")
    for part, text in parts.items():
        seconds = shares.taken.get(part, 0.0)
        table.add_row(text, f"{1e3 * seconds / shares.updates:,.1f}", f"{seconds / total:.1%}")
    Console(width=100).print(table)


def print_bound(shares: Shares) -> None:
    """How near an agent with an MNM core is to what the arithmetic of its core takes."""
    if shares.agent is None or not isinstance(core := shares.agent.policy.core, MNMCore):
        return
    acting, training = operations(core, shares.steps)
    done = (acting + getattr(shares.agent, "n_epochs", 1) * training) / sum(shares.taken.values())
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    product = max(product_rate(clock, "cpu") for _ in range(20))
    told = f"{done / product:.0%} of torch's product of matrices ({product / 1e9:.0f})"
    if own := processor_peak(torch.get_num_threads()):
        told += f", {done / own[0]:.0%} of the processor's multiply-adds ({own[0] / 1e9:.0f})"
    print(f"Products of the core, acting included: {done / 1e9:.1f} GFLOP/s, {told}")


@dataclass(frozen=True)
class Watched:
    """A command of which this program knows the parts."""

    watch: Callable[[Shares], None]
    parts: Mapping[str, str]
    length: tuple[str, str]
    """That it gets if it is given none."""


COMMANDS = {
    "train-a2c": Watched(watch_agent, AGENT_PARTS, ("--episodes", "320")),
    "train-ppo": Watched(watch_agent, AGENT_PARTS, ("--episodes", "320")),
    "train-supervised": Watched(watch_supervised, SUPERVISED_PARTS, ("--iterations", "200")),
}


def main() -> None:
    """Run the command that the first word names with the options after it, and print the table."""
    name, options = "".join(sys.argv[1:2]), sys.argv[2:]
    if name not in COMMANDS:
        print(f"The first word must be one of {', '.join(COMMANDS)}, got {name!r}.", file=sys.stderr)
        sys.exit(2)
    command = COMMANDS[name]
    if not any(word.partition("=")[0] in LENGTHS for word in options):
        options += command.length
    shares = Shares()
    watch_operators(shares)
    command.watch(shares)
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = [name, *options, "--quiet", "--log-dir", f"{folder}/run"]
        commands.run(name)
    if not shares.counts:
        print(f"The run must have at least two updates; take a larger {command.length[0]}.", file=sys.stderr)
        sys.exit(2)
    print_shares(shares, " ".join([name, *options]), command.parts)
    print_bound(shares)


if __name__ == "__main__":
    main()
