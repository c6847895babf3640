"""Supervised tasks: generators of batches. A task knows nothing of cores.

A new one is a file beside ``double_copy.py``, with a task and its options, and a line in :data:`TASKS`.
"""

from __future__ import annotations

import importlib

from mnm_rl.tasks.associative_recall import AssociativeRecallOptions, AssociativeRecallTask
from mnm_rl.tasks.babi.catbabi import CatbabiOptions
from mnm_rl.tasks.babi.options import BabiOptions
from mnm_rl.tasks.base import Batch, ErrorCounts, ModelSizes, Task, TaskOptions
from mnm_rl.tasks.copy import CopyOptions, CopyTask
from mnm_rl.tasks.dictionary import DictionaryOptions, DictionaryTask
from mnm_rl.tasks.double_copy import DoubleCopyOptions, DoubleCopyTask
from mnm_rl.tasks.priority_sort import PrioritySortOptions, PrioritySortTask
from mnm_rl.tasks.repeat_copy import RepeatCopyOptions, RepeatCopyTask

TASKS: dict[str, type[TaskOptions]] = {
    "dictionary": DictionaryOptions,
    "double-copy": DoubleCopyOptions,
    "priority-sort": PrioritySortOptions,
    "babi": BabiOptions,
    "copy": CopyOptions,
    "repeat-copy": RepeatCopyOptions,
    "associative-recall": AssociativeRecallOptions,
    "catbabi": CatbabiOptions,
}
"""Name -> the options, which build the task."""


def task_help() -> str:
    """What can be written after ``--task``."""
    return f"What to learn: {', '.join(TASKS)}, or module:Class, the options of a task of your own."


def register_task(name: str, options: type[TaskOptions]) -> None:
    """Let a task be chosen by a name, on the command line too.

    Args:
        name: without a colon, which marks references.
        options: build the task.

    Raises:
        ValueError: the name stands for other options already, or is not a name.
        TypeError: not a class of options.
    """
    if not isinstance(name, str) or not name or ":" in name or name != name.strip():
        raise ValueError(f"A task's name must be a word without a colon, got {name!r}.")
    if not (isinstance(options, type) and issubclass(options, TaskOptions)):
        raise TypeError(
            f"A task is registered by its options, a subclass of TaskOptions, not by {options!r}."
        )
    if TASKS.setdefault(name, options) is not options:
        raise ValueError(f"The task {name!r} is registered already, with {TASKS[name].__name__}.")


def task_options(name: str) -> type[TaskOptions]:
    """The options of a task.

    Args:
        name: a key of :data:`TASKS`, or ``"module:Class"`` for options of another package.

    Raises:
        ValueError: there is no such task.
    """
    if name in TASKS:
        return TASKS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        known = ", ".join(TASKS)
        raise ValueError(f"Unknown task {name!r}; known tasks: {known}, or module:Class for one of your own.")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # anything may happen in a module that is imported
        raise ValueError(f"The task {name!r} cannot be imported: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, TaskOptions)):
        raise ValueError(f"{name} is not a subclass of mnm_rl.tasks.TaskOptions.")
    return found


__all__ = [
    "TASKS",
    "AssociativeRecallTask",
    "Batch",
    "CopyTask",
    "DictionaryTask",
    "DoubleCopyTask",
    "ErrorCounts",
    "ModelSizes",
    "PrioritySortTask",
    "RepeatCopyTask",
    "Task",
    "TaskOptions",
    "register_task",
    "task_help",
    "task_options",
]
