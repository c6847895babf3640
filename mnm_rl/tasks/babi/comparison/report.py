"""Tables that say how generated and official stories compare."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from mnm_rl.tasks.babi.comparison.features import FEATURES, story_features, words_of
from mnm_rl.tasks.babi.comparison.permutation import PERMUTATIONS, Difference, compare
from mnm_rl.tasks.babi.generate.catalogue import CATALOGUE
from mnm_rl.tasks.babi.generate.lines import TextStory
from mnm_rl.tasks.babi.solver import Check, check_stories

TEMPLATES = ("statement templates", "question templates", "answers")
"""Features of which nothing may be missing and nothing extra."""

SUSPICIOUS = 0.01
LEVELS = (0.1, 0.05, SUSPICIOUS)


@dataclass(frozen=True)
class TaskReport:
    """One task, official stories against generated ones.

    Attributes:
        task: its number.
        words: numbers of words, official and generated, and of those that both have.
        stories: numbers of stories.
        lengths: mean and standard deviation of the statements in a story.
        checks: the solver's results.
        differences: by feature.
        kinds: by feature, the number of categories in the official stories.
    """

    task: int
    words: tuple[int, int, int]
    stories: tuple[int, int]
    lengths: tuple[tuple[float, float], tuple[float, float]]
    checks: tuple[Check, Check]
    differences: dict[str, Difference]
    kinds: dict[str, int]

    @property
    def same_kinds(self) -> bool:
        """Whether vocabulary, templates and answers are the same."""
        closed = all(
            not (self.differences[name].missing or self.differences[name].extra) for name in TEMPLATES
        )
        return closed and len(set(self.words)) == 1


def compare_task(
    task: int, official: list[TextStory], generated: list[TextStory], permutations: int = PERMUTATIONS
) -> TaskReport:
    """Compare the stories of a task in every way."""
    words = words_of(official), words_of(generated)
    differences, kinds = {}, {}
    for name in FEATURES:
        counts = story_features(official, name), story_features(generated, name)
        differences[name] = compare(*counts, seed=task, permutations=permutations)
        kinds[name] = len({category for story in counts[0] for category in story})
    return TaskReport(
        task,
        (len(words[0]), len(words[1]), len(words[0] & words[1])),
        (len(official), len(generated)),
        (_length(official), _length(generated)),
        (check_stories(official), check_stories(generated)),
        differences,
        kinds,
    )


def _length(stories: list[TextStory]) -> tuple[float, float]:
    lengths = [sum(not line.answer for line in story) for story in stories]
    return statistics.fmean(lengths), statistics.pstdev(lengths)


def table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; the first column is aligned to the left, the others to the right."""
    heading = list(heading)
    lines = [heading, [":---", *["---:"] * (len(heading) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def kinds_table(reports: list[TaskReport]) -> str:
    """What must be equal: words, templates and answers, with numbers of categories and (missing, extra)."""
    heading = ["task", "questions", "words", "statement templates", "question templates", "answers"]
    heading += ["statements per story: official", "generated"]
    return table(heading, map(_kinds_row, reports))


def _kinds_row(report: TaskReport) -> list[str]:
    official, generated, common = report.words
    row = [_name(report.task), f"{report.checks[0].questions:,}"]
    row.append(
        f"{official} =" if official == generated == common else f"{official}, {generated}, common {common}"
    )
    for name in TEMPLATES:
        difference = report.differences[name]
        missing, extra = len(difference.missing), len(difference.extra)
        row.append(f"{report.kinds[name]} " + ("=" if not missing + extra else f"(-{missing}, +{extra})"))
    return [*row, *(f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in report.lengths)]


def solver_table(reports: list[TaskReport]) -> str:
    """Questions, ambiguous ones and failures of the solver."""
    heading = ["task", "official: solved", "ambiguous", "generated: solved", "ambiguous"]
    return table(heading, ([_name(report.task), *_solved(report.checks)] for report in reports))


def _solved(checks: tuple[Check, Check]) -> list[str]:
    cells = []
    for check in checks:
        solved = check.questions - len(check.failures)
        cells += [f"{solved:,} of {check.questions:,}", f"{check.ambiguous / check.questions:.2%}"]
    return cells


def distances_table(reports: list[TaskReport]) -> str:
    """Total variation distance in % with what chance alone makes, and * where p is under 0.01."""
    rows = [
        [_name(report.task), *(_distance(report.differences[name]) for name in FEATURES)]
        for report in reports
    ]
    return table(["task", *FEATURES], rows)


def _distance(difference: Difference) -> str:
    mark = "*" if difference.p_value < SUSPICIOUS else ""
    return f"{100 * difference.distance:.1f} ({100 * difference.expected:.1f}){mark}"


def summary(reports: list[TaskReport]) -> str:
    """How many tests stand out, how many would by chance, and which."""
    tests = [(report, name, report.differences[name]) for report in reports for name in FEATURES]
    # A feature with one category cannot differ and is no test.
    tests = [test for test in tests if test[0].kinds[test[1]] > 1 or test[2].extra]
    low = sorted((test for test in tests if test[2].p_value < SUSPICIOUS), key=lambda test: test[2].p_value)
    under = [sum(test[2].p_value < level for test in tests) for level in LEVELS]
    lines = [
        f"{len(tests)} tests: "
        + ", ".join(
            f"{count} with p < {level:g} ({level * len(tests):.1f} expected of equal sources)"
            for count, level in zip(under, LEVELS, strict=True)
        )
        + ".",
        *(
            f"- {_name(report.task)}, {name}: p = {test.p_value:.3f}, {_distance(test)}"
            for report, name, test in low
        ),
    ]
    different = [_name(report.task) for report in reports if not report.same_kinds]
    lines.append(
        "Words, templates and answers are the same in every task."
        if not different
        else f"Words, templates or answers differ in: {', '.join(different)}."
    )
    return "\n".join(lines)


def _name(task: int) -> str:
    return f"{task} {CATALOGUE[task].name.replace('-', ' ')}"
