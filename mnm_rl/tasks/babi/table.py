"""The paper's Table 3: errors on the 20 tasks, beside those of the published models."""

from __future__ import annotations

from mnm_rl.tasks.base import ErrorCounts
from mnm_rl.text_tables import Row

PAPER_MODELS = ("EntNet", "TPR-RNN", "DNC", "SDNC", "MNM-g", "MNM-p")
"""The first two work at the level of sentences, the others at that of words."""

PAPER_ERRORS: dict[int, tuple[str, tuple[float, ...]]] = {
    1: ("one supporting fact", (0.1, 0, 0, 0, 0, 0)),
    2: ("two supporting facts", (2.8, 0.4, 0.4, 0.6, 0.2, 0.1)),
    3: ("three supporting facts", (10.6, 3.4, 1.8, 0.7, 1.8, 0.9)),
    4: ("two argument relations", (0, 0.2, 0, 0, 0, 0)),
    5: ("three argument relations", (0.4, 1.0, 0.8, 0.3, 0.4, 0.3)),
    6: ("yes/no questions", (0.3, 0.1, 0, 0, 0, 0)),
    7: ("counting", (0.8, 1.0, 0.6, 0.2, 0.2, 0.3)),
    8: ("lists/sets", (0.1, 0.5, 0.3, 0.2, 0.2, 0)),
    9: ("simple negation", (0, 0.3, 0.2, 0, 0, 0)),
    10: ("indefinite knowledge", (0, 0.4, 0.2, 0.2, 0.1, 0)),
    11: ("basic coreference", (0, 1.3, 0, 0, 0, 0)),
    12: ("conjunction", (0, 0.2, 0, 0.1, 0, 0)),
    13: ("compound coreference", (0, 2.1, 0, 0.1, 0, 0)),
    14: ("time reasoning", (3.6, 0.2, 0.4, 0.1, 0.5, 0.1)),
    15: ("basic deduction", (0, 0, 0, 0, 0, 0)),
    16: ("basic induction", (52.1, 0.4, 55.1, 54.1, 51.2, 0.7)),
    17: ("positional reasoning", (11.7, 0.6, 12.0, 0.3, 0, 0)),
    18: ("size reasoning", (2.1, 0, 0.8, 0.1, 0, 0.2)),
    19: ("path finding", (63.0, 4.2, 3.9, 1.2, 0.7, 0.9)),
    20: ("agents' motivations", (0, 0, 0, 0, 0, 0)),
}
"""Task -> name and the models' errors in % (Munkhdalai et al. 2019, Table 3: each model's best run)."""

FAILURE = 5.0
"""A task with more error than this, in %, counts as failed."""


def babi_table(counts: ErrorCounts, model: str = "this run") -> list[Row]:
    """Table 3 with a column of our own: a heading, 20 tasks, mean error and failed tasks.

    Tasks that were not run are blank in our column. The last two rows are about the tasks that were run, in
    every column, so that columns compare; when all 20 were run, they are the paper's.

    Args:
        counts: errors, by number of task.
        model: heading of our column.

    Raises:
        ValueError: if there are counts of tasks that do not exist.
    """
    unknown = sorted(set(counts.by_kind) - set(PAPER_ERRORS))
    if unknown:
        raise ValueError(f"No bAbI task has the number {unknown[0]}; these are not errors on bAbI.")
    ours = {task: 100 * wrong / answers for task, (wrong, answers) in counts.by_kind.items() if answers}
    rows: list[Row] = [("task", model, *PAPER_MODELS)]
    for task, (name, published) in PAPER_ERRORS.items():
        own = _percent(ours[task], 2) if task in ours else ""
        rows.append((f"{task}: {name}", own, *(_percent(error, 1) for error in published)))
    return rows + _summary(ours)


CATBABI_ACCURACY = {
    "question": {"FWM": 96.75, "MNM-p": 88.97, "AWD-TXL": 87.66, "AWD-LSTM": 80.88},
    "language": {"FWM": 93.04, "MNM-p": 69.30},
}
"""Accuracy of the answers in %, by what is learned (Schlag et al. 2021)."""


def catbabi_table(counts: ErrorCounts, mode: str) -> list[Row]:
    """Accuracies of the answers in concatenated bAbI: a heading, the tasks, and all together.

    Published are those of all answers together alone.

    Args:
        counts: errors, by number of task.
        mode: ``question`` or ``language``.
    """
    published = CATBABI_ACCURACY[mode]
    blank = [""] * len(published)
    rows: list[Row] = [("accuracy (%)", "this run", *published)]
    for task, error in sorted(counts.error_by_kind.items()):
        rows.append((f"{task}: {PAPER_ERRORS[task][0]}", _percent(100 * (1 - error), 2), *blank))
    own = _percent(100 * (1 - counts.answer_error), 2)
    return [*rows, ("all answers", own, *(_percent(each, 2) for each in published.values()))]


def _summary(ours: dict[int, float]) -> list[Row]:
    which = (
        "" if len(ours) == len(PAPER_ERRORS) else f", {len(ours)} {'task' if len(ours) == 1 else 'tasks'} run"
    )
    tasks = sorted(ours)
    columns = [[ours[task] for task in tasks]]
    columns += [[PAPER_ERRORS[task][1][model] for task in tasks] for model in range(len(PAPER_MODELS))]
    means = [_percent(sum(column) / len(column), 2) if column else "" for column in columns]
    failed = [str(sum(error > FAILURE for error in column)) if column else "" for column in columns]
    return [("mean error (%)" + which, *means), (f"failed tasks (> {FAILURE:g}%)" + which, *failed)]


def _percent(error: float, digits: int) -> str:
    return f"{error:.{digits}f}"
