"""Comparing sets of stories; against the official files where these are at hand."""

from collections import Counter

import pytest
from test_babi_real import real_data

from mnm_rl.tasks.babi.comparison import abstract, compare, story_features, words_of
from mnm_rl.tasks.babi.comparison.official import official_stories
from mnm_rl.tasks.babi.comparison.page import check_page, write_part
from mnm_rl.tasks.babi.comparison.report import (
    compare_task,
    distances_table,
    kinds_table,
    solver_table,
    summary,
)
from mnm_rl.tasks.babi.files import find_source
from mnm_rl.tasks.babi.generate import CATALOGUE, format_stories, generate_stories, parse_stories
from mnm_rl.tasks.babi.generate.lines import TextLine
from mnm_rl.tasks.babi.solver import check_stories


@pytest.fixture(scope="module")
def official():
    """The text of the official test set of every task."""
    names = {task: f"en-10k/qa{task}_{entry.name}_test.txt" for task, entry in CATALOGUE.items()}
    contents = find_source(real_data()).read(names.values())
    return {task: contents[name].decode() for task, name in names.items()}


def stories(task, questions, *stream):
    return list(generate_stories(task, questions, *stream))


def test_names_become_kinds():
    assert abstract("Mary went to the garden.") == "PERSON went to the PLACE."
    assert abstract("The box of chocolates fits inside the box.") == "The BOX fits inside the BOX."
    assert abstract("What is gertrude afraid of?") == "What is person afraid of?"
    assert abstract("Wolves are afraid of sheep.") == "ANIMALS are afraid of ANIMALS."


def test_equal_sources_look_equal_and_a_changed_one_does_not():
    first, second = stories(6, 1500, "a"), stories(6, 1500, "b")
    counts = [story_features(part, "answers") for part in (first, second)]
    assert compare(counts[0], counts[1], permutations=199).p_value > 0.01
    biased = [story for story in second if sum(line.answer == "yes" for line in story) > 1]
    changed = compare(counts[0], story_features(biased, "answers"), permutations=199)
    assert changed.p_value == 1 / 200
    assert changed.distance > 2 * changed.expected


def test_missing_and_extra_categories_are_listed():
    first, second = [Counter(a=2, b=1), Counter(a=1)], [Counter(a=3, c=4)]
    difference = compare(first, second, permutations=9)
    assert difference.missing == {"b": 1}
    assert difference.extra == {"c": 4}
    assert difference.distance == pytest.approx((abs(3 / 4 - 3 / 7) + 1 / 4 + 4 / 7) / 2)


def test_the_test_is_not_fooled_by_sentences_that_depend_on_each_other():
    low = 0
    for number in range(40):
        parts = [stories(15, 80, number, side) for side in "ab"]
        counts = [story_features(part, "statement templates") for part in parts]
        low += compare(counts[0], counts[1], permutations=49).p_value < 0.1
    assert low <= 10


def test_the_report_names_what_differs():
    first, second = stories(9, 200, "a"), stories(9, 200, "b")
    second[0] = [TextLine("Mary sleeps."), *second[0][1:]]
    second = [story for story in second if not any("sleeps" in line.text for line in story)]
    reports = [compare_task(9, first, second, permutations=19)]
    assert reports[0].same_kinds
    assert "Words, templates and answers are the same in every task." in summary(reports)
    assert "| 9 simple negation | 200 | 23 = | 8 = | 1 = | 2 = | 10.0 ± 0.0 | 10.0 ± 0.0 |" in kinds_table(
        reports
    )
    assert "200 of 200 | 0.00%" in solver_table(reports)
    assert distances_table(reports).count("\n") == 2
    fewer = [story for story in second if not any("no longer" in line.text for line in story)]
    assert "differ in: 9 simple negation" in summary([compare_task(9, first, fewer, permutations=19)])


def test_a_page_keeps_what_is_outside_of_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n")
    write_part(page, "a", "new")
    assert page.read_text() == "before\n<!-- a: begin -->\nnew\n<!-- a: end -->\nafter\n"
    with pytest.raises(ValueError, match="has no marks <!-- b: begin -->"):
        check_page(page, "b")


@pytest.mark.parametrize("task", tuple(CATALOGUE))
def test_official_stories_are_read_written_and_solved(official, task):
    text = official[task]
    told = parse_stories(text)
    assert format_stories(told) == text
    check = check_stories(told)
    assert check.questions == 1000
    assert check.failures == []


@pytest.mark.parametrize("task", tuple(CATALOGUE))
def test_generated_stories_have_the_words_and_sentences_of_the_official_ones(official, task):
    told, made = parse_stories(official[task]), stories(task, 2000, 2)
    assert words_of(told) <= words_of(made)
    for feature in ("statement templates", "question templates"):
        kinds = [{name for story in story_features(part, feature) for name in story} for part in (told, made)]
        assert kinds[0] == kinds[1]


def test_the_official_stories_of_a_task_are_all_there():
    told, names = official_stories(find_source(real_data()), 20)
    assert sum(bool(line.answer) for story in told for line in story) == 11_000
    assert names[1] == "en-10k/qa20_agents-motivations_test.txt"
