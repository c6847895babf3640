"""Kill runs at random moments, let them go on to their end, and compare them with runs that nobody killed.

$ python tests/kill_trials.py --trials 100 --seed 0
$ python tests/kill_trials.py --seed 0 --only 17

A trial makes a run of :data:`RUNS`, kills it one to three times, each time goes on with ``--resume`` (or
begins anew, if there is no config yet), and lets it end. Then nothing may tell that it was ever killed:
parameters, optimizer, random generators, curves, best parameters and config are those of an unbroken run, bit
for bit, but for the seconds in them, and no file is left over. CartPole cannot save its state, so there what
is compared is what is promised: rows without gaps or doubles, and counters that agree.

Runs are forked from a process that has imported everything, so that a trial takes a second or two. Each trial
draws from a generator of its own, named by the seed and its number.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kill_points import WriteKill, WritePoints

from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.agents.resumable import ATTRIBUTES
from mnm_rl.training.folder import A2C_AGENT, AGENTS, PPO_AGENT, SUPERVISED, RunKind, load_state, read_run
from mnm_rl.training.rl.agent import ALGORITHMS

WARM = (
    *("mnm_rl.commands.train_a2c", "mnm_rl.commands.train_ppo", "mnm_rl.commands.train_supervised"),
    "mnm_rl.analysis.board",
    *("torch._dynamo", "gymnasium.envs.classic_control.cartpole"),
)
for module in WARM:
    importlib.import_module(module)  # here, once for all the runs that are forked from this process

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
KILLS = ("any moment", "signal", "start", "checkpoint write", "curve write", "config write")
"""Kinds of kill, in turn; now and then a trial is one of the two slow kinds instead."""
COLD, BUILD = "cold start", "kernel build"
COLD_EVERY, BUILD_EVERY = 20, 33
COLD_SECONDS, BUILD_SECONDS = 6.0, 25.0
"""Until when they are killed: imports take some seconds, a build about half a minute."""
PATIENCE = 300.0
"""Seconds after which a run counts as hanging."""
CHECKPOINT_MINUTES = (1e-9, 0.002, 5.0)
TINY_MEMORY = "--core.key-size 3 --core.value-size 3 --core.memory-widths 4"
STOPPED = 130
IGNORED = frozenset({"seconds", "checkpoint_minutes", "t"})
"""What may differ from an unbroken run: times of day, and the interval that trials vary."""


@dataclass(frozen=True)
class Run:
    """A kind of run, as small as it can be."""

    command: str
    kind: RunKind
    arguments: str
    exact: bool = True
    """Whether a run that was killed ends with the same bits."""
    tensorboard: bool = False

    def start(self, folder: Path, minutes: float) -> list[str]:
        """Arguments that make the run from its start."""
        interval = ["--checkpoint-minutes", str(minutes)]
        return [*shlex.split(self.arguments), *interval, "--log-dir", str(folder), *self._flags()]

    def resume(self, folder: Path) -> list[str]:
        """Arguments that go on with it."""
        return ["--resume", str(folder), *self._flags()]

    def _flags(self) -> list[str]:
        return ["--quiet"] if self.tensorboard else ["--quiet", "--no-tensorboard"]


RUNS = {
    "maze, MNM-p": Run(
        "train-a2c",
        A2C_AGENT,
        "--env MNMMaze-5x5 --env-kwargs '{\"horizon\": 20}' --n-envs 2 --episodes 40 --log-every 2 "
        f"--ent-coef-end 0.01 --core mnm-p --hidden-size 4 {TINY_MEMORY}",
    ),
    "CartPole, GRU": Run(
        "train-a2c",
        A2C_AGENT,
        "--env CartPole-v1 --drop-observations 1,3 --n-envs 2 --n-steps 16 --timesteps 640 --log-every 2 "
        "--core gru --hidden-size 4",
        exact=False,
    ),
    "maze, PPO": Run(
        "train-ppo",
        PPO_AGENT,
        "--env MNMMaze-5x5 --env-kwargs '{\"horizon\": 20}' --n-envs 4 --episodes 80 --log-every 2 "
        "--n-epochs 2 --bptt-steps 10 --batch-size 40 --schedule linear --core gru --hidden-size 4",
    ),
    "dictionary, MNM-p": Run(
        "train-supervised",
        SUPERVISED,
        "--task dictionary --instance 1 --batch-size 4 --iterations 30 --validate-every 7 --log-every 3 "
        f"--schedule cosine --embedding-size 4 --core mnm-p --hidden-size 4 {TINY_MEMORY}",
    ),
    "double copy, LSTM": Run(
        "train-supervised",
        SUPERVISED,
        "--task double-copy --length 3 --batch-size 4 --iterations 40 --validate-every 10 --log-every 4 "
        "--analyze-every 0 --embedding-size 4 --core lstm --hidden-size 4",
        tensorboard=True,
    ),
}


# --- Processes ---------------------------------------------------------------------------------------------


class ForkedRun:
    """A run that starts at once, because it is forked from this process."""

    def __init__(
        self, command: str, arguments: list[str], log: Path, points: WritePoints, report: Path | None
    ):
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._main(command, arguments, log, points, report)
            finally:
                # The usual end of a process would wait for threads that only the process before the fork has.
                os._exit(1)

    @staticmethod
    def _main(
        command: str, arguments: list[str], log: Path, points: WritePoints, report: Path | None
    ) -> None:
        os.setsid()
        # As a shell starts it, however this process was started.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        with log.open("a") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        points.install()
        sys.argv, status = [command, *arguments], 0
        try:
            importlib.import_module(f"mnm_rl.commands.{command.replace('-', '_')}").run_from_command_line()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 0
        except KeyboardInterrupt:
            status = STOPPED
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        if report is not None:
            points.report(report)
        os._exit(status)

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; ``None`` as long as it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None


def cold_run(command: str, arguments: list[str], log: Path) -> subprocess.Popen:
    """A run as a shell starts it, which imports everything first."""
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "mnm_rl", command, *arguments],
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )


@dataclass(frozen=True)
class TimeKill:
    """A signal some seconds after the start."""

    signal: int
    seconds: float
    whole_group: bool = False
    """Whether a compiler that the run has started gets it, too, as at Ctrl-C in a terminal."""


Kill = TimeKill | WriteKill


@dataclass
class Attempts:
    """What happened in the folder of one run, from attempt to attempt.

    Attributes:
        kills: how many attempts were ended by a signal.
        resumed: how many went on with ``--resume``.
    """

    run: Run
    folder: Path
    minutes: float = 1e-9
    cold: bool = False
    kills: int = 0
    resumed: int = 0
    failures: list[str] = field(default_factory=list)
    _groups: list[int] = field(default_factory=list)
    _saved: int = -1

    @property
    def log(self) -> Path:
        """What all attempts printed."""
        return self.folder.with_suffix(".log")

    def attempt(self, kill: Kill | None = None, report: Path | None = None) -> None:
        """Start or go on with the run, until it ends or is killed."""
        arguments = self.run.start(self.folder, self.minutes)
        if (self.folder / "config.json").exists():
            arguments = self.run.resume(self.folder)
            self.resumed += 1
        began = time.monotonic()
        if self.cold and isinstance(kill, TimeKill):
            process = cold_run(self.run.command, arguments, self.log)
        else:
            points = WritePoints(self.folder, kill if isinstance(kill, WriteKill) else None)
            process = ForkedRun(self.run.command, arguments, self.log, points, report)
        self._groups.append(process.pid)
        self._judge(_wait(process, began, kill if isinstance(kill, TimeKill) else None), kill)
        self._check_checkpoint()

    def _judge(self, status: int, kill: Kill | None) -> None:
        killed = kill is not None and status in (-kill.signal, STOPPED)
        self.kills += killed
        if status != 0 and not killed:
            said = self.log.read_text(errors="replace").strip().splitlines()
            self.failures.append(f"an attempt ended with {status} after {kill}: {said[-1] if said else ''}")

    def _check_checkpoint(self) -> None:
        """What is there is whole, and a run never goes back behind its checkpoint."""
        try:
            if (self.folder / "config.json").exists():
                read_run(self.folder)
            saved = _saved_progress(self.run.kind, self.folder)
        except ValueError as error:
            self.failures.append(str(error))
            return
        if saved < self._saved:
            self.failures.append(f"the checkpoint went back from {self._saved} to {saved}")
        self._saved = saved

    def clean_up(self) -> None:
        """End what killed attempts have left running, such as a compiler."""
        for group in self._groups:
            _signal_group(group, signal.SIGKILL)


def _wait(process: ForkedRun | subprocess.Popen, began: float, kill: TimeKill | None) -> int:
    """The exit status, after a kill at its time; what hangs is killed and has status 1."""
    sent = False
    while (status := process.poll()) is None:
        elapsed = time.monotonic() - began
        if kill is not None and not sent and elapsed >= kill.seconds:
            sent = True
            if kill.whole_group:
                _signal_group(process.pid, kill.signal)
            else:
                os.kill(process.pid, kill.signal)
        if elapsed > PATIENCE:
            _signal_group(process.pid, signal.SIGKILL)
            while process.poll() is None:
                time.sleep(0.01)
            return 1
        time.sleep(0.002)
    return status


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


# --- Comparison --------------------------------------------------------------------------------------------


def differences(run: Run, unbroken: Path, folder: Path) -> list[str]:
    """What tells a run that was killed from an unbroken one; empty if nothing does."""
    return [*_differing(unbroken, folder, _files), *_differing(unbroken, folder, _config)] + (
        _differing(unbroken, folder, lambda path: _contents(run.kind, path))
        if run.exact
        else broken_promises(unbroken, folder)
    )


def _differing(unbroken: Path, folder: Path, read: Callable[[Path], Mapping[str, str]]) -> list[str]:
    try:
        expected, found = read(unbroken), read(folder)
    except (ValueError, OSError) as error:
        return [str(error)]
    names = sorted(expected.keys() | found.keys())
    differing = [name for name in names if expected.get(name) != found.get(name)]
    return [f"{name}: {found.get(name)} instead of {expected.get(name)}" for name in differing]


def _files(folder: Path) -> dict[str, str]:
    """All but TensorBoard's, of which every attempt writes one; a lock or a partial file is one too many."""
    return {path.name: "there" for path in folder.iterdir() if not path.name.startswith("events.")}


def _config(folder: Path) -> dict[str, str]:
    return leaves(read_run(folder), "config")


def _contents(kind: RunKind, folder: Path) -> dict[str, str]:
    """Parameters, optimizer, curves and all else that a run of a kind has learned."""
    found = {}
    for name in (kind.curve, *kind.other_curves):
        with (folder / name).open(newline="") as file:
            found.update(leaves(list(csv.DictReader(file)), name))
    if kind in AGENTS:
        return {**found, **leaves(_agent_state(folder), "checkpoint.zip")}
    for name in (kind.checkpoint, kind.best):
        found.update(leaves(load_state(folder / str(name)), str(name)))
    return found


def _load_agent(folder: Path) -> RecurrentOnPolicyAlgorithm:
    return ALGORITHMS[read_run(folder)["kind"]].load(A2C_AGENT.checkpoint_of(folder), device="cpu")


def _agent_state(folder: Path) -> dict[str, Any]:
    """All that an agent's checkpoint holds and a rollout or an update changes."""
    agent = _load_agent(folder)
    return {
        "policy": agent.policy.state_dict(),
        "optimizer": agent.policy.optimizer.state_dict(),
        "attributes": {name: getattr(agent, name) for name in ATTRIBUTES},
        "run_state": agent._run_state,
        "callbacks": agent.callback_state,
    }


def leaves(value: Any, name: str) -> dict[str, str]:
    """A nested value as one row of texts by dotted names, equal only if every bit is; without the ignored."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {name: f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()[:16]}"}
    if isinstance(value, Mapping):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, Sequence | deque | np.ndarray) and not isinstance(value, str | bytes):
        parts = enumerate(value)
    elif hasattr(value, "__dict__"):
        parts = vars(value).items()
    else:
        return {name: repr(value)}
    found = {name: type(value).__name__}
    for key, part in parts:
        if key not in IGNORED:
            found.update(leaves(part, f"{name}.{key}"))
    return found


def broken_promises(unbroken: Path, folder: Path) -> list[str]:
    """Which of the things fail that hold for any agent that was resumed: its rows, counters and numbers."""
    wrong = _differing(unbroken, folder, _counters)
    curve = A2C_AGENT.curve
    with (folder / curve).open(newline="") as file:
        episodes = [int(row["episodes"]) for row in csv.DictReader(file)]
    if episodes != sorted(episodes):
        wrong.append(f"{curve}: episodes go back: {episodes}")
    policy = _load_agent(folder).policy
    return wrong + [
        f"{name} is not finite" for name, value in policy.state_dict().items() if not value.isfinite().all()
    ]


def _counters(folder: Path) -> dict[str, str]:
    agent = _load_agent(folder)
    with (folder / A2C_AGENT.curve).open(newline="") as file:
        rows = [
            [row[name] for name in ("updates", "timesteps", "learning_rate")] for row in csv.DictReader(file)
        ]
    return {
        **leaves(rows, A2C_AGENT.curve),
        "updates": str(agent._n_updates),
        "timesteps": str(agent.num_timesteps),
        "recorded updates": str(agent.callback_state["recorder"]["updates"]),
    }


def _saved_progress(kind: RunKind, folder: Path) -> int:
    """Iterations or timesteps of the checkpoint; -1 without one."""
    path = kind.checkpoint_of(folder)
    if not path.exists():
        return -1
    if kind is SUPERVISED:
        return load_state(path)["progress"]["iteration"]
    return _load_agent(folder).num_timesteps


# --- Trials ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """An unbroken run, and what was counted and timed in it."""

    folder: Path
    counts: Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """Which run is killed, and how."""

    number: int
    run: str
    kill: str


def make_trial(number: int, runs: Sequence[str], kills: Sequence[str] | None = None) -> Trial:
    """The trial of a number; all pairs of runs and kinds of kill take turns."""
    kinds = KILLS if kills is None else kills
    kill = kinds[number // len(runs) % len(kinds)]
    if kills is None and number % BUILD_EVERY == BUILD_EVERY - 1 and "dictionary, MNM-p" in runs:
        return Trial(number, "dictionary, MNM-p", BUILD)
    if kills is None and number % COLD_EVERY == COLD_EVERY // 2:
        return Trial(number, runs[number // COLD_EVERY % len(runs)], COLD)
    return Trial(number, runs[number % len(runs)], kill)


@dataclass
class Laboratory:
    """Runs trials in a folder.

    Args:
        folder: for the runs.
        seed: of the moments.
        most_kills: of a trial.
        between: called with a run's folder after every kill, for tests.
    """

    folder: Path
    seed: int
    most_kills: int = 3
    between: Callable[[Path], None] = lambda folder: None
    _references: dict[str, Reference] = field(default_factory=dict)

    def reference(self, name: str) -> Reference:
        """The unbroken run of a kind; made when it is first asked for, twice.

        Raises:
            RuntimeError: it fails, or is not the same each time.
        """
        if name not in self._references:
            first, second = (self._unbroken(name, time) for time in (1, 2))
            wrong = differences(RUNS[name], first.folder, second.folder)
            if wrong:
                raise RuntimeError(f"The unbroken run {name} is not the same each time: {wrong[0]}")
            self._references[name] = (
                second  # at the first it may have compiled the kernel, which takes longer
            )
        return self._references[name]

    def _unbroken(self, name: str, time: int) -> Reference:
        folder = self.folder / f"unbroken-{list(RUNS).index(name)}-{time}"
        attempts, report = Attempts(RUNS[name], folder), folder.with_suffix(".json")
        attempts.attempt(report=report)
        if attempts.failures:
            raise RuntimeError(f"The unbroken run {name} fails: {attempts.failures[0]}")
        return Reference(folder, json.loads(report.read_text()))

    def run(self, trial: Trial) -> Attempts:
        """Kill, go on, compare. What the trial has made is removed if nothing is wrong with it."""
        draw = np.random.default_rng([self.seed, trial.number])
        run, reference = RUNS[trial.run], self.reference(trial.run)
        place = self.folder / f"trial-{trial.number}"
        place.mkdir()
        every_time = trial.kill in ("checkpoint write", BUILD)
        minutes = 1e-9 if every_time else float(draw.choice(CHECKPOINT_MINUTES))
        attempts = Attempts(run, place / "run", minutes, cold=trial.kill == COLD)
        with _folders_of_kernels(place) if trial.kill == BUILD else contextlib.nullcontext():
            try:
                for number in range(draw.integers(1, self.most_kills + 1)):
                    attempts.attempt(_draw_kill(trial.kill, number, draw, reference.counts))
                    self.between(attempts.folder)
                attempts.attempt()
            finally:
                attempts.clean_up()
        if not attempts.failures:
            attempts.failures = differences(run, reference.folder, attempts.folder)
            if trial.kill == BUILD:
                attempts.failures += _left_by_builds(place)
        if not attempts.failures:
            shutil.rmtree(place)
        return attempts


def _draw_kill(kind: str, number: int, draw: np.random.Generator, counts: Mapping[str, float]) -> Kill:
    """The kill of an attempt, by its number from 0; what is left to do becomes less, so kills come sooner."""
    if kind == "config write" and number > 0:
        kind = "any moment"  # a config is written once
    share = {"any moment": 0.0, "signal": 1.0, BUILD: 0.5}.get(kind, 0.25)
    sent = int(draw.choice(SIGNALS) if draw.random() < share else signal.SIGKILL)
    if kind.endswith(" write"):
        file = kind.removesuffix(" write")
        steps = max(1, int(counts[file]) // (number + 1))
        return WriteKill(sent, file, int(draw.integers(1, steps + 1)), float(draw.random()))
    longest = {"start": counts["first_checkpoint"], COLD: COLD_SECONDS, BUILD: BUILD_SECONDS}
    seconds = draw.uniform(0, longest.get(kind, 0.8 * counts["seconds"] / (number + 1)))
    return TimeKill(sent, float(seconds), kind == BUILD and bool(draw.random() < 0.5))


@contextlib.contextmanager
def _folders_of_kernels(place: Path) -> Iterator[None]:
    """Inside, kernels and temporary files go to new folders in a place, so that a kernel is built."""
    before = dict(os.environ)
    for name, folder in (("MNM_RL_CACHE", place / "kernels"), ("TMPDIR", place / "temporary")):
        folder.mkdir(mode=0o700)
        os.environ[name] = str(folder)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _left_by_builds(place: Path) -> list[str]:
    """What is there but one library and its checksum."""
    kinds = sorted(path.suffix for path in (place / "kernels").iterdir())
    return [] if kinds == [".sha256", ".so"] else [f"the kernels' folder holds {kinds}"]


# --- The table ---------------------------------------------------------------------------------------------

COLUMNS = ("kind of run", "kind of kill", "trials", "killed", "resumed", "identical", "failures")


@dataclass
class Tally:
    """Sums over the trials of a run and a kind of kill."""

    trials: int = 0
    killed: int = 0
    resumed: int = 0
    failures: int = 0

    def add(self, attempts: Attempts) -> None:
        """Count one trial."""
        self.trials += 1
        self.killed += attempts.kills
        self.resumed += attempts.resumed
        self.failures += bool(attempts.failures)


def table(tallies: Mapping[tuple[str, str], Tally]) -> str:
    """The tallies as Markdown, with their sums."""
    lines = [" | ".join(COLUMNS), " | ".join("-" * len(column) for column in COLUMNS)]
    total: Counter[str] = Counter()
    same = 0
    order = [(run, kill) for run in RUNS for kill in (*KILLS, COLD, BUILD) if (run, kill) in tallies]
    for run, kill in order:
        tally = tallies[run, kill]
        identical = tally.trials - tally.failures if RUNS[run].exact else None
        same += identical or 0
        total.update(vars(tally))
        promised = "not as promised" if tally.failures else "as promised"
        shown = promised if identical is None else identical
        cells = (run, kill, tally.trials, tally.killed, tally.resumed, shown, tally.failures)
        lines.append(" | ".join(map(str, cells)))
    cells = ("all", "", total["trials"], total["killed"], total["resumed"], same, total["failures"])
    lines.append(" | ".join(map(str, cells)))
    return "\n".join(f"| {line} |" for line in lines)


def run_trials(laboratory: Laboratory, trials: Iterable[Trial]) -> dict[tuple[str, str], Tally]:
    """Run them, and say at once what fails."""
    tallies: dict[tuple[str, str], Tally] = {}
    for trial in trials:
        attempts = laboratory.run(trial)
        tallies.setdefault((trial.run, trial.kill), Tally()).add(attempts)
        print(f"trial {trial.number}: {trial.run}, {trial.kill}", file=sys.stderr)
        if attempts.failures:
            print(
                f"  fails; see {attempts.log}, or try again with --only {trial.number} and the same options",
                file=sys.stderr,
            )
            for failure in attempts.failures[:10]:
                print(f"  {failure}", file=sys.stderr)
    return tallies


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", type=int, help="the number of a single trial")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--kills", nargs="+", choices=(*KILLS, COLD, BUILD), help="only these kinds")
    return parser.parse_args()


def main() -> int:
    """Exit status 1 if any trial fails."""
    args = _parse()
    numbers = range(args.trials) if args.only is None else [args.only]
    torch.set_num_threads(1)
    folder, began = Path(tempfile.mkdtemp(prefix="kill-trials-")), time.monotonic()
    tallies = run_trials(
        Laboratory(folder, args.seed), [make_trial(number, args.runs, args.kills) for number in numbers]
    )
    print(table(tallies))
    print(f"\n{time.monotonic() - began:.0f} seconds", file=sys.stderr)
    failed = any(tally.failures for tally in tallies.values())
    if not failed:
        shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
