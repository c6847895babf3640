"""How bad input is tried: one case in a child process, and runs to point commands at.

Every case runs in a child process, forked where everything has been imported already, with limits of memory
and time: a crash, an endless loop or a filled memory is one failed test and no more. A command must end with
status 2, one line on stderr that names what was wrong, and no file that was not there before; the library must
raise a ValueError or TypeError of one line. What ``says`` is, is looked for in that line.
"""

# ruff: noqa: E501
# pyright: reportArgumentType=false

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import re
import resource
import shlex
import shutil
import signal
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import mnm_rl

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


YAML = {
    "key.yml": "CartPole-v1: {nonsense: 1}",
    "type.yml": "CartPole-v1: {gamma: x}",
    "value.yml": "CartPole-v1: {gamma: 2}",
    "core.yml": "CartPole-v1: {policy_kwargs: {core: x}}",
    "list.yml": "[1, 2]",
    "broken.yml": "CartPole-v1: {",
    "other.yml": "Pendulum-v1: {gamma: 0.9}",
}
"""Files of settings, damaged and sound."""


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
