"""Write the bAbI tasks as files, generated anew: no download, as many questions as wanted.

$ mnm-rl generate-babi --out data/generated
$ mnm-rl generate-babi --out more --train 90000 --valid 1000 --test 1000 --tasks 1-3,19 --seed 5
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from mnm_rl.commands.parsing import parse_all
from mnm_rl.tasks.babi import parse_tasks
from mnm_rl.tasks.babi.generate import Sizes, write_files
from mnm_rl.training.command_line import one_sentence_errors


@dataclass(frozen=True)
class Args:
    """What to write, and where."""

    out: Path
    """Folder for the files; it must be empty or not exist."""
    train: int = 9000
    """Training questions of each task."""
    valid: int = 1000
    """Validation questions of each task; 0 for none."""
    test: int = 1000
    """Test questions of each task."""
    tasks: str = "1-20"
    """Numbers of tasks, such as 1,4,6 or 1-5,19."""
    seed: int = 0
    """The same seed gives the same files on every machine."""
    quiet: bool = False
    """Print nothing."""


def main(args: Args) -> None:
    """Write the files and say how long it took."""
    started = time.monotonic()
    sizes = Sizes(args.train, args.valid, args.test)
    tasks = parse_tasks(args.tasks)
    write_files(args.out, sizes, args.seed, tasks, (lambda line: None) if args.quiet else print)
    if not args.quiet:
        questions = len(tasks) * (sizes.train + sizes.valid + sizes.test)
        print(f"{questions:,} questions in {time.monotonic() - started:.1f} s, in {args.out}")


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("generate_babi.py"):
        main(parse_all(Args, __doc__))
