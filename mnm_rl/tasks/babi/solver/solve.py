"""Answering all questions of a story, and comparing with what a file says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from mnm_rl.tasks.babi.generate.lines import TextStory
from mnm_rl.tasks.babi.solver import people, things
from mnm_rl.tasks.babi.solver.events import Event, Proof, Solution, read_events

_PEOPLE_RULES = [(re.compile(pattern), rule) for pattern, rule in people.RULES.items()]
_THINGS_RULES = [(re.compile(pattern), rule) for pattern, rule in things.RULES.items()]
_NOT_EVENTS = re.compile(r"the .*|\w+ are afraid of \w+\.|\w+ is a \w+\.|\w+ is (gray|white|yellow|green)\.")


class Failure(NamedTuple):
    """A question that the rules answer otherwise than the file does."""

    story: int
    line: int
    question: str
    said: Proof
    found: Solution


class Check(NamedTuple):
    """How the rules and a file agree.

    Attributes:
        questions: how many there are.
        ambiguous: those of them to which several answers are right.
        failures: those whose answer, or whose list of supporting lines, is not one that the rules find.
    """

    questions: int
    ambiguous: int
    failures: list[Failure]


def solve_story(story: TextStory) -> list[Solution]:
    """The answers to a story's questions, from its statements alone.

    Raises:
        ValueError: if a statement or a question is not of a known form.
    """
    statements: dict[int, str] = {}
    events: list[Event] = []
    solutions = []
    for number, line in enumerate(story, 1):
        text = line.text.strip().lower()
        if line.answer:
            solutions.append(_answer(text, events, statements))
            continue
        statements[number] = text
        if not _NOT_EVENTS.fullmatch(text):
            events += read_events(number, text, events)
    return solutions


def check_stories(stories: Iterable[TextStory]) -> Check:
    """Solve all stories and compare with what they say."""
    asked, ambiguous, failures = 0, 0, []
    for number, story in enumerate(stories):
        questions = [(place, line) for place, line in enumerate(story, 1) if line.answer]
        for (place, line), found in zip(questions, solve_story(story), strict=True):
            asked += 1
            ambiguous += len({proof.answer for proof in found}) > 1
            said = Proof(line.answer.lower(), line.supports)
            # Names of people are capitalised in answers.
            if said not in found:
                failures.append(Failure(number, place, line.text.strip(), said, found))
    return Check(asked, ambiguous, failures)


def _answer(question: str, events: list[Event], statements: dict[int, str]) -> Solution:
    # Questions about people come first: "what is john carrying" and the like fit no other rule.
    for pattern, rule in _PEOPLE_RULES if events else []:
        if match := pattern.fullmatch(question):
            return rule(events, *match.groups())
    for pattern, rule in _THINGS_RULES:
        if match := pattern.fullmatch(question):
            return rule(statements, *match.groups())
    raise ValueError(f"not a known question: {question!r}")
