"""Words for the symbols that go into a task and come out of it.

Dimensions: ``T`` time, ``F`` features.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mnm_rl.tasks import Batch, PrioritySortTask, Task
from mnm_rl.tasks.babi import BabiTask
from mnm_rl.tasks.babi.stories import PLACEHOLDER
from mnm_rl.tasks.bits import BitTask
from mnm_rl.tasks.priority_sort import END, PRIORITY

SENTENCE_ENDS = (".", ";", "|")


def name_steps(task: Task, batch: Batch) -> tuple[str, ...]:
    """A word for every step of the first sequence of a batch.

    Symbols go by their names, and outside of bAbI a step of the answer by the symbol asked for, in brackets.
    In priority sort a vector goes by its priority, and a step of the answer by the rank that is asked for.
    In copy and its like, vectors and steps of the answer go by their numbers. Where nothing has a name, steps
    go by their numbers.
    """
    inputs, targets, asked = batch.inputs[:, 0], batch.targets[:, 0], batch.asked[:, 0].tolist()
    if isinstance(task, BitTask):
        return _name_bits(asked)
    if (names := task.symbol_names) is None:
        is_sorting = isinstance(task, PrioritySortTask)
        return _name_vectors(inputs) if is_sorting else tuple(map(str, range(1, len(inputs) + 1)))
    if isinstance(task, BabiTask):
        return tuple(names[int(number)] for number in inputs)
    pairs = zip(inputs.tolist(), targets.tolist(), asked, strict=True)
    return tuple(f"({names[target]})" if is_asked else names[number] for number, target, is_asked in pairs)


def _name_vectors(inputs: Tensor) -> tuple[str, ...]:
    """From float ``[T, F]``."""
    end = int(inputs[:, END].argmax())
    priorities = [f"{priority:+.2f}" for priority in inputs[:end, PRIORITY].tolist()]
    return (*priorities, "|", *(f"#{rank}" for rank in range(1, len(inputs) - end)))


def _name_bits(asked: list[bool]) -> tuple[str, ...]:
    """A bar at the step before the first of the answer."""
    first = asked.index(True)
    shown = map(str, range(1, first))
    return (*shown, "|", *(f"#{step}" for step in range(1, len(asked) - first + 1)))


def question_start(words: tuple[str, ...], asked: Sequence[bool]) -> int:
    """The step at which the last question begins: after the sentence, or the answer, before it.

    In a sequence without sentences it is the first step of the last answer, and the very last step where an
    answer is asked for from the first step on: there is something before it, unless there is one step alone.

    Args:
        words: of the sequence, for every step.
        asked: whether an answer is asked for there.
    """
    last = len(words) - 1
    while last > 0 and words[last] == PLACEHOLDER:
        last -= 1
    ends = (*SENTENCE_ENDS, PLACEHOLDER)
    if found := [t + 1 for t in range(last) if words[t] in ends]:
        return found[-1]
    answers = [t for t in range(1, len(asked)) if asked[t] and not asked[t - 1]]
    return answers[-1] if answers else len(words) - 1


def sentence_starts(words: tuple[str, ...]) -> list[int]:
    """Steps at which a sentence begins; the first step is one."""
    return [t for t in range(len(words)) if t == 0 or words[t - 1] in (*SENTENCE_ENDS, PLACEHOLDER)]
