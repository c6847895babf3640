"""Task 20: where people will go for what they feel, and why they did what they did."""

from __future__ import annotations

from typing import NamedTuple

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import TextStory
from mnm_rl.tasks.babi.generate.world import World

PEOPLE = ("Sumit", "Yann", "Jason", "Antoine")
HOUSE = ("kitchen", "bedroom", "garden")


class Feeling(NamedTuple):
    """What somebody feels, the place to go to and the object to get there."""

    word: str
    place: str
    thing: str


FEELINGS = (
    Feeling("hungry", "kitchen", "apple"),
    Feeling("thirsty", "kitchen", "milk"),
    Feeling("bored", "garden", "football"),
    Feeling("tired", "bedroom", "pajamas"),
)


def agents_motivations(draws: Draws) -> TextStory:
    """Task 20: *PERSON is thirsty. Where will PERSON go?* and *Why did PERSON go to the kitchen?*

    Everyone feels something, goes to a place and gets an object there, unless somebody has it already; every
    statement is followed by a question.
    """
    things = [feeling.thing for feeling in FEELINGS]
    world = World(draws, people=PEOPLE, places=HOUSE, objects=things, gap="")
    feelings = {person: draws.choice(FEELINGS) for person in PEOPLE}
    said: dict[str, int] = {}
    steps: dict[str, int] = dict.fromkeys(PEOPLE, 0)
    while active := [
        p for p in PEOPLE if steps[p] < 2 or (steps[p] == 2 and feelings[p].thing in world.lies)
    ]:
        person = draws.choice(active)
        feeling, name = feelings[person], person.lower()
        steps[person] += 1
        if steps[person] == 1:
            said[person] = world.text.tell(f"{person} is {feeling.word}.")
            world.text.ask(f"Where will {name} go?", feeling.place, said[person])
        elif steps[person] == 2:
            world.move(person, feeling.place)
            world.text.ask(f"Why did {name} go to the {feeling.place}?", feeling.word, said[person])
        else:
            world.get(person, feeling.thing)
            world.text.ask(f"Why did {name} get the {feeling.thing}?", feeling.word, said[person])
    return world.text.lines
