"""The 20 tasks by number, and stories of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import TextStory
from mnm_rl.tasks.babi.generate.tasks.carrying import counting, lists_sets
from mnm_rl.tasks.babi.generate.tasks.coreference import (
    basic_coreference,
    compound_coreference,
    conjunction,
)
from mnm_rl.tasks.babi.generate.tasks.directions import (
    path_finding,
    positional_reasoning,
    two_argument_relations,
)
from mnm_rl.tasks.babi.generate.tasks.giving import three_argument_relations
from mnm_rl.tasks.babi.generate.tasks.kinds import basic_deduction, basic_induction
from mnm_rl.tasks.babi.generate.tasks.motivation import agents_motivations
from mnm_rl.tasks.babi.generate.tasks.size import size_reasoning
from mnm_rl.tasks.babi.generate.tasks.supporting_facts import (
    single_supporting_fact,
    three_supporting_facts,
    two_supporting_facts,
)
from mnm_rl.tasks.babi.generate.tasks.times import time_reasoning
from mnm_rl.tasks.babi.generate.tasks.yes_no import (
    indefinite_knowledge,
    simple_negation,
    yes_no_questions,
)


class Entry(NamedTuple):
    """A task.

    Attributes:
        name: as in the official file names.
        tell: one story from a stream of draws.
        questions: how many questions a story has, or about how many where that varies (tasks 18 and 20).
    """

    name: str
    tell: Callable[[Draws], TextStory]
    questions: int = 5


CATALOGUE: dict[int, Entry] = {
    1: Entry("single-supporting-fact", single_supporting_fact),
    2: Entry("two-supporting-facts", two_supporting_facts),
    3: Entry("three-supporting-facts", three_supporting_facts),
    4: Entry("two-arg-relations", two_argument_relations, 1),
    5: Entry("three-arg-relations", three_argument_relations),
    6: Entry("yes-no-questions", yes_no_questions),
    7: Entry("counting", counting),
    8: Entry("lists-sets", lists_sets),
    9: Entry("simple-negation", simple_negation),
    10: Entry("indefinite-knowledge", indefinite_knowledge),
    11: Entry("basic-coreference", basic_coreference),
    12: Entry("conjunction", conjunction),
    13: Entry("compound-coreference", compound_coreference),
    14: Entry("time-reasoning", time_reasoning),
    15: Entry("basic-deduction", basic_deduction, 4),
    16: Entry("basic-induction", basic_induction, 1),
    17: Entry("positional-reasoning", positional_reasoning, 8),
    18: Entry("size-reasoning", size_reasoning),
    19: Entry("path-finding", path_finding, 1),
    20: Entry("agents-motivations", agents_motivations, 11),
}


def generate_story(task: int, *stream: int | str) -> TextStory:
    """One story.

    Args:
        task: its number.
        stream: what names the story; the same story for the same name, on every machine.

    Raises:
        ValueError: if there is no such task.
    """
    if task not in CATALOGUE:
        raise ValueError(f"No bAbI task {task}; known tasks: 1 to 20.")
    return CATALOGUE[task].tell(Draws(task, *stream))


def generate_stories(task: int, questions: int, *stream: int | str) -> Iterator[TextStory]:
    """Stories with exactly so many questions together; the last is cut short, as in the real data.

    Args:
        task: its number.
        questions: how many, over all stories.
        stream: what names the stories, for instance a seed and ``"train"``. Other names give other stories,
            and with more questions the same stories come first.

    Raises:
        ValueError: if there is no such task.
    """
    for number in count():
        if questions < 1:
            return
        story = generate_story(task, *stream, number)
        places = [place for place, line in enumerate(story, 1) if line.answer]
        yield story if len(places) <= questions else story[: places[questions - 1]]
        questions -= len(places)
