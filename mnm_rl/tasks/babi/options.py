"""Options of bAbI on the command line, and the task that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import arg

from mnm_rl.field_types import check_own_fields
from mnm_rl.tasks.babi.generated import Origin
from mnm_rl.tasks.babi.task import BabiTask, parse_repeat, parse_tasks
from mnm_rl.tasks.babi.vocabulary import Vocabulary
from mnm_rl.tasks.base import ModelSizes, TaskOptions

AUTOMATIC = "auto"
SUPPLEMENT_NOTE = (
    "the run was trained with the supplement: SYNTHETIC questions of task 3 added to the real ones"
)


@dataclass(frozen=True)
class BabiOptions(TaskOptions):
    """What of bAbI is learned, and from which data."""

    task_class = BabiTask
    sizes = ModelSizes(embedding_size=256, hidden_size=256, heads=3, batch_size=128)
    changeable = ("data", "repeat", "rename")
    free = ("data", "supplement")
    has_sentences = True

    data: str | None = None
    """Folder or archive with the official files; otherwise MNM_BABI_DATA, then the usual places, and where
    there are none, generated questions."""
    origin: Annotated[Origin, arg(name="babi-origin")] = "any"
    """Official files, generated ones, or generated ones only where no official ones are found (any)."""
    fresh: Annotated[bool, arg(name="babi-fresh")] = False
    """Train on newly generated questions all the time, none of them twice."""
    tasks: Annotated[str, arg(name="babi-tasks")] = "1-20"
    """Tasks to learn jointly, such as 1,4,6 or 1-5,19."""
    size: Annotated[Literal["10k", "1k"], arg(name="babi-size")] = "10k"
    """Questions per task in the training files."""
    format: Annotated[Literal["question", "story"], arg(name="babi-format")] = "question"
    """One sequence per question, as the paper describes, or one per story with all its questions."""
    supplement: Annotated[bool, arg(name="babi-supplement")] = False
    """Fill up task 3's missing 10k training file with synthetic stories; every log then says so."""
    repeat: Annotated[str, arg(name="babi-repeat")] = ""
    """Draw the training questions of some tasks so many times as often, such as 3:4,16:2; or auto: half of
    them evenly, the other half by the tasks' errors in the last validation."""
    rename: Annotated[bool, arg(name="babi-rename")] = False
    """Rename people, places and things at random in every training story; every log then says so."""
    max_length: int | None = None
    """Leave out longer training sequences, and say how many; nothing is left out by default."""

    def __post_init__(self) -> None:
        check_own_fields(self, "max_length")
        parse_tasks(self.tasks)
        if self.repeat != AUTOMATIC:
            parse_repeat(self.repeat)

    def make(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> BabiTask:
        """See :class:`mnm_rl.tasks.base.TaskOptions`; for evaluation a supplement is left out, and noted."""
        automatic = self.repeat == AUTOMATIC
        return BabiTask(
            data=self.data,
            tasks=parse_tasks(self.tasks),
            size=self.size,
            format=self.format,
            supplement=self.supplement and not evaluation,
            repeat=parse_repeat("" if automatic else self.repeat),
            adaptive=automatic,
            rename=self.rename,
            max_length=self.max_length,
            # Data named for a test go before what the run was trained on.
            origin="any" if evaluation and self.data else self.origin,
            fresh=self.fresh,
            saved_vocabulary=None if saved is None else Vocabulary.from_dict(saved.get("vocabulary", {})),
            further_notes=(SUPPLEMENT_NOTE,) if evaluation and self.supplement else (),
        )
