"""What logs say about the data of a run."""

from __future__ import annotations

import numpy as np

from mnm_rl.tasks.babi.encoding import Sequences

HEADING = (
    f"{'task':>4} {'train':>8} {'valid':>7} {'test':>7} {'sequences':>10} {'mean length':>12} {'longest':>8}"
)


def describe_sequences(splits: dict[str, Sequences]) -> list[str]:
    """A table as lines: questions of each set, training sequences and their lengths, by task and over all."""
    train = splits["train"]
    tasks = [int(task) for task in np.unique(train.tasks)]
    lines = [HEADING]
    for label, chosen in [(str(task), [task]) for task in tasks] + [("all", tasks)]:
        questions = [int(np.isin(part.corpus.question_tasks, chosen).sum()) for part in splits.values()]
        lengths = train.lengths[np.isin(train.tasks, chosen)]
        lines.append(
            f"{label:>4} {questions[0]:>8,} {questions[1]:>7,} {questions[2]:>7,} {len(lengths):>10,} "
            f"{lengths.mean():>12.1f} {lengths.max():>8,}"
        )
    return lines


def dropped_note(train: Sequences, max_length: int | None) -> list[str]:
    """A line about training sequences that are longer than the limit; none if there are no such."""
    dropped = train.tasks[train.lengths > max_length] if max_length is not None else train.tasks[:0]
    if not len(dropped):
        return []
    tasks, numbers = np.unique(dropped, return_counts=True)
    which = ", ".join(f"task {task}: {number:,}" for task, number in zip(tasks, numbers, strict=True))
    count = f"{len(dropped):,} of {len(train):,}"
    return [f"{count} training sequences are left out, longer than {max_length} symbols ({which})"]
