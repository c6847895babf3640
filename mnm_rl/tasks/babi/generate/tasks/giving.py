"""Task 5: who gave what to whom."""

from __future__ import annotations

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import TextStory
from mnm_rl.tasks.babi.generate.window import act_and_ask
from mnm_rl.tasks.babi.generate.world import GIVERS, OBJECTS, Fact, Kind, World

GIVING: tuple[Kind, ...] = ("move", "get", "drop", "give")
"""The kinds of action, equally often."""


def three_argument_relations(draws: Draws) -> TextStory:
    """Task 5: people move, get, drop and give objects. *Who gave the OBJECT to PERSON?* and the like."""
    world = World(draws, GIVING, GIVERS, objects=OBJECTS)

    def usable(fact: Fact) -> bool:
        if fact.kind != "give":
            return False
        later = (other for other in reversed(world.facts) if other.kind == "give")
        return next(other for other in later if other.item == fact.item) is fact

    def ask(fact: Fact) -> None:
        giver, thing, receiver = fact.person, fact.item, fact.receiver
        question, answer = draws.choice(
            [
                (f"What did {giver} give to {receiver}?", thing),
                (f"What did {giver} give to {receiver}?", thing),
                (f"Who gave the {thing}?", giver),
                (f"Who gave the {thing} to {receiver}?", giver),
                (f"Who received the {thing}?", receiver),
                (f"Who did {giver} give the {thing} to?", receiver),
            ]
        )
        world.text.ask(question, answer, fact.line)

    return act_and_ask(world, usable, ask)
