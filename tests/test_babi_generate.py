"""Generated bAbI stories: every answer and support holds, the same bytes everywhere, the official format."""

import hashlib
import re
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnm_rl.tasks.babi.generate import (
    CATALOGUE,
    format_stories,
    generate_stories,
    generate_story,
    parse_stories,
)
from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.files import VERSION
from mnm_rl.tasks.babi.generate.lines import TextLine
from mnm_rl.tasks.babi.solver import check_stories, solve_story
from mnm_rl.tasks.babi.stories import read_stories

TASKS = tuple(CATALOGUE)
SEEDS = st.integers(0, 2**64)

# A change of these texts is a change of VERSION: results on generated questions name it.
CHECKSUMS = {1: "cdfdfcd7e2e696101269b857185d3a261349f4fb2155afa1d1640d0c1f74b5b6"}


def text_of(task, questions, *stream):
    return format_stories(list(generate_stories(task, questions, *stream)))


def test_the_same_seed_gives_the_same_bytes():
    whole = "".join(text_of(task, 100, 0, "train") for task in TASKS)
    assert hashlib.sha256(whole.encode()).hexdigest() == CHECKSUMS[VERSION]


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_every_answer_and_support_follows_from_the_text(task, seed):
    check = check_stories([generate_story(task, seed)])
    assert check.questions > 0
    assert check.failures == []


@pytest.mark.parametrize("task", TASKS)
def test_the_reader_reads_what_was_generated(task):
    stories = list(generate_stories(task, 60, 3))
    read = read_stories(format_stories(stories).encode(), "generated")
    assert [len(story) for story in read] == [len(story) for story in stories]
    for lines, texts in zip(read, stories, strict=True):
        for line, text in zip(lines, texts, strict=True):
            assert line.words == tuple(re.findall(r"\w+|[.?]", text.text.lower()))
            assert line.answer == tuple(text.answer.lower().split(",") if text.answer else ())
    assert parse_stories(format_stories(stories)) == stories


@pytest.mark.parametrize("task", TASKS)
def test_lines_look_as_in_the_official_files(task):
    blank = "" if task in (4, *range(15, 21)) else " "
    for line in text_of(task, 60, 4).splitlines():
        question = rf"\d+ [A-Z][\w ]+\?{blank}\t\w+(,\w+)*\t\d+( \d+)*"
        assert re.fullmatch(rf"\d+ [A-Z][\w ]+\.|{question}", line), line


@settings(max_examples=40, deadline=None)
@given(task=st.sampled_from(TASKS), questions=st.integers(0, 40), more=st.integers(0, 20), seed=SEEDS)
def test_there_are_as_many_questions_as_asked_for_and_more_go_on_after_them(task, questions, more, seed):
    stories = list(generate_stories(task, questions, seed))
    assert sum(bool(line.answer) for story in stories for line in story) == questions
    assert all(story[-1].answer for story in stories)
    longer = list(generate_stories(task, questions + more, seed))
    whole = max(0, len(stories) - 1)
    assert longer[:whole] == stories[:whole]


def test_names_give_different_stories():
    names = [(0, "train"), (0, "test"), (1, "train"), ("0train",), (0, "train", 0)]
    texts = [text_of(3, 20, *name) for name in names]
    assert len(set(texts)) == len(texts)


def test_stories_of_a_task_do_not_depend_on_what_was_generated_before():
    first = generate_story(5, 7, "train", 12)
    list(generate_stories(5, 50, 8))
    assert generate_story(5, 7, "train", 12) == first
    assert next(islice(generate_stories(5, 1000, 7, "train"), 12, None)) == first


@pytest.mark.parametrize("task", [0, 21, -1])
def test_unknown_tasks_are_named(task):
    with pytest.raises(ValueError, match=f"No bAbI task {task}; known tasks: 1 to 20"):
        generate_story(task, 0)


def test_questions_rest_on_the_last_five_facts():
    for task in (1, 2, 5, 6, 9, 10):
        for story in generate_stories(task, 100, 1):
            told = []
            for number, line in enumerate(story, 1):
                told += [] if line.answer else [number]
                if line.answer:
                    assert line.supports[0] in told[-5:] or task in (1, 6, 9, 10)


def test_blocks_of_task_14_are_never_in_the_order_of_the_draws():
    draws = Draws("cyclic")
    orders = Counter()
    for _ in range(600):
        items = [0, 1, 2, 3]
        draws.shuffle_cyclic(items)
        assert all(place != item for place, item in enumerate(items))
        orders[tuple(items)] += 1
    assert len(orders) == 6
    assert min(orders.values()) > 60


def test_draws_are_uniform_and_of_their_name():
    draws, other = Draws(1, "a"), Draws(1, "a")
    numbers = [draws.below(6) for _ in range(6000)]
    assert numbers == [other.below(6) for _ in range(6000)]
    assert all(abs(count - 1000) < 150 for count in Counter(numbers).values())
    assert sorted(draws.sample("abcde", 5)) == list("abcde")
    assert {draws.other("abc", "b") for _ in range(50)} == {"a", "c"}
    assert 150 < sum(draws.one_in(4) for _ in range(1000)) < 350


def test_a_wrong_answer_or_support_is_noticed():
    for task in TASKS:
        story = next(generate_stories(task, 1, 2))
        text, answer, supports = story[-1]
        wrong = "nobody" if answer != "nobody" else "milk"
        for line in (TextLine(text, wrong, supports), TextLine(text, answer, (*supports, 1))):
            (failure,) = check_stories([[*story[:-1], line]]).failures
            assert failure.line == len(story)
            assert failure.found == solve_story(story)[0]
    with pytest.raises(ValueError, match="not a known question: 'who is there"):
        solve_story([TextLine("John went to the park."), TextLine("Who is there? ", "John", (1,))])
    with pytest.raises(ValueError, match="not a known statement: 'john sleeps"):
        solve_story([TextLine("John sleeps.")])
