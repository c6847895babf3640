"""Supervised tasks: generators of batches. A task knows nothing of cores."""

from mnm_rl.tasks.base import AdaptiveTask, Batch, ErrorCounts, Task
from mnm_rl.tasks.dictionary import DictionaryTask
from mnm_rl.tasks.double_copy import DoubleCopyTask
from mnm_rl.tasks.priority_sort import PrioritySortTask

__all__ = [
    "AdaptiveTask",
    "Batch",
    "DictionaryTask",
    "DoubleCopyTask",
    "ErrorCounts",
    "PrioritySortTask",
    "Task",
]
