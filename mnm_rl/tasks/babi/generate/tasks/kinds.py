"""Tasks 15 and 16: what holds for a kind of animal, and of which kind somebody is."""

from __future__ import annotations

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import StoryText, TextStory

PLURALS = {"mouse": "mice", "sheep": "sheep", "wolf": "wolves", "cat": "cats"}
FEARFUL = ("Gertrude", "Winona", "Jessica", "Emily")
QUESTIONS = 4

COLOURED = ("Lily", "Bernhard", "Greg", "Julius", "Brian")
ANIMALS = ("swan", "lion", "frog", "rhino")
COLOURS = ("gray", "white", "yellow", "green")


def basic_deduction(draws: Draws) -> TextStory:
    """Task 15: *Mice are afraid of cats. NAME is a mouse. What is NAME afraid of?*

    It is said of a name to what kind it belongs only when it has been said what that kind fears.
    """
    text = StoryText(gap="")
    fears: dict[str, tuple[str, int]] = {}
    kinds: dict[str, tuple[str, int]] = {}
    while len(fears) < len(PLURALS) or len(kinds) < len(FEARFUL):
        animal = draws.choice(tuple(PLURALS))
        if draws.one_in(2):
            if animal not in fears:
                feared = draws.other(tuple(PLURALS), animal)
                fears[animal] = feared, text.tell(f"{PLURALS[animal]} are afraid of {PLURALS[feared]}.")
        else:
            name = draws.choice(FEARFUL)
            if animal in fears and name not in kinds:
                kinds[name] = animal, text.tell(f"{name} is a {animal}.")
    for _ in range(QUESTIONS):
        name = draws.choice(FEARFUL)
        animal, line = kinds[name]
        text.ask(f"What is {name.lower()} afraid of?", fears[animal][0], line, fears[animal][1])
    return text.lines


def basic_induction(draws: Draws) -> TextStory:
    """Task 16: *NAME is a swan. NAME is white. NAME is a swan. What color is NAME?*

    A kind has one colour at a time, drawn anew whenever somebody is said to be of the kind. The answer rests
    on the last one of the asked person's kind. A story in which nobody else is of that kind is drawn again,
    and so is one in which exactly two others are: the real data have no such stories.
    """
    while True:
        text = StoryText(gap="")
        kinds: dict[str, tuple[str, int]] = {}
        colours: dict[str, tuple[str, int]] = {}
        now: dict[str, str] = {}
        while len(kinds) < len(COLOURED) or len(colours) < len(COLOURED) - 1:
            name = draws.choice([name for name in COLOURED if name not in colours])
            if name not in kinds:
                animal = draws.choice(ANIMALS)
                now[animal] = draws.choice(COLOURS)
                kinds[name] = animal, text.tell(f"{name} is a {animal}.")
            else:
                colour = now[kinds[name][0]]
                colours[name] = colour, text.tell(f"{name} is {colour}.")
        (asked,) = set(COLOURED) - set(colours)
        alike = [name for name in kinds if name != asked and kinds[name][0] == kinds[asked][0]]
        if len(alike) not in (0, 2):
            like = alike[-1]
            colour, line = colours[like]
            text.ask(f"What color is {asked}?", colour, kinds[asked][1], kinds[like][1], line)
            return text.lines
