"""Double copy: repeat a random sequence twice (Munkhdalai et al. 2019, section 4.1 and appendix A).

Dimensions: ``T`` time, ``B`` batch, ``n`` symbols to copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mnm_rl.field_types import check_own_fields
from mnm_rl.tasks.base import Batch, TaskOptions, whole_sequences
from mnm_rl.tasks.generated import GeneratedTask

CHARACTERS = 10
END, ANSWER = CHARACTERS, CHARACTERS + 1
NAMES = (*"0123456789", "|", "?")


@dataclass(frozen=True)
class DoubleCopyTask(GeneratedTask):
    """``n`` characters out of 10, drawn with replacement, then an end symbol, then ``2 n`` answer symbols.

    At the answer symbols the characters are to be predicted in order, twice; ``T = 3 n + 1``.
    """

    input_symbols = CHARACTERS + 2
    output_size = CHARACTERS
    length: int = 50
    """n."""

    def __post_init__(self) -> None:
        check_own_fields(self, "length")

    @property
    def least_steps(self) -> int:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return 3 * self.length + 1

    @property
    def symbol_names(self) -> tuple[str, ...]:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return NAMES

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw episodes."""
        characters = torch.randint(CHARACTERS, (self.length, batch_size), generator=generator)
        end = torch.full((1, batch_size), END)
        answers = torch.full((2 * self.length, batch_size), ANSWER)
        inputs = torch.cat([characters, end, answers])
        targets = torch.cat([characters, torch.zeros_like(end), characters, characters])
        return whole_sequences(inputs, targets, inputs == ANSWER)


@dataclass(frozen=True)
class DoubleCopyOptions(TaskOptions):
    """Size of double copy."""

    task_class = DoubleCopyTask
    length: int = 50
    """Symbols to copy, n."""

    def __post_init__(self) -> None:
        DoubleCopyTask(self.length)

    def make(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> DoubleCopyTask:
        """See :class:`mnm_rl.tasks.base.TaskOptions`."""
        return DoubleCopyTask(self.length)
