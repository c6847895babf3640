"""When a story is asked what: the loop that most story tasks share.

A question is tried after every second fact or sentence. It is built on a fact drawn uniformly from those
among the last five that the task can ask about; if there is none, the story goes on. It ends with its fifth
question.
"""

from __future__ import annotations

from collections.abc import Callable

from mnm_rl.tasks.babi.generate.lines import TextStory
from mnm_rl.tasks.babi.generate.world import Fact, World

WINDOW = 5
QUESTIONS = 5


def tell_and_ask(
    world: World,
    tell: Callable[[], object],
    usable: Callable[[Fact], bool],
    ask: Callable[[Fact], None],
) -> TextStory:
    """A story with five questions.

    Args:
        world: where it happens.
        tell: goes on with the story until the next place for a question.
        usable: whether the task can ask about a fact.
        ask: asks about it.
    """
    while world.text.questions < QUESTIONS:
        tell()
        facts = [fact for fact in world.facts[-WINDOW:] if usable(fact)]
        if facts:
            ask(world.draws.choice(facts))
    return world.text.lines


def act_and_ask(world: World, usable: Callable[[Fact], bool], ask: Callable[[Fact], None]) -> TextStory:
    """A story in which two actions come before each place for a question."""

    def act_twice() -> None:
        world.act()
        world.act()

    return tell_and_ask(world, act_twice, usable, ask)


def any_fact(fact: Fact) -> bool:
    """Every fact is usable."""
    return True
