"""The bAbI question answering tasks (Weston et al. 2015), word level, from the official files."""

from mnm_rl.tasks.babi.files import find_source
from mnm_rl.tasks.babi.table import babi_table
from mnm_rl.tasks.babi.task import BabiTask, parse_repeat, parse_tasks, repeats_by_error
from mnm_rl.tasks.babi.vocabulary import Vocabulary

__all__ = [
    "BabiTask",
    "Vocabulary",
    "babi_table",
    "find_source",
    "parse_repeat",
    "parse_tasks",
    "repeats_by_error",
]
