"""Whether two sets of stories of a task come from the same distribution."""

from mnm_rl.tasks.babi.comparison.features import FEATURES, abstract, story_features, words_of
from mnm_rl.tasks.babi.comparison.permutation import Difference, compare

__all__ = ["FEATURES", "Difference", "abstract", "compare", "story_features", "words_of"]
