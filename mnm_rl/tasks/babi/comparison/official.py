"""The official stories that generated ones are compared with."""

from __future__ import annotations

from mnm_rl.tasks.babi.files import Source
from mnm_rl.tasks.babi.generate.catalogue import CATALOGUE
from mnm_rl.tasks.babi.generate.lines import TextStory, parse_stories


def official_stories(source: Source, task: int) -> tuple[list[TextStory], list[str]]:
    """All different stories of a task's 10k training set and test set, and the files that they come from.

    Where the training file is missing (some copies lack that of task 3), the 1k training set and the 10k
    validation set stand in for it.

    Raises:
        ValueError: if there are no such files.
    """
    name = f"qa{task}_{CATALOGUE[task].name}"
    train, test = f"en-10k/{name}_train.txt", f"en-10k/{name}_test.txt"
    instead = [f"en/{name}_train.txt", f"en-valid-10k/qa{task}_valid.txt"]
    contents = source.read([train, test, *instead])
    names = [train, test] if train in contents else [*instead, test]
    missing = [name for name in names if name not in contents]
    if missing:
        raise ValueError(f"{source.path} lacks {missing[0]}; get the whole data set.")
    stories = [story for name in names for story in parse_stories(contents[name].decode())]
    if train not in contents:
        # The two sets that stand in have stories in common.
        stories = list({tuple(story): story for story in stories}.values())
    return stories, names
