"""The standard sets of bAbI v1.2, ``en-valid-10k`` and ``en-valid``, read, checked and encoded.

Some copies of the data lack the 10k training file of task 3 (its size is over a limit of some archives). Its
real tenth can be had from the 1k set, of which every training file is the beginning of the 10k one: the
stories of ``en`` that have not gone into the 10k validation file. A supplement of synthetic stories, which
are not Facebook's data, makes up the difference for those who ask for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from mnm_rl.tasks.babi.encoding import Corpus, StoryFile
from mnm_rl.tasks.babi.files import FOLDER as DATA_FOLDER
from mnm_rl.tasks.babi.files import SUPPLEMENT_FOLDER, Source
from mnm_rl.tasks.babi.stories import Line, Story, read_stories
from mnm_rl.tasks.babi.vocabulary import Vocabulary

Size = Literal["10k", "1k"]

ALL_TASKS = tuple(range(1, 21))
SPLITS = ("train", "valid", "test")
FOLDERS: dict[Size, str] = {"10k": "en-valid-10k", "1k": "en-valid"}

MISSING_TASK = 3
MISSING_FILE = "en-valid-10k/qa3_train.txt"
TENTH = "en/qa3_three-supporting-facts_train.txt"
VALID_OF_MISSING = "en-valid-10k/qa3_valid.txt"
SYNTHETIC = f"{SUPPLEMENT_FOLDER}/qa3_train_SYNTHETIC.txt"


@dataclass(frozen=True)
class Dataset:
    """Encoded stories of some tasks.

    Attributes:
        vocabulary: of the training files of all 20 tasks, unless one was given.
        splits: ``"train"``, ``"valid"`` and ``"test"``.
        notes: what must be said beside every result.
    """

    vocabulary: Vocabulary
    splits: dict[str, Corpus]
    notes: list[str]


def load_dataset(
    source: Source,
    size: Size,
    tasks: Collection[int],
    supplement: bool = False,
    vocabulary: Vocabulary | None = None,
    reserved: Collection[str] = (),
) -> Dataset:
    """Read the three sets of some tasks.

    Args:
        source: where the files are.
        size: which of the sets.
        tasks: numbers of the tasks.
        supplement: add synthetic stories to task 3's training set.
        vocabulary: of a trained model; without one it is built from the training files of all 20 tasks.
        reserved: symbols of whoever asks, which must not be words of the files.

    Raises:
        ValueError: if files are missing or malformed, or hold words that the vocabulary does not, or that are
            reserved.
    """
    reader = _Files(source, FOLDERS[size], tasks if vocabulary else ALL_TASKS)
    train = {task: [reader.training_file(task)] for task in reader.tasks}
    if vocabulary is None:
        files = [file for files in train.values() for file in files]
        vocabulary = Vocabulary.from_stories(story for file in files for story in file.stories)
        for word in reserved:
            if word in vocabulary.numbers:
                raise ValueError(f"{_place_of(word, files)}: {word!r} is a symbol of the task, no word.")
    notes = []
    if reader.lacks_training_file and MISSING_TASK in tasks:
        real = _count_questions(train[MISSING_TASK][0].stories)
        notes.append(f"task 3 trains on {real:,} real questions: {MISSING_FILE} is not in the data")
    if supplement:
        synthetic = _read_supplement(reader, tasks)
        train[MISSING_TASK].append(synthetic)
        notes[0] += (
            f"; {_count_questions(synthetic.stories):,} SYNTHETIC questions of {SUPPLEMENT_FOLDER} are added"
        )
    splits = {"train": Corpus.encode((file for task in sorted(tasks) for file in train[task]), vocabulary)}
    for split in SPLITS[1:]:
        splits[split] = Corpus.encode((reader.file(task, split) for task in sorted(tasks)), vocabulary)
    return Dataset(vocabulary, splits, notes)


def _place_of(word: str, files: Iterable[StoryFile]) -> str:
    """The first place of a word that is in one of the files."""

    def holds(line: Line) -> bool:
        return word in line.words or word in line.answer

    return next(file.place(holds) for file in files if any(map(holds, chain(*file.stories))))


class _Files:
    """The contents of all files that are needed, read in one pass."""

    def __init__(self, source: Source, folder: str, tasks: Iterable[int]) -> None:
        self.source, self.folder, self.tasks = source, folder, sorted(tasks)
        source.require_part(folder)
        needed = [self.name(task, split) for task in self.tasks for split in SPLITS]
        self.contents = source.read([*needed, TENTH])
        self.lacks_training_file = MISSING_FILE in needed and MISSING_FILE not in self.contents
        if self.lacks_training_file:
            needed[needed.index(MISSING_FILE)] = TENTH
        missing = [name for name in needed if name not in self.contents]
        if missing:
            more = (
                f" and {len(missing) - 1} more of the {len(needed)} files needed" if len(missing) > 1 else ""
            )
            raise ValueError(f"{source.path} lacks {missing[0]}{more}; get the whole data set {DATA_FOLDER}.")

    def name(self, task: int, split: str) -> str:
        """The official file name."""
        return f"{self.folder}/qa{task}_{split}.txt"

    def stories(self, name: str) -> list[Story]:
        """The stories of a file."""
        return read_stories(self.contents[name], str(self.source.path / name))

    def training_file(self, task: int) -> StoryFile:
        """A task's training stories, or the real tenth of those of task 3."""
        if self.name(task, "train") in self.contents:
            return self.file(task, "train")
        held_out = {tuple(story) for story in self.stories(VALID_OF_MISSING)}
        stories = [story for story in self.stories(TENTH) if tuple(story) not in held_out]
        return StoryFile(task, str(self.source.path / TENTH), stories, is_whole=False)

    def file(self, task: int, split: str) -> StoryFile:
        """A task's stories of one set."""
        name = self.name(task, split)
        return StoryFile(task, str(self.source.path / name), self.stories(name))


def _read_supplement(reader: _Files, tasks: Collection[int]) -> StoryFile:
    if MISSING_TASK not in tasks:
        raise ValueError("The supplement is for task 3, which is not among the tasks: leave it out.")
    if not reader.lacks_training_file:
        raise ValueError(
            "The supplement stands in for a file that the data have, or that the 1k set does not need."
        )
    source = reader.source.supplement()
    contents = source.read([SYNTHETIC]) if source else {}
    if source is None or SYNTHETIC not in contents:
        place = reader.source.path.parent
        raise ValueError(f"No supplement with {SYNTHETIC} in {place}: put {SUPPLEMENT_FOLDER}.tar.gz there.")
    name = str(source.path / SYNTHETIC)
    return StoryFile(MISSING_TASK, name, read_stories(contents[SYNTHETIC], name))


def _count_questions(stories: list[Story]) -> int:
    return sum(bool(line.answer) for story in stories for line in story)
