"""Bad input to every command and to the public API: one clear sentence each, before any work starts.

Every case runs in a child process, forked where everything has been imported already, with limits of memory
and time: a crash, an endless loop or a filled memory is one failed test and no more. A command must end with
status 2, one line on stderr that names what was wrong, and no file that was not there before; the library must
raise a ValueError or TypeError of one line. What ``says`` is, is looked for in that line.

CI takes every tenth case of each test (see conftest.py); `pytest -m "" tests/test_bad_input.py` runs all of them,
which takes some minutes.
"""

# ruff: noqa: E501
# pyright: reportArgumentType=false

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
import itertools
import json
import os
import pickle
import re
import resource
import shlex
import shutil
import signal
import sys
import typing
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch

import mnm_rl
from mnm_rl.agents import RecurrentA2C
from mnm_rl.cores import MemoryCore, core_names, make_core, register_core
from mnm_rl.envs import MazeEnv, MazeRules, MazeVecEnv, MazeVectorEnv
from mnm_rl.tasks import register_task
from mnm_rl.testing import check_core
from mnm_rl.training.curves import CurveFile, read_curve
from mnm_rl.training.rl.config import A2CConfig
from mnm_rl.training.rl.config import config_from_dict as a2c_from_dict
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.config import config_from_dict as supervised_from_dict

RESULTS = Path(mnm_rl.__file__).parents[1] / "results"
COMMANDS = (
    "train_a2c",
    "train_ppo",
    "train_supervised",
    "evaluate",
    "analyze",
    "reproduce",
    "generate_babi",
    "plot_curves",
)
MEMORY_BYTES, SECONDS = 12 * 2**30, 30
UNCLEAR = re.compile(
    r"not supported between|positional argument|object is not|has no attribute|'NoneType'|"
    r"cannot unpack|invalid literal|could not convert|Errno|must be real number|must be an integer|"
    r"indices must be|Expected (?:all|input|size)|mat1|size mismatch|not iterable|too many values|"
    r"object cannot be interpreted|DefaultCPUAllocator|Missing key|unhashable|sequence item"
)
"""Words of Python's and torch's own errors, which name nothing that a user wrote."""

# ---------------------------------------------------------------------------------------------------------
# Running one case


class Outcome(NamedTuple):
    """How a child ended."""

    status: int
    """Of the process; negative: the signal that ended it."""
    out: str
    err: str


class Raised(NamedTuple):
    """What a call raised; no error at all has no type."""

    kind: type[BaseException] | None
    text: str


def in_child(work: Callable[[], object], folder: Path) -> tuple[Outcome, Any]:
    """Do some work in a forked child with limits; how the child ended, and what the work returned."""
    streams = [(folder / f".{name}").open("wb+") for name in ("stdout", "stderr", "result")]
    child = os.fork()
    if child == 0:
        _child(work, *(stream.fileno() for stream in streams))
    _, code = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what the child left running
    texts = []
    for stream in streams:
        stream.seek(0)
        texts.append(stream.read())
        stream.close()
        Path(stream.name).unlink()
    outcome = Outcome(os.waitstatus_to_exitcode(code), *(text.decode(errors="replace") for text in texts[:2]))
    return outcome, pickle.loads(texts[2]) if texts[2] else None


def _child(work: Callable[[], object], out: int, err: int, result: int) -> typing.NoReturn:
    os.setpgid(0, 0)
    status = 70
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", errors="backslashreplace")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        status = 0
        try:
            os.write(result, pickle.dumps(work()))
        except SystemExit as stop:
            status = int(stop.code or 0)
    except BaseException:
        import traceback

        status = 1
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def run_command(name: str, words: list[str], folder: Path) -> Outcome:
    """A command in its own child, with the folder as the current one."""

    def work() -> None:
        os.chdir(folder)
        sys.argv = [f"{name}.py", *words]
        importlib.import_module(f"mnm_rl.commands.{name}").run_from_command_line()

    return in_child(work, folder)[0]


def raised_by(call: Callable[[], object], folder: Path) -> tuple[Outcome, Raised | None]:
    """What a call raises in its own child."""

    def work() -> tuple[str, str]:
        os.chdir(folder)
        try:
            call()
        except (ValueError, TypeError) as error:
            return ("ok", str(error))
        except BaseException as error:
            return (type(error).__name__, str(error))
        return ("", "")

    outcome, found = in_child(work, folder)
    if found is None:
        return outcome, None
    kinds: dict[str, Any] = {"ok": ValueError, "": None}
    return outcome, Raised(kinds.get(found[0], RuntimeError), ": ".join(filter(None, found)))


def files(folder: Path) -> dict[str, float]:
    """Everything below a folder, with its time of change for files."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime if path.is_file() else 0.0
        for path in sorted(folder.rglob("*"))
        if not path.is_symlink() or path.exists()
    }


def fault_of_sentence(text: str, says: str) -> str | None:
    """What is wrong with what a user is told."""
    if "\n" in text.strip():
        return f"{len(text.strip().splitlines())} lines"
    unclear = UNCLEAR.search(text)
    if (
        unclear
        and "Error parsing --" not in text
        and not re.search(says, text[: unclear.start()], re.IGNORECASE)
    ):
        return "the words of Python or torch"
    if len(text) > 700:
        return f"{len(text)} characters"
    if not re.search(says, text, re.IGNORECASE):
        return f"does not name {says!r}"
    return None


def fault_of_command(
    outcome: Outcome, says: str, before: dict[str, float], after: dict[str, float]
) -> str | None:
    """Why an outcome is not a refusal, if it is not."""
    err = outcome.err.strip()
    last = err.splitlines()[-1] if err else ""
    if outcome.status == -signal.SIGALRM:
        return f"STARTED: still at work after {SECONDS} s, {outcome.out.strip()[-160:]!r}"
    if outcome.status < 0:
        return f"CRASH: {signal.Signals(-outcome.status).name}"
    if "Traceback (most recent call last)" in err:
        return f"TRACEBACK: {last}"
    if outcome.status == 0:
        return f"ACCEPTED: status 0, {outcome.out.strip()[-160:]!r} {last!r}"
    if outcome.status != 2:
        return f"STATUS {outcome.status}: {last}"
    if (fault := fault_of_sentence(err, says)) is not None:
        return f"SENTENCE ({fault}): {err[:400]}"
    if before != after:
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        return f"LEFT {changed[:4]}: {err[:200]}"
    return None


def refuse(name: str, words: list[str], folder: Path, says: str) -> None:
    """Make sure that a command refuses its words."""
    before = files(folder)
    outcome = run_command(name, words, folder)
    fault = fault_of_command(outcome, says, before, files(folder))
    assert fault is None, f"{name} {shlex.join(words)} -> {fault}"


def refuse_call(call: Callable[[], object], folder: Path, says: str) -> None:
    """Make sure that a call raises a ValueError or TypeError of one sentence."""
    outcome, raised = raised_by(call, folder)
    if raised is None:
        ended = "HANGS" if outcome.status == -signal.SIGALRM else f"CRASH {outcome.status}"
        pytest.fail(f"{ended}: {outcome.err.strip().splitlines()[-1:]}")
    assert raised.kind is not None, "ACCEPTED: nothing was raised"
    assert raised.kind is ValueError, f"ERROR: {raised.text[:300]}"
    text = raised.text.removeprefix("ok: ")
    fault = fault_of_sentence(text, says)
    assert fault is None, f"SENTENCE ({fault}): {text[:400]}"


# ---------------------------------------------------------------------------------------------------------
# Runs to point the commands at

TINY_A2C = "--env MNMMaze-3x3 --n-envs 2 --n-steps 8 --core lstm --hidden-size 4 --timesteps 32 --log-every 1"
TINY_SUPERVISED = (
    "--task double-copy --length 2 --core lstm --hidden-size 4 --embedding-size 4 --batch-size 2"
)
TINY_SUPERVISED += " --iterations 2 --validate-every 2 --log-every 1"
TINY_MNM = "--task dictionary --instance 1 --core mnm-p --hidden-size 4 --core.key-size 2 --core.value-size 2"
TINY_MNM += " --core.memory-widths 2 --embedding-size 4 --batch-size 2 --iterations 2 --validate-every 2"
QUIET = "--no-tensorboard --quiet"
BABI, MAZE, POLE = (
    RESULTS / part for part in ("babi/task-1-mnm-p", "maze/highest", "cartpole-positions/mnm-p-seed0")
)


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Every command, so that the children need not import it."""
    for name in COMMANDS:
        importlib.import_module(f"mnm_rl.commands.{name}")
    import matplotlib.pyplot  # noqa: F401
    import minigrid  # noqa: F401

    # The first optimizer and the first gradient import more of torch, for seconds.
    weight = torch.zeros(1, requires_grad=True)
    weight.sum().backward()
    torch.optim.Adam([weight]).step()


@pytest.fixture(scope="module")
def runs(imported: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny runs: ``a2c``, ``sup`` (without a memory) and ``mnm``."""
    folder = tmp_path_factory.mktemp("runs")
    for name, command, words in (
        ("a2c", "train_a2c", TINY_A2C),
        ("sup", "train_supervised", TINY_SUPERVISED),
        ("mnm", "train_supervised", TINY_MNM),
    ):
        outcome = run_command(command, [*f"{words} {QUIET}".split(), "--log-dir", name], folder)
        assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture
def place(runs: Path, tmp_path: Path) -> Path:
    """A current folder with copies of the runs, and odd places to point at."""
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "heading.csv").write_text("episodes,reward\n")
    (tmp_path / "words.csv").write_text("episodes,reward\none,two\n")
    (tmp_path / "good.csv").write_text("episodes,reward\n1,2\n2,3\n3,4\n")
    (tmp_path / "nan.csv").write_text("episodes,reward\nnan,nan\nnan,nan\n")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "nul.csv").write_bytes(b"episodes,reward\n1,\x00\n")
    (tmp_path / "twice.csv").write_text("episodes,episodes,reward\n1,2,3\n2,3,4\n")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "bytes.yml").write_bytes(bytes(range(256)))
    for name, text in YAML.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def filled(words: str) -> list[str]:
    """Words of a command line, with the project's own results in place."""
    return shlex.split(words.format(babi=BABI, maze=MAZE, pole=POLE))


# ---------------------------------------------------------------------------------------------------------
# Command lines: words -> what the sentence must name


def options(table: dict[str, tuple[str, ...]], says: str | None = None) -> Iterator[tuple[str, str]]:
    """Every option with every value; the sentence must name the option, as it is written or as a setting."""
    for option, values in table.items():
        bare = option.removeprefix("--").removeprefix("core.")
        for value in values:
            yield (
                f"{option}={value}" if value.startswith("-") else f"{option} {value}",
                (says or bare.replace("-", "[-_]")),
            )


WHOLE = ("0", "1.5", "nan")
REAL = ("-1", "nan", "x")

A2C: list[tuple[str, str]] = [
    *options(
        {
            "--n-envs": (*WHOLE, "1e3", "१२x"),
            "--timesteps": WHOLE,
            "--n-steps": WHOLE,
            "--log-every": WHOLE,
            "--threads": WHOLE,
            "--core.hidden-size": WHOLE,
            "--hidden-size": WHOLE,
            "--learning-rate": ("0", *REAL),
            "--max-grad-norm": ("0", *REAL),
            "--checkpoint-minutes": ("0", *REAL),
            "--adam-epsilon": ("0", *REAL),
            "--vf-coef": REAL,
            "--ent-coef": REAL,
            "--ent-coef-end": REAL,
            "--meta-coef": REAL,
            "--seed": ("-1", "1.5", "x", "''"),
            "--watch-every": ("-1", "1.5", "x"),
            "--gamma": ("1.1", *REAL),
            "--gamma-end": ("1.1", *REAL),
            "--gae-lambda": ("1.1", *REAL),
            "--schedule": ("cosine", "''", "Linear"),
            "--entropy-kind": ("x", "''"),
            "--device": ("gpu", "''", "cuda:99", "meta"),
            "--preset": ("best", "''"),
            "--core": (
                "nothing",
                "''",
                "'mnm-p '",
                "MNM-P",
                "os:path",
                "json:JSONDecoder",
                "nowhere:C",
                ":",
                "a:",
            ),
        }
    ),
    ("--env-kwargs ''", "env.kwargs"),
    ("--env-kwargs 5", "env_kwargs"),
    ("--env-kwargs '[]'", "env_kwargs"),
    ("--env-kwargs '{{\"size\": 4}}'", "size"),
    ('--env-kwargs \'{{"size": "x"}}\'', "size"),
    ("--env-kwargs '{{\"horizon\": 0}}'", "horizon"),
    ("--env-kwargs '{{\"horizon\": NaN}}'", "horizon"),
    ("--env-kwargs '{{\"goal_reward\": NaN}}'", "goal_reward"),
    ("--env-kwargs '{{\"goal_reward\": Infinity}}'", "goal_reward"),
    ("--env-kwargs '{{\"relocation\": 2019}}'", "relocation"),
    ("--env-kwargs '{{\"relocation\": []}}'", "relocation"),
    ("--env-kwargs '{{\"nonsense\": 1}}'", "nonsense"),
    ('--env-kwargs \'{{"render_mode": "human"}}\'', "render_mode"),
    ("--env-kwargs '{{\"num_envs\": 3}}'", "num_envs"),
    ("--env-kwargs '{{\"previous_action\": 1}}'", "previous_action"),
    ("--env-kwargs '{{\"previous_action\": true}}' --previous-action True", "previous_action"),
    ("--episodes 0", "episodes"),
    ("--episodes 5 --timesteps 64", "episodes|timesteps"),
    ("--reward-scale 2", "reward_scale"),
    ("--reward-scale nan", "reward_scale"),
    ("--reward-scale 0", "reward_scale"),
    ("--subprocesses", "subprocesses"),
    ("--drop-observations 1", "drop_observations"),
    ("--drop-observations x", "drop_observations"),
    ("--env MNMMaze-4x4", "size|MNMMaze-4x4"),
    ("--env MNMMaze-3x5", "square"),
    ("--env MNMMaze-0x0", "size|MNMMaze"),
    ("--env MNMMaze-1x1", "size|MNMMaze"),
    ("--env MNMMaze", "MNMMaze"),
    ("--env mnmmaze-3x3", "mnmmaze"),
    ("--env ''", "env"),
    ("--env ' '", "env"),
    ("--env ünïcode", "ünïcode"),
    ("--env Nothing-v0", "Nothing"),
    ("--env nowhere:CartPole-v1", "nowhere"),
    ("--env :", "env must be"),
    ("--env a:b:c", "a:b:c"),
    ("--env CartPole-v99", "CartPole-v99"),
    ("--previous-reward", "previous_reward"),
    ("--env CartPole-v1 --previous-reward --previous-reward", "previous-reward"),
    ("--env CartPole-v1 --episodes 4 --timesteps 64", "episodes"),
    ("--env CartPole-v1 --watch-every 5", "watch_every"),
    ("--env CartPole-v1 --drop-observations 9", "drop_observations"),
    ("--env CartPole-v1 --drop-observations 0,1,2,3", "drop_observations"),
    ("--env CartPole-v1 --drop-observations=-1", "drop_observations"),
    ("--env CartPole-v1 --drop-observations 1.5", "drop_observations"),
    ("--env CartPole-v1 --drop-observations ,", "drop_observations"),
    ("--env CartPole-v1 --drop-observations 1,1", "drop_observations"),
    ("--env CartPole-v1 --reward-scale=-1", "reward_scale"),
    ("--env CartPole-v1 --reward-scale inf", "reward_scale"),
    ("--env CartPole-v1 --env-kwargs '{{\"nonsense\": 1}}'", "nonsense"),
    ("--env CartPole-v1 --env-kwargs '{{\"max_episode_steps\": -5}}'", "max_episode_steps"),
    ('--env CartPole-v1 --env-kwargs \'{{"max_episode_steps": "x"}}\'', "max_episode_steps"),
    ("--env FrozenLake-v1 --drop-observations 0", "drop_observations"),
    ('--env FrozenLake-v1 --env-kwargs \'{{"map_name": "9x9"}}\'', "map_name|9x9"),
    ("--env Taxi-v3 --env-kwargs '{{\"render_mode\": 5}}'", "render_mode|Taxi"),
    ("--env Pendulum-v1 --entropy-kind concentration", "entropy_kind"),
    ("--env CartPole-v1 --use-sde", "use_sde"),
    ("--use-sde", "use_sde"),
    ("--env Pendulum-v1 --use-sde --sde-sample-freq 0", "sde_sample_freq"),
    ("--env Pendulum-v1 --use-sde --sde-sample-freq 1.5", "sde-sample-freq"),
    ("--env BabyAI-GoToLocal-v0", "mission"),
    ("--env CartPole-v1 --mission words", "mission"),
    ("--env CartPole-v1 --direction", "direction"),
    ("--mission drop", "mission"),
    ("--env BabyAI-GoToRedBall-v0 --env-kwargs '{{\"room_size\": 0}}'", "room_size|BabyAI"),
    ("--env MiniGrid-Empty-5x5-v0 --env-kwargs '{{\"size\": 1}}'", "size|MiniGrid"),
    ("--env MiniGrid-Empty-5x5-v0 --env-kwargs '{{\"agent_view_size\": 2}}'", "agent_view_size|MiniGrid"),
    ("--env MiniGrid-Nowhere-v0", "MiniGrid-Nowhere"),
    ("--env CartPole-v1 --preset soonest", "preset"),
    ("--env CartPole-v1 --preset highest", "preset"),
    ("--env CartPole-v1 --preset paper", "preset"),
    ("--preset soonest --preset highest", "preset"),
    ("--preset", "preset"),
    ("--core", "core"),
    ("--core lstm --core gru", "core"),
    ("--seed 1 --seed 2", "seed"),
    ("--n-envs 2 --n-envs 3", "n.envs"),
    ("--gamma 0.5 --gamma 0.6", "gamma"),
    ("--quiet --no-quiet", "quiet"),
    ("--hidden-size 4 --core.hidden-size 5", "hidden.size"),
    ("--tensorboard", "tensorboard"),
    ("--core.key-size 4", "key.size"),
    ("--core.nonsense 4", "nonsense"),
    ("--heads 2", "heads"),
    ("--core mnm-p --heads 0", "heads"),
    ("--core mnm-p --core.memory-widths 0", "memory.widths"),
    ("--core mnm-p --core.memory-widths x", "memory.widths"),
    ("--core mnm-p --core.recall-weights nan", "recall.weights"),
    ("--core mnm-p --core.recall-weights=-1", "recall.weights"),
    ("--core mnm-p --core.recall-weights inf", "recall.weights"),
    ("--core mnm-p --core.recall-weights", "recall.weights"),
    ("--core mnm-p --core.key-size 0", "key.size"),
    ("--core mnm-p --core.normalization x", "normalization"),
    ("--core mnm-p --core.kernel x", "kernel"),
    ("--core mnm-p --core.output-activation x", "output.activation"),
    ("--core mnm-p --core.write-rule local", "write.rule"),
    ("--core mnm-p --core.snapshot-every 0", "snapshot.every"),
    ("--core mnm-p --core.snapshot-every x", "snapshot.every"),
    ("--core mnm-p --core.snapshot-every 4 --core.kernel reference", "snapshot.every"),
    ("--core plastic --core.plasticity none", "plasticity"),
    ("--core-kwargs '{{}}'", "core"),
    ("--task dictionary", "task"),
    ("--iterations 5", "iterations"),
    ("--batch-size 5", "batch.size"),
    ("--nonsense", "nonsense"),
    ("--nonsense=5", "nonsense"),
    ("nonsense", "nonsense"),
    ("''", "empty"),
    ("-x", "-x"),
    ("--log-dir file", "file"),
    ("--log-dir file/below", "file"),
    ("--log-dir full", "full"),
    ("--log-dir a2c", "a2c"),
    ("--log-dir loop", "loop"),
    ("--log-dir /proc/run", "/proc"),
    ("--log-dir /dev/null", "/dev/null"),
    ("--log-dir ''", "log.dir"),
    (f"--log-dir {'n' * 300}", "nnn"),
    ("--log-dir", "log.dir"),
    ("--normalize-advantage --n-envs 1 --n-steps 1", "normalize_advantage"),
    ("--trusted", "trusted"),
]

BOTH = [
    *options(
        {
            "--core-layers": (*WHOLE, "100000000000"),
            "--encoder": ("0", "1.5", "x", "64,64"),
            "--net-arch": ("0", "1.5", "x", "64,64"),
            "--normalize": ("x", "''", "True", "both"),
        }
    ),
    ("--encoder 1000000000 1000000000", "encoder|memory"),
    ("--net-arch 1000000000 1000000000", "net_arch|memory"),
    ("--separate-critic 5", "separate-critic|5"),
    ("--wrapper x", "wrapper"),
    ("--env CartPole-v1 --wrapper x", "wrapper"),
    ("--env CartPole-v1 --wrapper ''", "wrapper"),
    ("--env CartPole-v1 --wrapper nowhere:Wrapper", "nowhere"),
    ("--env CartPole-v1 --wrapper os:path", "os:path"),
    ("--env CartPole-v1 --wrapper json:JSONDecoder", "JSONDecoder"),
    ("--env CartPole-v1 --wrapper gymnasium.wrappers:Nothing", "Nothing"),
    ("--env CartPole-v1 --wrapper gymnasium:Wrapper:x", "gymnasium:Wrapper:x"),
    ("--env CartPole-v1 --wrapper gymnasium.wrappers:TimeLimit", "TimeLimit"),
    ("--env CartPole-v1 --tabulated", "tabulated"),
    ("--tabulated", "tabulated"),
    ("--env MiniGrid-Empty-5x5-v0 --tabulated", "tabulated"),
    ("--settings nowhere.yml", "nowhere.yml"),
    ("--settings file", "file"),
    ("--settings empty", "empty"),
    ("--settings ''", "settings"),
    ("--settings", "settings"),
    ("--env CartPole-v1 --settings key.yml", "nonsense"),
    ("--env CartPole-v1 --settings type.yml", "gamma"),
    ("--env CartPole-v1 --settings value.yml", "gamma"),
    ("--env CartPole-v1 --settings core.yml", "core"),
    ("--env CartPole-v1 --settings list.yml", "list.yml"),
    ("--env CartPole-v1 --settings broken.yml", "broken.yml"),
    ("--env CartPole-v1 --settings other.yml", "CartPole-v1"),
    ("--env CartPole-v1 --settings bytes.yml", "bytes.yml"),
]
"""Of both algorithms, which share their options."""
YAML = {
    "key.yml": "CartPole-v1: {nonsense: 1}",
    "type.yml": "CartPole-v1: {gamma: x}",
    "value.yml": "CartPole-v1: {gamma: 2}",
    "core.yml": "CartPole-v1: {policy_kwargs: {core: x}}",
    "list.yml": "[1, 2]",
    "broken.yml": "CartPole-v1: {",
    "other.yml": "Pendulum-v1: {gamma: 0.9}",
}

PPO: list[tuple[str, str]] = [
    *(case for case in A2C if "preset" not in case[0] and "--n-envs 1 --n-steps 1" not in case[0]),
    *options(
        {
            "--n-epochs": WHOLE,
            "--batch-size": WHOLE,
            "--bptt-steps": WHOLE,
            "--clip-range": ("0", *REAL),
            "--clip-range-vf": ("0", *REAL),
            "--target-kl": ("0", *REAL),
        }
    ),
    ("--preset soonest", "preset"),
    ("--batch-size 3", "batch_size"),
    ("--batch-size 1000", "batch_size"),
    ("--bptt-steps 3", "bptt_steps"),
    ("--bptt-steps 16", "bptt_steps"),
    ("--core lstm-salu --bptt-steps 4", "bptt_steps"),
    ("--resume a2c", "a2c|ppo"),
    ("--resume sup", "supervised"),
    ("--resume nowhere", "nowhere"),
]

RESUME_A2C: list[tuple[str, str]] = [
    ("--resume nowhere", "nowhere"),
    ("--resume ''", "resume"),
    ("--resume", "resume"),
    ("--resume file", "file"),
    ("--resume empty", "empty"),
    ("--resume full", "full"),
    ("--resume sup", "supervised"),
    ("--resume loop", "loop"),
    ("--resume a2c/config.json", "config.json"),
    ("--resume a2c --log-dir other", "log.dir"),
    ("--resume a2c --env CartPole-v1", "env"),
    ("--resume a2c --core gru", "core"),
    ("--resume a2c --core nothing", "core"),
    ("--resume a2c --hidden-size 5", "hidden.size"),
    ("--resume a2c --core.key-size 5", "key.size"),
    ("--resume a2c --n-envs 3", "n.envs"),
    ("--resume a2c --seed 3", "seed"),
    ("--resume a2c --n-steps 3", "n.steps"),
    ("--resume a2c --vf-coef 3", "vf.coef"),
    ("--resume a2c --timesteps 64 --episodes 10", "episodes|timesteps"),
    ("--resume a2c --timesteps 8", "timesteps"),
    ("--resume a2c --timesteps 0", "timesteps"),
    ("--resume a2c --timesteps 64 --gamma nan", "gamma"),
    ("--resume a2c --timesteps 64 --learning-rate=-1", "learning.rate"),
    ("--resume a2c --timesteps 64 --learning-rate nan", "learning.rate"),
    ("--resume a2c --timesteps 64 --schedule x", "schedule"),
    ("--resume a2c --preset soonest", "preset"),
    ("--resume a2c --device gpu", "device"),
    ("--resume a2c --threads 0", "threads"),
    ("--resume a2c --checkpoint-minutes 0", "checkpoint.minutes"),
    ("--resume a2c --resume sup", "resume"),
    ("--resume a2c --task dictionary", "task"),
]

SUPERVISED: list[tuple[str, str]] = [
    *options(
        {
            "--iterations": WHOLE,
            "--batch-size": WHOLE,
            "--embedding-size": WHOLE,
            "--validate-every": WHOLE,
            "--log-every": WHOLE,
            "--patience": WHOLE,
            "--threads": WHOLE,
            "--length": WHOLE,
            "--hidden-size": WHOLE,
            "--learning-rate": ("0", *REAL),
            "--max-grad-norm": ("0", *REAL),
            "--checkpoint-minutes": ("0", *REAL),
            "--meta-weight": REAL,
            "--stop-error": REAL,
            "--warmup": ("-1", "1.5", "x"),
            "--analyze-every": ("-1", "1.5", "x"),
            "--seed": ("-1", "1.5", "x"),
            "--schedule": ("x", "''"),
            "--device": ("gpu", "''", "meta"),
            "--task": ("nothing", "''", "os:path", "nowhere:C", ":", "a:", "Dictionary"),
            "--core": ("nothing", "''", "os:path", "nowhere:C", ":"),
        }
    ),
    ("--instance 1", "instance"),
    ("--vectors 5", "vectors"),
    ("--babi-tasks 1", "babi.tasks"),
    ("--data nowhere", "data"),
    ("--stop-error 2", "stop.error"),
    ("--task dictionary --instance 5", "instance"),
    ("--task dictionary --instance 1 --support-size 3", "instance|support.size"),
    ("--task dictionary --support-size 3", "support.size|length"),
    ("--task dictionary --support-size 0 --length 2", "support.size"),
    ("--task dictionary --support-size 2 --length 0", "length"),
    ("--task dictionary --support-size 2 --length 2 --smaller-instances", "smaller.instances"),
    ("--task priority-sort --vectors 3 --predicted 4", "predicted"),
    ("--task priority-sort --vectors 3 --predicted 0", "predicted"),
    ("--task priority-sort --vectors 0 --predicted 0", "predicted|vectors"),
    ("--task babi --babi-tasks 0", "task"),
    ("--task babi --babi-tasks 21", "21"),
    ("--task babi --babi-tasks ''", "task"),
    ("--task babi --babi-tasks x", "task"),
    ("--task babi --babi-tasks 5-1", "5-1"),
    ("--task babi --babi-tasks 1,1", "task"),
    ("--task babi --babi-tasks 1-99999999999", "task"),
    ("--task babi --babi-size 5k", "babi.size"),
    ("--task babi --babi-format x", "babi.format"),
    ("--task babi --babi-origin x", "babi.origin"),
    ("--task babi --babi-tasks 1 --babi-repeat x", "repeat|x"),
    ("--task babi --babi-tasks 1 --babi-repeat ,", "how often"),
    ("--task babi --babi-tasks ,", "tasks?"),
    ("--task babi --babi-tasks 1 --babi-repeat 1:0", "repeat|1:0"),
    ("--task babi --babi-tasks 1 --babi-repeat 2:3", "repeat|task"),
    ("--task babi --babi-tasks 1 --babi-repeat 1:2,1:3", "repeat|task"),
    ("--task babi --babi-tasks 1 --babi-repeat 1:99999999999999999999", "repeat|times"),
    ("--task babi --babi-tasks 1 --data nowhere", "nowhere"),
    ("--task babi --babi-tasks 1 --data file", "file"),
    ("--task babi --babi-tasks 1 --data empty", "empty"),
    ("--task babi --babi-tasks 1 --data ''", "data"),
    ("--task babi --babi-tasks 1 --data empty --babi-origin generated", "data|origin|generated"),
    ("--task babi --babi-tasks 1 --babi-origin official --babi-fresh", "fresh|origin|official|bAbI data"),
    ("--task babi --babi-tasks 1 --max-length 0", "max.length"),
    ("--task babi --babi-tasks 1 --max-length 1", "max.length"),
    ("--env MNMMaze-3x3", "env"),
    ("--episodes 5", "episodes"),
    ("--preset soonest", "preset"),
    ("--gamma 0.9", "gamma"),
    ("--core.key-size 4", "key.size"),
    ("--core.nonsense 4", "nonsense"),
    ("--heads 2", "heads"),
    ("--task double-copy --task dictionary", "task|length"),
    ("--task", "task"),
    ("--seed 1 --seed 2", "seed"),
    ("--length 2 --length 3", "length"),
    ("--tensorboard", "tensorboard"),
    ("--nonsense 5", "nonsense"),
    ("nonsense", "nonsense"),
    ("--log-dir file", "file"),
    ("--log-dir full", "full"),
    ("--log-dir ''", "log.dir"),
    ("--log-dir loop", "loop"),
    ("--log-dir /proc/run", "/proc"),
    ("--trusted", "trusted"),
]

RESUME_SUPERVISED: list[tuple[str, str]] = [
    ("--resume nowhere", "nowhere"),
    ("--resume ''", "resume"),
    ("--resume file", "file"),
    ("--resume empty", "empty"),
    ("--resume a2c", "a2c"),
    ("--resume loop", "loop"),
    ("--resume sup/checkpoint.pt", "checkpoint.pt"),
    ("--resume sup --log-dir other", "log.dir"),
    ("--resume sup --task dictionary", "task"),
    ("--resume sup --core gru", "core"),
    ("--resume sup --hidden-size 5", "hidden.size"),
    ("--resume sup --length 5", "length"),
    ("--resume sup --batch-size 5", "batch.size"),
    ("--resume sup --seed 5", "seed"),
    ("--resume sup --iterations 1", "iterations"),
    ("--resume sup --iterations 0", "iterations"),
    ("--resume sup --iterations 4 --learning-rate nan", "learning.rate"),
    ("--resume sup --iterations 4 --learning-rate=-1", "learning.rate"),
    ("--resume sup --iterations 4 --schedule x", "schedule"),
    ("--resume sup --instance 1", "instance"),
    ("--resume sup --env CartPole-v1", "env"),
    ("--resume sup --analyze-every=-1", "analyze.every"),
    ("--resume sup --resume mnm", "resume"),
]

EVALUATE: list[tuple[str, str]] = [
    ("", "run"),
    ("nowhere", "nowhere"),
    ("''", "empty"),
    ("file", "file|run"),
    ("empty", "empty"),
    ("full", "full"),
    ("loop", "loop"),
    ("/dev/null", "/dev"),
    ("a2c sup", "sup"),
    ("a2c/nothing.zip", "nothing.zip"),
    ("a2c/config.json", "config.json"),
    ("a2c/progress.csv", "progress.csv"),
    ("sup/config.json", "config.json"),
    ("sup/nothing.pt", "nothing.pt"),
    *((f"a2c {words}", says) for words, says in options({"--episodes": WHOLE, "--threads": WHOLE})),
    *(
        (f"a2c {words}", says)
        for words, says in options({"--seed": ("-1", "1.5", "x", "99999999999999999999")})
    ),
    *((f"a2c {words}", says) for words, says in options({"--device": ("gpu", "''", "cuda:9", "meta")})),
    ("a2c --episodes 1", "episodes"),
    ("a2c --instance 1", "instance"),
    ("a2c --instance 7", "instance"),
    ("a2c --data empty", "data"),
    ("a2c --episodes 2 --video film.mp4", "gif"),
    ("a2c --episodes 2 --video film", "gif"),
    ("a2c --episodes 2 --video ''", "video|gif"),
    ("a2c --episodes 2 --video file/film.gif", "file"),
    ("a2c --episodes 2 --video /proc/film.gif", "/proc"),
    ("a2c --episodes 2 --video .gif", "gif"),
    ("a2c --episodes 2 --video dir.gif", "dir.gif"),
    ("a2c --episodes 2 --picture dir.png", "dir.png"),
    ("a2c --episodes 2 --picture p.svg", "png"),
    ("a2c --episodes 2 --picture ''", "png|picture"),
    ("a2c --episodes 2 --picture p.png --picture-steps 0", "picture.steps"),
    ("a2c --episodes 2 --picture p.png --picture-steps=-3", "picture.steps"),
    ("a2c --episodes 2 --picture p.png --picture-steps 100000000", "picture.steps"),
    ("a2c --episodes 2 --picture-steps 7", "picture.steps"),
    ("a2c --episodes 2 --picture p.gif --video p.gif", "p.gif"),
    ("{pole} --episodes 2 --picture p.png", "maze"),
    ("sup --episodes 2", "episodes"),
    ("sup --seed 3", "seed"),
    ("sup --video film.gif", "video|episodes"),
    ("sup --picture p.png", "picture|episodes"),
    ("sup --picture-steps 4", "picture.steps"),
    ("sup --data empty", "data"),
    ("sup --instance 1", "instance"),
    ("mnm --instance 9", "instance"),
    ("mnm --data empty", "data"),
    ("mnm --threads 0", "threads"),
    ("mnm --device gpu", "device"),
    ("{babi} --data nowhere", "nowhere"),
    ("{babi} --data file", "file"),
    ("{babi} --data empty", "empty"),
    ("{babi} --instance 1", "instance"),
    ("a2c --nonsense", "nonsense"),
    ("a2c --core lstm", "core"),
    ("a2c --preset soonest", "preset"),
    ("a2c --seed 1 --seed 2 --episodes 2", "seed"),
]

ANALYZE: list[tuple[str, str]] = [
    ("", "run"),
    ("nowhere", "nowhere"),
    ("file", "file|run"),
    ("empty", "empty"),
    ("loop", "loop"),
    ("mnm mnm", "mnm"),
    ("sup", "memory|lstm"),
    ("{pole}", "maze"),
    ("a2c --episodes 1", "episodes"),
    ("a2c --episodes 0", "episodes"),
    ("a2c --episodes=-1", "episodes"),
    ("a2c --episodes x", "episodes"),
    ("a2c --episodes 2 --seed=-1", "seed"),
    ("a2c --episodes 2 --seed 99999999999999999999", "seed"),
    ("a2c --story 1", "story"),
    ("a2c --text x", "text"),
    ("a2c --supports 1", "supports"),
    ("a2c --task-number 1", "task.number"),
    ("a2c --data x", "data"),
    ("a2c --episodes 2 --story-words 3", "story.words"),
    ("a2c --episodes 2 --end-words 3", "end.words"),
    ("a2c --episodes 2 --out file", "file"),
    ("a2c --episodes 2 --out /proc/x", "/proc"),
    ("a2c --episodes 2 --out ''", "out"),
    ("a2c --episodes 2 --out loop", "loop"),
    ("a2c --threads 0", "threads"),
    ("a2c --device cpu", "device"),
    ("mnm --out file", "file"),
    ("mnm --out /proc/x", "/proc"),
    ("mnm --story 0", "story"),
    ("mnm --story=-1", "story"),
    ("mnm --story 99999999999", "story"),
    ("mnm --story x", "story"),
    ("mnm --story-words 0", "story.words"),
    ("mnm --end-words 0", "end.words"),
    ("mnm --text 'a b'", "text"),
    ("mnm --supports 5", "supports"),
    ("mnm --task-number 1", "task.number"),
    ("mnm --data empty", "data"),
    ("mnm --episodes 5", "episodes"),
    ("mnm --seed 5", "seed"),
    ("{babi} --out o --task-number 2", "task"),
    ("{babi} --out o --task-number 0", "task"),
    ("{babi} --out o --text ''", "text"),
    ("{babi} --out o --text ' '", "text"),
    ("{babi} --out o --text xyzzy", "xyzzy"),
    ("{babi} --out o --text 'Mary went to the kitchen .'", "question|text"),
    ("{babi} --out o --text '?'", "text|question"),
    ("{babi} --out o --text x --story 1", "text|story"),
    ("{babi} --out o --text x --task-number 1", "text|task.number"),
    ("{babi} --out o --supports 0", "supports"),
    ("{babi} --out o --supports 1 --story 1", "supports|story"),
    ("{babi} --out o --data nowhere", "nowhere"),
    ("{babi} --out o --episodes 3", "episodes"),
    ("{babi} --supports 1 --story-words 4", "story.words"),
]

REPRODUCE: list[tuple[str, str]] = [
    ("", "figure2"),
    ("figure1", "figure1"),
    ("''", "empty"),
    ("Figure2", "Figure2"),
    ("figure2 table1", "table1"),
    ("figure2 --scale tiny", "tiny"),
    ("figure2 --scale ''", "scale"),
    ("figure2 --seeds 0", "seeds"),
    ("figure2 --seeds=-1", "seeds"),
    ("figure2 --seeds x", "seeds"),
    ("figure2 --seeds 1.5", "seeds"),
    ("figure2 --scale smoke --seeds 1000000000", "seeds"),
    ("figure2 --workers 0", "workers"),
    ("figure2 --workers=-1", "workers"),
    ("figure2 --workers x", "workers"),
    ("figure2 --workers 4 --ray-address local", "workers|ray"),
    ("figure2 --draw-only --workers 4", "workers|draw"),
    ("figure3 --ray-address auto", "ray"),
    ("figure3 --scale smoke --workers 2 --draw-only", "workers"),
    ("figure2 --scale smoke --out file", "file"),
    ("figure2 --scale smoke --out /proc/x", "/proc"),
    ("figure2 --scale smoke --out loop", "loop"),
    ("figure2 --scale smoke --draw-only --out nothing", "train|trial|nothing"),
    ("figure6 --scale smoke --draw-only --out nothing", "train|trial|nothing"),
    ("table1 --scale smoke --draw-only --out nothing", "train|trial|nothing"),
    ("table1 --cores ,", "cores"),
    ("table1 --cores", "cores"),
    ("rl --cores ' , '", "cores"),
    ("rl --environments ,", "environments"),
    ("rl --environments", "environments"),
    ("figure2 --environments ,", "environments"),
    ("figure2 --nonsense", "nonsense"),
    ("figure2 --core lstm", "core"),
    ("figure2 --seeds 1 --seeds 2", "seeds"),
    ("figure2 --scale smoke --ray-address nowhere", "ray|nowhere"),
    ("figure2 --scale smoke --ray-address ''", "ray"),
]

GENERATE: list[tuple[str, str]] = [
    ("", "out"),
    ("--out", "out"),
    ("--out ''", "out"),
    *((f"--out new {words}", says) for words, says in options({"--train": ("0", "-1", "1.5", "x", "''")})),
    *((f"--out new {words}", says) for words, says in options({"--valid": ("-1", "1.5", "x")})),
    *((f"--out new {words}", says) for words, says in options({"--test": ("0", "-1", "1.5", "x")})),
    *(
        (f"--out new --train 1 --test 1 --valid 0 {words}", says)
        for words, says in options({"--seed": ("-1", "x")})
    ),
    ("--out new --train 99999999999", "train"),
    ("--out new --valid 99999999999", "valid"),
    ("--out new --train 10 --test 1 --tasks 0", "task"),
    ("--out new --train 10 --test 1 --tasks 21", "21"),
    ("--out new --train 10 --test 1 --tasks ''", "task"),
    ("--out new --train 10 --test 1 --tasks x", "task"),
    ("--out new --train 10 --test 1 --tasks 3-1", "3-1"),
    ("--out new --train 10 --test 1 --tasks 1,1", "task"),
    ("--out new --train 10 --test 1 --tasks 1-999999999999", "task"),
    ("--out file", "file"),
    ("--out full", "full"),
    ("--out loop", "loop"),
    ("--out /proc/x", "/proc"),
    ("--out file/below", "file"),
    ("--out new --nonsense", "nonsense"),
    ("--out new other", "other"),
    ("--out new --train 1 --test 1 --train 2", "train"),
    ("--out new --out other --train 1 --test 1 --valid 0 --tasks 1", "out"),
]

PLOT: list[tuple[str, str]] = [
    ("", "runs"),
    ("nowhere", "nowhere"),
    ("''", "empty"),
    ("empty", "empty"),
    ("loop", "loop"),
    ("file", "file"),
    ("empty.csv", "empty.csv"),
    ("heading.csv", "heading.csv"),
    ("words.csv", "words.csv"),
    ("nan.csv", "nan.csv"),
    ("binary.csv", "binary.csv"),
    ("nul.csv", "nul.csv"),
    ("twice.csv", "twice.csv"),
    ("/dev/null", "/dev/null"),
    ("sup", "progress.csv"),
    ("sup --file nothing.csv", "nothing.csv"),
    ("sup --file train.csv", "episodes"),
    ("sup --file config.json", "config.json"),
    ("sup --file checkpoint.pt", "checkpoint.pt"),
    ("sup --file ''", "file"),
    ("good.csv --x nothing", "nothing"),
    ("good.csv --y nothing", "nothing"),
    ("good.csv --y ''", "--y"),
    ("good.csv --window=-1", "window"),
    ("good.csv --window nan", "window"),
    ("good.csv --window inf", "window"),
    ("good.csv --window x", "window"),
    ("good.csv --at x", "at"),
    ("good.csv --at nan", "at"),
    ("good.csv --mark nan", "mark"),
    ("good.csv --mark inf", "mark"),
    ("good.csv --mark-labels a", "mark"),
    ("good.csv --mark 1 --mark-labels a b", "mark"),
    ("good.csv --labels a b", "labels"),
    ("good.csv --max-x 0", "max.x"),
    ("good.csv --max-x=-1", "max.x"),
    ("good.csv --max-x nan", "max.x"),
    ("good.csv --max-x inf", "max.x"),
    ("good.csv --out file", "out|file"),
    ("good.csv --out nothing", "out|nothing"),
    ("good.csv --out p.xyz", "xyz"),
    ("good.csv --out empty", "empty"),
    ("good.csv --out dir.png", "dir.png"),
    ("good.csv --out ''", "out"),
    ("good.csv --out file/p.png", "file"),
    ("good.csv --out /proc/p.png", "/proc"),
    ("good.csv --out good.csv", "good.csv"),
    ("good.csv --title '$\\frac{{$'", "title"),
    ("good.csv --labels '$\\frac{{$'", "label"),
    ("good.csv --nonsense", "nonsense"),
    ("good.csv --window 1 --window 2", "window"),
]

HUGE: list[tuple[str, str, str]] = [
    ("train_a2c", "--core.hidden-size 100000000", "hidden_size|memory"),
    ("train_a2c", "--hidden-size 10000000000000000000000", "hidden.size|memory"),
    ("train_a2c", "--n-steps 1000000000", "n_steps|memory"),
    ("train_a2c", "--n-steps 9223372036854775807", "n_steps|memory"),
    ("train_a2c", "--n-steps 100000000000000000000000", "n_steps|memory"),
    ("train_a2c", "--n-envs 1000000000", "n_envs|memory"),
    ("train_a2c", "--n-envs 100000000000000000000000", "n_envs|memory"),
    ("train_a2c", "--env CartPole-v1 --n-envs 100000000", "n_envs|memory"),
    ("train_a2c", "--timesteps 100000000000000000000000000000000", "timesteps"),
    ("train_a2c", "--threads 100000", "threads"),
    ("train_a2c", "--threads 99999999999999", "threads"),
    ("train_a2c", "--seed 99999999999999999999", "seed"),
    ("train_a2c", "--seed 4294967296", "seed"),
    ("train_a2c", "--env MNMMaze-99999x99999", "MNMMaze|size|memory"),
    ("train_a2c", "--env MNMMaze-9999999999999999999999x9999999999999999999999", "MNMMaze|size|memory"),
    ("train_a2c", "--env-kwargs '{{\"horizon\": 1e400}}'", "horizon"),
    ("train_a2c", "--env-kwargs '{{\"horizon\": 100000000000000000000000}}' --n-steps 8", "horizon"),
    ("train_a2c", "--env-kwargs '{{\"goal_reward\": 1e300}}'", "goal_reward"),
    ("train_a2c", "--core mnm-p --core.memory-widths 100000 100000", "memory"),
    ("train_a2c", "--core mnm-p --heads 1000000000", "heads|memory"),
    ("train_a2c", "--core plastic --hidden-size 100000", "hidden_size|memory"),
    ("train_a2c", "--learning-rate 1e300", "learning_rate"),
    ("train_a2c", "--checkpoint-minutes 1e300", "checkpoint_minutes"),
    ("train_a2c", "--env CartPole-v1 --drop-observations 99999999999999999999", "drop_observations"),
    ("train_supervised", "--hidden-size 100000000", "hidden_size|memory"),
    ("train_supervised", "--batch-size 1000000000", "batch_size|memory"),
    ("train_supervised", "--batch-size 99999999999999999999999", "batch_size|memory"),
    ("train_supervised", "--embedding-size 1000000000000", "embedding_size|memory"),
    ("train_supervised", "--embedding-size 99999999999999999999999", "embedding_size|memory"),
    ("train_supervised", "--length 100000000000", "length|memory"),
    ("train_supervised", "--length 99999999999999999999999", "length|memory"),
    ("train_supervised", "--task priority-sort --vectors 100000000000", "vectors|memory"),
    ("train_supervised", "--task dictionary --support-size 1000000000000 --length 1", "support_size|memory"),
    ("train_supervised", "--core ntm --core.slots 99999999999999999999999", "slots"),
    ("train_supervised", "--core fast-weights --core.inner-steps 100000000000", "inner_steps"),
    ("train_supervised", "--core fwm --core.reads 10000000", "reads"),
    ("train_supervised", "--core delta-net --core.layers 1000000", "layers"),
    ("train_supervised", "--core mnm-p --core.snapshot-every 99999999999999999999999", "snapshot_every"),
    ("train_a2c", "--core delta-net --core.layers 1000000", "layers"),
    ("train_supervised", "--threads 100000", "threads"),
    ("train_supervised", "--seed 99999999999999999999999", "seed"),
    ("train_supervised", "--warmup 99999999999999999999999999999", "warmup"),
    ("evaluate", "a2c --episodes 100000000000", "episodes|memory"),
    ("evaluate", "a2c --episodes 2 --threads 100000", "threads"),
    ("evaluate", "a2c --episodes 99999999999999999999999", "episodes|memory"),
    ("analyze", "a2c --episodes 1000000000", "episodes|memory"),
    ("analyze", "a2c --episodes 99999999999999999999999", "episodes|memory"),
    ("plot_curves", "good.csv --window 1e308 --at 2", "window"),
    ("reproduce", "figure2 --scale smoke --draw-only --seeds 100000", "seeds|train"),
]

TINY = {
    "train_a2c": f"{TINY_A2C} {QUIET}",
    "train_ppo": f"{TINY_A2C} {QUIET}",
    "train_supervised": f"{TINY_SUPERVISED} {QUIET}",
}


def command_line(command: str, words: str) -> list[str]:
    """The words of a case, behind those that make a run tiny, as far as the case does not choose otherwise."""
    given = filled(words)
    if command not in TINY or any(word.partition("=")[0] == "--resume" for word in given):
        return [*given, *(["--quiet"] if command in TINY and "--resume" in given else [])]
    return [*_without(TINY[command].split(), given), *given]


def _without(base: list[str], given: list[str]) -> list[str]:
    """The tiny run's options but those that a case gives, and those that its task, core or length leaves over."""
    names = {word.partition("=")[0].replace("--core.hidden-size", "--hidden-size") for word in given}
    gone = set(names) if not names & {"--task"} else names | {"--length"}
    if "--episodes" in names:
        gone.add("--timesteps")
    left, words = [], iter(base)
    for word in words:
        value = [] if word in QUIET.split() else [next(words)]
        left += [] if word in gone else [word, *value]
    return left


LINES: list[tuple[str, str, str]] = [
    (command, words, says)
    for command, table in (
        ("train_a2c", A2C),
        ("train_a2c", BOTH),
        ("train_ppo", PPO),
        ("train_ppo", BOTH),
        ("train_a2c", RESUME_A2C),
        ("train_supervised", SUPERVISED),
        ("train_supervised", RESUME_SUPERVISED),
        ("evaluate", EVALUATE),
        ("analyze", ANALYZE),
        ("reproduce", REPRODUCE),
        ("generate_babi", GENERATE),
        ("plot_curves", PLOT),
    )
    for words, says in table
]


def line_id(line: tuple[str, str, str]) -> str:
    """The command and its words, on one line."""
    return f"{line[0]} {line[1][:70]}"


@pytest.mark.parametrize("line", LINES, ids=line_id)
def test_a_command_line_is_refused(line: tuple[str, str, str], place: Path) -> None:
    command, words, says = line
    for name in ("dir.gif", "dir.png"):
        (place / name).mkdir()
    refuse(command, command_line(command, words), place, says)


@pytest.mark.parametrize("line", HUGE, ids=line_id)
def test_a_huge_size_is_refused(line: tuple[str, str, str], place: Path) -> None:
    command, words, says = line
    refuse(command, command_line(command, words), place, says)


# ---------------------------------------------------------------------------------------------------------
# Damaged run folders

READERS = {
    "a2c": (
        ("evaluate", "a2c --episodes 2"),
        ("train_a2c", "--resume a2c --timesteps 64"),
        ("analyze", "a2c --episodes 2 --out o"),
    ),
    "mnm": (
        ("evaluate", "mnm"),
        ("train_supervised", "--resume mnm --iterations 4"),
        ("analyze", "mnm --out o"),
    ),
}
TEXTS = {
    "empty": "",
    "null": "null",
    "number": "5",
    "list": "[]",
    "object": "{}",
    "no config": '{"kind": "a2c"}',
    "no kind": '{"config": {}}',
    "kind is a number": '{"kind": 5, "config": {}}',
    "kind is a list": '{"kind": [], "config": {}}',
    "unknown kind": '{"kind": "x", "config": {}}',
    "measurement": '{"kind": "measurement", "config": {}}',
    "config is a list": '{"kind": "a2c", "config": []}',
    "config is null": '{"kind": "supervised", "config": null}',
    "NaN": "NaN",
    "half": '{"kind": "a2c", "config": {"env": ',
    "deep": "[" * 100_000,
    "a huge number": '{"kind": "a2c", "config": {"seed": ' + "9" * 5000 + "}}",
    "BOM": '\ufeff{"kind": "a2c", "config": {}}',
    "lone surrogate": '{"kind": "\\ud800", "config": {}}',
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("run", READERS)
def test_a_config_file_that_is_none_is_refused(run: str, text: str, place: Path) -> None:
    (place / run / "config.json").write_text(TEXTS[text])
    for command, words in READERS[run]:
        refuse(command, [*filled(words)], place, "config|kind|run")


@pytest.mark.parametrize("run", READERS)
def test_a_config_file_of_bytes_is_refused(run: str, place: Path) -> None:
    for content in (b"\xff\xfe\x00", b"\x00" * 100):
        (place / run / "config.json").write_bytes(content)
        for command, words in READERS[run]:
            refuse(command, filled(words), place, "config")


@pytest.mark.parametrize("run", READERS)
def test_a_config_file_that_is_a_folder_is_refused(run: str, place: Path) -> None:
    (place / run / "config.json").unlink()
    (place / run / "config.json").mkdir()
    for command, words in READERS[run]:
        refuse(command, filled(words), place, "config|run")


BY_KIND: dict[type, tuple[object, ...]] = {
    int: ("x", 1.5, float("nan"), [], True, 10**30, None),
    float: ("x", float("nan"), [], None),
    str: (5, [], None),
    bool: ("x", None),
    dict: ("x", [], None, {"nonsense": 1}),
}
RUN_CONFIGS: dict[str, type] = {"a2c": A2CConfig, "mnm": SupervisedConfig}


def wrong_values(config: type) -> Iterator[tuple[str, object]]:
    """Every field of a config with values that it cannot have."""
    for each in dataclasses.fields(config):
        hint = str(each.type)
        optional = "None" in hint
        kinds = [kind for kind in (bool, float, int) if re.search(rf"\b{kind.__name__}\b", hint)]
        kind = dict if "Mapping" in hint else kinds[0] if kinds else str
        for value in BY_KIND[kind]:
            is_allowed = (value is None and optional) or (value == [] and "tuple" in hint)
            if not is_allowed:
                yield each.name, value


WRONG = [(run, *wrong) for run, config in RUN_CONFIGS.items() for wrong in wrong_values(config)]


def write_config(folder: Path, **changes: object) -> None:
    """Change a run's config."""
    path = folder / "config.json"
    document = json.loads(path.read_text())
    document["config"] |= changes
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(("run", "name", "value"), WRONG)
def test_a_wrong_value_in_a_config_is_refused_by_the_library(
    run: str, name: str, value: Any, place: Path
) -> None:
    saved = json.loads((place / run / "config.json").read_text())["config"]
    read: Callable[[Any], Any] = a2c_from_dict if run == "a2c" else supervised_from_dict
    refuse_call(lambda: read({**saved, name: value}), place, f"{name}|core|task|nonsense")


@pytest.mark.parametrize(
    ("run", "name", "value"),
    [
        *(
            ("a2c", name, value)
            for name in ("env", "env_kwargs", "drop_observations", "core")
            for value in (5, None)
        ),
        *(("a2c", name, "x") for name in ("core_settings", "subprocesses", "seed", "reward_scale")),
        *(("mnm", name, value) for name in ("task", "core", "task_options") for value in (5, None)),
        *(("mnm", name, "x") for name in ("core_settings", "seed", "batch_size")),
    ],
)
def test_a_wrong_value_in_a_config_is_refused_by_evaluate(
    run: str, name: str, value: Any, place: Path
) -> None:
    write_config(place / run, **{name: value})
    refuse("evaluate", filled(READERS[run][0][1]), place, f"{name}|core|task")


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        ("a2c", {"nonsense": 1}),
        ("a2c", {"core_settings": {"hidden_size": "x"}}),
        ("a2c", {"core_settings": {"hidden_size": 1.5}}),
        ("a2c", {"core_settings": {"hidden_size": None}}),
        ("a2c", {"core_settings": {"hidden_size": 10**9}}),
        ("a2c", {"core_settings": {"hidden_size": 5}}),
        ("a2c", {"core": "gru"}),
        ("a2c", {"core": "mnm-p", "core_settings": {}}),
        ("a2c", {"env": "CartPole-v1"}),
        ("a2c", {"env": "MNMMaze-5x5", "previous_action": False}),
        ("a2c", {"env": "os:x"}),
        ("a2c", {"core": "os:x"}),
        ("a2c", {"core": "mnm_rl.cores:MemoryCore"}),
        ("a2c", {"core": "mnm_rl.nowhere:X"}),
        ("a2c", {"core": "mnm_rl.__main__:X"}),
        (
            "a2c",
            {"env": "mnm_rl.__main__:X-v0", "previous_action": None, "episodes": None, "watch_every": None},
        ),
        ("mnm", {"nonsense": 1}),
        ("mnm", {"task_options": {"instance": 7}}),
        ("mnm", {"task_options": {"instance": "x"}}),
        ("mnm", {"task_options": {"instance": [1]}}),
        ("mnm", {"task_options": {"support_size": "x", "length": 1}}),
        ("mnm", {"task_options": {"support_size": 1.5, "length": 1}}),
        ("mnm", {"task_options": {"smaller_instances": "x"}}),
        ("mnm", {"task": "double-copy"}),
        ("mnm", {"task": "double-copy", "task_options": {}}),
        ("mnm", {"task": "os:x"}),
        ("mnm", {"task": "mnm_rl.__main__:X"}),
        ("mnm", {"core": "lstm", "core_settings": {}}),
        ("mnm", {"embedding_size": 5}),
        ("mnm", {"embedding_size": 10**12}),
        ("mnm", {"core_settings": {"memory_widths": 5}}),
        ("mnm", {"core_settings": {"memory_widths": "x"}}),
        ("mnm", {"core_settings": {"memory_widths": [1.5]}}),
        ("mnm", {"core_settings": {"recall_weights": ["x"]}}),
        ("mnm", {"core_settings": {"recall_weights": None}}),
        ("mnm", {"core_settings": {"heads": True}}),
        ("mnm", {"core_settings": {"kernel": ["x"]}}),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_refused(run: str, changes: dict[str, Any], place: Path) -> None:
    write_config(place / run, **changes)
    faults = []
    for command, words in READERS[run]:
        before = files(place)
        outcome = run_command(command, filled(words), place)
        says = "|".join(
            [*changes, *map(str, changes.get("core_settings", {})), *changes.get("task_options", {})]
        )
        fault = fault_of_command(outcome, says + "|checkpoint|module|observation|maze", before, files(place))
        faults += [f"{command}: {fault}"] if fault else []
    assert not faults, "\n".join(faults)


def truncate(path: Path) -> None:
    """Half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path, part: float) -> None:
    """Flip a bit in the data of one of an archive's files, so far into the list of them."""
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.file_size]
        member = members[int(part * len(members))]
        content = archive.read(member)
    whole = bytearray(path.read_bytes())
    place = whole.index(content, member.header_offset) + len(content) // 2
    whole[place] ^= 16
    path.write_bytes(whole)


def save(path: Path, value: object) -> None:
    """Something else in torch's format."""
    path.unlink()
    torch.save(value, path)


def change_state(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A checkpoint with something changed."""
    state = torch.load(path, weights_only=False)
    change(state)
    torch.save(state, path)


def _fill(state: dict[str, Any], value: float) -> None:
    for tensor in state["model"].values():
        tensor.fill_(value)


class Evil:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("pwned",))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "half": truncate,
    "text": lambda path: path.write_text("x"),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a loop": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "an empty archive": lambda path: zipfile.ZipFile(path, "w").close(),
    "a number": lambda path: save(path, 5),
    "a list": lambda path: save(path, [1]),
    "an empty dictionary": lambda path: save(path, {}),
    "a tensor": lambda path: save(path, torch.zeros(3)),
    "code": lambda path: save(path, {"model": Evil()}),
    "code, a pickle": lambda path: path.write_bytes(pickle.dumps(Evil())),
    **{f"a bit at {part}": functools.partial(flip, part=part) for part in (0.05, 0.2, 0.5, 0.8, 0.99)},
}
STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no model": lambda state: state.pop("model"),
    "no config": lambda state: state.pop("config"),
    "config is a list": lambda state: state.update(config=[]),
    "config is empty": lambda state: state.update(config={}),
    "model is empty": lambda state: state.update(model={}),
    "model is a list": lambda state: state.update(model=[]),
    "model of numbers": lambda state: state.update(model=dict.fromkeys(state["model"], 1)),
    "a tensor lacks": lambda state: state["model"].popitem(),
    "a tensor more": lambda state: state["model"].update(more=torch.zeros(1)),
    "other shapes": lambda state: state.update(model={k: torch.zeros(7, 7) for k in state["model"]}),
    "integers": lambda state: state.update(model={k: v.long() for k, v in state["model"].items()}),
    "complex": lambda state: state.update(model={k: v.cfloat() for k, v in state["model"].items()}),
    "on meta": lambda state: state.update(model={k: v.to("meta") for k, v in state["model"].items()}),
    "NaN": lambda state: _fill(state, float("nan")),
    "infinite": lambda state: _fill(state, float("inf")),
    "task is a number": lambda state: state.update(task=5),
}
PROGRESS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no optimizer": lambda state: state.pop("optimizer"),
    "optimizer is empty": lambda state: state.update(optimizer={}),
    "optimizer is a number": lambda state: state.update(optimizer=5),
    "optimizer of other shapes": lambda state: [
        entry.update(exp_avg=torch.zeros(7, 7)) for entry in state["optimizer"]["state"].values()
    ],
    "optimizer of another size": lambda state: state["optimizer"]["param_groups"][0].update(params=[0]),
    "no guard": lambda state: state.pop("guard"),
    "guard is empty": lambda state: state.update(guard={}),
    "guard is a number": lambda state: state.update(guard=5),
    "no progress": lambda state: state.pop("progress"),
    "progress is empty": lambda state: state.update(progress={}),
    "unknown progress": lambda state: state["progress"].update(nonsense=1),
    "iteration is text": lambda state: state["progress"].update(iteration="x"),
    "iteration is negative": lambda state: state["progress"].update(iteration=-5),
    "iteration is NaN": lambda state: state["progress"].update(iteration=float("nan")),
    "iteration is beyond": lambda state: state["progress"].update(iteration=10**9),
    "errors is a list": lambda state: state["progress"].update(errors=[1]),
    "no window": lambda state: state.pop("window"),
    "window is empty": lambda state: state.update(window={}),
    "losses are text": lambda state: state["window"].update(losses="x"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_best_parameters_are_refused(damage: str, place: Path) -> None:
    if damage == "missing":
        (place / "mnm" / "checkpoint.pt").unlink()
    DAMAGES[damage](place / "mnm" / "best.pt")
    refuse("evaluate", ["mnm"], place, "best|checkpoint")
    refuse("analyze", ["mnm", "--out", "empty"], place, "best|checkpoint")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_a_damaged_supervised_checkpoint_is_refused(damage: str, trusted: bool, place: Path) -> None:
    DAMAGES[damage](place / "mnm" / "checkpoint.pt")
    words = ["--resume", "mnm", "--iterations", "4", "--quiet", *(["--trusted"] if trusted else [])]
    refuse("train_supervised", words, place, "checkpoint")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_a_damaged_agent_is_refused(damage: str, trusted: bool, place: Path) -> None:
    if trusted and damage.startswith("code"):
        pytest.skip("a trusted file may run code")
    DAMAGES[damage](place / "a2c" / "checkpoint.zip")
    more = ["--trusted"] if trusted else []
    refuse("evaluate", ["a2c", "--episodes", "2", *more], place, "checkpoint")
    refuse("train_a2c", ["--resume", "a2c", "--timesteps", "64", "--quiet", *more], place, "checkpoint")


@pytest.mark.parametrize("change", STATES)
def test_odd_best_parameters_are_refused(change: str, place: Path) -> None:
    change_state(place / "mnm" / "best.pt", STATES[change])
    refuse("evaluate", ["mnm"], place, "best|checkpoint")


@pytest.mark.parametrize("change", {**STATES, **PROGRESS})
def test_an_odd_supervised_checkpoint_is_refused(change: str, place: Path) -> None:
    change_state(place / "mnm" / "checkpoint.pt", {**STATES, **PROGRESS}[change])
    words = ["--resume", "mnm", "--iterations", "4", "--quiet", "--no-tensorboard"]
    refuse("train_supervised", words, place, "checkpoint")


def rewrite_archive(path: Path, change: Callable[[dict[str, bytes]], object]) -> None:
    """An agent's file with other entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def _data(**changes: object) -> Callable[[dict[str, bytes]], object]:
    return lambda entries: entries.update(
        data=json.dumps({**json.loads(entries["data"]), **changes}).encode()
    )


def _tensors(change: Callable[[dict[str, Any]], object], entry: str = "policy.pth") -> Any:
    def apply(entries: dict[str, bytes]) -> None:
        state = torch.load(io.BytesIO(entries[entry]), weights_only=False)
        state = change(state) or state
        whole = io.BytesIO()
        torch.save(state, whole)
        entries[entry] = whole.getvalue()

    return apply


ARCHIVES: dict[str, Callable[[dict[str, bytes]], object]] = {
    "no data": lambda entries: entries.pop("data"),
    "data is empty": lambda entries: entries.update(data=b""),
    "data is null": lambda entries: entries.update(data=b"null"),
    "data is a list": lambda entries: entries.update(data=b"[]"),
    "data is no text": lambda entries: entries.update(data=b"\xff\xff"),
    "data is deep": lambda entries: entries.update(data=b"[" * 100_000),
    "no policy": lambda entries: entries.pop("policy.pth"),
    "policy is empty": lambda entries: entries.update({"policy.pth": b""}),
    "policy is code": lambda entries: entries.update({"policy.pth": pickle.dumps(Evil())}),
    "no optimizer": lambda entries: entries.pop("policy.optimizer.pth"),
    "optimizer is a number": _tensors(lambda state: [5], "policy.optimizer.pth"),
    "optimizer is empty": _tensors(lambda state: {"state": {}, "param_groups": []}, "policy.optimizer.pth"),
    "policy is a list": _tensors(lambda state: [5]),
    "policy of other shapes": _tensors(lambda state: {key: torch.zeros(7, 7) for key in state}),
    "policy lacks a tensor": _tensors(lambda state: dict(list(state.items())[1:])),
    "policy of NaN": _tensors(lambda state: {key: value * float("nan") for key, value in state.items()}),
    "n_steps is text": _data(n_steps="x"),
    "n_steps is 0": _data(n_steps=0),
    "n_steps is huge": _data(n_steps=10**12),
    "n_envs is text": _data(n_envs="x"),
    "n_envs is 7": _data(n_envs=7),
    "gamma is NaN": _data(gamma=float("nan")),
    "gamma is text": _data(gamma="x"),
    "gamma is null": _data(gamma=None),
    "max_grad_norm is text": _data(max_grad_norm="x"),
    "num_timesteps is text": _data(num_timesteps="x"),
    "num_timesteps is negative": _data(num_timesteps=-(10**9)),
    "_n_updates is text": _data(_n_updates="x"),
    "_n_updates is null": _data(_n_updates=None),
    "seed is text": _data(seed="x"),
    "entropy_kind is odd": _data(entropy_kind="x"),
    "verbose is text": _data(verbose="x"),
    "policy_kwargs is text": _data(policy_kwargs="x"),
    "policy_kwargs is a list": _data(policy_kwargs=[]),
    "policy_kwargs of another core": _data(policy_kwargs={"core": "gru"}),
    "policy_kwargs of a huge core": _data(
        policy_kwargs={"core": "lstm", "core_kwargs": {"hidden_size": 10**9}}
    ),
    "policy_kwargs of text": _data(policy_kwargs={"core": "lstm", "core_kwargs": {"hidden_size": "x"}}),
    "policy_kwargs without kwargs": _data(policy_kwargs={"core": "lstm", "core_kwargs": None}),
    "core is a number": _data(policy_kwargs={"core": 5}),
    "no space": _data(observation_space=None),
    "action space is text": _data(action_space="x"),
    "callback_state is text": _data(callback_state="x"),
    "callback_state is null": _data(callback_state=None),
    "_run_state is text": _data(_run_state="x"),
    "_run_state is empty": _data(_run_state={}),
    "_last_obs is text": _data(_last_obs="x"),
    "ep_info_buffer is text": _data(ep_info_buffer="x"),
    "an attribute more": _data(nonsense=1),
    "a method is replaced": _data(train=5),
    "the learning rate is text": _data(learning_rate="x", lr_schedule="x"),
}


@pytest.mark.parametrize("change", ARCHIVES)
def test_an_odd_agent_is_refused_or_works(change: str, place: Path) -> None:
    """What does not matter to a command may be odd; then the command ends well."""
    rewrite_archive(place / "a2c" / "checkpoint.zip", ARCHIVES[change])
    faults = []
    for command, words in READERS["a2c"][:2]:
        before = files(place)
        outcome = run_command(
            command, [*filled(words), *(["--quiet"] if command == "train_a2c" else [])], place
        )
        fault = fault_of_command(outcome, "checkpoint", before, files(place))
        if outcome.status != 0 and fault is not None:
            faults.append(f"{command}: {fault}")
        assert not (place / "pwned").exists(), "code of the file was run"
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\xff\xfe", b"\x00" * 9, b"updates,episodes\nx,y\n", b"a,b\n1,2\n", b"updates\nnan\n"],
)
@pytest.mark.parametrize("run", READERS)
def test_a_garbled_curve_is_refused_or_mended(run: str, content: bytes, place: Path) -> None:
    """A run that goes on may mend its curve, but not fall over it."""
    for path in (place / run).glob("*.csv"):
        path.write_bytes(content)
    command, words = READERS[run][1]
    before = files(place)
    outcome = run_command(command, [*filled(words), "--quiet", "--no-tensorboard"], place)
    if outcome.status != 0:
        fault = fault_of_command(outcome, r"\.csv|curve", before, files(place))
        assert fault is None, fault


def test_a_held_folder_is_refused(place: Path) -> None:
    import fcntl

    with (place / "a2c" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write("123")
        file.flush()
        refuse("train_a2c", ["--resume", "a2c", "--timesteps", "64"], place, "123")


@pytest.mark.parametrize("lock", ["a folder", "a loop"])
@pytest.mark.parametrize("run", READERS)
def test_an_odd_lock_is_refused(run: str, lock: str, place: Path) -> None:
    path = place / run / ".lock"
    path.touch()
    DAMAGES[lock](path)
    command, words = READERS[run][1]
    refuse(command, [*filled(words), "--quiet"], place, "lock")


# ---------------------------------------------------------------------------------------------------------
# The library

NAN, INF = float("nan"), float("inf")


class NoCore:
    """Not a core."""


class NoConfigCore(MemoryCore):
    """A core that does not say what its settings are."""

    def initial_state(self, batch_size: int) -> Any:
        """Nothing."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Nothing."""


SMALL_MNM = dict(hidden_size=4, key_size=2, value_size=2, memory_widths=(2,))


def small(name: str = "mnm-p") -> MemoryCore:
    """A small core of four inputs."""
    return make_core(name, 4, **(SMALL_MNM if name.startswith("mnm") else {"hidden_size": 4}))


def agent(env: Any = None, policy: Any = "MlpPolicy", **settings: Any) -> RecurrentA2C:
    """A small agent in the maze."""
    env = MazeVecEnv(2, size=3) if env is None else env
    kwargs = {"core": "lstm", "core_kwargs": {"hidden_size": 4}}
    return RecurrentA2C(policy, env, **{"policy_kwargs": kwargs, "n_steps": 4, "device": "cpu", **settings})


def core_calls() -> Iterator[tuple[str, Callable[[], object], str]]:
    """Cores, how they are made and called."""
    for value in (0, -1, 1.5, NAN, "x", None, [], True, 10**30):
        yield (
            f"make_core input_size {value!r}",
            lambda v=value: make_core("lstm", v, hidden_size=4),
            "input_size",
        )
        if value != 0:  # torch's LSTM needs an input, MNM does not
            yield (
                f"make_core mnm-p input_size {value!r}",
                lambda v=value: make_core("mnm-p", v, **SMALL_MNM),  # pyright: ignore
                "input_size",
            )
    for core in ("", "x", None, 5, [], {}, NoCore, NoConfigCore, MemoryCore, "os:path", ":", "a:", "lstm "):
        yield f"make_core {core!r}", lambda c=core: make_core(c, 4), "core"  # pyright: ignore
        yield f"check_core {core!r}", lambda c=core: check_core(c), "core"  # pyright: ignore
    for name in core_names():
        for value in (0, -1, 1.5, NAN, INF, "x", None, [], True, 10**30):
            yield (
                f"{name} hidden_size {value!r}",
                lambda n=name, v=value: make_core(n, 4, hidden_size=v),
                "hidden_size",
            )
    for setting, values in {
        "output_size": (0, -1, 1.5, "x", [], True),
        "key_size": (0, -1, 1.5, NAN, "x", None, []),
        "heads": (0, -1, 1.5, "x", None, True),
        "memory_widths": (0, "x", (0,), (-1,), (1.5,), ("x",), None, (None,), 5),
        "recall_weights": ((), (NAN,), (INF,), (-1.0,), ("x",), None, 5, "x"),
        "rate_per_layer": ("x", 5, None),
        "normalization": ("x", None, 5, []),
        "output_activation": ("x", None, []),
        "write_rule": ("x", None, []),
        "kernel": ("x", None, [], 5),
        "snapshot_every": (0, -1, 1.5, "x", True, []),
        "nonsense": (1,),
    }.items():
        for value in values:
            yield (
                f"mnm-p {setting}={value!r}",
                lambda s=setting, v=value: make_core("mnm-p", 4, **{**SMALL_MNM, s: v}),
                setting,
            )
    for name in ("lstm", "gru", "mnm-p", "mnm-g", "lstm-salu", "plastic"):
        for what, call, says in (
            ("no tensor", lambda c: c([[1.0] * 4]), "inputs|tensor"),
            ("None", lambda c: c(None), "inputs|tensor"),
            ("two dimensions", lambda c: c(torch.zeros(2, 4)), "inputs"),
            ("another size", lambda c: c(torch.zeros(2, 3, 5)), "inputs"),
            ("no steps", lambda c: c(torch.zeros(0, 3, 4)), "inputs"),
            ("no examples", lambda c: c(torch.zeros(2, 0, 4)), "inputs"),
            ("integers", lambda c: c(torch.zeros(2, 3, 4, dtype=torch.long)), "inputs"),
            ("double", lambda c: c(torch.zeros(2, 3, 4).double()), "inputs"),
            ("on meta", lambda c: c(torch.zeros(2, 3, 4, device="meta")), "inputs"),
            ("sparse", lambda c: c(torch.zeros(2, 3, 4).to_sparse()), "inputs"),
            ("numpy", lambda c: c(np.zeros((2, 3, 4), np.float32)), "inputs|tensor"),
            ("state None tuple", lambda c: c(torch.zeros(2, 3, 4), (None,)), "state"),
            ("state of text", lambda c: c(torch.zeros(2, 3, 4), "x"), "state"),
            ("state of another batch", lambda c: c(torch.zeros(2, 3, 4), c.initial_state(2)), "state"),
            ("state as a tuple", lambda c: c(torch.zeros(2, 3, 4), tuple(c.initial_state(3))), "state"),
            ("state in double", lambda c: c(torch.zeros(2, 3, 4), _double(c.initial_state(3))), "state"),
            ("state of None", lambda c: c(torch.zeros(2, 3, 4), _nothing(c.initial_state(3))), "state"),
            ("resets in float", lambda c: c(torch.zeros(2, 3, 4), None, torch.zeros(2, 3)), "resets"),
            (
                "resets of another shape",
                lambda c: c(torch.zeros(2, 3, 4), None, torch.zeros(3).bool()),
                "resets",
            ),
            ("resets as a list", lambda c: c(torch.zeros(2, 3, 4), None, [True]), "resets"),
            ("step of a sequence", lambda c: c.step(torch.zeros(2, 3, 4)), "inputs"),
            ("step without a batch", lambda c: c.step(torch.zeros(4)), "inputs"),
            (
                "step with resets of a sequence",
                lambda c: c.step(torch.zeros(3, 4), None, torch.zeros(2, 3).bool()),
                "resets",
            ),
            ("initial state of -1", lambda c: c.initial_state(-1), "batch"),
            ("initial state of text", lambda c: c.initial_state("x"), "batch"),
            ("initial state of 1.5", lambda c: c.initial_state(1.5), "batch"),
        ):
            yield f"{name}: {what}", lambda n=name, call=call: call(small(n)), says
    for name in ("", " x", "a:b", 5, None, [], "lstm"):
        yield f"register_core {name!r}", lambda n=name: register_core(n, type(small("gru"))), "name"  # pyright: ignore
    for core in (None, 5, "lstm", NoCore, MemoryCore, NoConfigCore, small):
        yield f"register_core my {core!r}", lambda c=core: register_core("my", c), "core"  # pyright: ignore
    yield "register_core nonsense", lambda: register_core("my", type(small()), nonsense=1), "nonsense"
    yield "register_core bad", lambda: register_core("my", type(small()), hidden_size=0), "hidden_size"
    yield "register_core text", lambda: register_core("my", type(small()), hidden_size="x"), "hidden_size"
    for task in (None, 5, "x", NoCore):
        yield f"register_task {task!r}", lambda t=task: register_task("my", t), "task"  # pyright: ignore
    for name in (None, 5, "", "a:b", []):
        from mnm_rl.tasks.double_copy import DoubleCopyOptions

        yield f"register_task {name!r}", lambda n=name: register_task(n, DoubleCopyOptions), "name|task"  # pyright: ignore
    yield "check_core only", lambda: check_core("lstm", only=["x"], hidden_size=4), "promise"
    yield "check_core only text", lambda: check_core("lstm", only="saving", hidden_size=4), "promise|only"
    yield "check_core only 5", lambda: check_core("lstm", only=5, hidden_size=4), "only"  # pyright: ignore
    yield "check_core only nothing", lambda: check_core("lstm", only=[], hidden_size=4), "only|promise"
    yield "check_core setting", lambda: check_core("lstm", nonsense=4), "nonsense"
    yield "check_core function and size", lambda: check_core(small, input_size=9), "input_size|function"
    yield "check_core function of text", lambda: check_core(lambda: "x"), "core"  # pyright: ignore
    yield "check_core a core", lambda: check_core(small()), "core"  # pyright: ignore


def _double(state: Any) -> Any:
    return type(state)(*(field.double() for field in state))


def _nothing(state: Any) -> Any:
    return type(state)(*(None for _ in state))


def agent_calls() -> Iterator[tuple[str, Callable[[], object], str]]:
    """Agents, how they are made and loaded."""
    for setting, values in {
        "n_steps": (0, -1, 1.5, NAN, "x", None, True, 10**12),
        "gamma": (-0.1, 1.1, NAN, INF, "x", None, True),
        "gae_lambda": (-0.1, 1.1, NAN, "x", None),
        "ent_coef": (-1, NAN, INF, "x", None, "auto"),
        "vf_coef": (-1, NAN, "x", None),
        "meta_coef": (-1, NAN, "x", None),
        "max_grad_norm": (0, -1, NAN, "x", None),
        "learning_rate": (-1, NAN, INF, "x", None, lambda: 1),
        "entropy_kind": ("x", None, 5),
        "normalize_advantage": ("x", None, 1),
        "bootstrap_time_limit": ("x", None, 1),
        "stats_window_size": (0, -1, 1.5, "x", None),
        "verbose": ("x", None, -5),
        "seed": (-1, 1.5, "x", 2**70, NAN),
        # Without a GPU, "cuda:99" is the CPU, as in all of Stable-Baselines3.
        "device": ("gpu", "", 5, *(["cuda:99"] if torch.cuda.is_available() else []), None),
        "tensorboard_log": (5, []),
        "rollout_buffer_class": (5, dict, "x"),
        "rollout_buffer_kwargs": (5, "x", {"nonsense": 1}),
        "policy_kwargs": (
            5,
            "x",
            [],
            {"nonsense": 1},
            {"core": "x"},
            {"core": None},
            {"core_kwargs": 5},
            {"core": "lstm", "core_kwargs": {"x": 1}},
            {"core": "lstm", "core_kwargs": {"hidden_size": 0}},
            {"core": "lstm", "core_kwargs": {"hidden_size": "x"}},
            {"net_arch": 5},
            {"net_arch": [0]},
            {"activation_fn": "x"},
            {"optimizer_class": 5},
            {"optimizer_kwargs": {"x": 1}},
            {"optimizer_kwargs": {"eps": -1}},
            {"features_extractor_class": 5},
            {"ortho_init": "x"},
            {"log_std_init": "x"},
            {"use_sde": True},
            {"normalize_images": "x"},
        ),
        "nonsense": (1,),
        "use_sde": (True, 1, "x", None),
        "sde_sample_freq": (0, -2, 1.5, "x", None),
        "n_epochs": (4,),
        "batch_size": (64,),
    }.items():
        for value in values:
            says = (
                setting
                if setting != "policy_kwargs"
                else "core|nonsense|hidden_size|"
                + "|".join(value if isinstance(value, dict) else ["policy_kwargs"])
            )
            yield f"RecurrentA2C {setting}={value!r}", lambda s=setting, v=value: agent(**{s: v}), says
    for env in (5, "", "Nothing-v0", [], object(), "CartPole-v99", NoCore, NoCore()):
        yield f"RecurrentA2C env {env!r}", lambda e=env: agent(e), "env"
    for policy in (None, 5, "", "x", NoCore, "MultiInputPolicy", "CnnPolicy", [], "CnnLstmPolicy"):
        yield f"RecurrentA2C policy {policy!r}", lambda p=policy: agent(None, p), "policy"
    for steps in (-1, 1.5, NAN, "x", None):  # no steps at all are what is left of a run that is done
        yield f"learn {steps!r}", lambda s=steps: agent().learn(s), "total_timesteps"  # pyright: ignore
    yield "learn log_interval 0", lambda: agent().learn(8, log_interval=0), "log_interval"
    yield "learn callback 5", lambda: agent().learn(8, 5), "callback"  # pyright: ignore
    yield "learn without env", lambda: RecurrentA2C("MlpPolicy", None).learn(8), "env"
    for observation in (None, "x", np.zeros(3), np.full(11, NAN), np.zeros((2, 3)), [], {"a": 1}):
        yield f"predict {observation!r}", lambda o=observation: agent().predict(o), "observation|obs"
    yield "predict state", lambda: agent().predict(np.zeros((2, 11), np.float32), state=5), "state"  # pyright: ignore
    yield "predict state tuple", lambda: agent().predict(np.zeros((2, 11), np.float32), state=(1, 2)), "state"  # pyright: ignore
    yield (
        "predict starts",
        lambda: agent().predict(np.zeros((2, 11), np.float32), episode_start=np.zeros(5)),
        "episode_start",
    )
    for path in ("nowhere", "", "empty", "file", None, 5, "loop"):
        for trusted in (True, False):
            yield (
                f"load {path!r} trusted={trusted}",
                lambda p=path, t=trusted: RecurrentA2C.load(p, trusted=t),
                "checkpoint|path|agent",
            )
    yield "load core", lambda: RecurrentA2C.load("a2c/checkpoint.zip", core="gru"), "core"
    yield "load core x", lambda: RecurrentA2C.load("a2c/checkpoint.zip", core="x"), "core"
    yield "load core 5", lambda: RecurrentA2C.load("a2c/checkpoint.zip", core=5), "core"  # pyright: ignore
    yield "load gamma", lambda: RecurrentA2C.load("a2c/checkpoint.zip", gamma=5), "gamma"
    yield "load n_steps", lambda: RecurrentA2C.load("a2c/checkpoint.zip", n_steps=0), "n_steps"
    yield "load nonsense", lambda: RecurrentA2C.load("a2c/checkpoint.zip", nonsense=5), "nonsense"
    yield "load device", lambda: RecurrentA2C.load("a2c/checkpoint.zip", device="x"), "device"
    yield (
        "load env of another size",
        lambda: RecurrentA2C.load("a2c/checkpoint.zip", MazeVecEnv(2, size=3)),
        "space",
    )
    yield (
        "load env of another number",
        lambda: RecurrentA2C.load(
            "a2c/checkpoint.zip", MazeVecEnv(3, size=3, previous_action=True), force_reset=False
        ),
        "env|mazes",
    )
    yield (
        "load custom_objects",
        lambda: RecurrentA2C.load("a2c/checkpoint.zip", custom_objects=5),
        "custom_objects",
    )  # pyright: ignore
    yield "save 5", lambda: agent().save(5), "path|save"
    yield "save below a file", lambda: agent().save("file/x.zip"), "file"
    yield "set_env", lambda: agent().set_env(MazeVecEnv(2, size=3, previous_action=True)), "space"  # pyright: ignore


def maze_calls() -> Iterator[tuple[str, Callable[[], object], str]]:
    """Mazes."""
    arguments: dict[str, tuple[Any, ...]] = {
        "size": (0, -1, 4, 1, 9.0, NAN, "9", None, True, [], 10**6 + 1, 10**30 + 1),
        "horizon": (0, -1, 1.5, NAN, INF, "x", None, True, 10**30),
        "goal_reward": (NAN, INF, "x", None, True, [], 10**400),
        "wall_reward": (NAN, INF, "x", None, True, 1e300),
        "previous_action": (1, "x", None, []),
        "relocation": (2018, "2017", None, [], ""),
        "render_mode": ("x", 5, "", []),
        "nonsense": (1,),
    }
    makers: dict[str, Callable[..., object]] = {
        "MazeEnv": MazeEnv,
        "MazeVecEnv": functools.partial(MazeVecEnv, 2),
        "MazeVectorEnv": functools.partial(MazeVectorEnv, 2),
        "gymnasium.make": functools.partial(gymnasium.make, "MNMMaze-9x9"),
    }
    for (name, make), (argument, values) in itertools.product(makers.items(), arguments.items()):
        for value in values:
            if name == "gymnasium.make" and argument == "render_mode" and not isinstance(value, str):
                continue  # Gymnasium looks at it first, with an AttributeError
            yield f"{name} {argument}={value!r}", lambda m=make, a=argument, v=value: m(**{a: v}), argument
    for value in (0, -1, 1.5, NAN, "x", None, True, [], 10**12, 10**30):
        yield f"MazeVecEnv {value!r}", lambda v=value: MazeVecEnv(v), "number of mazes|num_envs|memory"
        yield f"MazeVectorEnv {value!r}", lambda v=value: MazeVectorEnv(v), "number of mazes|num_envs|memory"
    for value in (0, -1, 1.5, "x", True):
        yield (
            f"max_episode_steps {value!r}",
            lambda v=value: MazeVectorEnv(2, max_episode_steps=v),
            "max_episode_steps",
        )
    for value in ("x", None, 5):
        yield (
            f"autoreset_mode {value!r}",
            lambda v=value: MazeVectorEnv(2, autoreset_mode=v),
            "autoreset_mode",
        )
    for value in (
        4,
        -1,
        1.5,
        NAN,
        "x",
        None,
        [0],
        [0, 1, 2],
        [[0, 1]],
        [0.5, 1],
        [True, False],
        [0, 9],
        10**30,
    ):
        yield f"MazeVecEnv step {value!r}", lambda v=value: _reset(MazeVecEnv(2, size=3)).step(v), "action"
        yield (
            f"MazeVectorEnv step {value!r}",
            lambda v=value: _reset(MazeVectorEnv(2, size=3)).step(v),
            "action",
        )
        if value != [0]:
            yield f"MazeEnv step {value!r}", lambda v=value: _reset(MazeEnv(size=3)).step(v), "action"
    for seed in (-1, 1.5, "x", NAN, [1]):
        yield f"MazeEnv seed {seed!r}", lambda s=seed: MazeEnv(size=3).reset(seed=s), "seed"
        yield f"MazeVecEnv seed {seed!r}", lambda s=seed: _seeded(MazeVecEnv(2, size=3), s), "seed"
        yield f"MazeVectorEnv seed {seed!r}", lambda s=seed: MazeVectorEnv(2, size=3).reset(seed=s), "seed"
    for mask in (True, [True], np.zeros(2, bool), np.ones(2), "x", np.ones(3, bool)):
        yield (
            f"reset_mask {mask!r}",
            lambda m=mask: MazeVectorEnv(2, size=3).reset(options={"reset_mask": m}),
            "reset_mask",
        )
    for options_ in (5, "x", [1]):
        yield f"options {options_!r}", lambda o=options_: MazeVectorEnv(2, size=3).reset(options=o), "options"
    for state in ({}, None, 5, {"cell": 1}, "x"):
        yield f"set_state {state!r}", lambda s=state: MazeVecEnv(2, size=3).set_state(s), "state"
    for name, value in (
        *(
            ("cell", [99, 0]),
            ("cell", [-1, 0]),
            ("goal", ["x", 0]),
            ("goal", [NAN, 0.0]),
            ("cell", [0.5, 0.5]),
        ),
        *(("time", [-1, 0]), ("last_action", [7, 0]), ("last_action", [-5, 0]), ("last_reward", [NAN, 0])),
        *(
            ("goal_visits", [-4, 0]),
            ("pending_seed", ["x", 0]),
            ("pending_seed", [-5, 0]),
            ("stream", [0.5, 0.5]),
        ),
        *(("started", [5, 6]), ("episode_return", [INF, 0])),
    ):
        yield (
            f"set_state {name} {value!r}",
            lambda n=name, v=value: _with_state(_reset(MazeVecEnv(2, size=3)), n, np.array(v)),
            name,
        )
    yield "MazeRules positional", lambda: MazeRules("9"), "size"  # pyright: ignore
    yield "gymnasium.make unknown", lambda: gymnasium.make("MNMMaze-9x9", size=10), "size"
    yield "make_vec", lambda: gymnasium.make_vec("MNMMaze-9x9", num_envs=0), "num"
    yield "make_vec kwargs", lambda: gymnasium.make_vec("MNMMaze-9x9", num_envs=2, size=2), "size"


def _reset(env: Any) -> Any:
    env.reset()
    return env


def _seeded(env: Any, seed: Any) -> None:
    env.seed(seed)
    env.reset()


def _with_state(env: MazeVecEnv, name: str, value: Any) -> None:
    env.set_state({**env.get_state(), name: value})


def training_calls() -> Iterator[tuple[str, Callable[[], object], str]]:
    """Configs and curves."""
    for field, values in {
        "task": (None, 5, "", "x", [], "os:path"),
        "core": (None, 5, "", "x", []),
        "task_options": (None, 5, "x", {"nonsense": 1}, {"instance": 9}, {"instance": "x"}, {"length": 1}),
        "core_settings": (None, 5, "x", {"nonsense": 1}, {"hidden_size": 0}, {"hidden_size": "x"}),
        "iterations": (0, -1, NAN, "x", None, 1.5, True, 10**30),
        "batch_size": (0, -1, NAN, "x", 1.5, True),
        "embedding_size": (0, "x", 1.5),
        "learning_rate": (0, -1, NAN, "x", None),
        "schedule": ("x", None, 5),
        "warmup": (-1, "x", NAN, 1.5),
        "max_grad_norm": (0, NAN, "x"),
        "meta_weight": (-1, NAN, "x"),
        "seed": (-1, "x", 1.5, NAN, 2**70, None),
        "validate_every": (0, "x", 1.5, None),
        "log_every": (0, "x", 1.5),
        "stop_error": (-1, "x", NAN, 2),
        "checkpoint_minutes": (0, "x", NAN, None),
    }.items():
        for value in values:
            yield (
                f"SupervisedConfig {field}={value!r}",
                lambda f=field, v=value: SupervisedConfig(**{f: v}).check(),
                f"{field}|core|nonsense|instance|length|hidden_size",
            )
    for field, values in {
        "env": (None, 5, "", [], "MNMMaze-4x4"),
        "env_kwargs": (None, 5, "", "x", {}, '{"size": 2}'),
        "drop_observations": (None, 5, "x", [1], "-1"),
        "reward_scale": (0, NAN, "x", None),
        "subprocesses": ("x", 5, None),
        "previous_action": ("x", 5),
        "n_envs": (0, "x", 1.5, True),  # None is that of the environment, here and below
        "episodes": (0, "x", 1.5),
        "timesteps": (0, "x", 1.5),
        "gamma": (2, NAN, "x"),
        "schedule": ("x", 5),
        "entropy_kind": ("x", 5),
        "seed": (-1, "x", 1.5, None, 2**70),
        "core": (None, 5, "x"),
        "core_settings": (None, "x", {"nonsense": 1}),
        "normalize_advantage": ("x", 5),
        "bootstrap_time_limit": ("x", 5),
        "watch_every": (-1, "x", 1.5),
    }.items():
        for value in values:
            yield (
                f"A2CConfig {field}={value!r}",
                lambda f=field, v=value: A2CConfig(**{f: v}).check(),
                f"{field}|core|nonsense|size",
            )
    for read, name in ((a2c_from_dict, "a2c"), (supervised_from_dict, "supervised")):
        for values in (None, 5, [], "x", {"nonsense": 1}, {"core_kwargs": 5}, {"core_kwargs": "x"}, {5: 1}):
            yield (
                f"{name} config_from_dict {values!r}",
                lambda r=read, v=values: r(v),
                "config|option|core_kwargs",
            )
    for path in (
        "nowhere.csv",
        "empty",
        "words.csv",
        "binary.csv",
        "nul.csv",
        "",
        "loop",
        "empty.csv",
        None,
        5,
    ):
        yield f"read_curve {path!r}", lambda p=path: read_curve(p), "curve|csv"  # pyright: ignore
    for path in ("words.csv", "binary.csv", "nul.csv", "empty", "file/x.csv", "loop"):
        yield (
            f"CurveFile {path!r}",
            lambda p=path: CurveFile(p, "episodes", after=1),
            "curve|csv|file|empty|loop",
        )
    yield "CurveFile key", lambda: CurveFile("good.csv", "nothing", after=1), "nothing"
    yield (
        "CurveFile append to binary",
        lambda: CurveFile("binary.csv", "episodes").append({"episodes": 1}),
        "curve|csv",
    )
    yield "CurveFile append 5", lambda: CurveFile("good.csv", "episodes").append(5), "row"  # pyright: ignore
    yield "CurveFile after text", lambda: CurveFile("good.csv", "episodes", after="x"), "after"  # pyright: ignore
    yield (
        "CurveFile append without the key",
        lambda: CurveFile("new.csv", "episodes").append({"reward": 1}),
        "episodes",
    )


def call_id(text: str) -> str:
    """Its words, without places in memory, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)[:80]


CALLS = [*core_calls(), *agent_calls(), *maze_calls(), *training_calls()]


@pytest.mark.parametrize(
    ("call", "says"), [case[1:] for case in CALLS], ids=[call_id(case[0]) for case in CALLS]
)
def test_a_call_is_refused(call: Callable[[], object], says: str, place: Path) -> None:
    refuse_call(call, place, says)
