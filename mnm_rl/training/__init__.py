"""What all training loops share: guarded updates and files that are never half written."""

from mnm_rl.training.files import atomic_write, check_writable_directory, remove_partial_files
from mnm_rl.training.updates import GuardedOptimizer, NonFiniteError, UpdateInfo

__all__ = [
    "GuardedOptimizer",
    "NonFiniteError",
    "UpdateInfo",
    "atomic_write",
    "check_writable_directory",
    "remove_partial_files",
]
