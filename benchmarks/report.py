"""All figures of speed of this machine's processor, on one page.

    python benchmarks/report.py
    python benchmarks/report.py --parts loop acting --out results/speed

Runs the other benchmarks one after the other, each in a process of its own, and writes what they print to
``OUT/PROCESSOR.md`` with the commands and the load that the machine had when each began; after every part,
so that nothing is lost when it is stopped. Parts that are on the page already and are not chosen stay.
Packages of the extra ``bench`` that are missing leave their part out, which the page says. It takes about
twenty minutes on two cores. Nothing else should run meanwhile.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tyro

from mnm_rl.commands.info import collect
from mnm_rl.files import atomic_write
from mnm_rl.training.command_line import one_sentence_errors

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A section of the page."""

    title: str
    """That says what is measured."""
    commands: tuple[str, ...]
    """Programs in this folder with their arguments."""


PARTS: Mapping[str, Part] = {
    "loop": Part(
        "The time loop: forward and backward, against the reference and the peak",
        (
            "scan.py --settings maze --rounds 4 --backends reference torch cpu cpu-snapshots",
            "scan.py --settings algorithmic --rounds 4 --backends reference torch cpu",
        ),
    ),
    "recurrent": Part("LSTM and GRU with episodes inside a sequence", ("recurrent.py --rounds 10",)),
    "acting": Part(
        "Acting: one step from observation to action, against its bound and nn.LSTMCell",
        (
            "acting.py --cores mnm-p mnm-g lstm gru --rounds 3",
            "acting.py --cores mnm-p --heads 3 --environments 16 64 --rounds 3",
        ),
    ),
    "cores": Part("Every core: size, time, what is kept", ("cores.py --peers",)),
    "training": Part(
        "Where the time of a training goes",
        (
            "training_shares.py train-a2c",
            "training_shares.py train-a2c --core lstm --core.hidden-size 100",
            "training_shares.py train-ppo --timesteps 60000",
            "training_shares.py train-supervised --task dictionary --instance 2",
        ),
    ),
    "a2c": Part("RecurrentA2C beside skrl and sb3-contrib, steps/s", ("a2c.py --rounds 3",)),
    "ppo": Part(
        "RecurrentPPO beside sb3-contrib's, steps/s",
        (
            "ppo.py --rounds 3 --updates 2",
            "ppo.py --rounds 3 --updates 2 --env popgym-RepeatPreviousEasy-v0",
        ),
    ),
    "player": Part("An agent beside its ONNX file without torch", ("player.py",)),
    "environment": Part("The maze beside MiniGrid", ("environment.py",)),
}
"""Name -> part, in the order of the page."""


@dataclass(frozen=True)
class Args:
    """What to measure."""

    out: Path = Path("results/speed")
    """Folder of the page."""
    parts: tuple[str, ...] = tuple(PARTS)
    """Those to be measured."""
    minutes: float = 15.0
    """A program that takes longer is stopped, which the page says."""


def main(args: Args) -> None:
    """Measure, and write after each part."""
    if unknown := [name for name in args.parts if name not in PARTS]:
        raise ValueError(f"There is no part {unknown[0]}; there are {', '.join(PARTS)}.")
    if args.minutes <= 0:
        raise ValueError(f"minutes must be positive, got {args.minutes}.")
    machine = collect()
    page = args.out / f"{file_name(machine['processor']['name'])}.md"
    sections = read_sections(page)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.parts:
        print(f"{name}: {PARTS[name].title}", flush=True)
        sections[PARTS[name].title] = measured(PARTS[name], args.minutes)
        ordered = {part.title: sections[part.title] for part in PARTS.values() if part.title in sections}
        with atomic_write(page) as temporary:
            temporary.write_text(page_text(machine, ordered))
    print(page)


def file_name(processor: str) -> str:
    """Of the page of a processor."""
    return re.sub(r"[^a-z0-9]+", "-", processor.lower()).strip("-") or "unknown"


def measured(part: Part, minutes: float) -> str:
    """The body of a section: each command, the load before it, and what it printed."""
    return "\n\n".join(_printed(command, minutes) for command in part.commands)


def _printed(command: str, minutes: float) -> str:
    load = os.getloadavg()[0]
    program, *words = command.split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _with_folder()}
    try:
        done = subprocess.run(
            [sys.executable, str(FOLDER / program), *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60 * minutes,
        )
        text = done.stdout.strip()
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            text = f"{text}\nNot measured: it ended with status {done.returncode}: {last}".strip()
    except subprocess.TimeoutExpired:
        text = f"Not measured: it took more than {minutes:g} minutes."
    told = f"`OMP_NUM_THREADS=1 python benchmarks/{command}`, load before it {load:.1f}:"
    return f"{told}\n\n```text\n{text}\n```"


def _with_folder() -> str:
    return os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")]))


def page_text(machine: Mapping[str, dict], sections: Mapping[str, str]) -> str:
    """The whole page."""
    processor, versions = machine["processor"], machine["versions"]
    head = [
        f"# Speed on {processor['name']}",
        "",
        "Made by `python benchmarks/report.py`; ratios are of one run each. Before the first command of a "
        "quiet machine the load is near 0, before the others that of the command before.",
        "",
        f"{processor['cores']} cores; kernels for {processor['kernel']}, torch {versions['torch']} for "
        f"{processor['torch']}; Python {versions['python']}, mnm-rl {versions['mnm-rl']}.",
    ]
    return "\n".join(head + [f"\n## {title}\n\n{body}" for title, body in sections.items()]) + "\n"


def read_sections(page: Path) -> dict[str, str]:
    """Title -> body, of a page that is there; nothing without one."""
    if not page.exists():
        return {}
    _, *parts = page.read_text().split("\n## ")
    return {title: body.strip() for title, _, body in (part.partition("\n") for part in parts)}


if __name__ == "__main__":
    with one_sentence_errors("report.py"):
        main(tyro.cli(Args, description=__doc__))
