"""Supervised tasks: generators of batches. A task knows nothing of cores."""

from mnm_rl.tasks.base import Batch, symbol_errors, symbol_loss
from mnm_rl.tasks.dictionary import DictionaryTask

__all__ = ["Batch", "DictionaryTask", "symbol_errors", "symbol_loss"]
