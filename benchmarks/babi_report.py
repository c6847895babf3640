"""Compare generated bAbI stories with the official ones, and put the tables into docs/babi.md.

    python benchmarks/babi_report.py --data PATH
    python benchmarks/babi_report.py --data PATH --tasks 1-3 --page None

As many questions are generated as there are official ones.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from mnm_rl.tasks.babi import find_source, parse_tasks
from mnm_rl.tasks.babi.comparison.official import official_stories
from mnm_rl.tasks.babi.comparison.page import check_page, write_part
from mnm_rl.tasks.babi.comparison.permutation import PERMUTATIONS
from mnm_rl.tasks.babi.comparison.report import (
    TaskReport,
    compare_task,
    distances_table,
    kinds_table,
    solver_table,
    summary,
)
from mnm_rl.tasks.babi.files import Source
from mnm_rl.tasks.babi.generate import generate_stories
from mnm_rl.training.command_line import one_sentence_errors


@dataclass(frozen=True)
class Args:
    """What to compare."""

    data: str | None = None
    """The official files, as for training."""
    tasks: str = "1-20"
    """Numbers of tasks."""
    seed: int = 1
    """Of the generated stories."""
    permutations: int = PERMUTATIONS
    """Random exchanges in each test."""
    page: Path | None = Path("docs/babi.md")
    """The page whose part "tables" is written; None to print only."""


def main(args: Args) -> None:
    """Compare, print and write."""
    source, tasks = find_source(args.data), parse_tasks(args.tasks)
    if args.permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {args.permutations}.")
    if args.page is not None:
        check_page(args.page, "tables")
    text = _format([_compare(source, task, args) for task in tasks], args)
    print(text)
    if args.page is not None:
        write_part(args.page, "tables", text)


def _compare(source: Source, task: int, args: Args) -> TaskReport:
    official, names = official_stories(source, task)
    questions = sum(bool(line.answer) for story in official for line in story)
    started = time.process_time()
    generated = list(generate_stories(task, questions, args.seed, "report"))
    seconds = time.process_time() - started
    print(
        f"task {task}: {questions:,} questions in {', '.join(names)}; generated in {seconds:.1f} s",
        flush=True,
    )
    return compare_task(task, official, generated, args.permutations)


def _format(reports: list[TaskReport], args: Args) -> str:
    makers = {
        "Words, templates and answers": kinds_table,
        "Rules that answer": solver_table,
        "Distances": distances_table,
    }
    parts = [f"Tasks {args.tasks}, seed {args.seed}, {args.permutations} permutations.", summary(reports)]
    parts += [f"### {title}\n\n{make(reports)}" for title, make in makers.items()]
    return "\n\n".join(parts)


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("babi_report.py"):
        main(tyro.cli(Args, description=__doc__))


if __name__ == "__main__":
    run_from_command_line()
