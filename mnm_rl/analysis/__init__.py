"""Looking into a memory: traces of what it did, similarity maps, forgetting curves, the paper's Figure 5."""

from mnm_rl.analysis.forgetting import Forgetting, recall_errors
from mnm_rl.analysis.similarity import similarities
from mnm_rl.analysis.trace import Trace, record, require_memory

__all__ = ["Forgetting", "Trace", "recall_errors", "record", "require_memory", "similarities"]
